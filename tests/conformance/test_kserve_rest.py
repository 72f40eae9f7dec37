"""KServe's own Python client, over TCP and over the Unix socket."""

import pytest

from tests.conformance.peers import Results, checks, demand, results
from tests.daemons import Daemon

pytestmark = pytest.mark.conformance

SCRIPT = "kserve_rest.py"


@pytest.fixture(scope="module", params=["tcp", "unix"])
def found(request: pytest.FixtureRequest, served: Daemon, address: str) -> Results:
    if request.param == "tcp":
        return results("kserve", SCRIPT, f"http://{address}")
    return results("kserve", SCRIPT, "http://localhost", str(served.socket))


@pytest.mark.parametrize("check", checks(SCRIPT))
def test_kserve_client_passes(found: Results, check: str) -> None:
    demand(found, check)
