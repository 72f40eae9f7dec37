"""The least HTTP client that the benchmarks need: one request at a time on a stream socket.

Standard library only, so that the process that measures adds next to nothing to what it measures
(and shares no library with the servers, which would make their memory look smaller).
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Address = str | tuple[str, int]
"""A Unix socket's path, or host and port."""

TIMEOUT_S: Final = 30.0
"""The longest wait for one answer, in seconds."""

_CHUNK_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def connect(address: Address, timeout_s: float = TIMEOUT_S) -> socket.socket:
    """Open a connection.

    Args:
        address: Where to.
        timeout_s: Deadline of every later operation on the socket, in seconds.

    Raises:
        OSError: Nobody listens there.
    """
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    stream = socket.socket(family, socket.SOCK_STREAM)
    stream.settimeout(timeout_s)
    try:
        stream.connect(address)
        if family == socket.AF_INET:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        stream.close()
        raise
    return stream


def head(method: str, target: str, headers: Mapping[str, str], body_bytes: int) -> bytes:
    """Write a request's line and headers.

    Args:
        method: ``GET`` or ``POST``.
        target: The path.
        headers: Beside ``Host`` and ``Content-Length``.
        body_bytes: Length of the body, in bytes.
    """
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Content-Length: {body_bytes}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def receive(stream: socket.socket) -> Answer:
    """Read one answer with a ``Content-Length``.

    Args:
        stream: A connection on which a request was sent.

    Raises:
        OSError: The connection ended, or the deadline passed.
    """
    buffer = bytearray()
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        buffer += _some(stream, _CHUNK_BYTES)
    status_line, *lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    size = int(headers.get("content-length", "0"))
    del buffer[: end + 4]
    while len(buffer) < size:
        buffer += _some(stream, size - len(buffer))
    return Answer(int(status_line.split()[1]), headers, bytes(buffer))


def ask(address: Address, method: str, target: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """Send one request without a body on a connection of its own.

    Args:
        address: Where to.
        method: ``GET`` or ``POST``.
        target: The path.
        timeout_s: Deadline of the answer, in seconds.

    Raises:
        OSError: Nobody listens there, or no answer came.
    """
    with connect(address, timeout_s) as stream:
        stream.sendall(head(method, target, {"Connection": "close"}, 0))
        return receive(stream)


def _some(stream: socket.socket, size: int) -> bytes:
    """Read at least one byte."""
    data = stream.recv(size)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data
