"""The hand-over door lets in so many and no more, and keeps nothing that is not its own."""

import errno
import os
from pathlib import Path

import pytest

from agent.runtime_client.handover import Handover
from edge_runtime.api import handover
from edge_runtime.api.handover import IN_FLIGHT_MAX, OPEN_MAX
from edge_runtime.protocol.handover_schemas import PACKET_BYTES_MAX
from tests.daemons import eventually
from tests.handover_packets import answered, ask, closed, connected, count_of, memory, refused, send
from tests.served_handover import SHA, Served, on_each_loop, served_on

WAIT_S = 60.0
served = on_each_loop(served_on)


# -- limits --------------------------------------------------------------------------------------


def test_no_more_are_let_in_than_there_is_room_for_and_idle_ones_make_room(served: Served) -> None:
    served.hold()
    with memory(b"x") as descriptor:
        busy = [connected(served.path) for _ in range(IN_FLIGHT_MAX)]
        socks = [each.__enter__() for each in busy]
        for sock in socks:
            send(sock, {"op": "needs"}, descriptor)
        eventually(lambda: len(served.orders.taken) == IN_FLIGHT_MAX, "the requests")
        refused(ask(served.path, {"op": "open", "sha256": SHA}), 503, "at a time")
        idle = [connected(served.path) for _ in range(3 * OPEN_MAX)]
        last = [each.__enter__() for each in idle][-1]
        send(last, {"op": "open", "sha256": SHA})
        refused(answered(last)[0], 503, "at a time")
        assert len(served.door._open) <= OPEN_MAX
        served.let_go()
        assert all("ok" in answered(sock)[0] for sock in socks)
        send(last, {"op": "open", "sha256": SHA})
        assert answered(last)[0] == {"ok": None}
        for each in [*busy, *idle]:
            each.__exit__(None, None, None)


def test_who_says_nothing_is_let_go(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "IDLE_S", 0.05)
    with connected(served.path) as sock:
        assert answered(sock) == ({}, [])
    monkeypatch.setattr(handover, "IDLE_S", 60.0)
    assert ask(served.path, {"op": "open", "sha256": SHA}) == {"ok": None}


def test_who_asks_and_asks_without_reading_is_cut(served: Served) -> None:
    served.orders.has_content = True
    with connected(served.path) as sock:

        def is_cut() -> bool:
            try:
                for _ in range(50):
                    send(sock, {"op": "open", "sha256": SHA})
            except OSError as error:
                return error.errno in {errno.EPIPE, errno.ECONNRESET}
            return False

        eventually(is_cut, "the cutting", WAIT_S)
    eventually(lambda: not served.door._open, "the end of the connection")


# -- nothing is kept -----------------------------------------------------------------------------


def test_nothing_of_what_came_is_kept_open_whatever_became_of_it(
    served: Served, tmp_path: Path
) -> None:
    served.orders.has_content = True
    ask(served.path, {"op": "open", "sha256": "0"})
    eventually(lambda: not served.door._open, "the end of the connection")
    before = count_of()
    with memory(b"x") as descriptor:
        for number in range(10):
            for request, count in [
                ({"op": "needs"}, 1),
                ({"op": "stage"}, 1),
                ({"op": "needs"}, 5),
                ({"op": "open", "sha256": SHA}, 8),
                (b"x", 200),
                (b"x" * (PACKET_BYTES_MAX + number), 3),
                (b"", 2),
            ]:
                with connected(served.path) as sock:
                    send(sock, request, *[descriptor] * count)
                    if number % 2:
                        closed(answered(sock)[1])  # else: it leaves before it is answered
        found = Handover(served.path).open(SHA)
        assert found is not None
        os.close(found)
    (tmp_path / "b").touch()
    Handover(served.path).stage(tmp_path / "b", rollout="r")
    eventually(lambda: not served.door._open, "the end of the connections")
    eventually(lambda: count_of() == before, "the closing of every descriptor")


def test_what_waits_unread_is_closed_with_its_connection(served: Served) -> None:
    before = count_of()
    served.hold()
    with connected(served.path) as sock, memory(b"x") as descriptor:
        for _ in range(10):
            send(sock, {"op": "needs"}, descriptor)
        eventually(lambda: len(served.orders.taken) == 1, "the first request")
    served.let_go()
    eventually(lambda: not served.door._open, "the end of the connection")
    eventually(lambda: count_of() == before, "the closing of every descriptor")


def test_an_order_goes_on_when_the_one_who_gave_it_leaves(served: Served, tmp_path: Path) -> None:
    served.hold()
    (tmp_path / "b").write_bytes(b"whole")
    descriptor = os.open(tmp_path / "b", os.O_RDONLY)
    with connected(served.path) as sock:
        send(sock, {"op": "stage"}, descriptor)
        os.close(descriptor)
        eventually(lambda: bool(served.orders.taken), "the order")
    given = served.orders.taken[0][1]["source"]
    assert os.pread(given, 10, 0) == b"whole"  # it is still there to be copied
    served.let_go()
    eventually(lambda: not served.door._open, "the end of the connection")


def test_it_stops_when_who_asked_has_the_answer(served: Served) -> None:
    served.hold()
    with connected(served.path) as busy, connected(served.path) as idle:
        send(busy, {"op": "open", "sha256": SHA})
        eventually(lambda: bool(served.orders.taken), "the order")
        served.stop()
        assert answered(idle) == ({}, [])
        served.let_go()
        assert answered(busy)[0] == {"ok": None}
        assert answered(busy) == ({}, [])
