"""What the sender is told of the month's byte budget."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.errors import StateError
from agent.records.budget import PERMILLE, SCHEMA, Budget
from agent.records.file import RecordsFile
from agent.transport.metering import ASK_S, BudgetMeter
from agent.transport.sender import UNLIMITED
from tests.agent_downloads import FixedClock
from tests.outbox_world import Turnable

if TYPE_CHECKING:
    from agent.settings.device import LinkClass

LIMIT = 100_000
ROOM = LIMIT * PERMILLE["telemetry"] // 1000


class Metered:
    """A meter over a real budget, on a link that a test chooses."""

    def __init__(self, folder: Path) -> None:
        self.file = RecordsFile(folder / "agent.db", [SCHEMA])
        self.link: LinkClass = "metered"
        self.clock, self.month = Turnable(), FixedClock()
        limits: dict[LinkClass, int] = {"metered": LIMIT}
        self.budget = Budget(self.file, self.month.wall_s, lambda: self.link, limits)
        self.meter = BudgetMeter(self.budget, self.clock, self.month.wall_s)

    def later(self) -> int:
        """Let time go by, and ask."""
        self.clock.now_s += ASK_S
        return self.meter.metrics_room()


@pytest.fixture
def metered(tmp_path: Path) -> Iterator[Metered]:
    made = Metered(tmp_path)
    yield made
    made.file.close()


def test_the_room_is_what_telemetry_may_have_less_what_all_kinds_took(metered: Metered) -> None:
    metered.budget.spend("artifact", 10_000)
    assert metered.meter.metrics_room() == ROOM - 10_000
    metered.meter.spent(500)
    assert metered.meter.metrics_room() == ROOM - 10_500
    assert metered.budget.spent("telemetry") == 500
    metered.budget.spend("artifact", 1000)
    assert metered.later() == ROOM - 11_500


def test_without_a_limit_any_number_of_bytes_may_go_and_is_counted(metered: Metered) -> None:
    metered.link = "unmetered"
    assert metered.meter.metrics_room() == UNLIMITED
    metered.meter.spent(10 * LIMIT)
    assert metered.meter.metrics_room() > 0
    assert metered.budget.spent("telemetry") == 10 * LIMIT


def test_that_measurements_wait_is_known_at_once_said_once_and_ends_with_the_month(
    metered: Metered, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert metered.meter.metrics_room() == ROOM
    metered.meter.spent(ROOM)
    assert metered.meter.metrics_room() == 0
    assert "month's budget of the metered link" in metered.meter.held
    for _ in range(3):
        metered.meter.spent(100)  # statuses go on
        assert metered.later() <= 0
    assert caplog.text.count("measurements wait") == 1
    metered.month.now_s += 32 * 86_400
    assert metered.later() == ROOM
    assert metered.meter.held == ""
    assert caplog.text.count("measurements are sent again") == 1


def test_another_link_has_another_budget(metered: Metered) -> None:
    metered.meter.spent(LIMIT)
    assert metered.meter.metrics_room() <= 0
    metered.link = "unmetered"
    assert metered.later() == UNLIMITED
    assert metered.meter.held == ""


def test_a_disk_that_does_not_take_the_count_stops_no_message(
    metered: Metered, caplog: pytest.LogCaptureFixture
) -> None:
    assert metered.meter.metrics_room() == ROOM
    metered.file.close()
    with pytest.raises(StateError):
        metered.budget.spent()
    for _ in range(3):
        metered.meter.spent(20_000)
    assert metered.later() == ROOM - 60_000  # as far as this program knows
    assert caplog.text.count("not counted") == 1
