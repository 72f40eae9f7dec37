"""What a question to the cache leads to: a kept answer, or the duty of a run."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edge_runtime.cache.entry import Entry
from edge_runtime.tensors import Array


class Hit(NamedTuple):
    """A kept answer.

    Attributes:
        outputs: In the order asked for; nobody can write to them.
        run_ns: How long its run took, in nanoseconds.
        created_s: When it was computed, in seconds since the epoch.
    """

    outputs: list[Array]
    run_ns: int
    created_s: float

    @classmethod
    def of(cls, kept: Entry, names: Sequence[str]) -> "Hit":
        """Give a kept answer's outputs.

        Raises:
            KeyError: It does not have one of these.
        """
        return cls(kept.outputs(names), kept.run_ns, kept.created_s)


class Ticket(NamedTuple):
    """The duty of a request that runs: to say once how it went.

    Attributes:
        done: Called with the outputs, in the order of the names asked for, and with how long the
            run took in nanoseconds (of a shared run, this request's part). They are kept and
            given to everybody who waits; from here on nobody may write to them.
        failed: Called without; the next one who waits runs.
        kept: What to answer if the run fails: it is only made to measure how long it takes.
    """

    done: Callable[[Sequence[Array], int], None]
    failed: Callable[[], None]
    kept: Hit | None = None


Answer = Callable[[Hit], None]
Run = Callable[[Ticket | None], None]


class Asked(NamedTuple):
    """A question on its way.

    Attributes:
        started: When it was asked, in monotonic nanoseconds.
        names: Outputs asked for.
        answer: Called with a kept answer.
        run: Called to run the model.
        priority: 0 for the default and lowest, 1 for the highest.
        deadline_ns: When to stop waiting for somebody else's run; 0: never.
        expired: Called then.
        measures: Whether it may run just to find out how long that takes.
        asks_again: Whether it asks again before it runs: only an answer is counted now.
    """

    started: int
    names: Sequence[str]
    answer: Answer
    run: Run
    priority: int
    deadline_ns: int
    expired: Callable[[], None]
    measures: bool
    asks_again: bool
