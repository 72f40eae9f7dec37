"""Both ends of a connection: what may be a door of the daemon, and who is calling.

Until there are rules for callers, a door is safe only by where it is: a Unix socket that no more
than its owner and one group may open, or TCP on loopback.
"""

import grp
import ipaddress
import os
import re
import secrets
import socket
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, Self

from edge_runtime.errors import ConfigError, SocketError

RUNTIME: Final = "runtime"
ADMIN: Final = "admin"
HANDOVER: Final = "handover"
HTTP: Final = "http"
"""Names of the doors; in a systemd socket unit, ``FileDescriptorName=`` says which one it is."""

WIDEST_MODE: Final = 0o660
"""Who may ever open a Unix socket of ours: owner and group."""

PATH_BYTES: Final = 107
"""Longest path of a Unix socket: ``sockaddr_un`` has 108 bytes, the last is a zero."""

_LAST_PORT: Final = 65_535
_HOST_PORT: Final = re.compile(r"(\[[^\[\]]+\]|[^\[\]:]+):([0-9]{1,5})")
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_SO_PEERGROUPS: Final = 59  # socket(7); Python has no name for it
_GROUP: Final = struct.Struct("I")
_GROUPS_BYTES_MAX: Final = 1024  # 256 groups: Python reads no longer option
_UNIX: Final = frozenset({socket.AF_UNIX})
_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_FAMILIES: Final = {RUNTIME: _UNIX, ADMIN: _UNIX, HANDOVER: _UNIX, HTTP: _INTERNET}
_STREAM: Final = (socket.SOCK_STREAM, "ListenStream=")
_PACKETS: Final = (socket.SOCK_SEQPACKET, "ListenSequentialPacket=")
_KINDS: Final = {RUNTIME: _STREAM, ADMIN: _STREAM, HANDOVER: _PACKETS, HTTP: _STREAM}


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket: the door's name, its path and the group that owns it (empty: our own)."""

    name: str
    path: Path
    group: str = ""

    @classmethod
    def at(cls, path: Path, *, name: str = "", group: str = "") -> Self:
        """Describe a socket that can be bound.

        Args:
            path: Where; made absolute, so that a later change of directory changes nothing.
            name: Name of the door; empty: the path's stem (``runtime.sock`` is ``runtime``).
            group: Group that may connect.

        Raises:
            SocketError: The system cannot bind such a path.
        """
        path = path.absolute()
        encoded = os.fsencode(path)
        if len(encoded) > PATH_BYTES:
            raise SocketError(
                f"the socket path {path} has {len(encoded)} bytes and the system's limit is "
                f"{PATH_BYTES}; choose a shorter one"
            )
        if b"\0" in encoded:
            raise SocketError(f"the socket path {str(path)!r} holds a zero byte; remove it")
        return cls(name or path.stem, path, group)

    @property
    def group_id(self) -> int | None:
        """Number of the group; ``None`` without one.

        Raises:
            SocketError: There is no such group.
        """
        if not self.group:
            return None
        try:
            return grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise SocketError(
                f"there is no group {self.group!r} for {self.path}; create it, or leave the group "
                "empty"
            ) from None

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A TCP socket on loopback: the door's name, its numeric host and its port."""

    name: str
    host: str
    port: int

    @classmethod
    def parse(cls, listen: str, *, name: str = HTTP) -> Self:
        """Read ``HOST:PORT``.

        Args:
            listen: ``127.0.0.1:8000``, ``[::1]:8000`` or ``localhost:8000`` (which is 127.0.0.1,
                and is not looked up: a resolver could answer anything).
            name: Name of the door.

        Raises:
            ConfigError: The text is something else.
            SocketError: The address is not on loopback.
        """
        match = _HOST_PORT.fullmatch(listen)
        host, port = match.groups() if match else ("", "0")
        try:
            if int(port) > _LAST_PORT:
                host = ""
            elif host == "localhost":
                host = "127.0.0.1"
            if host.startswith("["):
                host = str(ipaddress.IPv6Address(host[1:-1]))
            else:
                host = str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ConfigError(
                f"{listen!r} is not HOST:PORT with a numeric host; write 127.0.0.1:8000, "
                "[::1]:8000 or localhost:8000"
            ) from None
        return cls.on_loopback(host, int(port), name=name)

    @classmethod
    def on_loopback(cls, host: str, port: int, *, name: str) -> Self:
        """Describe an address that only this device can reach, or refuse it.

        Args:
            host: Numeric host.
            port: The port.
            name: Name of the door.

        Raises:
            SocketError: The address is not on loopback.
        """
        address = ipaddress.ip_address(host)
        # Python's versions disagree about ::ffff:127.0.0.1, and it would not bind anyway.
        mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
        if mapped or not address.is_loopback:
            raise SocketError(
                f"the TCP address {_host_port(host, port)} is not on loopback, and there is no "
                "access control for other devices yet; use 127.0.0.1, or the Unix socket"
            )
        return cls(name, host, port)

    def __str__(self) -> str:
        return _host_port(self.host, self.port)


Address = UnixAddress | TcpAddress


def passed_address(sock: socket.socket, name: str) -> Address:
    """Describe a socket that another program (systemd) opened, if it keeps to our rules.

    Args:
        sock: The socket.
        name: Name of the door, which says of what kind the socket has to be.

    Raises:
        SocketError: The socket is of the wrong kind, does not listen, or lets too many in.
    """
    what = f"the socket {name!r} that was passed to the daemon"
    if sock.family not in _FAMILIES.get(name, _UNIX | _INTERNET):
        raise SocketError(f"{what} is of family {sock.family.name}; correct its ListenStream=")
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise SocketError(
            f"{what} does not listen; use {_KINDS.get(name, _STREAM)[1]} and Accept=no"
        )
    kind, directive = _KINDS.get(name, (sock.type, ""))
    if sock.type != kind:
        raise SocketError(f"{what} is of another kind than that door's; use {directive}")
    if sock.family != socket.AF_UNIX:
        host, port = sock.getsockname()[:2]
        return TcpAddress.on_loopback(host, port, name=name)
    bound_to = os.fsdecode(sock.getsockname())
    if not bound_to.startswith("/"):
        # An abstract name has no owner and no mode.
        raise SocketError(f"{what} has no path, so anybody may connect; give it a path")
    path = Path(bound_to)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise SocketError(
            f"cannot see who may connect to {what}: {path}: {error.strerror}; keep its path "
            "visible to the daemon"
        ) from error
    if mode & ~WIDEST_MODE:
        raise SocketError(
            f"{what}, {path}, has mode {mode:04o} and may have no more than {WIDEST_MODE:04o}; "
            "set SocketMode=0660 in the socket unit (systemd's default is 0666)"
        )
    return UnixAddress(name, path)


class PeerSocket(Protocol):
    """What is needed of a socket: asyncio's and uvloop's transport sockets have it too."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes:
        """Read a socket option as bytes."""


def _drawn() -> int:
    """Draw the number of a connection."""
    return secrets.randbits(63)


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end; ``None`` is what the kernel does not say.

    The identity is the one at the time of ``connect()``; ``groups`` are all of its groups. ``pid``
    is for logs only: by the time it is looked at, the number may belong to another process.
    ``connection`` is drawn at random: what is sticky to a connection goes by it.
    """

    uid: int | None
    gid: int | None
    pid: int | None
    address: str
    groups: frozenset[int] = frozenset()
    connection: int = field(default_factory=_drawn, compare=False, repr=False)

    @classmethod
    def of_unix_socket(cls, sock: PeerSocket) -> Self:
        """Read the credentials of a Unix socket's peer.

        Args:
            sock: A connected Unix socket, or a transport's ``get_extra_info("socket")``.

        Returns:
            The peer. If the kernel gives no credentials nothing is known about it, so no rule
            that names a user may match.
        """
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return cls(None, None, None, "unix")
        pid, uid, gid = _CREDENTIALS.unpack(raw)
        # No credentials: uid and gid are -1; a peer in another pid namespace: pid is 0.
        return cls(
            uid=uid if uid >= 0 else None,
            gid=gid if gid >= 0 else None,
            pid=pid if pid > 0 else None,
            address="unix",
            groups=_groups(sock) | ({gid} if gid >= 0 else set()),
        )

    @classmethod
    def of_tcp(cls, address: object) -> Self:
        """Name a TCP peer, of whom the kernel knows no user.

        Args:
            address: What ``get_extra_info("peername")`` gave: ``(host, port, ...)``, or ``None``
                if the peer was gone already.
        """
        match address:
            case (str(host), int(port), *_):
                return cls(None, None, None, _host_port(host, port))
            case _:
                return cls(None, None, None, "unknown")

    def describe(self) -> str:
        """Say who it is, for a log line."""
        known = [
            f"{name}={value}"
            for name, value in (("uid", self.uid), ("gid", self.gid), ("pid", self.pid))
            if value is not None
        ]
        return " ".join([self.address, *known])


def _groups(sock: PeerSocket) -> frozenset[int]:
    """Read the supplementary groups of a Unix socket's peer; empty where the kernel says none."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES_MAX)
    except OSError:  # more groups than fit, or a kernel before 4.13: no rule of a group matches
        return frozenset()
    return frozenset(each for (each,) in _GROUP.iter_unpack(raw))


#: A caller of whom nothing is known: no rule that names a user matches.
NOBODY: Final = Peer(None, None, None, "unknown")


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
