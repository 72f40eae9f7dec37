"""Bytes are counted before they come, by month, link class, kind and rollout."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.errors import BudgetError
from agent.records import budget as records
from agent.records.budget import (
    KINDS,
    METADATA_RESERVE_BYTES,
    PERMILLE,
    RESERVATION_BYTES,
    SCHEMA,
    Budget,
    Kind,
    month_of,
)
from agent.records.file import RecordsFile
from agent.settings.device import LinkClass
from tests.agent_downloads import NOVEMBER_S, FixedClock

DECEMBER_S = NOVEMBER_S + 31 * 86_400

Make = Callable[..., Budget]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Opens the budget of one device, again and again; without closing, as after ``kill -9``."""
    files: list[RecordsFile] = []

    def open_it(
        limits: Mapping[LinkClass, int] | None = None,
        clock: FixedClock | None = None,
        link: Callable[[], LinkClass] = lambda: "unmetered",
    ) -> Budget:
        files.append(RecordsFile(tmp_path / "agent.db", [SCHEMA]))
        return Budget(files[-1], (clock or FixedClock()).wall_s, link, limits or {})

    yield open_it
    for file in files:
        file.close()


def test_what_was_received_is_counted_by_kind_and_rollout(make: Make) -> None:
    budget = make()
    budget.ask("artifact", 500, "r")
    budget.spend("artifact", 300, "r")
    budget.spend("artifact", 50)
    budget.spend("metadata", 7)
    assert (budget.spent("artifact"), budget.spent("metadata"), budget.spent()) == (350, 7, 357)
    assert budget.spent_on("r") == 300
    budget.settle()
    assert make().spent() == 357
    assert make().spent_on("r") == 300


def test_after_a_kill_nothing_that_was_asked_for_is_missing(make: Make) -> None:
    budget = make()
    budget.ask("artifact", 3_000_000, "r")
    budget.spend("artifact", 0, "r")
    budget.spend("artifact", 65_536, "r")
    again = make()
    assert 65_536 <= again.spent() <= 65_536 + RESERVATION_BYTES["artifact"]
    assert again.spent_on("r") == again.spent()


def test_a_small_order_reserves_no_more_than_it_is(make: Make) -> None:
    budget = make()
    budget.ask("artifact", 1000, "r")
    assert make().spent() == 0  # the server may be away
    budget.spend("artifact", 0, "r")
    assert make().spent() == 1000


def test_small_messages_are_not_written_down_one_by_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = make()
    written: list[Mapping[str, int]] = []
    add = budget._add

    def note(amounts: Mapping[str, int]) -> None:
        written.append(amounts)
        add(amounts)

    monkeypatch.setattr(budget, "_add", note)
    for _ in range(200):
        budget.spend("telemetry", 300)
    most_bytes = RESERVATION_BYTES["telemetry"] // records.UNASKED
    first = (most_bytes // records.UNASKED_FIRST_BYTES).bit_length()
    assert len(written) <= 60_000 // most_bytes + first
    assert budget.spent() == 60_000
    assert 60_000 <= make().spent() <= 60_000 + RESERVATION_BYTES["telemetry"]


def test_a_crash_loop_counts_few_bytes_that_were_never_sent(make: Make) -> None:
    for _ in range(100):
        make().spend("telemetry", 1000)  # a birth; then it is killed
    assert 100_000 <= make().spent() <= 100 * (1000 + records.UNASKED_FIRST_BYTES)


def test_a_month_that_is_spent_refuses_and_says_why(make: Make) -> None:
    budget = make({"unmetered": 1000})
    budget.spend("metadata", 800)
    assert budget.allows("artifact", 100)
    assert not budget.allows("artifact", 101)
    with pytest.raises(BudgetError, match="800 of 900 bytes are spent"):
        budget.ask("artifact", 101)
    assert budget.spent() == 800


def test_metadata_go_beyond_a_month_by_their_reserve_and_no_further(make: Make) -> None:
    budget = make({"unmetered": 1000})
    budget.spend("telemetry", 1000)
    assert (budget.room("artifact"), budget.room("telemetry")) == (0, 0)
    assert budget.room("metadata") == METADATA_RESERVE_BYTES
    assert budget.allows("metadata", METADATA_RESERVE_BYTES)
    assert not budget.allows("metadata", METADATA_RESERVE_BYTES + 1)
    budget.spend("metadata", METADATA_RESERVE_BYTES + 1)
    assert budget.room("metadata") == 0
    assert make().room("metadata") is None


def test_artifacts_leave_room_for_the_order_to_stop_them(make: Make) -> None:
    budget = make({"unmetered": 1000})
    budget.spend("artifact", 900)
    assert not budget.allows("artifact", 1)
    assert budget.allows("telemetry", 50)
    assert not budget.allows("telemetry", 51)
    assert budget.allows("metadata", 100 + METADATA_RESERVE_BYTES)


def test_no_limit_is_no_limit(make: Make) -> None:
    assert make().allows("artifact", 10**15)
    assert make({"metered": 1}).allows("artifact", 10**15)


def test_a_new_month_begins_anew(make: Make) -> None:
    clock = FixedClock()
    budget = make({"unmetered": 1000}, clock)
    budget.spend("metadata", 1000 + METADATA_RESERVE_BYTES)
    assert not budget.allows("metadata", 1)
    clock.now_s = DECEMBER_S
    assert budget.spent() == 0
    assert budget.allows("metadata", 1000)


def test_a_rollout_goes_on_in_the_next_month(make: Make) -> None:
    clock = FixedClock()
    budget = make(clock=clock)
    budget.spend("artifact", 600, "r")
    clock.now_s = DECEMBER_S
    assert not budget.allows("artifact", 401, "r", 1000)
    with pytest.raises(BudgetError, match="600 of 1000 bytes"):
        budget.ask("artifact", 401, "r", 1000)
    budget.ask("artifact", 400, "r", 1000)


def test_each_link_class_has_its_own_budget(make: Make) -> None:
    link: list[LinkClass] = ["metered"]
    budget = make({"metered": 1000}, link=lambda: link[0])
    budget.spend("metadata", 1000 + METADATA_RESERVE_BYTES)
    assert not budget.allows("metadata", 1)
    link[0] = "unmetered"
    assert budget.allows("metadata", 1)
    assert budget.spent() == 0


def test_old_months_are_forgotten(make: Make) -> None:
    clock = FixedClock()
    budget = make(clock=clock)
    budget.spend("metadata", 1)
    clock.now_s += 500 * 86_400
    budget.spend("metadata", 2)
    clock.now_s = NOVEMBER_S
    assert budget.spent() == 0


@pytest.mark.parametrize(
    ("seconds", "month"),
    [(-5.0, "1970-01"), (0.0, "1970-01"), (NOVEMBER_S, "2026-11"), (DECEMBER_S, "2026-12")],
)
def test_months_are_utc(seconds: float, month: str) -> None:
    assert month_of(seconds) == month


@given(year=st.integers(1972, 2999), month=st.integers(1, 12))
def test_months_are_counted_back_across_years(year: int, month: int) -> None:
    before = records._months_ago(f"{year:04}-{month:02}")
    passed = (year - int(before[:4])) * 12 + month - int(before[5:])
    assert passed == records.MONTHS_KEPT
    assert 1 <= int(before[5:]) <= 12


class BudgetMachine(RuleBasedStateMachine):
    """Asks, spends, ends and dies; the count is never short, and never long by too much."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.clock = FixedClock()
        self.received: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self.left: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self.deaths = 0
        self.start()

    def start(self) -> None:
        """Open it."""
        self.file = RecordsFile(Path(self.folder.name) / "agent.db", [SCHEMA])
        self.budget = Budget(self.file, self.clock.wall_s, lambda: "unmetered", {})
        self.left = dict.fromkeys(KINDS, 0)

    @rule(kind=st.sampled_from(KINDS), size=st.integers(1, 4_000_000))
    def ask(self, kind: Kind, size: int) -> None:
        """Ask for bytes, as before a request."""
        self.budget.ask(kind, size)
        self.budget.spend(kind, 0)
        self.left[kind] = size

    @rule(kind=st.sampled_from(KINDS), size=st.integers(1, 32_768))
    def receive(self, kind: Kind, size: int) -> None:
        """Receive some of them."""
        size = min(size, self.left[kind])
        self.budget.spend(kind, size)
        self.received[kind] += size
        self.left[kind] -= size

    @rule()
    def end(self) -> None:
        """Stop in order."""
        self.budget.settle()
        self.file.close()
        self.start()

    @rule()
    def die(self) -> None:
        """Stop with reservations open."""
        self.file.close()
        self.deaths += 1
        self.start()

    @invariant()
    def count_is_right(self) -> None:
        """Hold what is counted against what was received."""
        for kind in KINDS:
            more = self.budget.spent(kind) - self.received[kind]
            assert 0 <= more <= self.deaths * RESERVATION_BYTES[kind]

    def teardown(self) -> None:
        """Let go."""
        self.file.close()
        self.folder.cleanup()


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_shares_leave_something_for_what_matters_most() -> None:
    assert PERMILLE["artifact"] < PERMILLE["telemetry"] < PERMILLE["metadata"] == 1000
