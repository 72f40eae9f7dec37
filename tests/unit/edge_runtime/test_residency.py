"""The policy of memory: what it may do, what it never does, and that it comes to an end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.residency import (
    ROOM_WAIT_S,
    Action,
    Load,
    Snapshot,
    Version,
    admit,
    next_action,
    overflow,
    swap_way,
)

MIB = 1 << 20
OWN = 40  # what the process holds beside its models
LOADS: tuple[Load, ...] = ("always", "start", "request")


def resident(name: str, size: int, used: float = 0.0, **more: object) -> Version:
    return replace(Version((name, 1), size, last_used_s=used), **more)  # type: ignore[arg-type]


def wanted(name: str, size: int, since: float = 0.0, **more: object) -> Version:
    version = Version((name, 1), size, is_resident=False, waiting=1, waiting_since_s=since)
    return replace(version, **more)  # type: ignore[arg-type]


def snapshot(*versions: Version, budget: int = 100, now: float = 0.0, **more: int) -> Snapshot:
    held = OWN + sum(each.size_bytes for each in versions if each.is_resident)
    return Snapshot(now, held + more.get("leaving_bytes", 0), budget, versions, **more)


# -- one decision after the other ----------------------------------------------------------------


def test_nothing_happens_when_nothing_is_to_be_done() -> None:
    assert next_action(snapshot(resident("a", 10))) == Action("wait")


def test_what_is_asked_for_is_loaded_where_it_fits() -> None:
    action = next_action(snapshot(resident("a", 10), wanted("b", 50)))
    assert (action.kind, action.key) == ("load", ("b", 1))


def test_without_a_budget_everything_fits() -> None:
    action = next_action(snapshot(resident("a", 10), wanted("b", 10**12), budget=0))
    assert action.kind == "load"


def test_least_recently_used_leaves_for_what_is_asked_for() -> None:
    versions = resident("a", 30, used=2.0), resident("b", 30, used=1.0), wanted("c", 20)
    action = next_action(snapshot(*versions))
    assert (action.kind, action.key) == ("evict", ("b", 1))
    assert action.reason == "c version 1 needs the room"


def test_versions_that_load_when_asked_leave_before_those_that_load_at_the_start() -> None:
    versions = (
        resident("a", 30, used=1.0, load="start"),
        resident("b", 30, used=2.0, load="request"),
        wanted("c", 20),
    )
    assert next_action(snapshot(*versions)).key == ("b", 1)


def test_a_version_that_frees_too_little_to_matter_is_spared() -> None:
    versions = resident("a", 1, used=1.0), resident("b", 50, used=2.0), wanted("c", 40)
    assert next_action(snapshot(*versions)).key == ("b", 1)


def test_versions_that_always_stay_are_never_evicted() -> None:
    versions = resident("a", 50, load="always", idle_unload_s=1.0), wanted("b", 20)
    action = next_action(snapshot(*versions, now=100.0))
    assert action.kind == "refuse"
    assert action.retry_after_s is None


def test_a_model_that_is_too_large_alone_is_refused_and_nobody_leaves_for_it() -> None:
    versions = resident("a", 30 * MIB), wanted("b", 90 * MIB)
    action = next_action(Snapshot(0.0, 70 * MIB, 100 * MIB, versions))
    assert (action.kind, action.key, action.retry_after_s) == ("refuse", ("b", 1), None)
    assert "needs 90.0 MiB" in action.reason
    assert "the budget of 100.0 MiB leaves 60.0 MiB" in action.reason


def test_a_model_waits_for_versions_in_use_and_is_refused_in_the_end() -> None:
    versions = resident("a", 50, leases=1), wanted("b", 40, since=5.0)
    action = next_action(snapshot(*versions, now=6.0))
    assert action == Action("wait", look_again_s=5.0 + ROOM_WAIT_S, is_blocked=True)
    late = next_action(snapshot(*versions, now=5.0 + ROOM_WAIT_S))
    assert (late.kind, late.key, late.retry_after_s) == ("refuse", ("b", 1), 1)


def test_what_is_leaving_makes_room_soon_and_is_waited_for() -> None:
    action = next_action(snapshot(wanted("b", 40), leaving_bytes=50, now=1.0))
    assert (action.kind, action.is_blocked) == ("wait", True)


def test_what_was_just_loaded_stays_as_long_as_its_load_took() -> None:
    versions = resident("a", 50, stays_until_s=3.0), wanted("b", 40, since=1.0)
    assert next_action(snapshot(*versions, now=2.0)) == Action(
        "wait", look_again_s=3.0, is_blocked=True
    )
    assert next_action(snapshot(*versions, now=3.0)).kind == "evict"


def test_who_waited_first_is_served_first_unless_only_another_fits_now() -> None:
    small, large = wanted("a", 20, since=2.0), wanted("b", 60, since=1.0)
    assert next_action(snapshot(small, large)).key == ("b", 1)
    busy = resident("c", 20, leases=1)
    assert next_action(snapshot(small, large, busy, now=3.0)).key == ("a", 1)


def test_nobody_is_evicted_for_one_who_came_later_while_the_first_waits_for_room() -> None:
    versions = (
        resident("a", 20, leases=1),
        resident("b", 30, load="start"),
        wanted("first", 60, since=1.0),
        wanted("second", 20, since=2.0),
    )
    assert next_action(snapshot(*versions, now=3.0)).kind == "wait"


def test_an_idle_version_is_unloaded_when_its_time_has_come_and_not_before() -> None:
    version = resident("a", 10, used=5.0, idle_unload_s=60.0)
    assert next_action(snapshot(version, now=64.0)) == Action("wait", look_again_s=65.0)
    action = next_action(snapshot(version, now=65.0))
    assert (action.kind, action.reason) == ("unload", "not asked for 60 s")


def test_a_version_in_use_is_not_idle_and_is_looked_at_again_later() -> None:
    version = resident("a", 10, used=5.0, idle_unload_s=60.0, leases=1)
    assert next_action(snapshot(version, now=100.0)) == Action("wait", look_again_s=160.0)


def test_a_smaller_budget_makes_versions_leave() -> None:
    versions = resident("a", 30, used=2.0), resident("b", 30, used=1.0)
    action = next_action(snapshot(*versions, budget=80))
    assert (action.kind, action.key) == ("evict", ("b", 1))
    blocked = next_action(snapshot(resident("a", 60, leases=1), budget=80))
    assert (blocked.kind, blocked.is_blocked) == ("wait", True)


def test_at_the_start_only_those_leave_that_load_when_asked() -> None:
    new = wanted("c", 40)
    only: tuple[Load, ...] = ("request",)
    kinds: dict[Load, str] = {"start": "refuse", "request": "evict"}
    for load, kind in kinds.items():
        now = snapshot(resident("a", 50, load=load))
        assert admit(now, new, yielding=only).kind == kind


def test_a_load_that_took_more_than_expected_makes_others_leave_or_is_undone() -> None:
    arrived = resident("new", 50)
    idle, busy = resident("a", 30), resident("a", 30, leases=1)
    assert overflow(snapshot(arrived), arrived).kind == "wait"
    assert overflow(snapshot(arrived, idle), arrived).key == ("a", 1)
    undone = overflow(snapshot(arrived, busy), arrived)
    assert (undone.kind, undone.key, undone.retry_after_s) == ("refuse", ("new", 1), 1)
    large = resident("new", 70)
    never = overflow(snapshot(large), large)
    assert (never.kind, never.retry_after_s) == ("refuse", None)
    assert "more than the budget" in never.reason


@pytest.mark.parametrize(
    ("budget", "keeps", "text"),
    [
        (0, True, "availability-preserving (there is no memory budget)"),
        (70, True, "availability-preserving (needs 10.0 MiB, has 20.0 MiB)"),
        (55, False, "resource-preserving (needs 10.0 MiB, has 5.0 MiB)"),
        (40, False, "resource-preserving (needs 10.0 MiB, has 0.0 MiB)"),
    ],
)
def test_a_swap_says_which_way_it_goes_and_why(budget: int, text: str, *, keeps: bool) -> None:
    now = Snapshot(0.0, 50 * MIB, budget * MIB, ())
    assert swap_way(now, 10 * MIB) == (keeps, text)


# -- any state -----------------------------------------------------------------------------------

SIZES = st.integers(0, 60)
TIMES = st.integers(0, 30).map(float)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Any state of the world; sizes are true, as they are once they were measured."""
    versions = [
        Version(
            key=(f"m{number}", 1),
            size_bytes=draw(SIZES),
            load=draw(st.sampled_from(LOADS)),
            is_resident=draw(st.booleans()),
            last_used_s=draw(TIMES),
            leases=draw(st.integers(0, 1)),
            waiting=draw(st.integers(0, 1)),
            waiting_since_s=draw(TIMES),
            idle_unload_s=draw(st.sampled_from([0.0, 5.0, 50.0])),
            stays_until_s=draw(TIMES),
        )
        for number in range(draw(st.integers(0, 6)))
    ]
    versions = [each if each.is_resident else replace(each, leases=0) for each in versions]
    leaving = draw(st.sampled_from([0, 0, 20]))
    budget = draw(st.sampled_from([0, 90, 120, 180]))
    return snapshot(
        *versions, budget=budget, now=draw(st.integers(0, 40)) * 1.0, leaving_bytes=leaving
    )


def after(now: Snapshot, action: Action) -> Snapshot:
    """Do what the policy says, in a world where sizes are what they seem."""
    (about,) = [each for each in now.versions if each.key == action.key]
    rest = tuple(each for each in now.versions if each.key != action.key)
    held = now.held_bytes
    changed: tuple[Version, ...]
    if action.kind == "load":
        changed = (replace(about, is_resident=True, waiting=0, last_used_s=now.now_s),)
        held += about.size_bytes
    elif action.kind == "refuse":
        changed = ()
    else:
        changed = (replace(about, is_resident=False),)
        held -= about.size_bytes
    return replace(now, versions=rest + changed, held_bytes=held)


def run(now: Snapshot) -> tuple[list[Action], Snapshot]:
    """Act until there is nothing to do."""
    actions: list[Action] = []
    most = 3 * len(now.versions) + 1
    while (action := next_action(now)).kind != "wait":
        actions.append(action)
        now = after(now, action)
        assert len(actions) <= most, "it does not come to an end"
    return actions, now


@given(snapshots())
def test_it_ends_and_the_budget_is_kept_by_its_own_arithmetic(now: Snapshot) -> None:
    while (action := next_action(now)).kind != "wait":
        before, now = now, after(now, action)
        if now.budget_bytes and action.kind == "load":
            assert now.held_bytes <= now.budget_bytes
        assert now.held_bytes <= max(before.held_bytes, now.budget_bytes or now.held_bytes)
    run(now)


@given(snapshots())
def test_versions_in_use_or_pinned_or_awaited_never_leave(now: Snapshot) -> None:
    action = next_action(now)
    if action.kind in {"evict", "unload"}:
        (about,) = [each for each in now.versions if each.key == action.key]
        assert about.is_resident
        assert not about.leases
        assert not about.waiting
        assert about.load != "always"


@given(snapshots())
def test_who_leaves_for_another_was_needed_and_used_less_lately_than_who_stays(
    now: Snapshot,
) -> None:
    action = next_action(now)
    if "needs the room" not in action.reason:
        return
    (asker,) = [each for each in now.versions if each.key[0] == action.reason.split()[0]]
    needed = asker.size_bytes - now.room_bytes
    gone: list[Version] = []
    world = now
    while (step := admit(world, asker)).kind == "evict":
        gone += [each for each in world.versions if each.key == step.key]
        world = after(world, step)
    assert step.kind == "load"
    freed = sum(each.size_bytes for each in gone)
    assert freed >= needed
    assert all(freed - each.size_bytes < needed for each in gone), "one left for nothing"

    def order(version: Version) -> tuple[bool, float, tuple[str, int]]:
        return version.load == "start", version.last_used_s, version.key

    last = max(map(order, gone))
    earlier = [
        each
        for each in now.versions
        if each.is_resident
        and not (each.leases or each.waiting or each.load == "always")
        and each.stays_until_s <= now.now_s
        and order(each) < last
    ]
    assert sum(each.size_bytes for each in earlier) < needed, "older ones would have been enough"


@given(snapshots())
def test_nobody_waits_for_ever(now: Snapshot) -> None:
    later = now
    for _ in range(20):
        _, later = run(later)
        if not any(each.waiting and not each.is_resident for each in later.versions):
            return
        action = next_action(later)
        assert action.look_again_s is not None, "somebody waits, and time is not looked at"
        assert action.look_again_s > later.now_s
        later = replace(later, now_s=action.look_again_s)
    raise AssertionError(later)


@given(snapshots())
def test_what_time_alone_changes_is_looked_at_in_time(now: Snapshot) -> None:
    _, now = run(now)
    action = next_action(now)
    if action.look_again_s is None:
        for seconds in (1.0, 10.0, 1000.0):
            assert next_action(replace(now, now_s=now.now_s + seconds)).kind == "wait"
    elif action.look_again_s > now.now_s + 1:
        early = replace(now, now_s=(now.now_s + action.look_again_s) / 2)
        assert next_action(early).kind == "wait"
