"""What a start does with a release that it finds; pure."""

import msgspec

from edge_runtime.release.records import Previous, Release
from edge_runtime.release.states import Cause, Event, Recovery, recovery
from edge_runtime.release.steps import Outcome


def has_crashed(previous: Previous, boot_id: str) -> bool:
    """Tell whether the last daemon died, and not for want of power.

    Args:
        previous: How it ended.
        boot_id: Of this boot.
    """
    return not previous.was_clean and bool(previous.boot_id) and previous.boot_id == boot_id


def recovered(
    release: Release, crashes_max: int, *, has_crashed: bool
) -> tuple[Release, Outcome | None]:
    """Decide how a release goes on.

    Args:
        release: As the journal has it.
        crashes_max: Crashes after which it does not.
        has_crashed: Whether the last daemon died while it was under way.

    Returns:
        The release with its crashes counted, and what it is ordered to do; ``None``: it goes on.
    """
    crashes = release.crashes + has_crashed
    kept = msgspec.structs.replace(release, crashes=crashes) if has_crashed else release
    resumption = recovery(release.state, crashes, crashes_max)
    if resumption.action is not Recovery.ROLL_BACK:
        return kept, None
    if resumption.cause is Cause.CRASHED:
        times = "" if crashes == 1 else f" {crashes} times"
        why = f"the daemon died{times} under it (state {release.state})"
    else:
        why = f"this program does not know the state {release.state!r}"
    return kept, Outcome(Event.ROLL_BACK, resumption.cause, why)
