"""A month's byte budget that is spent: metadata have a small reserve, and then nobody is asked."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.assembly import SCHEMAS
from agent.errors import BudgetError
from agent.records.budget import METADATA_RESERVE_BYTES, SCHEMA, Budget
from agent.records.file import RecordsFile
from tests.agent_downloads import NOVEMBER_S, FixedClock
from tests.agent_site import STORY_S, AgentProcess
from tests.daemons import eventually
from tests.hostile_http import HostileServer, hostile_server
from tests.trusting import Device, Hands, change, published
from tests.tuf_attacks import CHANNEL, FLEET, TufRepository

pytestmark = pytest.mark.integration

MONTH_BYTES = 1_000_000
DECEMBER_S = NOVEMBER_S + 31 * 86_400


@pytest.fixture
def repository(tmp_path: Path) -> TufRepository:
    return published(tmp_path / "repository")


@pytest.fixture
def server(repository: TufRepository) -> Iterator[HostileServer]:
    with hostile_server(repository.folder) as running:
        yield running


class Spending:
    """A device whose bytes of metadata count into a budget.

    Attributes:
        clock: By which months are told.
        budget: The budget.
        device: The device.
    """

    def __init__(self, folder: Path, url: str, repository: TufRepository) -> None:
        self.clock = FixedClock()
        self.file = RecordsFile(folder / "budget.db", [SCHEMA])
        self.budget = Budget(
            self.file, self.clock.wall_s, lambda: "metered", {"metered": MONTH_BYTES}
        )
        self.device = Device(
            folder / "state",
            url,
            repository.first_root,
            Hands(time.time()),
            room=lambda: self.budget.room("metadata"),
        )

    def refresh(self, announced: bytes | None = None) -> int:
        """Look at the repository; gives the bytes that it took."""
        before = len(self.device.counted)
        try:
            return self.device.repository.refresh(announced).fetched_bytes
        finally:
            for size in self.device.counted[before:]:
                self.budget.spend("metadata", size)


@pytest.fixture
def spending(
    tmp_path: Path, server: HostileServer, repository: TufRepository
) -> Iterator[Spending]:
    made = Spending(tmp_path, server.url, repository)
    with contextlib.closing(made.device), contextlib.closing(made.file):
        yield made


def test_a_spent_month_leaves_metadata_a_reserve_so_that_an_order_back_comes_through(
    spending: Spending, repository: TufRepository
) -> None:
    spending.refresh()
    spending.budget.spend("artifact", MONTH_BYTES)
    assert not spending.budget.allows("telemetry", 1)
    change(repository)
    assert 0 < spending.refresh() < METADATA_RESERVE_BYTES // 10
    plans = spending.device.repository.plans(CHANNEL)
    assert plans is not None
    found = plans.of("digits")
    assert found is not None
    assert found.version == 2


def test_a_spent_reserve_asks_nobody_however_it_was_rung_until_the_next_month(
    spending: Spending, server: HostileServer, repository: TufRepository
) -> None:
    spending.refresh()
    spending.budget.spend("artifact", MONTH_BYTES)
    spending.budget.spend("metadata", METADATA_RESERVE_BYTES)
    change(repository)
    before = spending.device.digest()
    server.forget()
    for announced in (None, repository.timestamp()):
        with pytest.raises(BudgetError, match="byte budget of this link is spent"):
            spending.refresh(announced)
    assert server.paths() == []
    assert spending.device.digest() == before
    assert spending.device.repository.is_fresh()
    spending.clock.now_s = DECEMBER_S
    assert spending.refresh() > 0
    assert spending.device.repository.release("digits", 2) is not None


def test_looks_at_a_repository_in_which_nothing_happens_fit_into_the_reserve_for_a_month(
    spending: Spending,
) -> None:
    spending.refresh()
    assert spending.refresh() * 4 * 31 < METADATA_RESERVE_BYTES


def test_a_file_for_which_there_is_no_room_is_not_received(
    spending: Spending, server: HostileServer, repository: TufRepository
) -> None:
    spending.refresh()
    change(repository)
    room = 2500
    spending.budget.spend("metadata", MONTH_BYTES + METADATA_RESERVE_BYTES - room)
    before, spent = spending.device.digest(), spending.budget.spent()
    with pytest.raises(BudgetError):
        spending.refresh()
    assert server.paths()
    # Heads of answers are beyond what is known beforehand; bodies are not.
    assert spending.budget.spent() - spent < room + 2000
    assert spending.device.digest() == before


def test_the_agent_says_once_that_it_may_not_look_and_asks_nobody(
    server: HostileServer, repository: TufRepository, tmp_path: Path
) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    agent = AgentProcess(
        folder,
        f'[device]\nid = "till-7"\nfleet = "{FLEET}"\nlink = "metered"\nclock_is_trusted = "yes"\n'
        f'[runtime]\nadmin_socket = "{folder}/nobody.sock"\n'
        f'[repository]\nurl = "{server.url}"\nroot = "{repository.first_root}"\n'
        f"[downloads]\nmetered_month_bytes = {MONTH_BYTES}\n",
    )
    agent.state.mkdir(mode=0o700)
    file = RecordsFile(agent.state / "agent.db", SCHEMAS)
    spent = Budget(file, time.time, lambda: "metered", {})
    spent.spend("artifact", MONTH_BYTES + METADATA_RESERVE_BYTES)
    spent.settle()
    file.close()
    agent.start()
    try:
        eventually(agent.is_up, "the agent", STORY_S)
        eventually(lambda: agent.status()["repository"]["checked_s"] > 0, "a look", STORY_S)
        assert agent.status()["repository"]["reason"] == "budget"
        assert "(budget)" in agent.command("check-now", expect=1).stdout
        assert "byte budget of this link is spent" in agent.command("status").stdout
        assert server.paths() == []
        assert agent.command("outbox").stdout.count('"refused":"budget"') == 1
    finally:
        agent.close()
