"""Who is next among the runs that wait: fair between clients, urgent first within one.

Start-time fair queueing: each client has a virtual time that grows by the cost of what it was
given; the client that is furthest behind is next. Within a client, priority comes first, then the
earliest deadline, then the order of arrival. So a greedy client cannot buy itself others' time,
neither with more requests nor with a better priority.

Source: Goyal, Vin, Cheng, "Start-time fair queueing" (SIGCOMM 1996).
"""

import heapq
from collections.abc import Callable, Iterator
from typing import Final

from edge_runtime.batching import Lane, Run
from edge_runtime.fairness import User, greediest
from edge_runtime.run_cost import ANY_SIZE

_LOWEST_PRIORITY: Final = 2**64  # where 0, the default, sorts: behind all of 64 bits
_NEVER: Final = 2**63
_UNKNOWN_NS: Final = 1e6  # of a run of whose model nobody knows the times yet

_Entry = tuple[int, int, int, Run]


class _Client:
    """One client's waiting runs by lane, and how much it was given."""

    __slots__ = ("key", "lanes", "virtual_ns", "waiting")

    def __init__(self, key: int | None) -> None:
        self.key = key
        self.virtual_ns = 0.0
        self.waiting = 0
        self.lanes: dict[Lane, list[_Entry]] = {}


class FairQueue:
    """Runs that wait. Unbounded by itself: the scheduler looks at ``len``."""

    def __init__(self) -> None:
        self._clients: dict[int | None, _Client] = {}
        self._virtual_ns = 0.0
        self._sequence = 0
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def __iter__(self) -> Iterator[Run]:
        for client in self._clients.values():
            for heap in client.lanes.values():
                yield from (entry[3] for entry in heap)

    def push(self, run: Run) -> None:
        """Let a run wait."""
        client = self._clients.get(run.client)
        if client is None:
            self._forget_the_even()
            client = self._clients[run.client] = _Client(run.client)
        if not client.waiting:  # time that nobody asked for is not saved up
            client.virtual_ns = max(client.virtual_ns, self._virtual_ns)
        self._sequence += 1
        priority = run.priority or _LOWEST_PRIORITY
        entry = (priority, run.deadline_ns or _NEVER, self._sequence, run)
        heapq.heappush(client.lanes.setdefault(run.lane, []), entry)
        client.waiting += 1
        self._waiting += 1

    def pop(self, may_run: Callable[[int | None], bool]) -> Run | None:
        """Take the run that is next.

        Args:
            may_run: Whether a client may be given something now.

        Returns:
            The run, or ``None`` if nobody waits who may run.
        """
        client = self._furthest_behind(lambda client: may_run(client.key))
        if client is None:
            return None
        # Only here: who was given more as company must not move the time that newcomers start at.
        self._virtual_ns = max(self._virtual_ns, client.virtual_ns)
        lane = min(client.lanes, key=lambda lane: client.lanes[lane][0][:3])
        return self._take(client, lane)

    def pop_mate(self, first: Run, rows_max: int, size_max: int = ANY_SIZE) -> Run | None:
        """Take a run that may share the run of ``first``.

        Args:
            first: The run that is next.
            rows_max: Rows that there is still room for.
            size_max: As ``Lane.size`` counts, what there is still room for.
        """
        lane = first.lane

        def fits(client: _Client) -> bool:
            heap = client.lanes.get(lane)
            if not heap:
                return False
            head = heap[0][3]
            fits = head.rows <= rows_max and head.size <= size_max
            return fits and head.may_join and head.joins(first)

        client = self._furthest_behind(fits)
        return None if client is None else self._take(client, lane)

    def who_gives_way(self, newcomer: User) -> User:
        """Find the client who would lose a run to one more of the newcomer's, or the newcomer."""
        held = {key: client.waiting for key, client in self._clients.items()}
        return greediest(held, newcomer)

    def make_room(self, run: Run) -> Run | None:
        """Take out the last run of the client who waits with most, for one who waits with fewer.

        Args:
            run: The one there is no room for.

        Returns:
            The run taken out, or ``None`` if ``run`` itself is the one to refuse.
        """
        key = self.who_gives_way(run.client)
        if key == run.client:
            return None
        greedy = self._clients[key]
        waiting = ((lane, entry) for lane, heap in greedy.lanes.items() for entry in heap)
        lane, last = max(waiting, key=lambda found: found[1][:3])
        heap = greedy.lanes[lane]
        heap.remove(last)
        heapq.heapify(heap)
        self._forget(greedy, lane)
        return last[3]

    def settle(self) -> None:
        """Forget who was given what, if nobody waits; to be called when nothing runs either.

        What was given before an idle time was not taken from anybody who comes after it.
        """
        if not self._waiting:
            self._clients.clear()

    def take_out(self, is_wanted: Callable[[Run], bool]) -> list[Run]:
        """Take out every run that is not wanted any more."""
        removed: list[Run] = []
        for client in self._clients.values():
            for lane, heap in list(client.lanes.items()):
                kept = []
                for entry in heap:
                    if is_wanted(entry[3]):
                        kept.append(entry)
                    else:
                        removed.append(entry[3])
                if len(kept) < len(heap):
                    client.waiting -= len(heap) - len(kept)
                    self._waiting -= len(heap) - len(kept)
                    heapq.heapify(kept)
                    client.lanes[lane] = kept
                    if not kept:
                        del client.lanes[lane]
        return removed

    def _furthest_behind(self, may_run: Callable[[_Client], bool]) -> _Client | None:
        best: _Client | None = None
        for client in self._clients.values():
            if not client.waiting or (best is not None and client.virtual_ns >= best.virtual_ns):
                continue
            if may_run(client):
                best = client
        return best

    def _forget_the_even(self) -> None:
        """Let go of clients who wait for nothing and owe nothing."""
        self._clients = {
            key: client
            for key, client in self._clients.items()
            if client.waiting or client.virtual_ns > self._virtual_ns
        }

    def _take(self, client: _Client, lane: Lane) -> Run:
        run = heapq.heappop(client.lanes[lane])[3]
        self._forget(client, lane)
        cost = lane.cost
        client.virtual_ns += cost.estimate_ns(run.size) if cost.known else _UNKNOWN_NS
        return run

    def _forget(self, client: _Client, lane: Lane) -> None:
        """Take one off the counts."""
        client.waiting -= 1
        self._waiting -= 1
        if not client.lanes[lane]:
            del client.lanes[lane]
