"""One metric family as data: its name, its meaning, and where its numbers are read. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

Kind = Literal["counter", "gauge", "histogram", "info"]

_Source = TypeVar("_Source")


class Histogram(NamedTuple):
    """How values spread over buckets.

    Attributes:
        bounds: Upper bounds of the buckets, in the family's unit; the last bucket has none.
        counts: Values in each bucket, those of lower ones not included; one more than ``bounds``.
        total: Sum of all values, in the family's unit.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class Sample(NamedTuple):
    """One number of a family, or one histogram.

    Attributes:
        labels: Values of the family's labels, in their order.
        value: For ``info``, every label is one and this is 1.
    """

    labels: tuple[str, ...]
    value: float | Histogram


class Family(NamedTuple, Generic[_Source]):
    """One metric family.

    Attributes:
        name: As ``docs/metrics.md`` writes it: counters end with ``_total``.
        kind: Prometheus's type; ``info`` is a gauge there.
        labels: Names of the labels.
        help: One sentence.
        read: Gives the samples.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    read: Callable[[_Source], Iterable[Sample]]

    @property
    def base_name(self) -> str:
        """The name without what its kind adds to it, as OpenMetrics has it."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return self.name.removesuffix(suffix)

    @property
    def unit(self) -> str:
        """The base unit that the name ends with, or nothing."""
        last = self.base_name.rpartition("_")[2]
        return last if last in {"seconds", "bytes"} else ""
