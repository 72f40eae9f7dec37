"""What systemd and the daemon say to each other."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from edge_runtime.errors import SocketError
from edge_runtime.listeners import Listeners, adopt
from edge_runtime.systemd import Notifier, listen_fds, watchdog_interval_s

# A child gets the descriptors it is given at 3, 4, ..., as systemd does it, and says what it found.
CHILD = """
import json, os, sys
from edge_runtime.errors import SocketError
from edge_runtime.systemd import listen_fds

given, change = json.loads(sys.argv[1]), json.loads(sys.argv[2])
high = [os.dup2(fd, 100 + place) for place, fd in enumerate(given)]
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place)
os.environ.update({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(given)), **change})
try:
    found = listen_fds()
    said = {
        name: [(s.family.name, s.getsockname(), s.fileno(), s.get_inheritable()) for s in sockets]
        for name, sockets in found.items()
    }
except SocketError as error:
    said = {"error": error.message}
print(json.dumps([said, [key for key in os.environ if key.startswith("LISTEN_")]]))
"""


def _activate(descriptors: list[int], **change: str) -> dict[str, object]:
    """Start a child as systemd would, and see that it leaves nothing for its own children."""
    answer = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(descriptors), json.dumps(change)],
        check=True,
        capture_output=True,
        text=True,
        pass_fds=descriptors,
    )
    said, left = json.loads(answer.stdout)
    assert left == []
    assert isinstance(said, dict)
    return said


def test_sockets_are_taken_over_by_name_and_kept_from_children() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.create_server(("127.0.0.1", 0)) as three,
    ):
        said = _activate(
            [one.fileno(), two.fileno(), three.fileno()], LISTEN_FDNAMES="runtime:http:runtime"
        )
        assert said == {
            "runtime": [
                ["AF_INET", list(one.getsockname()), 3, False],
                ["AF_INET", list(three.getsockname()), 5, False],
            ],
            "http": [["AF_INET", list(two.getsockname()), 4, False]],
        }


def test_socket_without_a_name_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert list(_activate([sock.fileno()])) == ["unknown"]
        assert list(_activate([sock.fileno()], LISTEN_FDNAMES="")) == ["unknown"]


def test_sockets_for_another_process_are_not_touched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert _activate([sock.fileno()], LISTEN_PID="1") == {}
        assert _activate([sock.fileno()], LISTEN_PID="x") == {}


def test_number_that_is_none_is_an_error() -> None:
    for count in ("x", "-1", "", "9" * 30):
        assert "not a number" in str(_activate([], LISTEN_FDS=count)["error"])


def test_names_that_do_not_match_the_sockets_are_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        said = _activate([sock.fileno()], LISTEN_FDNAMES="runtime:admin")
        assert "FileDescriptorName=" in str(said["error"])


def test_descriptor_that_is_not_a_socket_is_an_error() -> None:
    with Path(os.devnull).open("rb") as file, socket.create_server(("127.0.0.1", 0)) as sock:
        said = _activate([sock.fileno(), file.fileno()], LISTEN_FDNAMES="runtime:admin")
        assert "descriptor 4 (admin) from systemd is not a socket" in str(said["error"])


def test_descriptor_that_does_not_exist_is_an_error() -> None:
    assert "is not a socket" in str(_activate([], LISTEN_FDS="1")["error"])


def test_nothing_is_taken_over_when_not_under_systemd() -> None:
    assert listen_fds({}) == {}


def test_variables_for_another_process_are_removed_all_the_same() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    assert listen_fds(environment) == {}
    assert environment == {"HOME": "/"}


def test_contradiction_removes_the_variables_too() -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "many"}
    with pytest.raises(SocketError):
        listen_fds(environment)
    assert environment == {}


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        if request.param == "path":
            name = str(folder / "notify")
            sock.bind(name)
        else:
            sock.bind("")  # the kernel chooses a name
            name = "@" + sock.getsockname()[1:].decode()
        sock.settimeout(60.0)
        yield sock, name


def test_every_message_arrives_as_systemd_reads_it(listener: tuple[socket.socket, str]) -> None:
    sock, name = listener
    notifier = Notifier({"NOTIFY_SOCKET": name})
    assert notifier.enabled
    notifier.ready()
    notifier.stopping()
    notifier.watchdog()
    notifier.status("loading é\nREADY=1")
    received = [sock.recv(1000).decode() for _ in range(4)]
    assert received == ["READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=loading é READY=1"]
    assert notifier.failures == 0


def test_reloading_says_when_by_the_monotonic_clock(listener: tuple[socket.socket, str]) -> None:
    sock, name = listener
    before = time.monotonic_ns() // 1000
    Notifier({"NOTIFY_SOCKET": name}).reloading()
    reloading, when = sock.recv(1000).decode().split("\n")
    assert reloading == "RELOADING=1"
    label, _, value = when.partition("=")
    assert label == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative"])
def test_notifier_does_nothing_when_nobody_listens(address: str | None) -> None:
    notifier = Notifier({} if address is None else {"NOTIFY_SOCKET": address})
    assert not notifier.enabled
    for tell in (
        notifier.ready,
        notifier.reloading,
        notifier.stopping,
        notifier.watchdog,
        lambda: notifier.status("x"),
    ):
        tell()
    assert notifier.failures == 0


@pytest.mark.parametrize("address", ["/nobody/here", "/" + "long" * 40, "@nobody-here-at-all"])
def test_message_that_cannot_be_sent_is_counted_and_nothing_else(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.status("\udcff")
    assert notifier.failures == 2


def test_systemd_that_does_not_read_cannot_hold_the_daemon_up(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(folder / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(folder / "notify")})
        longest_s = 0.0
        while not notifier.failures:
            started = time.monotonic()
            notifier.watchdog()
            longest_s = max(longest_s, time.monotonic() - started)
        assert longest_s < 5


def test_watchdog_is_fed_twice_as_often_as_systemd_asks() -> None:
    environment = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    assert watchdog_interval_s(environment) == 15.0
    assert watchdog_interval_s({"WATCHDOG_USEC": "3000000"}) == 1.5


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "soon"},
    ],
)
def test_watchdog_of_nobody_or_of_another_process_is_none(environment: dict[str, str]) -> None:
    assert watchdog_interval_s(environment) is None


# --- serving on a passed socket -----------------------------------------------------------------


class _Hello(asyncio.BaseProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@pytest.mark.parametrize("gently", [True, False])
@pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_adopted_socket_is_served_and_its_path_never_removed(
    folder: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop], *, gently: bool
) -> None:
    path = folder / "runtime.sock"

    async def main() -> None:
        doors = Listeners()
        doors.add(adopt(systemds.dup(), name="runtime"), _Hello)
        assert doors.addresses == [("runtime", str(path))]
        await doors.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.settimeout(0)
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        if gently:
            await doors.stop_accepting()
        doors.close()

    with socket.socket(socket.AF_UNIX) as systemds:
        systemds.bind(str(path))
        path.chmod(0o660)
        systemds.listen()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
        assert path.is_socket()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))  # whoever comes now waits for the next daemon
            systemds.accept()[0].close()


def test_adopted_socket_is_held_to_the_same_rules(folder: Path) -> None:
    path = folder / "wide.sock"
    with socket.socket(socket.AF_UNIX) as wide:
        wide.bind(str(path))
        path.chmod(0o666)
        wide.listen()
        with pytest.raises(SocketError, match="SocketMode=0660"):
            adopt(wide, name="admin")
        assert path.is_socket()
