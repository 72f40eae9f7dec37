"""What a start does with a release that it finds, and whom it blames; pure.

The daemon's memory is shared by all that it serves, so that nobody can see afterwards which version
made it die. What can be told apart is told apart: who was not loaded in that run has an alibi, and
so has who ran in processes of its own only.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec

from edge_runtime.release.records import Previous, Release
from edge_runtime.release.run_record import Run, Version
from edge_runtime.release.states import SERVES_TRAFFIC, Cause, Event, Recovery, recovery
from edge_runtime.release.steps import Outcome


class Crash(NamedTuple):
    """How the last daemon died.

    Attributes:
        loaded: Versions whose load had begun in that run; ``None``: not known.
        ran_s: Time awake from its start to this one's, in seconds: it lived no longer. ``None``:
            not known.
    """

    loaded: frozenset[Version] | None = None
    ran_s: float | None = None


def has_crashed(previous: Previous, boot_id: str) -> bool:
    """Tell whether the last daemon died, and not for want of power.

    Args:
        previous: How it ended.
        boot_id: Of this boot.
    """
    return not previous.was_clean and bool(previous.boot_id) and previous.boot_id == boot_id


def crash_of(previous: Previous, run: Run | None, boot_id: str, now_s: float) -> Crash | None:
    """Say how the last daemon died; ``None``: it did not.

    Args:
        previous: How it ended, by the journal.
        run: What it has told; ``None``: nothing.
        boot_id: Of this boot.
        now_s: The monotonic clock at this start, in seconds.
    """
    if not has_crashed(previous, boot_id):
        return None
    if run is None or run.boot_id != boot_id:
        return Crash()
    return Crash(run.loaded, max(0.0, now_s - run.began_s))


def awake_at_death(previous: Previous, run: Run | None, crash: Crash | None) -> float:
    """Say what the awake clock shows at this start, in seconds.

    A daemon that idles stores its awake time nowhere, so that what one that died ran is added to
    what the clock showed when it began.

    Args:
        previous: How the last daemon ended, by the journal.
        run: What it has told; ``None``: nothing.
        crash: How it died; ``None``: it did not, or the power was cut.
    """
    if crash is None or crash.ran_s is None or run is None or run.awake_s is None:
        return previous.awake_s
    return max(previous.awake_s, run.awake_s + crash.ran_s)


def suspects(releases: Iterable[Release], crash: Crash | None) -> list[Release]:
    """List the releases under way that may have made the daemon die.

    Args:
        releases: Those under way.
        crash: How it died; ``None``: it did not.

    Returns:
        Those that answered requests and were loaded, or may have been.
    """
    if crash is None:
        return []
    return [
        each
        for each in releases
        if each.state in SERVES_TRAFFIC
        and (crash.loaded is None or (each.model, each.version) in crash.loaded)
    ]


def counts_against(release: Release, crash: Crash | None, blamed: Collection[Release]) -> bool:
    """Tell whether a death of the daemon is counted on a release.

    One that is tried out in processes of its own is not to blame, but where nobody else is, its
    trial must not be begun for ever while the daemon dies of something.

    Args:
        release: Under way.
        crash: How the daemon died; ``None``: it did not.
        blamed: The suspects.
    """
    if crash is None:
        return False
    return release in blamed or (not blamed and release.state not in SERVES_TRAFFIC)


def recovered(
    release: Release, crashes_max: int, *, has_crashed: bool, others: Collection[str] = ()
) -> tuple[Release, Outcome | None]:
    """Decide how a release goes on.

    Args:
        release: As the journal has it.
        crashes_max: Crashes after which it does not.
        has_crashed: Whether the last daemon died and that counts here: because of this one
            perhaps, or while it was tried out.
        others: Which other releases may have done it, for people.

    Returns:
        The release with its crashes counted, and what it is ordered to do; ``None``: it goes on.
    """
    crashes = release.crashes + has_crashed
    kept = msgspec.structs.replace(release, crashes=crashes) if has_crashed else release
    resumption = recovery(release.state, crashes, crashes_max)
    if resumption.action is not Recovery.ROLL_BACK:
        return kept, None
    times = "" if crashes == 1 else f" {crashes} times"
    if resumption.cause is Cause.CRASHED:
        why = f"the daemon died{times} under it (state {release.state})"
        if others:
            why += (
                f"; it is not remembered as bad, because it may have been {', '.join(others)}, "
                "which was in memory as well"
            )
    elif resumption.cause is Cause.INTERNAL:
        why = (
            f"the daemon died{times} while it was tried out (state {release.state}), in processes "
            "of its own: it is not to blame for that, and not tried again by itself"
        )
    else:
        why = f"this program does not know the state {release.state!r}"
    return kept, Outcome(Event.ROLL_BACK, resumption.cause, why, is_sure=not others)
