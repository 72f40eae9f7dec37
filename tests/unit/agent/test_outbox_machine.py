"""Whatever happens to an outbox, in whatever order: every number is accounted for."""

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.messages import MetricsBatch, read
from agent.records.outbox_rows import Key, Priority, Row
from tests.outbox_world import IN_FLIGHT, World

Number = tuple[str, int]


class OutboxMachine(RuleBasedStateMachine):
    """An outbox, a link that comes and goes, and a receiver that believes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="outbox-")
        self.world = World(Path(self.folder.name) / "state")
        self.world.crash(metrics_bytes=4000, memory_bytes=2000)
        self.given: dict[Number, Priority] = {}
        self.came: set[Number] = set()
        self.lost: Counter[str] = Counter()
        self.gaps: list[tuple[str, int, int, int]] = []
        self.ended: dict[str, int] = {}
        self.under_way: list[Row] = []
        self.refused = 0
        self.is_connected = False

    @rule(priority=st.sampled_from(Priority), count=st.integers(1, 30))
    def add(self, priority: Priority, count: int) -> None:
        """Messages are made."""
        for _ in range(count if priority is Priority.METRICS else min(count, 3)):
            seq = self.world.add(priority, topic=f"t{priority}")
            self.given[self.world.outbox.boot_id, seq] = priority

    @precondition(lambda self: not self.is_connected)
    @rule()
    def connect(self) -> None:
        """The broker is there."""
        self.world.outbox.connected()
        self.is_connected = True

    @precondition(lambda self: self.is_connected)
    @rule(came=st.integers(0, IN_FLIGHT))
    def send(self, came: int) -> None:
        """Messages go out; the broker gets some of them."""
        rows = self.world.outbox.take(IN_FLIGHT - len(self.under_way))
        for row in rows[:came]:
            self._receive(row)
        self.under_way += rows[:came]
        if len(rows) > came:
            self.lose_link()

    @precondition(lambda self: self.under_way)
    @rule(count=st.integers(1, IN_FLIGHT))
    def acknowledge(self, count: int) -> None:
        """The broker says what it has."""
        for row in self.under_way[:count]:
            self.world.outbox.arrived(row.key)
        del self.under_way[:count]
        self.world.outbox.settle()

    @precondition(lambda self: self.is_connected)
    @rule(count=st.integers(1, IN_FLIGHT))
    def refuse(self, count: int) -> None:
        """Messages go out, and the broker refuses them."""
        most = IN_FLIGHT - max(self.refused, len(self.under_way))
        for row in self.world.outbox.take(min(count, most)):
            self.world.outbox.refused(row.key)
            self.refused += 1
        self.world.outbox.settle()

    @precondition(lambda self: self.refused)
    @rule()
    def try_again(self) -> None:
        """What was refused may go again."""
        self.world.outbox.try_refused()
        self.refused = 0

    @precondition(lambda self: self.is_connected)
    @rule()
    def lose_link(self) -> None:
        """The broker is away."""
        self.world.outbox.lost()
        self._disconnected()

    @rule()
    def crash(self) -> None:
        """The agent is killed, and starts again."""
        self.world.crash()
        self._disconnected()

    @rule()
    def restart(self) -> None:
        """The link is ended, the agent too, and it starts again."""
        self.world.outbox.lost()
        self.world.reopen()
        self._disconnected()

    @rule(seconds=st.sampled_from([1.0, 400.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.clock.now_s += seconds

    @invariant()
    def it_is_bounded(self) -> None:
        """Metrics never outgrow the quota, memory and what may have arrived."""
        waiting = self.world.outbox.waiting()
        assert waiting.metrics_bytes <= 4000 + 2000 + 1000 + (2 * IN_FLIGHT + 20) * 600
        assert waiting.problem == ""

    def teardown(self) -> None:
        """Let everything arrive, and account for it."""
        try:
            self.world.crash()
            for row in self.world.drained():
                self._receive(row)
            for name in {boot for boot, _ in self.given}:
                self._check(name)
        finally:
            self.world.file.close()
            self.folder.cleanup()

    def _check(self, name: str) -> None:
        given = {seq: each for (boot, seq), each in self.given.items() if boot == name}
        came = {seq for boot, seq in self.came if boot == name}
        assert {seq for seq, each in given.items() if each is Priority.STATUS} <= came
        missing = given.keys() - came
        in_memory = len(missing) - self.lost[name]
        assert in_memory >= 0, f"{name} told that {-in_memory} messages are gone that came"
        assert in_memory == 0 or name in self.ended
        for boot, first, last, count in self.gaps:
            inside = [seq for seq in missing if first <= seq <= last]
            assert boot != name or len(inside) >= count
        assert max(given) <= self.ended.get(name, max(given))

    def _receive(self, row: Row) -> None:
        number = (row.boot_id, row.key.seq)
        if number in self.came:
            return
        self.came.add(number)
        self.given.setdefault(number, row.priority)  # gaps are numbered by the outbox itself
        if not row.topic.endswith("/m"):
            return
        batch = read(row.payload, MetricsBatch)
        for gap in batch.gaps:
            self.lost[gap.boot_id] += gap.count
            self.gaps.append((gap.boot_id, gap.first_seq, gap.last_seq, gap.count))
        for end in batch.ended:
            assert end.boot_id not in self.ended
            assert end.is_exact
            self.ended[end.boot_id] = end.last_seq

    def _disconnected(self) -> None:
        self.is_connected = False
        self.under_way = []
        self.refused = 0


OutboxMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestOutbox = OutboxMachine.TestCase


def test_keys_are_in_the_order_of_age() -> None:
    keys = [Key(1, 2), Key(1, 10), Key(2, 1), Key(10, 1)]
    assert sorted(keys, key=lambda key: key.id) == keys
