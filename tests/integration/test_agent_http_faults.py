"""A web server that fails in every way in front of the repository: the release comes all the same.

What each fault does to one download or one file of metadata is in ``test_agent_download*`` and
``test_agent_trust_http``; here the installed agent goes through all of them.
"""

from collections.abc import Iterator

import pytest

from tests.agent_fault_runs import UPDATED, FaultSite, fault_site
from tests.agent_site import STORY_S
from tests.daemons import eventually
from tests.every_row import every
from tests.hostile_http import (
    Fault,
    drip,
    hang_up,
    ignore_range,
    reset,
    stall,
    status,
    truncate,
    wrong_range,
)

pytestmark = pytest.mark.integration

FAULTS = {
    "truncate": truncate(100),
    "stall": stall(100),
    "500": status(500),
    "wrong range": wrong_range(),
    "reset": reset(100),
    "drip": drip(100),
    "hang up": hang_up(),
    "503 with a pause": status(503, headers={"Retry-After": "1"}),
    "no ranges": ignore_range(),
}
PLACES = {"metadata": "/metadata/*", "artifacts": "/artifacts/*"}
TIMES = 2
SLACK_BYTES = 400_000
"""What a server has sent and nobody has read: it lies in the sockets' buffers."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultSite]:
    with fault_site(tmp_path_factory.mktemp("faults"), UPDATED) as made:
        made.here.agent.set("repository", "read_s = 0.5\nmetadata_s = 2.0")
        made.here.agent.start()
        eventually(made.here.agent.is_up, "the agent", STORY_S)
        yield made


def _spent(shared: FaultSite) -> int:
    spent = shared.here.agent.status()["bytes_this_month"]
    return int(spent["metadata"]) + int(spent["artifact"])


ROWS = [(name, place) for name in FAULTS for place in PLACES][:: every(6)]


@pytest.mark.parametrize(("name", "place"), ROWS, ids=["-".join(row) for row in ROWS])
def test_the_release_is_committed_and_its_bytes_are_counted_through(
    shared: FaultSite, name: str, place: str
) -> None:
    fault: Fault = FAULTS[name]
    agent = shared.here.agent
    assert agent.process is not None
    pid, spent = agent.process.pid, _spent(shared)
    shared.web.forget()
    shared.web.fault(PLACES[place], fault, times=TIMES)
    shared.publish()
    shared.ends()
    counted, sent = _spent(shared) - spent, sum(shared.web.sent_bytes.values())
    assert sent - SLACK_BYTES <= counted <= sent + SLACK_BYTES
    assert counted > 0
    assert shared.here.device.status().active == shared.version
    assert shared.here.device.traffic.faults() == []
    assert agent.process.pid == pid
    assert "Traceback" not in agent.log()
