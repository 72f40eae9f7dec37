"""The cache of one model version: what the request path asks before and tells after a run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

from edge_runtime.cache.counters import Counters
from edge_runtime.cache.entry import Entry, entry
from edge_runtime.cache.flights import Flight, Flights, Waiter
from edge_runtime.cache.front import Front, Resident
from edge_runtime.cache.hashing import INLINE_BYTES, Hasher
from edge_runtime.cache.key import Keys
from edge_runtime.cache.life import Clock, Policy, is_young
from edge_runtime.cache.subject import Subject
from edge_runtime.cache.ticket import Answer, Asked, Hit, Run, Ticket
from edge_runtime.cache.worth import Worth
from edge_runtime.tensors import Array, Tensor

if TYPE_CHECKING:
    from edge_runtime.cache.disk import Disk

_log = logging.getLogger(__name__)

_LOWEST_URGENCY: Final = 2**64  # where priority 0, the default, sorts: behind all of 64 bits
_NS: Final = 1e9
_READ_S_MIN: Final = 0.002
_READ_S_MAX: Final = 0.25
_READ_S_UNKNOWN: Final = 0.05  # while nobody knows what a run takes
_STALE_READ_S: Final = 1.0


@dataclass(slots=True)
class Parts:
    """What all versions share.

    Attributes:
        front: Answers in memory.
        hasher: Names questions that are large.
        flights: Questions that are being answered.
        clock: What time it is.
        disk: Answers on disk, if there is one.
        generation: Changes when everything was cleared: what was read before must not come back.
    """

    front: Front
    hasher: Hasher
    flights: Flights = field(default_factory=Flights)
    clock: Clock = field(default_factory=Clock)
    disk: "Disk | None" = None
    generation: int = 0


class VersionCache:
    """Answers of one model version.

    Args:
        parts: What all versions share.
        subject: The version.
        policy: Of its model.

    Attributes:
        subject: The version.
        policy: Of its model; may be replaced.
        counters: What happened.
        worth: Whether it pays.
        is_open: Whether it is asked at all: neither replaced nor switched off.
    """

    __slots__ = ("_keys", "_parts", "_room", "counters", "is_open", "policy", "subject", "worth")

    def __init__(self, parts: Parts, subject: Subject, policy: Policy) -> None:
        self._parts = parts
        self._keys = Keys(subject.identity, subject.signature)
        self._room = parts.front.room(subject.model)
        self.subject = subject
        self.policy = policy
        self.counters = Counters()
        self.worth = Worth()
        self.is_open = True

    def fetch(
        self,
        feeds: Mapping[str, Array],
        names: Sequence[str],
        uid: int | None,
        answer: Answer,
        run: Run,
        *,
        priority: int = 0,
        deadline_ns: int = 0,
        expired: Callable[[], None] = lambda: None,
        measures: bool = False,
        asks_again: bool = False,
    ) -> None:
        """Answer from what is kept, or have it run. Exactly one of both is called, now or later.

        Args:
            feeds: Checked arrays by input name.
            names: Outputs asked for.
            uid: The Unix user who asks; ``None``: not known.
            answer: Called with a kept answer.
            run: Called to run the model: with a ticket that must be told how it went, or with
                ``None`` if nobody wants to know.
            priority: As in a request: 0 for the default and lowest, 1 for the highest.
            deadline_ns: Monotonic; the wait for somebody else's run ends then. 0: it does not.
            expired: Called then, and neither of both is.
            measures: Whether it may now and then run all the same, to learn what a run takes.
            asks_again: Whether ``run`` asks again, once the model is there: only an answer is
                counted now, or one request would be counted twice.
        """
        started = perf_counter_ns()
        if not self._is_for(uid) or not self.worth.admits():
            self.counters.bypassed += not asks_again
            run(None)
            return
        asked = Asked(
            started, names, answer, run, priority, deadline_ns, expired, measures, asks_again
        )
        self._name(feeds, names, uid, partial(self._look, asked))

    def _look(self, asked: Asked, key: bytes | None) -> None:
        """Look the answer up where it is found soonest."""
        started, names, answer, run, priority, *_ = asked
        if key is None:
            self.counters.misses += not asked.asks_again
            run(None)
            return
        resident = self._parts.front.get(self._room, key)
        if resident is not None and self._is_within(resident, self.policy.ttl_s):
            ns = perf_counter_ns() - started
            if asked.measures and self.worth.takes_run():
                self._measure(ns, Hit.of(resident.entry, names), run)
                return
            self._hit(ns, ns, resident.entry.run_ns)
            answer(Hit.of(resident.entry, names))
            return
        urgency = priority or _LOWEST_URGENCY
        flights = self._parts.flights
        asked_ns = perf_counter_ns() - started
        joins = Waiter(
            urgency,
            partial(self._joined, asked_ns, names, answer),
            partial(self._takes_over, key, asked),
            asked.deadline_ns,
            asked.expired,
        )
        if flights.join(key, joins):
            return
        ticket = self._ticket(key, names, flights.begin(key, urgency))
        disk = self._parts.disk
        if (
            disk is not None
            and disk.may_hold(self.subject.identity, key)
            and self.worth.admits_disk()
        ):
            generation = self._parts.generation

            def came(kept: Entry | None) -> None:
                ns = perf_counter_ns() - started
                self.worth.read(ns)
                hit = self._believed(kept, generation, self.policy.ttl_s, names)
                if hit is None or kept is None:
                    self._miss(asked, ns, asked_ns)
                    _begin(run, ticket)
                else:
                    self._reside(key, kept)
                    try:
                        if asked.measures and self.worth.takes_run():
                            self._measure(ns, hit, run)
                        else:
                            self._hit(ns, asked_ns, kept.run_ns)
                            self.counters.disk_hits += 1
                            answer(hit)
                    finally:
                        flights.land(key, kept)

            disk.read(key, self._patience_s(), came)
            return
        self._miss(asked, asked_ns, asked_ns)
        _begin(run, ticket)

    def stale(
        self,
        feeds: Mapping[str, Array],
        names: Sequence[str],
        uid: int | None,
        found: Callable[[Hit | None], None],
    ) -> None:
        """Find an answer for a model that cannot run, as old as the policy allows.

        Args:
            feeds: Checked arrays by input name.
            names: Outputs asked for.
            uid: The Unix user who asks; ``None``: not known.
            found: Called once, now or later, with ``None`` if there is none or none is allowed.
        """
        if self.policy.stale_s > 0 and self._is_for(uid):
            self._name(feeds, names, uid, partial(self._look_for_stale, names, found))
        else:
            found(None)

    def _look_for_stale(
        self, names: Sequence[str], found: Callable[[Hit | None], None], key: bytes | None
    ) -> None:
        if key is None:
            found(None)
            return
        resident = self._parts.front.get(self._room, key)
        if resident is not None and self._is_within(resident, self.policy.keep_s):
            self.counters.stale += 1
            found(Hit.of(resident.entry, names))
            return
        disk = self._parts.disk
        if disk is None or not disk.may_hold(self.subject.identity, key):
            found(None)
            return
        generation = self._parts.generation

        def came(kept: Entry | None) -> None:
            hit = self._believed(kept, generation, self.policy.keep_s, names)
            self.counters.stale += hit is not None
            found(hit)

        disk.read(key, _STALE_READ_S, came)

    # -- the ways a look-up goes ---------------------------------------------------------------

    def _is_for(self, uid: int | None) -> bool:
        """Say whether a caller may get anything here: somebody unknown shares only what all do."""
        return self.is_open and (uid is not None or self.policy.scope == "shared")

    def _name(
        self,
        feeds: Mapping[str, Array],
        names: Sequence[str],
        uid: int | None,
        then: Callable[[bytes | None], None],
    ) -> None:
        """Name the question and go on, with ``None`` if that fails."""
        of = None if self.policy.scope == "shared" else uid
        if self._keys.work_bytes(feeds) > INLINE_BYTES:
            self._parts.hasher.submit(partial(self._key, feeds, names, of), then)
        else:
            then(self._key(feeds, names, of))

    def _key(
        self, feeds: Mapping[str, Array], names: Sequence[str], uid: int | None
    ) -> bytes | None:
        """Name the question; on any thread."""
        try:
            return self._keys.of(feeds, names, uid)
        except Exception:  # noqa: BLE001 - the cache may fail, inference may not
            if not self.counters.errors:  # once: a caller could make it happen at will
                _log.exception("the cache cannot name a question of %s", self.subject.model)
            self.counters.errors += 1
            return None

    def _ticket(self, key: bytes, names: Sequence[str], flight: Flight | None) -> Ticket:
        return Ticket(partial(self._ran, key, names, flight), partial(self._failed, key, flight))

    def _ran(
        self,
        key: bytes,
        names: Sequence[str],
        flight: Flight | None,
        outputs: Sequence[Array],
        run_ns: int,
    ) -> None:
        kept = self._keep(key, names, outputs, run_ns)
        if kept is None:
            self._failed(key, flight)
        else:
            self._parts.flights.land(key, kept)

    def _failed(self, key: bytes, flight: Flight | None) -> None:
        if flight is not None:
            self._parts.flights.fail(key, flight)

    def _joined(self, asked_ns: int, names: Sequence[str], answer: Answer, kept: Entry) -> None:
        """Take the answer of somebody else's run."""
        self.counters.joined += 1
        self.counters.hit_ns += asked_ns
        self.worth.hit(asked_ns, kept.run_ns)
        answer(Hit.of(kept, names))

    def _measure(self, ns: int, hit: Hit, run: Run) -> None:
        """Run all the same, to learn what a run takes now; nothing new is kept."""
        self.counters.misses += 1
        self.counters.miss_ns += ns
        ticket = Ticket(lambda _, run_ns: self.worth.ran(run_ns), lambda: None, hit)
        _begin(run, ticket)

    def _takes_over(self, key: bytes, asked: Asked) -> None:
        """Run, because whoever should have run could not."""
        self.counters.misses += not asked.asks_again
        asked.run(self._ticket(key, asked.names, self._parts.flights.of(key)))

    def _believed(
        self, kept: Entry | None, generation: int, life_s: float, names: Sequence[str]
    ) -> Hit | None:
        """Decide whether an answer from disk may be given."""
        if kept is None or generation != self._parts.generation or not self.is_open:
            return None
        if not is_young(kept.created_s, life_s, self._parts.clock.wall_s()):
            return None
        try:
            return Hit.of(kept, names)
        except KeyError:  # another version of this program had another idea of a question
            self.counters.errors += 1
            return None

    def _reside(self, key: bytes, kept: Entry) -> None:
        clock = self._parts.clock
        age_s = max(0.0, clock.wall_s() - kept.created_s)
        born_s = clock.monotonic_s() - age_s
        self._parts.front.put(self._room, key, kept, born_s, self.counters)

    def _keep(
        self, key: bytes, names: Sequence[str], outputs: Sequence[Array], run_ns: int
    ) -> Entry | None:
        """Keep the answer of a run, wherever there is room for it; ``None``: it is no answer."""
        started = perf_counter_ns()
        declared = self.subject.signature.outputs
        clock = self._parts.clock
        try:
            kept = entry(
                {
                    name: Tensor(declared[name].datatype, array)
                    for name, array in zip(names, outputs, strict=True)
                },
                clock.wall_s(),
                run_ns,
            )
        except Exception:  # noqa: BLE001 - the cache may fail, inference may not
            _log.exception("the cache cannot keep an answer of %s", self.subject.model)
            self.counters.errors += 1
            return None
        if self.is_open:
            front, disk = self._parts.front, self._parts.disk
            front.put(self._room, key, kept, clock.monotonic_s(), self.counters)
            if disk is not None and (
                kept.size_bytes > self.policy.max_bytes or not disk.write(self.subject, key, kept)
            ):
                self.counters.dropped += 1
        ns = perf_counter_ns() - started
        self.counters.miss_ns += ns
        self.worth.stored(ns, run_ns)
        return kept

    def _is_within(self, resident: Resident, life_s: float) -> bool:
        clock = self._parts.clock
        return (
            clock.monotonic_s() < resident.born_s + life_s
            and is_young(resident.entry.created_s, life_s, clock.wall_s())
        )  # fmt: skip

    def _hit(self, ns: int, lookup_ns: int, run_ns: int) -> None:
        self.counters.hits += 1
        self.counters.hit_ns += ns
        self.worth.hit(lookup_ns, run_ns)

    def _miss(self, asked: Asked, ns: int, lookup_ns: int) -> None:
        if asked.asks_again:
            return
        self.counters.misses += 1
        self.counters.miss_ns += ns
        self.worth.miss(lookup_ns)

    def _patience_s(self) -> float:
        """Say how long to wait for the disk: a run would be there too."""
        run_ns = self.worth.run_ns
        if not run_ns:
            return _READ_S_UNKNOWN
        return min(max(2 * run_ns / _NS, _READ_S_MIN), _READ_S_MAX)


def _begin(run: Run, ticket: Ticket) -> None:
    """Have the model run; if that cannot even begin, those who wait must know."""
    try:
        run(ticket)
    except BaseException:
        ticket.failed()
        raise
