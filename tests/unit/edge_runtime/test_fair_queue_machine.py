"""The queue under any order of arrivals, departures and refusals, against a plain list."""

from collections import Counter, defaultdict
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_runtime.batching import Lane, Run
from edge_runtime.fair_queue import FairQueue
from tests.fakes import known_cost, lane
from tests.scheduler_bench import Request, feeds

_NEVER: Final = 2**63
CLIENTS = st.sampled_from([None, 0, 1, 2])
LANES: Final = 3


class FairQueueMachine(RuleBasedStateMachine):
    """Compares the queue with a list that is searched from end to end each time."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue()
        self.lanes = [
            lane(cost=known_cost(100), rows_max=8),
            lane(cost=known_cost(5000), rows_max=8),
            lane(),  # nothing is known of it, and it joins nothing
        ]
        self.waiting: list[Run] = []  # in the order of arrival
        self.given_ns: defaultdict[int | None, float] = defaultdict(float)
        self.now_ns = 0.0
        self.first: Run | None = None

    @rule(
        client=CLIENTS,
        place=st.integers(0, LANES - 1),
        rows=st.integers(0, 4),
        priority=st.integers(0, 2),
        deadline_ns=st.sampled_from([0, 5, 9]),
    )
    def push(
        self, client: int | None, place: int, rows: int, priority: int, deadline_ns: int
    ) -> None:
        """Let a run wait."""
        run = self._make(client, place, rows, priority, deadline_ns)
        if not self._of(client):
            self.given_ns[client] = max(self.given_ns[client], self.now_ns)
        self.waiting.append(run)
        self.queue.push(run)

    @rule(barred=st.sets(CLIENTS, max_size=2))
    def pop(self, barred: set[int | None]) -> None:
        """Take the next run of somebody who may."""
        run = self.queue.pop(lambda client: client not in barred)
        candidates = {each.client for each in self.waiting} - barred
        if run is None:
            assert not candidates
            return
        assert run.client in candidates
        assert self.given_ns[run.client] == min(self.given_ns[each] for each in candidates)
        assert run is min(self._of(run.client), key=self._urgency)
        self.now_ns = max(self.now_ns, self.given_ns[run.client])
        self._taken(run)
        self.first = run

    @rule(rows_max=st.integers(0, 8))
    def pop_mate(self, rows_max: int) -> None:
        """Take company for the last run that was taken."""
        first = self.first
        if first is None:
            return
        run = self.queue.pop_mate(first, rows_max)
        heads = [
            min(own, key=self._urgency)
            for client in {each.client for each in self.waiting}
            if (own := [each for each in self._of(client) if each.lane is first.lane])
        ]
        fitting = [
            head
            for head in heads
            if head.rows and head.rows <= rows_max and first.lane.verdict.joins
        ]
        if run is None:
            assert not fitting
            return
        assert run in fitting
        assert self.given_ns[run.client] == min(self.given_ns[each.client] for each in fitting)
        self._taken(run)

    @rule()
    def settle(self) -> None:
        """Nothing runs: if nobody waits either, nobody owes anything."""
        self.queue.settle()
        if not self.waiting:
            self.given_ns.clear()

    @rule(client=CLIENTS)
    def make_room(self, client: int | None) -> None:
        """Ask for room in a full queue."""
        counts = Counter(each.client for each in self.waiting)
        most = max(counts.values(), default=0)
        refused = self.queue.make_room(self._make(client, 0, 1, 0, 0))
        if refused is None:
            assert most <= counts[client] + 1
            return
        assert counts[refused.client] == most > counts[client] + 1
        assert refused is max(self._of(refused.client), key=self._urgency)
        self.waiting.remove(refused)

    @rule(clients=st.sets(CLIENTS, max_size=2), rows=st.integers(0, 4))
    def take_out(self, clients: set[int | None], rows: int) -> None:
        """Drop what nobody wants any more."""

        def is_wanted(run: Run) -> bool:
            return run.client not in clients or run.rows > rows

        removed = self.queue.take_out(is_wanted)
        assert set(removed) == {each for each in self.waiting if not is_wanted(each)}
        assert len(removed) == len(set(removed))
        self.waiting = [each for each in self.waiting if is_wanted(each)]

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """The queue holds what waits, once."""
        assert len(self.queue) == len(self.waiting)
        assert Counter(self.queue) == Counter(self.waiting)

    def teardown(self) -> None:
        """Take everything out."""
        while self.waiting:
            self.pop(set())
        assert self.queue.pop(lambda _: True) is None

    def _make(
        self, client: int | None, place: int, rows: int, priority: int, deadline_ns: int
    ) -> Run:
        return Run(
            lane=self.lanes[place],
            names=["sum"],
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

    def _of(self, client: int | None) -> list[Run]:
        return [run for run in self.waiting if run.client == client]

    def _urgency(self, run: Run) -> tuple[int, int, int]:
        return run.priority or 2**31, run.deadline_ns or _NEVER, self.waiting.index(run)

    def _taken(self, run: Run) -> None:
        self.waiting.remove(run)
        self.given_ns[run.client] += _cost_ns(run.lane, run.size)


def _cost_ns(lane: Lane, size: int) -> float:
    return lane.cost.estimate_ns(size) if lane.cost.known else 1e6


TestFairQueueMachine = FairQueueMachine.TestCase
TestFairQueueMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
