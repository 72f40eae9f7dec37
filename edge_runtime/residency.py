"""Which versions are in memory: from a snapshot to at most one next action; pure.

The catalog takes a snapshot, does the one thing that comes back, and asks again. Sizes are what
was measured at the last load, else what the files let expect. What counts against the budget is
the resident memory of the whole process, read anew for every snapshot: an action that freed less
than it promised is followed by the next one.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil, inf
from typing import Final, Literal

Key = tuple[str, int]
Load = Literal["always", "start", "request"]

ROOM_WAIT_S: Final = 10.0  # then requests for which there is no room are refused
STAY_MAX_S: Final = 5.0  # what was just loaded stays as long as its load took, and at most this
LATELY_S: Final = 10.0  # what was used within this is in use
_LEAVING_ORDER: Final = ("request", "start")  # ``always`` is not in it: it never leaves
_RETRY_AFTER_S: Final = 1
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Version:
    """One version that is in memory, or that somebody wants there.

    Attributes:
        key: Name and number.
        size_bytes: What it holds in memory, or would.
        load: When its model is loaded, as in the settings.
        is_resident: Whether it is in memory.
        last_used_s: When it was used last, on the snapshot's clock.
        leases: Requests that use it now.
        waiting: Requests that wait for it.
        waiting_since_s: Since when the first of them waits.
        idle_unload_s: Time without use after which it is unloaded; 0: never.
        stays_until_s: Before this it does not leave for another version: where too many are in
            use at once, at most half the time goes into loading.
        loads_s: Seconds of loads that its user caused lately: of those who wait for it, or for
            whom it was loaded, the one who caused least. Infinite: it was loaded for nobody.
    """

    key: Key
    size_bytes: int
    load: Load = "start"
    is_resident: bool = True
    last_used_s: float = 0.0
    leases: int = 0
    waiting: int = 0
    waiting_since_s: float = 0.0
    idle_unload_s: float = 0.0
    stays_until_s: float = 0.0
    loads_s: float = inf


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the next action is decided from.

    Attributes:
        now_s: A monotonic clock.
        held_bytes: Resident memory of the process.
        budget_bytes: What it may hold; 0: no budget.
        versions: What is in memory or wanted.
        leaving_bytes: Memory of versions that were taken out and whose last requests go on.
    """

    now_s: float
    held_bytes: int
    budget_bytes: int
    versions: tuple[Version, ...]
    leaving_bytes: int = 0

    @property
    def room_bytes(self) -> int:
        """What may be loaded now; below 0 over the budget. Only meaningful with a budget."""
        return self.budget_bytes - self.held_bytes


@dataclass(frozen=True, slots=True)
class Action:
    """What to do next.

    Attributes:
        kind: ``load``, ``unload`` (it was idle), ``evict`` (another needs the room), ``refuse``
            (its requests) or ``wait`` (nothing now).
        key: The version it is about; meaningless to ``wait``.
        reason: Why, for the log and the index.
        retry_after_s: Of ``refuse``: when a new try makes sense; ``None``: never, as things are.
        look_again_s: Of ``wait``: when time alone changes the decision; ``None``: never.
        is_blocked: Of ``wait``: whether the end of a request may change it.
    """

    kind: Literal["load", "unload", "evict", "refuse", "wait"]
    key: Key = ("", 0)
    reason: str = ""
    retry_after_s: int | None = None
    look_again_s: float | None = None
    is_blocked: bool = False


def next_action(snapshot: Snapshot) -> Action:
    """Decide the next action.

    Idle versions leave first, then the budget is kept, then requests are served: of users who
    caused the least loads lately first, then in the order in which they began to wait. One that
    fits into the room there is may overtake one that has to wait for room; none is evicted for
    it then.
    """
    now_s = snapshot.now_s
    due: list[float] = []
    for version in snapshot.versions:
        if not version.is_resident or not version.idle_unload_s or version.load == "always":
            continue
        idle_at_s = version.last_used_s + version.idle_unload_s
        if version.leases or version.waiting:
            idle_at_s = now_s + version.idle_unload_s
        if idle_at_s <= now_s:
            return Action("unload", version.key, f"not asked for {version.idle_unload_s:g} s")
        due.append(idle_at_s)
    is_blocked = False
    over = -snapshot.room_bytes
    if snapshot.budget_bytes and over > 0:
        order = _leaving_order(snapshot, _LEAVING_ORDER, at_once=True)
        for version in _fewest(order, over) or order:
            return Action("evict", version.key, _over(snapshot))
        is_blocked = True
    wanted = [version for version in snapshot.versions if version.waiting]
    for version in sorted(wanted, key=lambda each: (each.loads_s, each.waiting_since_s, each.key)):
        if version.is_resident:
            continue
        action = admit(snapshot, version)
        if action.kind == "evict" and is_blocked:
            continue  # an earlier one waits for this room
        if action.kind != "wait":
            return action
        is_blocked = True
        if action.look_again_s is not None:
            due.append(action.look_again_s)
    return Action("wait", look_again_s=min(due, default=None), is_blocked=is_blocked)


def admit(
    snapshot: Snapshot, wanted: Version, *, yielding: Collection[Load] = _LEAVING_ORDER
) -> Action:
    """Decide how a version that is not in memory gets there.

    Args:
        snapshot: The versions and the budget.
        wanted: What is to be loaded.
        yielding: Whose versions may leave for it.

    Returns:
        ``load``; ``evict`` of the first that leaves for it; ``wait`` while versions in use or
        just loaded hold the room; or ``refuse``.
    """
    need, room = wanted.size_bytes, snapshot.room_bytes
    if not snapshot.budget_bytes or need <= room:
        return Action("load", wanted.key, "asked for")
    others = [
        each
        for each in snapshot.versions
        if each.is_resident and each.load in yielding and each.key != wanted.key
    ]
    most = room + snapshot.leaving_bytes + sum(each.size_bytes for each in others)
    if need > most:
        return Action(
            "refuse",
            wanted.key,
            f"it needs {size(need)} of memory; the budget of {size(snapshot.budget_bytes)} "
            f"leaves {size(max(most, 0))} for it at most; raise engine.memory_budget_bytes, or "
            "serve a smaller variant",
        )
    leaving = _fewest(_leaving_order(snapshot, yielding, wanted), need - room)
    if leaving:
        name, version = wanted.key
        return Action("evict", leaving[0].key, f"{name} version {version} needs the room")
    refused_at_s = wanted.waiting_since_s + ROOM_WAIT_S
    if snapshot.now_s >= refused_at_s:
        return Action(
            "refuse",
            wanted.key,
            f"it needs {size(need)} of memory, and versions that are in use hold it",
            retry_after_s=_RETRY_AFTER_S,
        )
    ends = [each.stays_until_s for each in others if each.stays_until_s > snapshot.now_s]
    return Action("wait", look_again_s=min([*ends, refused_at_s]), is_blocked=True)


def overflow(snapshot: Snapshot, arrived: Version) -> Action:
    """Decide what follows from the measured size of a version that was just loaded.

    Args:
        snapshot: The versions and the budget, with what was loaded among them.
        arrived: What was loaded; it is not used yet.

    Returns:
        ``evict`` of the first that leaves for it; ``refuse``, and it must be let go again; or
        ``wait``: all is well.
    """
    over = snapshot.held_bytes - snapshot.leaving_bytes - snapshot.budget_bytes
    if not snapshot.budget_bytes or over <= 0:
        return Action("wait")
    leaving = _fewest(_leaving_order(snapshot, _LEAVING_ORDER, arrived), over)
    if leaving:
        name, version = arrived.key
        return Action("evict", leaving[0].key, f"{name} version {version} needs the room")
    others = sum(
        each.size_bytes
        for each in snapshot.versions
        if each.is_resident and each.load in _LEAVING_ORDER and each.key != arrived.key
    )
    text = (
        f"loaded, it holds {size(arrived.size_bytes)} of memory, which is {size(over)} more than "
        f"the budget of {size(snapshot.budget_bytes)} allows"
    )
    if over > others:
        return Action("refuse", arrived.key, f"{text}; raise engine.memory_budget_bytes")
    return Action("refuse", arrived.key, f"{text} now", retry_after_s=_RETRY_AFTER_S)


def swap_way(snapshot: Snapshot, need_bytes: int) -> tuple[bool, str]:
    """Choose how new files take the place of what is in memory (TF Serving's two policies).

    Args:
        snapshot: The versions and the budget.
        need_bytes: What the new ones will hold.

    Returns:
        Whether the old ones stay until the new ones are there, and the sentence that says so.
    """
    if not snapshot.budget_bytes:
        return True, "availability-preserving (there is no memory budget)"
    room = max(snapshot.room_bytes, 0)
    if need_bytes <= room:
        return True, f"availability-preserving (needs {size(need_bytes)}, has {size(room)})"
    return False, f"resource-preserving (needs {size(need_bytes)}, has {size(room)})"


def size(count: int) -> str:
    """Write a number of bytes for people, rounded up to a tenth of a MiB."""
    return f"{ceil(10 * count / _MIB) / 10:.1f} MiB"


def _leaving_order(
    snapshot: Snapshot,
    yielding: Collection[Load],
    wanted: Version | None = None,
    *,
    at_once: bool = False,
) -> list[Version]:
    """List the versions that may leave now, the first to leave first.

    Within one kind, what is in use by users who caused fewer loads lately leaves last: whoever
    asks for one model after the other mostly makes their own leave.

    Args:
        snapshot: The versions.
        yielding: Whose versions may leave.
        wanted: What they leave for; may not leave itself.
        at_once: Whether even what was just loaded may leave.
    """
    able = [
        each
        for each in snapshot.versions
        if each.is_resident
        and each.load in yielding
        and each.size_bytes > 0
        and not each.leases
        and not each.waiting
        and (at_once or each.stays_until_s <= snapshot.now_s)
        and (wanted is None or each.key != wanted.key)
    ]
    lately_s = snapshot.now_s - LATELY_S
    loads_s = wanted.loads_s if wanted is not None else inf

    def rank(each: Version) -> tuple[int, bool, float, Key]:
        is_spared = each.loads_s < loads_s < inf and each.last_used_s > lately_s
        return _LEAVING_ORDER.index(each.load), is_spared, each.last_used_s, each.key

    return sorted(able, key=rank)


def _fewest(order: list[Version], short_bytes: int) -> list[Version]:
    """Take from the front until enough is freed, then spare whatever is not needed for it."""
    taken: list[Version] = []
    freed = 0
    for version in order:
        taken.append(version)
        freed += version.size_bytes
        if freed >= short_bytes:
            break
    else:
        return []
    for version in reversed(taken.copy()):
        if freed - version.size_bytes >= short_bytes:
            taken.remove(version)
            freed -= version.size_bytes
    return taken


def _over(snapshot: Snapshot) -> str:
    return (
        f"the daemon holds {size(snapshot.held_bytes)}, the budget is {size(snapshot.budget_bytes)}"
    )
