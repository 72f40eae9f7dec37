"""A process that stands still for a while: what came in time is answered when it goes on."""

import fcntl
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pytest

from tests.daemons import Daemon, eventually
from tests.models import identity
from tests.wire import Wire, infer, request

pytestmark = pytest.mark.integration

LIVE = request("GET", "/v2/health/live")
INFER = infer("m", [[1.0, 2.0]])
SOON_S = 0.4
LIMITS = {
    "EDGE_RUNTIME__LIMITS__IDLE_TIMEOUT_S": str(SOON_S),
    "EDGE_RUNTIME__LIMITS__HEADER_TIMEOUT_S": str(SOON_S),
    "EDGE_RUNTIME__LIMITS__BODY_TIMEOUT_S": str(SOON_S),
    "EDGE_RUNTIME__LIMITS__BODY_RATE_BYTES_PER_S": "100000000",
}


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that waits for nobody for long."""
    model = identity(tmp_path_factory.mktemp("models") / "m.onnx")
    with Daemon([f"m={model}"], LIMITS) as running:
        yield running


def unread_bytes(wire: Wire) -> int:
    """Count what was sent and not taken by the daemon; of a Unix socket only (SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(wire.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def sent_while_it_stands_still(daemon: Daemon, begin: Callable[[Wire], None], rest: bytes) -> None:
    """Send the rest of something in time, to a daemon that stands still until that is over."""

    def is_done() -> bool:
        with Wire.of(daemon) as wire:
            begin(wire)
            with daemon.paused():
                if wire.has_more():  # its end or 408: it took too long before it stood still
                    return False
                wire.send(rest)
                late_s = time.monotonic() + 3 * SOON_S
                eventually(lambda: time.monotonic() > late_s, "the end of its time")
            assert wire.answer().status == 200
        return True

    eventually(is_done, "a standstill in time")


def test_a_request_that_came_before_the_end_of_idleness_is_answered(hasty: Daemon) -> None:
    def begin(_wire: Wire) -> None:
        assert hasty.request("GET", "/v2/health/live").status == 200  # the one before is let in

    sent_while_it_stands_still(hasty, begin, LIVE)


@pytest.mark.parametrize(("whole", "rest"), [(LIVE, 5), (INFER, 3)], ids=["head", "body"])
def test_a_request_whose_end_came_in_time_is_answered(
    hasty: Daemon, whole: bytes, rest: int
) -> None:
    def begin(wire: Wire) -> None:
        wire.send(whole[:-rest])
        eventually(lambda: not unread_bytes(wire), "its being read")

    sent_while_it_stands_still(hasty, begin, whole[-rest:])
