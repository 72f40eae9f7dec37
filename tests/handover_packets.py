"""Packets to the hand-over socket as no decent client sends them, and their answers."""

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WAIT_S = 60.0
ANSWER_BYTES = 1 << 17


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """Open a connection for the length of a block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(WAIT_S)
        sock.connect(str(path))
        yield sock


def send(sock: socket.socket, request: object, *descriptors: int) -> None:
    """Send a packet: bytes as they are, anything else as JSON."""
    data = request if isinstance(request, bytes) else json.dumps(request).encode()
    socket.send_fds(sock, [data], descriptors)


def answered(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Take the next answer, and what came with it; nothing: the other end has closed."""
    data, descriptors, _, _ = socket.recv_fds(sock, ANSWER_BYTES, 8)
    return (json.loads(data) if data else {}), descriptors


def ask(path: Path, request: object, *descriptors: int) -> dict[str, Any]:
    """Ask one thing on a connection of its own; the answer must come without a descriptor."""
    with connected(path) as sock:
        send(sock, request, *descriptors)
        answer, found = answered(sock)
    assert not found
    return answer


@contextmanager
def memory(data: bytes) -> Iterator[int]:
    """Give a descriptor of some bytes."""
    descriptor = os.memfd_create("test")
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)


def count_of(pid: int | str = "self") -> int:
    """Count the open descriptors of a process."""
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


def refused(answer: Mapping[str, Any], status: int, *words: str) -> None:
    """Look whether an answer is a refusal that says why."""
    assert answer.get("status") == status, answer
    assert all(word in answer["error"] for word in words), answer


def closed(descriptors: Sequence[int]) -> None:
    """Close descriptors."""
    for each in descriptors:
        os.close(each)
