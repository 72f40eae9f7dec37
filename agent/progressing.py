"""What the thread of updates shows of itself."""

from dataclasses import dataclass, field

from agent.device.plans import Outlook
from agent.troubles import Trouble


@dataclass(frozen=True, slots=True)
class Check:
    """What the last look at the repository brought.

    Attributes:
        turn: Of the thread that looked; rises.
        at_s: When, in seconds since 1970; 0: there was none.
        problem: Why it brought nothing; empty: it was well.
        reason: The same in a frozen word, where the repository was not believed.
        timestamp_version: Of the timestamp that is believed.
        fetched_bytes: What came over the network.
        changed: Whether anything was new.
    """

    turn: int = 0
    at_s: float = 0.0
    problem: str = ""
    reason: str = ""
    timestamp_version: int = 0
    fetched_bytes: int = 0
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Progressing:
    """What the thread shows of itself.

    Attributes:
        check: The last look.
        outlooks: What follows for each model.
        runtime_problem: Why the daemon does not answer; empty: it does.
        plans_trouble: Why plans cannot be followed, and since when; ``None``: they can.
    """

    check: Check = field(default_factory=Check)
    outlooks: tuple[Outlook, ...] = ()
    runtime_problem: str = ""
    plans_trouble: Trouble | None = None
