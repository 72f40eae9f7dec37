"""What a change of a release makes of what is active; pure."""

from collections.abc import Callable, Collection

import msgspec

from edge_runtime.release.records import SEED, STORE, Release, Slots
from edge_runtime.release.states import SERVES_TRAFFIC, State


def slots_after(
    slots: Slots,
    before: Release,
    after: Release,
    *,
    installed: Callable[[], Collection[int]],
    is_active_there: bool,
) -> Slots | None:
    """Say what the slots become with a change.

    Args:
        slots: As they are.
        before: The release as it is stored.
        after: What it becomes.
        installed: Lists the versions of the model in the store.
        is_active_there: Whether the active version is in memory.

    Returns:
        The new ones; ``None``: they stay.
    """
    if after.state == State.COMMITTED:
        seed = after.active if after.active_source == SEED else None
        if slots.active is None and not slots.disabled and seed is not None:
            # The configuration's version was active: it is what a rollback leads to. Where the
            # model is disabled nothing was: what was taken back meanwhile must not come back.
            slots = slots.committed(seed, SEED, "")
        return slots.committed(after.version, STORE, after.digest)
    if before.state == State.ROLLING_BACK:
        if after.state != State.FAILED or slots.disabled or is_active_there:
            return None
        return _nothing(slots, after.reason)
    if after.state != State.ROLLING_BACK:
        return None
    if (slots.active, slots.active_source) == (after.version, STORE):
        back = slots.reverted(f"version {after.version} was rolled back ({after.reason})")
        if back.active_source != STORE or back.active in installed():
            return back
        why = f"version {after.version} was rolled back ({after.reason}), and version "
        return _nothing(back, f"{why}{back.active} is not in the store any more")
    if before.state in SERVES_TRAFFIC and slots.active is None and after.active is None:
        why = f"version {after.version} was rolled back ({after.reason}), and there was none"
        return _nothing(slots, f"{why} before it")
    return None


def _nothing(slots: Slots, why: str) -> Slots:
    """Leave a model without a version."""
    return msgspec.structs.replace(
        slots,
        active=None,
        active_source="",
        active_digest="",
        disabled=f"{why}; release another version",
    )
