"""What systemd and the daemon say to each other: passed sockets, readiness, the watchdog.

The protocols are plain environment variables and datagrams (``sd_listen_fds(3)``,
``sd_notify(3)``, ``sd_watchdog_enabled(3)``), so no library is needed. Without those variables
everything here does nothing.
"""

import contextlib
import fcntl
import logging
import os
import socket
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, MutableMapping
from typing import Final

from edge_runtime.errors import SocketError

FIRST_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START
UNNAMED: Final = "unknown"  # systemd's own word for a socket without a name
SEND_TIMEOUT_S: Final = 0.1

_LISTEN_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_MOST_DIGITS: Final = 20  # of a 64-bit number

_log = logging.getLogger(__name__)


def listen_fds(
    environment: MutableMapping[str, str] = os.environ,
) -> dict[str, list[socket.socket]]:
    """Take over the sockets that systemd opened for this process.

    The variables are removed even if they were not meant for this process, so that no child takes
    the descriptors for its own.

    Args:
        environment: Where the variables are; removed from there.

    Returns:
        The sockets by name (``FileDescriptorName=`` of the unit); empty when not under systemd.

    Raises:
        SocketError: The variables contradict each other, or a descriptor is not a socket.
    """
    pid, count, names, _ = [environment.pop(variable, "") for variable in _LISTEN_VARIABLES]
    if _number(pid) != os.getpid():
        return {}
    passed = _number(count)
    if passed is None:
        raise SocketError(f"LISTEN_FDS is {count!r}, not a number; check what starts the daemon")
    labels = names.split(":") if names else []
    if labels and len(labels) != passed:
        raise SocketError(
            f"LISTEN_FDS says {passed} sockets and LISTEN_FDNAMES {len(labels)}; check "
            "FileDescriptorName= in the socket units"
        )
    # Closes what was taken over when a later descriptor is no good.
    with contextlib.ExitStack() as taken:
        sockets: dict[str, list[socket.socket]] = {}
        for position in range(passed):
            descriptor = FIRST_DESCRIPTOR + position
            label = (labels[position] if labels else "") or UNNAMED
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
                sock = taken.enter_context(socket.socket(fileno=descriptor))
            except OSError as error:
                raise SocketError(
                    f"descriptor {descriptor} ({label}) from systemd is not a socket: "
                    f"{error.strerror}; check the socket units"
                ) from error
            sockets.setdefault(label, []).append(sock)
        taken.pop_all()
    return sockets


def watchdog_interval_s(environment: Mapping[str, str] = os.environ) -> float | None:
    """Say how often systemd wants to hear that the daemon is alive.

    Args:
        environment: Where the variables are looked up.

    Returns:
        Half of the time after which systemd would kill the daemon, in seconds; ``None`` when
        nobody watches.
    """
    pid = environment.get("WATCHDOG_PID")
    if pid is not None and _number(pid) != os.getpid():
        return None
    limit_us = _number(environment.get("WATCHDOG_USEC", ""))
    return limit_us / 2_000_000 if limit_us else None


class Notifier:
    """Tells systemd about the daemon's state.

    It never raises and never waits long: telling is a courtesy, serving is the work. A message
    that could not be sent is counted in ``failures``.

    Args:
        environment: Where ``NOTIFY_SOCKET`` is looked up.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self.failures = 0
        self._address: bytes | None = None
        if address.startswith("/"):
            self._address = os.fsencode(address)
        elif address.startswith("@"):
            self._address = b"\0" + os.fsencode(address[1:])
        elif address:
            # vsock: is for virtual machines that report to their host.
            _log.debug("NOTIFY_SOCKET %r is of a kind that is not supported: ignored", address)

    @property
    def enabled(self) -> bool:
        """Whether somebody listens."""
        return self._address is not None

    def ready(self) -> None:
        """Say that the start, or a reload, is complete."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that a reload begins; ``ready`` has to follow."""
        # systemd drops a reload whose time is before its own request to reload.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the stop has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Give the line that ``systemctl status`` shows.

        Args:
            text: One line; line breaks become spaces, for a new line would be a new message.
        """
        self._send(f"STATUS={' '.join(text.splitlines())}")

    def watchdog(self) -> None:
        """Say that the daemon is alive."""
        self._send("WATCHDOG=1")

    def keep_alive(self, loop: AbstractEventLoop, is_well: Callable[[], bool]) -> None:
        """Answer the watchdog from now on, if it asks, for as long as the daemon is well.

        Args:
            loop: Its loop; one that hangs answers nothing.
            is_well: Whether it is.
        """
        interval_s = watchdog_interval_s()
        if interval_s is None:
            return

        def beat() -> None:
            if is_well():
                self.watchdog()
            loop.call_later(interval_s, beat)

        beat()

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            # One socket per message, as sd_notify does it: nothing to keep open or to close.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(SEND_TIMEOUT_S)
                sock.sendto(message.encode("utf-8", "replace"), self._address)
        except (OSError, ValueError) as error:
            self.failures += 1
            _log.debug("could not tell systemd %r: %s", message, error)


def _number(text: str) -> int | None:
    """Read a decimal number as systemd writes it; ``int`` would take ``+1_0`` too."""
    plain = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if plain else None
