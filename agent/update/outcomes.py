"""What one step of an update comes to."""

from dataclasses import dataclass
from typing import Final

from agent.update.states import Event

POLL_S: Final = 5.0
RETRY_S: Final = 60.0
"""Until a port that failed is asked again; downloads have their own, jittered pauses inside."""
HOLD_S: Final = 600.0
"""Until what is not told by an event (power, link, disk) is looked at again."""
BUDGET_S: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class Advance:
    """Something happened: the update changes its state.

    Attributes:
        event: What.
        code: Why, in a frozen word; empty: as expected.
        reason: The same for people.
        does_change: The version may change by what comes next: it is counted.
        is_harmful: The release did harm here: it is remembered.
        seen_release: Highest id of the runtime's releases now; ``None``: keep the old one.
        ending: Where ``canceling`` leads; empty: it is not entered.
    """

    event: Event
    code: str = ""
    reason: str = ""
    does_change: bool = False
    is_harmful: bool = False
    seen_release: int | None = None
    ending: str = ""


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Nothing happened: the update stays where it is.

    Attributes:
        pause_s: Until the next look, unless something happens before; ``None``: as often as the
            runtime is looked at.
        code: What it waits for, in a frozen word; empty: nothing is in its way.
        reason: The same for people.
        phase: Of the runtime's release; ``None``: not asked.
    """

    pause_s: float | None
    code: str = ""
    reason: str = ""
    phase: str | None = None


Outcome = Advance | Wait
