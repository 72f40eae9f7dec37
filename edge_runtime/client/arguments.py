"""Numbers that the caller of a client chose, checked before they are used."""

import math
from numbers import Integral, Real

from edge_runtime.errors import ConfigError


def check_whole(name: str, value: object, *, least: int) -> None:
    """Refuse what is no whole number, or too small.

    Args:
        name: The argument.
        value: What was given.
        least: The smallest that makes sense.

    Raises:
        ConfigError: It is not acceptable.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigError(f"{name} must be a whole number, {least} or more: {value!r}")


def check_share(name: str, value: object) -> None:
    """Refuse what is no number of 0 to 1.

    Args:
        name: The argument.
        value: What was given.

    Raises:
        ConfigError: It is not acceptable.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= _float(value) <= 1:
        raise ConfigError(f"{name} is a share, 0 to 1: {value!r}")


def shares(name: str, values: object, count: int) -> list[float]:
    """Give weights as shares of the largest, so that neither they nor sums of them are infinite.

    Args:
        name: The argument.
        values: What was given.
        count: How many there must be.

    Raises:
        ConfigError: They are no such list of numbers above 0.
    """
    if isinstance(values, str | bytes):
        raise ConfigError(f"{name} is a list of numbers, not text: {values!r}")
    try:
        given = list(values)  # type: ignore[call-overload]
    except TypeError as error:
        raise ConfigError(f"{name} is a list of numbers: {values!r}") from error
    if len(given) != count:
        raise ConfigError(f"{name}: {len(given)} for {count} addresses; give one each")
    weights: list[float] = []
    for value in given:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ConfigError(f"{name} are numbers, not {type(value).__name__}: {value!r}")
        weight = _float(value)
        if not 0 < weight < math.inf:
            raise ConfigError(
                f"{name}: {value!r} is not above 0, or too large; leave an address out that is to "
                "get nothing"
            )
        weights.append(weight)
    most = max(weights)
    smallest = min(weights) / most
    if not smallest:
        raise ConfigError(f"{name}: {min(weights)} is nothing beside {most}")
    return [weight / most for weight in weights]


def _float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond every float
        return math.inf
