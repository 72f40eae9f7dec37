"""Connections are shared fairly: no user keeps others out, and no request is lost for it."""

import contextlib
import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest

from edge_runtime.client import Client
from tests.daemons import Daemon, daemon, eventually
from tests.models import identity
from tests.scripted_server import WAIT_S, Caller, answering, scripted_server
from tests.wire import Wire, infer, numbers, request

pytestmark = pytest.mark.integration

CONNECTIONS = 8
GREEDY = 65_533
LIVE = request("GET", "/v2/health/live")
INFER = infer("m", [[1.0, 2.0]])
ALIVE = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"live":true}'
)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may be several users")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity(tmp_path_factory.mktemp("models") / "m.onnx")


@contextlib.contextmanager
def serving(model: Path, per_user: int = 0, *more: str) -> Iterator[Daemon]:
    """Run a daemon whose data socket every user may reach."""
    limits = {
        "EDGE_RUNTIME__LIMITS__CONNECTIONS": str(CONNECTIONS),
        "EDGE_RUNTIME__LIMITS__CONNECTIONS_PER_USER": str(per_user),
    }
    with daemon(f"m={model}", *more, environment=limits) as running:
        running.folder.chmod(0o711)
        running.socket.chmod(0o666)
        eventually(lambda: count(running, "connections") == 1, "the end of earlier connections")
        yield running


def count(running: Daemon, name: str) -> int:
    """Read a metric, over the admin socket: its connections count by themselves."""
    text = running.request("GET", "/metrics", admin=True).body.decode()
    found = re.search(rf"^edge_runtime_{name} (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


@contextlib.contextmanager
def user(uid: int) -> Iterator[None]:
    """Be another user for the length of a block; the kernel tells who connects."""
    own = os.geteuid()
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(own)


def come_in(running: Daemon, stack: ExitStack, number: int) -> list[Wire]:
    """Open connections of the greedy user, each of which has had an answer."""
    wires = []
    for _ in range(number):
        with user(GREEDY):
            wires.append(stack.enter_context(Wire.of(running)))
        wires[-1].send(LIVE)
        assert wires[-1].answer().status == 200
    return wires


def let_time_pass() -> None:
    """Wait for the daemon's loop, which counts in milliseconds: what was idle is so for longer."""
    later = monotonic() + 0.005
    eventually(lambda: monotonic() > later, "the next milliseconds")


def is_closed(wire: Wire) -> bool:
    """Tell whether the daemon has closed; it sends nothing by itself."""
    poll = select.poll()
    poll.register(wire.sock, select.POLLIN)
    return bool(poll.poll(0))


@as_root
def test_a_greedy_user_is_refused_before_the_door_is_full_and_others_come_in(model: Path) -> None:
    with serving(model) as running, ExitStack() as stack:
        wires = come_in(running, stack, 6)
        with user(GREEDY), Wire.of(running) as excess:
            answer = excess.answer()
            assert answer.status == 503
            assert "this user has 6 connections open" in answer.json()["error"]
            assert answer.headers["Retry-After"] == "1"
            assert excess.ends()
        other = stack.enter_context(Wire.of(running))
        other.send(INFER)
        assert numbers(other.answer()) == [1.0, 2.0]
        for wire in wires:  # nobody was closed for it
            wire.send(LIVE)
            assert wire.answer().status == 200
        assert count(running, "connections_refused_total") == 1
        assert count(running, "connections_evicted_total") == 0


@as_root
def test_a_full_door_closes_what_is_idle_for_longest_of_who_has_most(model: Path) -> None:
    with serving(model, CONNECTIONS) as running, ExitStack() as stack:
        wires = come_in(running, stack, CONNECTIONS)
        let_time_pass()
        wires[0].send(LIVE)
        assert wires[0].answer().status == 200
        for _ in range(3):
            other = stack.enter_context(Wire.of(running))
            other.send(INFER)
            assert numbers(other.answer()) == [1.0, 2.0]
        eventually(lambda: sum(map(is_closed, wires)) >= 3, "the ends of three connections")
        stay = [wire for wire in wires if not is_closed(wire)]
        assert len(stay) == CONNECTIONS - 3
        assert wires[0] in stay
        for wire in stay:
            wire.send(LIVE)
            assert wire.answer().status == 200
        assert count(running, "connections_evicted_total") == 3
        with user(GREEDY), Wire.of(running) as excess:
            assert excess.answer().status == 503, "who has most gets nothing from others"


@as_root
def test_users_come_to_equal_shares_and_take_nothing_from_each_other_then(model: Path) -> None:
    with serving(model, CONNECTIONS) as running, ExitStack() as stack:
        come_in(running, stack, CONNECTIONS)
        for _ in range(CONNECTIONS // 2):
            wire = stack.enter_context(Wire.of(running))
            wire.send(LIVE)
            assert wire.answer().status == 200
        assert running.request("GET", "/v2/health/live").status == 503
        with user(GREEDY), Wire.of(running) as excess:
            assert excess.answer().status == 503
        assert count(running, "connections_evicted_total") == CONNECTIONS // 2


@as_root
def test_what_is_not_idle_is_never_closed_for_another(model: Path) -> None:
    with serving(model, CONNECTIONS) as running, ExitStack() as stack:
        wires = come_in(running, stack, CONNECTIONS)
        for wire in wires:
            wire.send(INFER[:40])
        assert running.request("GET", "/v2/health/live").status == 503
        wires[5].send(INFER[40:])
        assert numbers(wires[5].answer()) == [1.0, 2.0]
        assert running.request("GET", "/v2/health/live").status == 200
        assert wires[5].ends(), "it was idle"
        for wire in (*wires[:5], *wires[6:]):
            wire.send(INFER[40:])
            assert numbers(wire.answer()) == [1.0, 2.0]


@as_root
def test_a_client_whose_idle_connection_was_closed_for_another_does_not_notice(
    model: Path,
) -> None:
    with serving(model, CONNECTIONS) as running, ExitStack() as stack:
        with user(GREEDY):
            client = stack.enter_context(Client(running.socket))
            assert client.live()
        let_time_pass()
        wires = come_in(running, stack, CONNECTIONS - 1)
        other = stack.enter_context(Wire.of(running))
        other.send(LIVE)
        assert other.answer().status == 200
        assert count(running, "connections_evicted_total") == 1
        for wire in wires[:3]:
            wire.close()
        eventually(lambda: count(running, "connections") == 6, "the ends of three connections")
        with user(GREEDY):
            assert client.live()
        assert count(running, "connections_evicted_total") == 1


def test_a_connection_that_takes_nothing_more_is_replaced_by_the_client_before_it_ends() -> None:
    def hangs_up(caller: Caller) -> None:
        caller.read_request()
        caller.socket.shutdown(socket.SHUT_RD)  # as the daemon does; the answer leaves after that
        caller.write(ALIVE)
        assert caller.socket.recv(1) == b""
        held.append(caller.socket.dup())  # not closed: only a write can tell

    held: list[socket.socket] = []
    with scripted_server(hangs_up, answering(ALIVE)) as server, Client(server.path) as client:
        assert client.live(timeout_s=WAIT_S)
        eventually(lambda: len(held) == 1, "the script's end")
        assert client.live(timeout_s=WAIT_S)
        assert server.connections == 2
        for each in held:
            each.close()


def test_callers_over_tcp_are_one_user_who_may_have_the_whole_door(model: Path) -> None:
    with serving(model, 1, "--http", "127.0.0.1:0") as running, ExitStack() as stack:
        for _ in range(CONNECTIONS):
            wire = stack.enter_context(Wire(running.tcp()))
            wire.send(LIVE)
            assert wire.answer().status == 200
        with Wire(running.tcp()) as excess:
            assert "8 connections" in excess.answer().json()["error"]
