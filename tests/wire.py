"""HTTP/1.1 by hand: bytes out as a test likes them, answers in, for what no client would send."""

import contextlib
import json
import select
import socket
from collections.abc import Mapping
from typing import Any, Self

from tests.daemons import Answer, Daemon

_READ_BYTES = 1 << 20


class Wire:
    """One raw connection.

    Attributes:
        sock: The socket; its timeout is the deadline of every read.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    @classmethod
    def of(cls, daemon: Daemon) -> Self:
        """Connect to a daemon's data socket."""
        return cls(daemon.connect())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Vanish."""
        self.sock.close()

    def send(self, *parts: bytes) -> None:
        """Send each part with a write of its own."""
        for part in parts:
            self.sock.sendall(part)

    def answer(self, *, head_only: bool = False) -> Answer:
        """Read the next answer; its body too unless it answers HEAD."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        self._buffer = bytearray(rest)
        status_line, *lines = head.decode("latin-1").split("\r\n")
        assert status_line.startswith("HTTP/1.1 "), status_line
        headers = dict(line.split(": ", 1) for line in lines)
        length = 0 if head_only else int(headers.get("Content-Length", "0"))
        while len(self._buffer) < length:
            self._more()
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return Answer(int(status_line.split(" ", 2)[1]), headers, body)

    def has_more(self) -> bool:
        """Tell whether something is there to be read, or the end."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(self._buffer or poll.poll(0))

    def ends(self) -> bool:
        """Wait until the daemon closes; whether it sent nothing more before that."""
        with contextlib.suppress(ConnectionError):
            while data := self.sock.recv(_READ_BYTES):
                self._buffer += data
        return not self._buffer

    def _more(self) -> None:
        data = self.sock.recv(_READ_BYTES)
        assert data, f"the daemon closed after {bytes(self._buffer)!r}"
        self._buffer += data


def request(
    method: str,
    path: str,
    body: bytes | dict[str, Any] | None = None,
    headers: Mapping[str, str | int] | None = None,
) -> bytes:
    """Make one request."""
    payload = json.dumps(body).encode() if isinstance(body, dict) else body
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if payload is not None:
        lines.append(f"Content-Length: {len(payload)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + (payload or b"")


def infer(model: str, values: list[list[float]], **more: object) -> bytes:
    """Make a JSON prediction of input ``x``, FP32."""
    shape = [len(values), len(values[0])]
    tensor = {"name": "x", "shape": shape, "datatype": "FP32", "data": values}
    return request("POST", f"/v2/models/{model}/infer", {"inputs": [tensor], **more})


def infer_zeros(model: str, shape: list[int], **parameters: object) -> bytes:
    """Make a binary prediction of FP32 zeros ``x`` that answers in binary."""
    size = 4
    for side in shape:
        size *= side
    tensor = {
        "name": "x",
        "shape": shape,
        "datatype": "FP32",
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps(
        {"inputs": [tensor], "parameters": {"binary_data_output": True, **parameters}}
    ).encode()
    length = {"Inference-Header-Content-Length": len(head)}
    return request("POST", f"/v2/models/{model}/infer", head + bytes(size), length)


def numbers(answer: Answer) -> list[float]:
    """Give the first output of a JSON prediction."""
    assert answer.status == 200, answer.body
    data: list[float] = answer.json()["outputs"][0]["data"]
    return data
