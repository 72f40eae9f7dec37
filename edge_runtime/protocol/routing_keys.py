"""The key that a split of a model's traffic goes by, as the bodies of requests give it. Pure."""

from edge_runtime.errors import InvalidRequestError
from edge_runtime.protocol.messages import ROUTING_KEY_BYTES_MAX


def key_of(value: object) -> str:
    """Read the key that a split of a model's traffic goes by, of any door's body.

    Args:
        value: As it was given.

    Returns:
        It as text; empty: none.

    Raises:
        InvalidRequestError: It is no text and no integer, or too long.
    """
    if isinstance(value, bool | float) or not 0 <= _bytes(str(value)) <= ROUTING_KEY_BYTES_MAX:
        raise InvalidRequestError(
            "parameter 'routing_key' must be a text or an integer of at most "
            f"{ROUTING_KEY_BYTES_MAX} bytes"
        )
    return str(value)


def _bytes(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return -1
