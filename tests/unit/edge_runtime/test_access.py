"""What may be a door, and who is calling."""

import asyncio
import contextlib
import grp
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from edge_runtime.access import PATH_BYTES, Peer, TcpAddress, UnixAddress, passed_address
from edge_runtime.errors import ConfigError, SocketError
from edge_runtime.listeners import bind_tcp, bind_unix


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("127.9.9.9:1", "127.9.9.9", 1),
        ("localhost:0", "127.0.0.1", 0),
        ("[::1]:65535", "::1", 65535),
        ("[0:0:0:0:0:0:0:1]:5", "::1", 5),
    ],
)
def test_loopback_address_is_read(text: str, host: str, port: int) -> None:
    assert TcpAddress.parse(text) == TcpAddress("http", host, port)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "192.168.1.2", "[::]", "[fe80::1]", "[::ffff:7f00:1]"],  # noqa: S104 - refused
)
def test_address_beyond_loopback_is_refused_with_the_reason(host: str) -> None:
    with pytest.raises(SocketError, match=r"no access control .* use 127\.0\.0\.1, or the Unix"):
        TcpAddress.parse(f"{host}:8000")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8000",
        ":8000",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:٣",
        "127.0.0.1:1_0",
        "127.1:80",
        "::1:8000",
        "[127.0.0.1]:8000",
        "[::1]",
        "[]:1",
        "example.org:80",
        "localhost:80\n",
        "http://127.0.0.1:80",
    ],
)
def test_text_that_is_not_host_and_port_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write 127\.0\.0\.1:8000"):
        TcpAddress.parse(text)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_port_zero_takes_a_free_port_and_says_which(listen: str) -> None:
    if listen.startswith("[") and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with contextlib.closing(bind_tcp(listen)) as bound:
        assert isinstance(bound.address, TcpAddress)
        assert bound.address.port == bound.socket.getsockname()[1] > 0
        with socket.create_connection((bound.address.host, bound.address.port)):
            assert bound.has_waiting()


def test_address_beyond_loopback_is_not_bound() -> None:
    with pytest.raises(SocketError, match="no access control"):
        bind_tcp("0.0.0.0:0")
    with pytest.raises(ConfigError):
        bind_tcp("8000")


def test_port_in_use_is_a_socket_error() -> None:
    with (
        contextlib.closing(bind_tcp("127.0.0.1:0")) as bound,
        pytest.raises(SocketError, match="in use; stop what uses it, or choose another port"),
    ):
        bind_tcp(str(bound.address))


def test_port_can_be_bound_again_while_old_connections_linger() -> None:
    first = bind_tcp("127.0.0.1:0")
    with socket.create_connection(first.socket.getsockname()) as client:
        first.socket.accept()[0].close()  # who closes first keeps the port in TIME_WAIT
        assert client.recv(1) == b""
    first.close()
    bind_tcp(str(first.address)).close()


def test_addresses_print_as_other_programs_take_them() -> None:
    assert str(TcpAddress("http", "::1", 80)) == "[::1]:80"
    assert str(TcpAddress("http", "127.0.0.1", 80)) == "127.0.0.1:80"
    assert str(UnixAddress("runtime", Path("/run/a.sock"))) == "/run/a.sock"


def test_path_at_the_limit_is_taken_and_one_byte_more_refused() -> None:
    longest = Path("/" + "a" * (PATH_BYTES - 1))
    assert UnixAddress.at(longest).path == longest
    with pytest.raises(SocketError, match=r"108 bytes and the system's limit is 107.* shorter"):
        UnixAddress.at(Path(f"{longest}a"))


def test_path_is_counted_in_bytes() -> None:
    with pytest.raises(SocketError, match="has 121 bytes"):
        UnixAddress.at(Path("/" + "é" * 60))


def test_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(SocketError, match="zero byte"):
        UnixAddress.at(Path("/tmp/a\0b"))  # noqa: S108 - never made


def test_relative_path_becomes_absolute_and_names_the_door() -> None:
    address = UnixAddress.at(Path("admin.sock"))
    assert address == UnixAddress("admin", Path.cwd() / "admin.sock")


@pytest.mark.parametrize(
    ("name", "kind", "directive"),
    [
        ("handover", socket.SOCK_STREAM, "ListenSequentialPacket="),
        ("admin", socket.SOCK_SEQPACKET, "ListenStream="),
        ("runtime", socket.SOCK_SEQPACKET, "ListenStream="),
    ],
)
def test_a_passed_socket_must_be_of_its_door_s_kind(
    folder: Path, name: str, kind: socket.SocketKind, directive: str
) -> None:
    with (
        contextlib.closing(bind_unix(folder / "s", kind=kind)) as bound,
        pytest.raises(SocketError, match=f"another kind than that door's; use {directive}"),
    ):
        passed_address(bound.socket, name)


def test_group_is_looked_up_and_an_unknown_one_refused() -> None:
    ours = grp.getgrgid(os.getgid())
    assert UnixAddress("runtime", Path("/a"), ours.gr_name).group_id == ours.gr_gid
    assert UnixAddress("runtime", Path("/a")).group_id is None
    with pytest.raises(SocketError, match="no group 'nobody-has-this'"):
        _ = UnixAddress("runtime", Path("/a"), "nobody-has-this").group_id


def _listening(path: Path, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    path.chmod(mode)
    sock.listen()
    return sock


@pytest.mark.parametrize("mode", [0o660, 0o600])
def test_passed_unix_socket_is_described(folder: Path, mode: int) -> None:
    with _listening(folder / "s", mode) as sock:
        assert passed_address(sock, "admin") == UnixAddress("admin", folder / "s")


@pytest.mark.parametrize("mode", [0o666, 0o661, 0o770])
def test_passed_unix_socket_open_to_more_than_the_group_is_refused(folder: Path, mode: int) -> None:
    with (
        _listening(folder / "s", mode) as sock,
        pytest.raises(SocketError, match=f"mode {mode:04o}.* SocketMode=0660"),
    ):
        passed_address(sock, "runtime")


def test_passed_unix_socket_that_cannot_be_looked_at_is_refused(folder: Path) -> None:
    with _listening(folder / "s", 0o660) as sock:
        (folder / "s").unlink()
        with pytest.raises(SocketError, match="cannot see who may connect"):
            passed_address(sock, "runtime")


def test_passed_abstract_socket_is_refused() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("")  # the kernel chooses an abstract name
        sock.listen()
        with pytest.raises(SocketError, match="no path, so anybody may connect"):
            passed_address(sock, "runtime")


def test_passed_tcp_socket_is_described_with_its_real_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        found = passed_address(sock, "http")
        assert found == TcpAddress("http", "127.0.0.1", sock.getsockname()[1])
        assert passed_address(sock, "another-door").name == "another-door"


def test_passed_tcp_socket_beyond_loopback_is_refused() -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as sock,  # noqa: S104 - refused
        pytest.raises(SocketError, match="not on loopback"),
    ):
        passed_address(sock, "http")


def test_passed_socket_of_the_wrong_family_is_refused(folder: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        pytest.raises(SocketError, match=r"'admin' .* family AF_INET"),
    ):
        passed_address(sock, "admin")
    with (
        _listening(folder / "s", 0o600) as sock,
        pytest.raises(SocketError, match=r"'http' .* family AF_UNIX"),
    ):
        passed_address(sock, "http")


def test_passed_socket_that_does_not_listen_is_refused() -> None:
    with (
        socket.socket(socket.AF_UNIX) as sock,
        pytest.raises(SocketError, match="does not listen"),
    ):
        passed_address(sock, "runtime")


class _Fixed:
    """A socket whose peer the kernel describes as told."""

    def __init__(self, answer: bytes | OSError) -> None:
        self._answer = answer

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        assert level == socket.SOL_SOCKET
        if optname != socket.SO_PEERCRED:  # the groups: an old kernel does not say them
            raise OSError(92, "protocol not available")
        if isinstance(self._answer, OSError):
            raise self._answer
        assert len(self._answer) == buflen
        return self._answer


def test_unix_peer_is_the_process_at_the_other_end() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        peer = Peer.of_unix_socket(left)
    groups = frozenset({*os.getgroups(), os.getgid()})
    assert peer == Peer(os.getuid(), os.getgid(), os.getpid(), "unix", groups)
    assert peer.describe() == f"unix uid={os.getuid()} gid={os.getgid()} pid={os.getpid()}"


def test_what_the_kernel_does_not_say_is_none_and_not_a_number() -> None:
    unknown = Peer(None, None, None, "unix")
    assert Peer.of_unix_socket(_Fixed(struct.pack("3i", 0, -1, -1))) == unknown
    assert Peer.of_unix_socket(_Fixed(OSError(107, "not connected"))) == unknown
    assert unknown.describe() == "unix"


def test_root_peer_is_known_although_its_number_is_zero() -> None:
    peer = Peer.of_unix_socket(_Fixed(struct.pack("3i", 1, 0, 0)))
    assert (peer.uid, peer.gid) == (0, 0)
    assert peer.describe() == "unix uid=0 gid=0 pid=1"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 5), "127.0.0.1:5"),
        (("::1", 5, 0, 0), "[::1]:5"),
        (None, "unknown"),
        ("", "unknown"),
    ],
)
def test_tcp_peer_has_an_address_and_no_user(address: object, text: str) -> None:
    peer = Peer.of_tcp(address)
    assert peer == Peer(None, None, None, text)
    assert peer.describe() == text


@pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_peer_is_read_from_a_transport(
    folder: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def accept_one() -> Peer:
        loop = asyncio.get_running_loop()
        seen: asyncio.Future[Peer] = loop.create_future()

        class Door(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                seen.set_result(Peer.of_unix_socket(transport.get_extra_info("socket")))
                transport.close()

        server = await loop.create_unix_server(Door, sock=_listening(folder / "s", 0o600))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "s"))
            peer = await asyncio.wait_for(seen, 10)
        server.close()
        return peer

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        peer = runner.run(accept_one())
    groups = frozenset({*os.getgroups(), os.getgid()})
    assert peer == Peer(os.getuid(), os.getgid(), os.getpid(), "unix", groups)
