"""The tests' hostile web server does what it says, and is a good one else."""

import contextlib
import http.client
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hostile_http import (
    Fault,
    HostileServer,
    drip,
    endless,
    hang_up,
    hostile_server,
    ignore_range,
    redirect,
    replace,
    reset,
    stall,
    status,
    truncate,
    wrong_range,
)

BODY = bytes(range(256)) * 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HostileServer]:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "file").write_bytes(BODY)
    with hostile_server(tmp_path) as running:
        yield running


@dataclass(frozen=True)
class Answer:
    """What came back, whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@contextlib.contextmanager
def asking(
    server: HostileServer, path: str = "/a%20b/file", **headers: str
) -> Iterator[http.client.HTTPResponse]:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    ) as connection:
        connection.request("GET", path, headers=named)
        with connection.getresponse() as response:
            yield response


def ask(server: HostileServer, path: str = "/a%20b/file", **headers: str) -> Answer:
    with asking(server, path, **headers) as response:
        return Answer(response.status, dict(response.headers), response.read())


def test_serves_files_and_ranges_of_them(server: HostileServer) -> None:
    whole = ask(server)
    assert whole.body == BODY
    part = ask(server, Range="bytes=10-19", If_Range=whole.headers["ETag"])
    assert (part.status, part.headers["Content-Range"]) == (206, f"bytes 10-19/{len(BODY)}")
    assert part.body == BODY[10:20]
    assert ask(server, Range="bytes=10-").body == BODY[10:]
    assert ask(server, Range="bytes=-10").body == BODY[-10:]
    assert ask(server, Range="bytes=10-", If_Range='"other"').status == 200
    assert ask(server, Range=f"bytes={len(BODY)}-").status == 416
    assert ask(server, "/../secret").status == 404
    assert server.sent_bytes["/a%20b/file"] >= len(BODY)


@pytest.mark.parametrize("fault", [truncate(100), hang_up()])
def test_closes_too_early(server: HostileServer, fault: Fault) -> None:
    server.fault("/*", fault)
    with pytest.raises((http.client.IncompleteRead, http.client.RemoteDisconnected)):
        ask(server)


def test_resets_in_the_middle(server: HostileServer) -> None:
    server.fault("/*", reset(100))
    with asking(server) as answer, pytest.raises(ConnectionResetError):
        answer.read()


def test_stalls_until_the_caller_leaves(server: HostileServer) -> None:
    server.fault("/*", stall(100))
    with asking(server) as answer:
        assert answer.read(100) == BODY[:100]


def test_drips_and_is_endless(server: HostileServer) -> None:
    server.fault("/*", drip(len(BODY) - 5, pause_s=0.001))
    assert ask(server).body == BODY
    server.fault("/*", endless(7))
    with asking(server) as answer:
        assert answer.read(8) == BODY[:7] + b" "
        assert len(answer.read(1_000_000)) == 1_000_000


def test_lies_about_ranges(server: HostileServer) -> None:
    server.fault("/*", wrong_range(3))
    answer = ask(server, Range="bytes=10-19")
    assert answer.headers["Content-Range"] == f"bytes 13-22/{len(BODY)}"
    server.fault("/*", ignore_range())
    assert ask(server, Range="bytes=10-19").body == BODY


def test_says_what_it_is_told(server: HostileServer) -> None:
    server.fault("/a*", status(503, b"later", {"Retry-After": "1"}))
    answer = ask(server)
    assert (answer.status, answer.headers["Retry-After"], answer.body) == (503, "1", b"later")
    server.fault("/a*", redirect("http://elsewhere/"))
    assert ask(server).headers["Location"] == "http://elsewhere/"
    server.fault("/a*", replace(b"other", {"ETag": '"x"'}))
    assert ask(server).body == b"other"


def test_faults_count_and_skip_and_heal(server: HostileServer) -> None:
    server.fault("/a*", status(500), times=2, skip=1)
    assert [ask(server).status for _ in range(4)] == [200, 500, 500, 200]
    server.fault("/a*", status(500))
    server.heal()
    assert ask(server).status == 200
    assert server.paths() == ["/a%20b/file"] * 5


def test_ends_with_callers_that_still_wait(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BODY)
    with contextlib.ExitStack() as callers:
        with hostile_server(tmp_path) as server:
            server.fault("/*", stall(0))
            waiting = callers.enter_context(asking(server, "/file"))
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            waiting.read()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port), 1)
