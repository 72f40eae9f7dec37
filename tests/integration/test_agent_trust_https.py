"""Small requests over TLS to servers that mean no good: each has an end, and bounded bytes."""

import threading
import time
from collections.abc import Iterator

import pytest

from agent.errors import CanceledError, NetworkError, RefusedError, TooSlowError, TrustError
from agent.trust.https import ANSWER_BYTES_MAX, Https
from tests.agent_downloads import FixedClock
from tests.daemons import eventually
from tests.hostile_http import (
    Fault,
    HostileServer,
    drip,
    drip_head,
    endless,
    hang_up,
    hostile_server,
    stall,
    status,
    truncate,
)
from tests.web_certificates import Authority

pytestmark = pytest.mark.integration

WHOLE_S = 0.6
ENOUGH_S = 60.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    folder = tmp_path_factory.mktemp("https")
    (folder / "answer").write_bytes(b"x" * 1000)
    with hostile_server(folder, Authority(folder).server()) as server:
        yield server


@pytest.fixture
def server(running: HostileServer) -> Iterator[HostileServer]:
    running.forget()
    yield running
    running.heal()


@pytest.fixture
def asking(server: HostileServer) -> Https:
    return believing(server, ENOUGH_S)


def believing(server: HostileServer, whole_s: float) -> Https:
    ca = (server.folder / "authority.pem").read_text("ascii")
    return Https.believing(ca, FixedClock(time.time()), whole_s)


def test_an_answer_comes_whole(server: HostileServer, asking: Https) -> None:
    assert asking.ask("POST", f"{server.url}/answer", b"body") == b"x" * 1000


@pytest.mark.parametrize(
    "fault", [drip_head(0.01), drip(10, 0.01), stall(10)], ids=["head", "body", "silence"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_that_drips_or_falls_silent_is_given_up_when_the_time_is_over(
    server: HostileServer, fault: Fault, method: str
) -> None:
    server.fault("*", fault)
    hasty = believing(server, WHOLE_S)
    with pytest.raises(TooSlowError, match="not whole within"):
        hasty.ask(method, f"{server.url}/answer", b"" if method == "POST" else None)


def test_an_answer_without_end_is_not_read_beyond_its_limit(
    server: HostileServer, asking: Https
) -> None:
    server.fault("*", endless())
    with pytest.raises(TrustError, match=f"over {ANSWER_BYTES_MAX} bytes"):
        asking.ask("GET", f"{server.url}/answer")


@pytest.mark.parametrize("fault", [truncate(10), hang_up()], ids=["cut-off", "no-answer"])
def test_an_answer_that_is_cut_off_is_none(
    server: HostileServer, asking: Https, fault: Fault
) -> None:
    server.fault("*", fault)
    with pytest.raises(NetworkError, match="cannot be reached"):
        asking.ask("GET", f"{server.url}/answer")


def test_a_refusal_and_a_failure_are_told_apart(server: HostileServer, asking: Https) -> None:
    server.fault("*", status(403, b"not you"))
    with pytest.raises(RefusedError, match="not you"):
        asking.ask("POST", f"{server.url}/answer", b"x")
    server.fault("*", status(503, b"later"))
    with pytest.raises(NetworkError, match="later"):
        asking.ask("POST", f"{server.url}/answer", b"x")


def test_another_thread_can_call_it_off(server: HostileServer, asking: Https) -> None:
    server.fault("*", drip(10, 0.01))
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            asking.ask("GET", f"{server.url}/answer")
        except CanceledError as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: bool(server.paths()), "the request")
    asking.abort()
    thread.join(ENOUGH_S)
    assert not thread.is_alive()
    assert len(raised) == 1
    with pytest.raises(CanceledError):
        asking.ask("GET", f"{server.url}/answer")  # nor anything after that
