"""A daemon that dies again and again under a version that is committed: that version goes back.

It is done before any model is loaded, or the version would make this daemon die as well. Who is
suspected is the version that was committed last, of those that were in memory: with the same files
and the same traffic everything else ran before. Versions that were committed long ago are never
suspected, and no version is while a release under way may have done it.

Deaths may come from outside: then taking a version back does not help. So what answers since a
crash loop took another version back is not taken back by one, and once one did not help, nothing is
disabled: an update may be lost that way, the service is not.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from edge_runtime.failpoints import wall_time
from edge_runtime.release.journal import Journal
from edge_runtime.release.records import STORE, BadDigest, Release, Slots, Transition
from edge_runtime.release.recovery import Crash, suspects
from edge_runtime.release.run_record import Version
from edge_runtime.release.slot_changes import slots_after
from edge_runtime.release.states import Cause, Event, State

if TYPE_CHECKING:
    from edge_runtime.settings import Release as Settings
    from edge_runtime.store.store import Store

_log = logging.getLogger(__name__)

DIED: Final = "died"
"""The event of a row of the history: the daemon died, and this version is suspected."""

_ROWS: Final = 1_000  # of one model that are looked at
_NAMED: Final = 3  # others that may have done it, in a sentence


class Committed(NamedTuple):
    """A version that is active, and was in memory when the daemon died.

    Attributes:
        release: That made it active.
        commit: The row of its commit.
        deaths: The rows of deaths since then, the newest first.
        is_fallback: Whether it answers again since a crash loop took a newer version back.
    """

    release: Release
    commit: Transition
    deaths: Sequence[Transition]
    is_fallback: bool = False

    @property
    def is_cleared(self) -> bool:
        """Whether the daemon died too often with it for the deaths to be its own."""
        return self.release.cause == Cause.CRASHED


def newest(found: Iterable[Committed], now_s: float, suspect_s: float) -> Committed | None:
    """Choose who is suspected; pure.

    Args:
        found: Every version that may have done it.
        now_s: The awake clock, in seconds.
        suspect_s: How long after its commit a version is suspected, in seconds awake.
    """
    recent = [each for each in found if now_s - each.commit.awake_s <= suspect_s]
    return max(recent, key=lambda each: each.commit.id, default=None)


def in_a_row(suspect: Committed, now_s: float, window_s: float) -> list[float]:
    """List the deaths that follow one another, with the one that was just found; pure.

    Args:
        suspect: With the deaths before it. ``release.crashes`` says how many of them are in a row:
            a daemon that lived longer before it died has set that to 0.
        now_s: The awake clock, in seconds. It may lack what a daemon that died had not stored, and
            has what one ran that stopped in order.
        window_s: Between two deaths that follow one another there is no more than this.

    Returns:
        When they were, on the awake clock, in seconds, the newest first.
    """
    times_s = [now_s]
    for row in suspect.deaths[: suspect.release.crashes]:
        if times_s[-1] - row.awake_s > window_s:
            break
        times_s.append(row.awake_s)
    return times_s


def follows_rollback(rows: Iterable[Transition], first_s: float, window_s: float) -> bool:
    """Tell whether deaths go on although a crash loop took a version back just before; pure.

    Args:
        rows: The history, of every model.
        first_s: The first of these deaths, on the awake clock, in seconds.
        window_s: Between the two there is no more than this.
    """
    return any(_is_taken_back(row) and 0 <= first_s - row.awake_s <= window_s for row in rows)


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
                journal.save(_forgiven(each))
        return False
    if suspects(journal.releases(unfinished=True), crash):
        return False
    may = [each for each in found if not each.is_cleared]
    suspect = newest(may, awake_s, settings.crash_suspect_s)
    if suspect is None:
        return False
    before = suspect.release
    times_s = in_a_row(suspect, awake_s, window_s)
    count = len(times_s)
    died = f"the daemon died {count} times in a row, each time" if count > 1 else "the daemon died"
    why = (
        f"{died} within {window_s:g} s of its start with this version in memory; of those that "
        "may have done it, it is the one committed last"
    )
    numbers = {"ran_s": round(crash.ran_s, 3), "in_a_row": count, "crashes_max": limit}
    slots = journal.slots(before.model)
    if count < limit:
        after = msgspec.structs.replace(before, crashes=count, updated_s=wall_time())
        told = msgspec.structs.replace(after, cause=str(Cause.CRASHED), reason=why)
        row = _row(before, told, DIED, slots.active_digest, awake_s, boot_id, numbers)
        journal.move(after, row)
        return True
    # The version before it ran here without deaths, and is to run again.
    others = sorted(each for each in crash.loaded if each[0] != before.model)
    after, back = _taken_back(store, slots, suspect, count, _with_others(why, others))
    if suspect.is_fallback or (
        back.disabled and follows_rollback(journal.history("", _ROWS), times_s[-1], window_s)
    ):
        cleared = _cleared(suspect, count, died)
        _log.error("%s version %d: %s", before.model, before.version, cleared.reason)
        row = _row(before, cleared, DIED, slots.active_digest, awake_s, boot_id, numbers)
        journal.move(cleared, row)
        return True
    row = _row(before, after, str(Event.ROLL_BACK), back.active_digest, awake_s, boot_id, numbers)
    bad = None if others else BadDigest.of(after, wall_time())
    journal.move(after, row, slots=back, bad=bad)
    return True


def _taken_back(
    store: "Store", slots: Slots, suspect: Committed, count: int, why: str
) -> tuple[Release, Slots]:
    """Say what taking a version back makes of its release, and of what is active."""
    before = suspect.release
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
    return after, slots if back is None else back


def _with_others(why: str, others: Sequence[Version]) -> str:
    """Name who else may have done it: then nobody is called bad for good."""
    if not others:
        return why
    named = ", ".join(f"{name} version {version}" for name, version in others[:_NAMED])
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    were = "was" if len(others) == 1 else "were"
    return (
        f"{why}; it is not remembered as bad, because it may have been {named}{more}, which "
        f"{were} in memory as well"
    )


def _cleared(suspect: Committed, count: int, died: str) -> Release:
    """Say that the deaths are not this version's: it stays active."""
    return msgspec.structs.replace(
        suspect.release,
        crashes=count,
        cause=str(Cause.CRASHED),
        reason=(
            f"{died} soon after its start, and went on to die after a version was taken back for "
            "that: it dies of something else, so this version stays; the daemon's log and core "
            "dump say more"
        ),
        updated_s=wall_time(),
    )


def _forgiven(committed: Committed) -> Release:
    """Count from 0 again, with what was said at the commit."""
    release, commit = committed.release, committed.commit
    if not committed.is_cleared:
        return msgspec.structs.replace(release, crashes=0)
    return msgspec.structs.replace(release, crashes=0, cause=commit.cause, reason=commit.reason)


def _is_taken_back(row: Transition) -> bool:
    return (row.from_state, row.to_state, row.cause) == (
        State.COMMITTED,
        State.ROLLING_BACK,
        Cause.CRASHED,
    )


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
        is_fallback = False
        for row in journal.history(slots.model, _ROWS):
            if row.release_id != release.id:
                is_fallback |= _is_taken_back(row)
            elif row.event != DIED:
                found.append(Committed(release, row, deaths, is_fallback))
                break
            else:
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
