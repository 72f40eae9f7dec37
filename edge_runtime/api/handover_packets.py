"""Packets with descriptors: received whole or not at all, and nothing of them is ever leaked."""

import array
import os
import socket
from typing import Final, NamedTuple

from edge_runtime.protocol.handover_schemas import PACKET_BYTES_MAX

DESCRIPTORS_SEEN: Final = 8
"""Descriptors of one packet that are looked at; the kernel closes what is beyond."""

_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_SPACE: Final = socket.CMSG_SPACE(DESCRIPTORS_SEEN * array.array("i").itemsize)


class Packet(NamedTuple):
    """What one call received.

    Attributes:
        data: The request.
        descriptors: What came with it; whoever has the packet closes them.
        is_long: Whether it was longer than it may be, and was cut off.
        is_stripped: Whether descriptors were lost: there were too many, or this process has no
            room for more.
    """

    data: bytes
    descriptors: tuple[int, ...]
    is_long: bool = False
    is_stripped: bool = False

    @property
    def is_end(self) -> bool:
        """Whether the other end has closed: a packet without anything looks the same."""
        return not (self.data or self.descriptors or self.is_stripped)


def receive(sock: socket.socket) -> Packet:
    """Take the next packet, without waiting for it.

    Raises:
        BlockingIOError: There is none.
        OSError: The connection is broken.
    """
    data, ancillary, flags, _ = sock.recvmsg(PACKET_BYTES_MAX + 1, _SPACE, _FLAGS)
    found = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return Packet(
        data,
        tuple(found),
        is_long=bool(flags & socket.MSG_TRUNC) or len(data) > PACKET_BYTES_MAX,
        is_stripped=bool(flags & socket.MSG_CTRUNC),
    )


def send(sock: socket.socket, data: bytes, descriptor: int | None) -> None:
    """Send a packet, without waiting until the other end has room for it.

    Args:
        sock: Where to.
        data: At most ``PACKET_BYTES_MAX`` bytes.
        descriptor: What goes with it; stays the caller's.

    Raises:
        BlockingIOError: The other end does not read.
        OSError: The connection is broken.
    """
    ancillary: list[tuple[int, int, array.array[int]]] = []
    if descriptor is not None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    sock.sendmsg([data], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def attached(data: bytes) -> int:
    """Put a text into memory that can be handed over like a file, and not be changed any more.

    Returns:
        Its descriptor.

    Raises:
        OSError: There is no room for it.
    """
    import fcntl  # noqa: PLC0415 - only answers that are too long for a packet need it

    descriptor = os.memfd_create("answer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
