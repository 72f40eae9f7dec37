"""The daemon's doors: who owns the sockets, who may open them, and how they open and close.

Sockets are bound here and never by the event loop. ``create_unix_server(path=...)`` of asyncio and
of uvloop removes whatever socket is at the path, even one that another process is serving on, and
makes the new one with the process' umask (0755 as a rule).
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge_runtime.access import HTTP, WIDEST_MODE, Address, TcpAddress, UnixAddress, passed_address
from edge_runtime.errors import SocketError

BACKLOG: Final = 128
"""Connections that may wait to be accepted (the kernel's net.core.somaxconn may lower it)."""

DRAIN_TURNS: Final = 4 * BACKLOG
"""Turns of the loop for letting in who is waiting; uvloop may accept only one in each."""

SETTLE_TURNS: Final = 3  # between asyncio's accepting and the transport's being there
LOCK_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

ProtocolFactory = Callable[[], asyncio.BaseProtocol]
OnReadable = Callable[[socket.socket], object]

_log = logging.getLogger(__name__)


class BoundSocket:
    """A listening socket of this process, made by ``bind_unix``, ``bind_tcp`` or ``adopt``.

    Args:
        sock: The listening socket.
        address: Where it listens.
        adopted: It came from systemd, which keeps it open and owns its path.
        lock: Descriptor of the lock that goes with the path, if there is one.
    """

    def __init__(
        self, sock: socket.socket, address: Address, *, adopted: bool, lock: int | None = None
    ) -> None:
        self.socket = sock
        self.address = address
        self.adopted = adopted
        self._lock = lock
        self._identity: tuple[int, int] | None = None
        if isinstance(address, UnixAddress) and not adopted:
            self._identity = _identity(address.path)

    @property
    def is_open(self) -> bool:
        """Whether the socket is still there; an event loop's server closes it with itself."""
        return self.socket.fileno() != -1

    def has_waiting(self) -> bool:
        """Whether somebody has connected and was not accepted yet."""
        if not self.is_open:
            return False
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def unlink(self) -> None:
        """Remove the path, so that nobody can connect any more; only if it still is ours."""
        if self._identity is None or not isinstance(self.address, UnixAddress):
            return
        # The open socket keeps its inode alive, so no other file can have got its number. That is
        # why this comes before closing.
        if self.is_open and _identity(self.address.path) == self._identity:
            with contextlib.suppress(OSError):
                self.address.path.unlink()
        self._identity = None

    def close(self) -> None:
        """Remove the path, close the socket, then release the lock. May be called again."""
        self.unlink()
        self.socket.close()
        if self._lock is not None:
            # Said aloud because a forked child would otherwise hold on to the lock for us.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None


def bind_unix(
    path: Path, *, group: str = "", name: str = "", kind: socket.SocketKind = socket.SOCK_STREAM
) -> BoundSocket:
    """Bind and listen on a Unix socket that is at no moment open to others than owner and group.

    A missing parent directory is made, for the owner only: for a ``group``, make one (systemd's
    ``RuntimeDirectory=``) that the group may enter. The umask is the process', so this belongs to
    the start, before there are threads.

    Args:
        path: Where.
        group: Group that may connect too; empty: the process' own.
        name: Name of the door; empty: the path's stem (``runtime.sock`` is ``runtime``).
        kind: ``SOCK_STREAM``, or ``SOCK_SEQPACKET`` for a door that keeps message borders.

    Raises:
        SocketError: The path is too long, is served by another process, is not a socket, or may
            not be bound; the group does not exist or may not be given.
    """
    address = UnixAddress.at(path, name=name, group=group)
    path, group_id = address.path, address.group_id
    with _translated(path), contextlib.ExitStack() as undo:
        # No mode but an umask: it counts for the parents' parents too.
        with _umask(0o077):
            path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{path}.lock", LOCK_FLAGS, 0o600)
        undo.callback(os.close, lock)
        _take_lock(lock, path)
        _make_way(path)
        sock = undo.enter_context(socket.socket(socket.AF_UNIX, kind))
        # With a group: shut until the group is the right one.
        with _umask(0o777 & ~WIDEST_MODE if group_id is None else 0o177):
            sock.bind(os.fsencode(path))
        # Whatever fails from here on, nothing that nobody serves stays at the path.
        undo.callback(path.unlink, missing_ok=True)
        if group_id is not None:
            _give(address, group_id)
        sock.listen(BACKLOG)
        bound = BoundSocket(sock, address, adopted=False, lock=lock)
        undo.pop_all()
    return bound


def bind_tcp(listen: str, *, name: str = HTTP) -> BoundSocket:
    """Bind and listen on a loopback TCP address.

    ``TCP_NODELAY`` is not set here: it belongs to the accepted connection, and both event loops
    set it there.

    Args:
        listen: ``HOST:PORT``, as ``TcpAddress.parse`` reads it. Port 0 takes a free one.
        name: Name of the door.

    Raises:
        ConfigError: The text is not ``HOST:PORT``.
        SocketError: The address is not on loopback, is in use, or may not be bound.
    """
    asked = TcpAddress.parse(listen, name=name)
    family = socket.AF_INET6 if ":" in asked.host else socket.AF_INET
    with contextlib.ExitStack() as undo:
        try:
            sock = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            # A restart must not wait for the old connections' TIME_WAIT. On Linux this still
            # refuses a port that somebody listens on.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((asked.host, asked.port))
            sock.listen(BACKLOG)
            port = sock.getsockname()[1]
        except OSError as error:
            raise SocketError(
                f"cannot listen on {listen}: {error.strerror}; stop what uses it, or choose "
                "another port from 1024 up (0 takes a free one)"
            ) from error
        undo.pop_all()
    return BoundSocket(sock, replace(asked, port=port), adopted=False)


def adopt(sock: socket.socket, *, name: str) -> BoundSocket:
    """Take a socket that systemd listens on; it is held to the same rules as our own.

    Args:
        sock: The listening socket (from ``systemd.listen_fds``). Still the caller's on an error.
        name: Name of the door, which says what kind of socket it has to be.

    Raises:
        SocketError: The socket is of the wrong kind, does not listen, or lets too many in.
    """
    return BoundSocket(sock, passed_address(sock, name), adopted=True)


class _ServedDoor:
    """A door whose connections the event loop accepts and gives to protocols."""

    def __init__(self, bound: BoundSocket, protocol_factory: ProtocolFactory) -> None:
        self.bound = bound
        self._protocol_factory = protocol_factory
        # uvloop drops a Unix server that nobody refers to, and the door falls shut.
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        create: Callable[..., Awaitable[asyncio.Server]] = loop.create_server
        options: dict[str, object] = {}
        if self.bound.socket.family == socket.AF_UNIX:
            create = loop.create_unix_server
            if sys.version_info >= (3, 13):
                # From there on loops remove the path themselves, systemd's too. That is our work.
                options["cleanup_socket"] = False
        # The loop calls `listen()` again, so it has to be told our backlog.
        self._server = await create(
            self._protocol_factory, sock=self.bound.socket, backlog=BACKLOG, **options
        )

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()  # closes the socket too, in both loops
            self._server = None


class _RawDoor:
    """A door whose owner accepts the connections."""

    def __init__(self, bound: BoundSocket, on_readable: OnReadable) -> None:
        self.bound = bound
        self._on_readable = on_readable
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        self.bound.socket.settimeout(0)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.bound.socket, self._on_readable, self.bound.socket)

    def stop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self.bound.socket)
        self._loop = None
        self.bound.socket.close()


class Listeners:
    """All doors of the daemon: added, then opened together, then closed together."""

    def __init__(self) -> None:
        self._doors: list[_ServedDoor | _RawDoor] = []

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """Name and printable address (with the real port) of every door, as added."""
        return [(door.bound.address.name, str(door.bound.address)) for door in self._doors]

    @property
    def are_open(self) -> bool:
        """Whether every socket is still there; without it nobody can connect any more."""
        return all(door.bound.is_open for door in self._doors)

    def add(self, bound: BoundSocket, protocol_factory: ProtocolFactory) -> None:
        """Have the event loop accept on a stream socket; any protocol will do, HTTP or not.

        Args:
            bound: The socket; closed with the others from now on.
            protocol_factory: Makes the protocol of one connection.
        """
        self._doors.append(_ServedDoor(bound, protocol_factory))

    def add_raw(self, bound: BoundSocket, on_readable: OnReadable) -> None:
        """Hand a listening socket to something that accepts by itself.

        Args:
            bound: The socket, of any kind; closed with the others from now on.
            on_readable: Called with the listening, non-blocking socket when somebody has
                connected, again and again until it was accepted.
        """
        self._doors.append(_RawDoor(bound, on_readable))

    async def start(self) -> None:
        """Open every door that was added. Connections made since the bind were waiting.

        Raises:
            SocketError: A door could not be opened; ``close`` is still due.
        """
        for door in self._doors:
            try:
                await door.start()
            except (OSError, ValueError) as error:
                raise SocketError(f"cannot accept on {door.bound.address}: {error}") from error

    async def stop_accepting(self) -> None:
        """Shut the doors; connections that were accepted go on.

        Whoever has connected to a socket of ours is let in first, or closing would reset a
        request that was sent already. On systemd's sockets they wait for the next daemon.
        """
        own = [door.bound for door in self._doors if not door.bound.adopted]
        for bound in own:
            bound.unlink()
        for _ in range(DRAIN_TURNS):  # TCP has no path to remove: new ones may keep coming
            if not any(bound.has_waiting() for bound in own):
                break
            await asyncio.sleep(0)
        # asyncio makes the transport a few turns after it accepted, and asserts that the server
        # is still open then; otherwise the connection is lost.
        for _ in range(SETTLE_TURNS):
            await asyncio.sleep(0)
        for door in self._doors:
            door.stop()

    def close(self) -> None:
        """Shut the doors at once, remove our paths and release the locks. May be called again."""
        for door in self._doors:
            door.bound.unlink()
            door.stop()
            door.bound.close()


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn what the system says about a path into our error."""
    try:
        yield
    except OSError as error:
        raise SocketError(
            f"cannot listen on {path}: {error.strerror}; check the folder's owner and mode, or "
            "choose another path"
        ) from error


def _take_lock(lock: int, path: Path) -> None:
    """Lock ``<path>.lock`` for as long as the descriptor is open: two daemons cannot race.

    The file is left behind on purpose. If it were removed, a process that had opened it before
    would hold the lock of a file without a name while a third one locks a new file: two owners.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SocketError(_in_use(path)) from None


def _make_way(path: Path) -> None:
    """Remove a socket that nobody answers on. The lock must be held."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketError(
            f"{path} exists and is not a socket, so it is left alone; remove it, or choose "
            "another path"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        answer = probe.connect_ex(os.fsencode(path))
    if answer == errno.ECONNREFUSED:
        path.unlink()
    elif answer in {0, errno.EAGAIN, errno.EPROTOTYPE}:
        # EAGAIN: its backlog is full; EPROTOTYPE: it is not a stream socket. Somebody is there.
        raise SocketError(_in_use(path))
    elif answer != errno.ENOENT:
        raise OSError(answer, os.strerror(answer))


def _in_use(path: Path) -> str:
    return f"another process is serving on {path}; stop it, or choose another path"


def _give(address: UnixAddress, group_id: int) -> None:
    """Open a new socket to its group, in the order that never opens it to another one."""
    path = address.path
    try:
        os.chown(path, -1, group_id, follow_symlinks=False)
        path.chmod(WIDEST_MODE)
    except OSError as error:
        raise SocketError(
            f"cannot give {path} to the group {address.group!r}: {error.strerror}; add the "
            "daemon's user to the group, or leave the group empty"
        ) from error
    folder = path.parent.stat()
    shared = folder.st_gid == group_id and folder.st_mode & stat.S_IXGRP
    if not (shared or folder.st_mode & stat.S_IXOTH):
        _log.warning("the group %r cannot enter %s to its socket", address.group, path.parent)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
