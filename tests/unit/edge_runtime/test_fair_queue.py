"""Who is next: fair between clients, urgent first within one."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.batching import Lane, Run
from edge_runtime.fair_queue import FairQueue
from tests.fakes import known_cost, lane
from tests.scheduler_bench import Request, feeds


def anybody(_: int | None) -> bool:
    return True


def make(
    shared: Lane,
    client: int | None = None,
    *,
    rows: int = 1,
    priority: int = 0,
    deadline_ns: int = 0,
    names: Sequence[str] = ("sum",),
) -> Run:
    return Run(
        lane=shared,
        names=names,
        feeds=feeds(rows),
        rows=rows,
        size=rows,
        request=Request(),
        done=lambda _: None,
        received=0,
        client=client,
        priority=priority,
        deadline_ns=deadline_ns,
    )


def costing(ns: float, *, rows_max: int = 0) -> Lane:
    """Give a version that takes so long per row."""
    return lane(cost=known_cost(ns), rows_max=rows_max)


def filled(*runs: Run) -> FairQueue:
    queue = FairQueue()
    for run in runs:
        queue.push(run)
    return queue


def pop(queue: FairQueue) -> Run:
    run = queue.pop(anybody)
    assert run is not None
    return run


def drained(queue: FairQueue) -> list[Run]:
    found = [pop(queue) for _ in range(len(queue))]
    assert queue.pop(anybody) is None
    assert len(queue) == len(list(queue)) == 0
    return found


# -- between clients -----------------------------------------------------------------------------

BACKLOGS = st.lists(  # of each client: cost in nanoseconds and priority of each run
    st.lists(st.tuples(st.integers(100, 10_000), st.integers(0, 3)), min_size=1, max_size=30),
    min_size=2,
    max_size=4,
)


@settings(deadline=None)
@given(BACKLOGS)
def test_clients_that_wait_are_given_the_same_to_within_a_run_of_each(
    backlogs: list[list[tuple[int, int]]],
) -> None:
    queue = FairQueue()
    costs: dict[Run, int] = {}
    for client, backlog in enumerate(backlogs):
        for ns, priority in backlog:
            run = make(costing(ns), client, priority=priority)
            costs[run] = ns
            queue.push(run)
    largest = [max(ns for ns, _ in backlog) for backlog in backlogs]
    left = Counter({client: len(backlog) for client, backlog in enumerate(backlogs)})
    given_ns = [0] * len(backlogs)
    while all(left.values()):
        run = pop(queue)
        assert run.client is not None
        given_ns[run.client] += costs[run]
        left[run.client] -= 1
        for one, own in enumerate(given_ns):
            for other, theirs in enumerate(given_ns):
                assert own - theirs <= largest[one] + largest[other] + 1


def test_greedy_client_does_not_delay_another() -> None:
    shared = costing(1000)
    queue = filled(*(make(shared, 1) for _ in range(100)))
    modest = make(shared, 2)
    queue.push(modest)
    assert modest in [pop(queue), pop(queue)]


def test_priority_buys_nothing_from_other_clients() -> None:
    shared = costing(1000)
    queue = filled(*(make(shared, 1, priority=1) for _ in range(10)))
    for _ in range(10):
        queue.push(make(shared, 2))
    clients = [run.client for run in drained(queue)]
    assert [set(pair) for pair in zip(clients[::2], clients[1::2], strict=True)] == [{1, 2}] * 10


def test_client_with_long_runs_is_given_fewer_of_them() -> None:
    short, long = costing(1000), costing(9000)
    queue = filled(*(make(long, 1) for _ in range(20)), *(make(short, 2) for _ in range(180)))
    half = Counter(pop(queue).client for _ in range(100))
    assert half[1] in {9, 10, 11}


@pytest.mark.parametrize("idle_runs", [1, 50])
def test_client_that_was_idle_does_not_save_up_time(idle_runs: int) -> None:
    shared = costing(1000)
    queue = FairQueue()
    for client in (1, 2):  # both are known
        queue.push(make(shared, client))
    drained(queue)
    for _ in range(idle_runs):  # one of them goes on alone
        queue.push(make(shared, 1))
        pop(queue)
    for _ in range(20):
        queue.push(make(shared, 1))
        queue.push(make(shared, 2))
    first = Counter(pop(queue).client for _ in range(10))
    assert abs(first[1] - first[2]) <= 2


def test_client_that_used_what_nobody_wanted_owes_nothing() -> None:
    shared = costing(1000)
    queue = filled(*(make(shared, 1) for _ in range(100)))
    for _ in range(50):
        pop(queue)
    for _ in range(50):
        queue.push(make(shared, 2))
    assert Counter(pop(queue).client for _ in range(20)) == {1: 10, 2: 10}


def test_newcomer_does_not_wait_for_what_others_got_as_company() -> None:
    shared, own = costing(1000, rows_max=1000), costing(1000)
    first = make(shared, 1)
    queue = filled(first, *(make(shared, 2) for _ in range(100)), *(make(own, 1) for _ in range(9)))
    assert pop(queue) is first
    while queue.pop_mate(first, 1000) is not None:
        pass
    newcomer = make(own, 3)
    queue.push(newcomer)
    assert newcomer in [pop(queue) for _ in range(3)]


def test_client_that_may_not_run_now_keeps_its_place() -> None:
    shared = costing(1000)
    one, other = make(shared, 1), make(shared, 2)
    queue = filled(one, other)
    assert queue.pop(lambda client: client != 1) is other
    assert queue.pop(lambda client: client != 1) is None
    assert pop(queue) is one


def test_model_of_which_nothing_is_known_counts_too() -> None:
    queue = filled(*(make(lane(), client) for client in (1, 1, 1, 2, 2, 2)))
    assert [{pop(queue).client, pop(queue).client} for _ in range(3)] == [{1, 2}] * 3


def test_clients_that_are_gone_are_forgotten() -> None:
    shared = costing(1000)
    queue = FairQueue()
    for client in range(1000):
        queue.push(make(shared, client))
        pop(queue)
        queue.settle()
    assert len(queue._clients) == 0
    waiting = make(shared, 1)
    queue.push(waiting)
    queue.settle()
    assert list(queue) == [waiting]


def test_clients_that_are_gone_are_forgotten_while_another_is_busy() -> None:
    shared = costing(1000)
    queue = filled(*(make(shared, -1) for _ in range(1500)))
    for client in range(1000):
        queue.push(make(shared, client))
        for _ in range(2):
            pop(queue)
    assert len(queue._clients) < 10


def test_what_was_given_before_an_idle_time_is_not_owed_after_it() -> None:
    short, long = costing(1000), costing(1e10)
    queue = filled(make(long, 1))
    pop(queue)
    queue.settle()
    for _ in range(100):
        queue.push(make(short, 2))
    modest = make(short, 1)
    queue.push(modest)
    assert modest in [pop(queue), pop(queue)]


# -- within a client -----------------------------------------------------------------------------

PRIORITIES = st.sampled_from([0, 1, 2, 2**31 - 1, 2**31, 2**31 + 1, 2**64 - 1])
URGENCIES = st.tuples(PRIORITIES, st.sampled_from([0, 5, 10, 2**62]))
DEFAULT_PRIORITY = 2**64  # where it sorts: behind every priority that a request may state


@given(st.lists(URGENCIES, max_size=30), st.integers(1, 3))
def test_priority_comes_first_then_the_deadline_then_the_arrival(
    urgencies: list[tuple[int, int]], lanes: int
) -> None:
    shared = [costing(1000) for _ in range(lanes)]
    runs = [
        make(shared[place % lanes], 1, priority=priority, deadline_ns=deadline_ns)
        for place, (priority, deadline_ns) in enumerate(urgencies)
    ]
    never = 2**63
    expected = sorted(  # sorting keeps the order of arrival
        runs, key=lambda run: (run.priority or DEFAULT_PRIORITY, run.deadline_ns or never)
    )
    assert drained(filled(*runs)) == expected


@given(
    st.lists(URGENCIES, min_size=1, max_size=40), st.integers(0, 40), st.sets(st.integers(0, 39))
)
def test_order_stays_right_when_runs_leave_before_their_turn(
    urgencies: list[tuple[int, int]], rooms: int, gone: set[int]
) -> None:
    shared = costing(1000)
    runs = [
        make(shared, 1, priority=priority, deadline_ns=deadline_ns)
        for priority, deadline_ns in urgencies
    ]
    left = {run for number, run in enumerate(runs) if number in gone}
    queue = filled(*runs)
    for place in range(rooms):
        queue.make_room(make(shared, 2 + place))
        if place == rooms // 2:
            queue.take_out(lambda run: run not in left)
    found = drained(queue)
    assert found == sorted(
        found,
        key=lambda run: (
            run.priority or DEFAULT_PRIORITY,
            run.deadline_ns or 2**63,
            runs.index(run),
        ),
    )


# -- company -------------------------------------------------------------------------------------


def test_mates_come_from_every_client_the_furthest_behind_first() -> None:
    shared = costing(1000, rows_max=100)
    first = make(shared, 1)
    queue = filled(first, *(make(shared, client) for client in (1, 1, 2, 2)))
    assert pop(queue) is first
    mates = [queue.pop_mate(first, 100) for _ in range(5)]
    assert [mate and mate.client for mate in mates] == [2, 1, 2, 1, None]


def test_mates_fit_into_the_rows_that_are_left() -> None:
    shared = costing(1000, rows_max=100)
    first = make(shared, 1)
    queue = filled(first, make(shared, 2, rows=4), make(shared, 3, rows=3))
    pop(queue)
    mate = queue.pop_mate(first, 3)
    assert mate is not None
    assert mate.rows == 3
    assert queue.pop_mate(first, 3) is None
    assert len(queue) == 1


def test_mates_fit_into_the_size_that_is_left() -> None:
    shared = costing(1000, rows_max=100)
    first = make(shared, 1)
    queue = filled(first, make(shared, 2, rows=4), make(shared, 3, rows=3))
    pop(queue)
    mate = queue.pop_mate(first, 100, 3)
    assert mate is not None
    assert mate.size == 3
    assert queue.pop_mate(first, 100, 3) is None


def test_mates_are_of_the_same_lane_and_may_join() -> None:
    shared = costing(1000, rows_max=100)
    first, alone = make(shared, 1), make(shared, 2)
    alone.alone = True
    others = [
        alone,
        make(costing(1000, rows_max=100), 3),
        make(shared, 4, rows=0),
        make(shared, 5, names=("difference",)),
    ]
    queue = filled(first, *others)
    pop(queue)
    assert queue.pop_mate(first, 100) is None
    assert sorted(run.client or 0 for run in drained(queue)) == [2, 3, 4, 5]


# -- too many ------------------------------------------------------------------------------------


def test_room_is_made_by_who_waits_with_most() -> None:
    shared = costing(1000)
    greedy = [make(shared, 1, priority=priority) for priority in (1, 0, 2)]
    queue = filled(*greedy, make(shared, 2))
    assert queue.make_room(make(shared, 3)) is greedy[1]
    assert len(queue) == 3
    assert drained(queue)[0].client in {1, 2}


def test_order_stays_right_after_the_last_run_left() -> None:
    shared = costing(1000)
    deadlines = [3, 7, 1, 4, 8, 2, 5, 6]  # of a heap that is none any more without its largest
    queue = filled(*(make(shared, 1, deadline_ns=deadline_ns) for deadline_ns in deadlines))
    last = queue.make_room(make(shared, 2))
    assert last is not None
    assert last.deadline_ns == 8
    assert [run.deadline_ns for run in drained(queue)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("client", [1, 2, 3])
def test_who_would_have_most_itself_is_refused(client: int) -> None:
    shared = costing(1000)
    queue = filled(*(make(shared, each) for each in (1, 1, 2, 2)))
    if client == 3:
        assert queue.make_room(make(shared, 3)) is not None
    else:
        assert queue.make_room(make(shared, client)) is None
        assert len(queue) == 4


def test_clients_who_wait_with_one_run_each_are_not_thrown_out() -> None:
    shared = costing(1000)
    queue = filled(*(make(shared, each) for each in range(5)))
    assert queue.make_room(make(shared, 9)) is None


def test_empty_queue_has_no_room_to_make() -> None:
    assert FairQueue().make_room(make(costing(1))) is None


def test_what_is_not_wanted_any_more_is_taken_out() -> None:
    shared, other = costing(1000), costing(1000)
    runs = [make(each, client) for each in (shared, other) for client in (1, 2) for _ in range(3)]
    queue = filled(*runs)
    wanted = set(runs[::2])
    assert set(queue.take_out(wanted.__contains__)) == set(runs) - wanted
    assert len(queue) == len(wanted)
    assert set(queue) == wanted
    assert set(drained(queue)) == wanted


def test_feeds_of_the_tests_are_those_of_the_model() -> None:
    assert np.array_equal(make(costing(1), rows=2).feeds["a"], np.ones((2, 2)))
