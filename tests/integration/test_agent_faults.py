"""A sample of the agent's fault table in every run; ``make soak`` has the rest."""

from collections.abc import Iterator

import pytest

from tests.agent_fault_runs import UPDATED, FaultSite, Row, fault_site
from tests.agent_fault_table import SAMPLE
from tests.every_row import every

ROWS = SAMPLE[:: every(2)]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    with fault_site(tmp_path_factory.mktemp("faults"), UPDATED) as made:
        yield made


@pytest.mark.parametrize("row", ROWS, ids=[row.points for row in ROWS])
def test_the_agent_comes_to_the_same_end_and_tells_the_truth_after(
    row: Row, shared: FaultSite
) -> None:
    shared.run(row)
