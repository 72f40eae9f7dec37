"""The fault table of releases, against the real daemon.

``make soak`` runs every row; every run of the tests takes the sample, which has each kind of fault
and each group of failpoints once. One row: ``pytest tests/soak/test_release_faults.py -m soak
-k "canary.begun=kill"``.
"""

from pathlib import Path

import pytest

from edge_runtime.failpoints import NAMES
from tests.release_fault_runs import PLANS, Row, Run
from tests.release_fault_table import SAMPLE, TABLE

ROWS_MIN = 120
# Those of the agent have tables of their own.
DAEMON = [name for name in NAMES if not name.startswith("agent.")]
KINDS = {"kill", "error", "full", "hang", "jump"}

pytestmark = [pytest.mark.integration, pytest.mark.soak]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        is_soak = metafunc.config.getoption("markexpr", "") == "soak"
        rows = TABLE if is_soak else SAMPLE
        metafunc.parametrize("row", rows, ids=[row.shown for row in rows])


def _names(rows: tuple[Row, ...]) -> set[str]:
    return {row.points.partition("=")[0] for row in rows}


def test_there_is_a_row_for_every_failpoint_and_every_plan() -> None:
    assert len(TABLE) > ROWS_MIN
    assert len({row.shown for row in TABLE}) == len(TABLE)
    assert _names(TABLE) == set(DAEMON)
    assert {row.action for row in TABLE} == KINDS == {row.action for row in SAMPLE}
    assert {row.plan for row in TABLE} == set(PLANS)
    assert {name.partition(".")[0] for name in _names(SAMPLE)} == {
        name.partition(".")[0] for name in DAEMON
    }


@pytest.mark.parametrize("name", DAEMON)
def test_every_failpoint_has_rows_in_which_the_process_dies(name: str) -> None:
    assert any(row.points.startswith(f"{name}=kill") for row in TABLE)


def test_the_active_version_serves_and_the_history_is_true_after(row: Row, tmp_path: Path) -> None:
    Run(row, tmp_path).go()
