"""The fault table of the agent, against the installed agent on a real site.

``make soak`` runs every row; every run of the tests has a sample of them in
``tests/integration/test_agent_faults.py``. One row: ``pytest tests/soak/test_agent_faults.py
-m soak -k "handed_over=kill"``.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_fault_runs import ABORTED, ROTATED, UPDATED, FaultSite, Row, fault_site
from tests.agent_fault_table import ACTIONS, POINTS, SAMPLE, TABLE

pytestmark = [pytest.mark.integration, pytest.mark.soak]


class Sites:
    """One site a story; a new one after a row that failed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._open: dict[str, tuple[FaultSite, contextlib.ExitStack]] = {}

    def run(self, row: Row) -> None:
        """Run a row on the site of its story."""
        if row.story not in self._open:
            self._count += 1
            folder = self._folder / str(self._count)
            folder.mkdir()
            stack = contextlib.ExitStack()
            self._open[row.story] = stack.enter_context(fault_site(folder, row.story)), stack
        made, stack = self._open[row.story]
        try:
            made.run(row)
        except BaseException:
            del self._open[row.story]
            stack.close()
            raise

    def close(self) -> None:
        """Close every site."""
        for _, stack in self._open.values():
            stack.close()


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    made = Sites(tmp_path_factory.mktemp("faults"))
    yield made
    made.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        is_soak = metafunc.config.getoption("markexpr", "") == "soak"
        rows = TABLE if is_soak else ()
        metafunc.parametrize("row", rows, ids=[row.points for row in rows])


def test_there_is_a_row_for_every_failpoint_and_every_fault() -> None:
    assert {(row.name, row.action) for row in TABLE} == {
        (point, action) for point in POINTS for action in ACTIONS
    }
    assert len(set(TABLE)) == len(TABLE)
    assert {row.action for row in SAMPLE} == set(ACTIONS)
    assert {row.name.split(".")[1] for row in SAMPLE} == {point.split(".")[1] for point in POINTS}
    assert {row.story for row in TABLE} == {UPDATED, ROTATED, ABORTED}


def test_the_agent_comes_to_the_same_end_and_tells_the_truth_after(row: Row, sites: Sites) -> None:
    sites.run(row)
