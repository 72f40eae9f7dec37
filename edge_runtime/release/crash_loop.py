"""A daemon that dies again and again under a version that is committed: that version goes back.

It is done before any model is loaded, or the version would make this daemon die as well. Who is
suspected is the version that was committed last, of those that were in memory: with the same files
and the same traffic everything else ran before. Versions that were committed long ago are never
suspected, and no version is while a release under way may have done it.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from edge_runtime.failpoints import wall_time
from edge_runtime.release.journal import Journal
from edge_runtime.release.records import BadDigest, Release, Transition
from edge_runtime.release.recovery import Crash, suspects
from edge_runtime.release.serving import STORE
from edge_runtime.release.slot_changes import slots_after
from edge_runtime.release.states import Cause, Event, State

if TYPE_CHECKING:
    from edge_runtime.settings import Release as Settings
    from edge_runtime.store.store import Store

DIED: Final = "died"
"""The event of a row of the history: the daemon died, and this version is suspected."""

_ROWS: Final = 1_000  # of one model that are looked at


class Committed(NamedTuple):
    """A version that is active, and was in memory when the daemon died.

    Attributes:
        release: That made it active.
        commit: The row of its commit.
        deaths: The rows of deaths since then, the newest first.
    """

    release: Release
    commit: Transition
    deaths: Sequence[Transition]


def newest(found: Iterable[Committed], now_s: float, suspect_s: float) -> Committed | None:
    """Choose who is suspected; pure.

    Args:
        found: Every version that may have done it.
        now_s: The awake clock, in seconds.
        suspect_s: How long after its commit a version is suspected, in seconds awake.
    """
    recent = [each for each in found if now_s - each.commit.awake_s <= suspect_s]
    return max(recent, key=lambda each: each.commit.id, default=None)


def in_a_row(suspect: Committed, now_s: float, window_s: float) -> int:
    """Count the deaths that follow one another, with the one that was just found; pure.

    Args:
        suspect: With the deaths before it. ``release.crashes`` says how many of them are in a row:
            a daemon that lived longer before it died has set that to 0.
        now_s: The awake clock, in seconds. It lacks what a daemon that died had not stored, and
            has what one ran that stopped in order.
        window_s: Between two deaths that follow one another there is no more than this.
    """
    count, later_s = 1, now_s
    for row in suspect.deaths[: suspect.release.crashes]:
        if later_s - row.awake_s > window_s:
            break
        count, later_s = count + 1, row.awake_s
    return count


def end_crash_loop(
    journal: Journal,
    store: "Store",
    settings: "Settings",
    crash: Crash,
    *,
    awake_s: float,
    boot_id: str,
) -> bool:
    """Count a death of the daemon against whom it may be owed to; take that back if it is enough.

    Called on the journal's thread, before the slots are read.

    Args:
        journal: Open.
        store: Installed versions.
        settings: ``[release]``.
        crash: How the daemon died.
        awake_s: The awake clock, in seconds.
        boot_id: Of this boot.

    Returns:
        Whether a committed version is suspected.

    Raises:
        StorageError: The disk takes nothing; nothing changed.
    """
    limit, window_s = settings.committed_crashes_max, settings.crash_window_s
    if not limit or crash.loaded is None or crash.ran_s is None:
        return False
    found = _found(journal, crash)
    if crash.ran_s > window_s:
        for each in found:
            if each.release.crashes:
                journal.save(msgspec.structs.replace(each.release, crashes=0))
        return False
    if suspects(journal.releases(unfinished=True), crash):
        return False
    suspect = newest(found, awake_s, settings.crash_suspect_s)
    if suspect is None:
        return False
    before = suspect.release
    count = in_a_row(suspect, awake_s, window_s)
    times = f"the daemon died {count} times in a row, each time" if count > 1 else "the daemon died"
    why = (
        f"{times} within {window_s:g} s of its start with this version in memory; of those that "
        "were, it is the one committed last"
    )
    numbers = {"ran_s": round(crash.ran_s, 3), "in_a_row": count, "crashes_max": limit}
    slots = journal.slots(before.model)
    if count < limit:
        after = msgspec.structs.replace(before, crashes=count, updated_s=wall_time())
        told = msgspec.structs.replace(after, cause=str(Cause.CRASHED), reason=why)
        row = _row(before, told, DIED, slots.active_digest, awake_s, boot_id, numbers)
        journal.move(after, row)
        return True
    after = msgspec.structs.replace(
        before,
        state=str(State.ROLLING_BACK),
        crashes=count,
        cause=str(Cause.CRASHED),
        reason=why,
        updated_s=wall_time(),
    )
    back = slots_after(
        slots,
        before,
        after,
        installed=lambda: store.versions(before.model),
        is_active_there=False,
    )
    digest = back.active_digest if back is not None else ""
    row = _row(before, after, str(Event.ROLL_BACK), digest, awake_s, boot_id, numbers)
    journal.move(after, row, slots=back, bad=BadDigest.of(after, wall_time()))
    return True


def _found(journal: Journal, crash: Crash) -> list[Committed]:
    found = []
    for slots in journal.all_slots():
        if slots.active is None or slots.active_source != STORE:
            continue
        if crash.loaded is None or (slots.model, slots.active) not in crash.loaded:
            continue
        committed = (
            each
            for each in journal.releases(slots.model)
            if each.state == State.COMMITTED and each.version == slots.active
        )
        release = next(committed, None)
        if release is None:
            continue
        deaths: list[Transition] = []
        for row in journal.history(slots.model, _ROWS):
            if row.release_id != release.id:
                continue
            if row.event != DIED:
                found.append(Committed(release, row, deaths))
                break
            deaths.append(row)
    return found


def _row(  # noqa: PLR0917 - what a row is made of
    before: Release,
    after: Release,
    event: str,
    digest: str,
    awake_s: float,
    boot_id: str,
    numbers: dict[str, float],
) -> Transition:
    return Transition.between(
        before,
        after,
        event,
        digest=digest,  # nothing is in memory yet: what is loaded next
        wall_s=wall_time(),
        awake_s=awake_s,
        boot_id=boot_id,
        numbers=numbers,
    )
