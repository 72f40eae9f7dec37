"""A static web server that misbehaves when told to: truncates, stalls, drips, lies, resets.

It serves the files of a folder as any good one does (GET, HEAD, Range, If-Range, ETag, keep-alive),
but for paths that a fault was set for::

    with hostile_server(folder) as server:
        server.fault("/metadata/timestamp.json", status(500), times=2)   # then it is healed
        server.fault("/artifacts/*", truncate(1000))                     # until server.heal()
        fetch(server.url + "/artifacts/a.onnx")
        assert server.paths() == [...]
"""

import contextlib
import fnmatch
import hashlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.http_faults import (
    Fault,
    drip,
    drip_head,
    endless,
    hang_up,
    ignore_range,
    redirect,
    replace,
    reset,
    stall,
    status,
    truncate,
    wrong_range,
)

PIECE_BYTES = 65_536
CLIENT_SILENCE_S = 30.0

__all__ = [
    "PIECE_BYTES",
    "Fault",
    "HostileServer",
    "Seen",
    "drip",
    "drip_head",
    "endless",
    "hang_up",
    "hostile_server",
    "ignore_range",
    "redirect",
    "replace",
    "reset",
    "stall",
    "status",
    "truncate",
    "wrong_range",
]


@dataclass(frozen=True)
class Seen:
    """A request as it came.

    Attributes:
        method: ``GET`` or ``HEAD``.
        path: Without query, quoted as it came.
        headers: By lower-case name.
    """

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class _Rule:
    pattern: str
    fault: Fault
    left: int | None
    skip: int


class HostileServer:
    """The server; use :func:`hostile_server`.

    Attributes:
        url: ``http://127.0.0.1:PORT`` or ``https://localhost:PORT``, without a slash at the end.
        requests: Every request, in order.
        connections: How many connections were accepted.
        sent_bytes: Body bytes that were written or are being written, by path.
    """

    def __init__(self, folder: Path, tls: tuple[Path, Path] | None) -> None:
        self.folder = folder
        self.requests: list[Seen] = []
        self.connections = 0
        self.sent_bytes: dict[str, int] = {}
        self.closing = threading.Event()
        self.tls: ssl.SSLContext | None = None
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._notes = 0
        self._sockets: set[socket.socket] = set()
        if tls is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*tls)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self.port = int(self._server.server_address[1])
        self.url = f"https://localhost:{self.port}" if tls else f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def fault(self, pattern: str, fault: Fault, times: int | None = None, skip: int = 0) -> None:
        """Set a fault; the newest that matches counts.

        Args:
            pattern: Of the path, such as ``/metadata/*.json``; stars match slashes too.
            fault: What goes wrong.
            times: For so many requests; ``None``: until :meth:`heal`.
            skip: Requests that go well before.
        """
        with self._lock:
            self._rules.insert(0, _Rule(pattern, fault, times, skip))

    def heal(self) -> None:
        """Take every fault away."""
        with self._lock:
            self._rules.clear()

    def paths(self) -> list[str]:
        """Give the paths that were asked for, in order."""
        with self._lock:
            return [seen.path for seen in self.requests]

    def forget(self) -> None:
        """Begin the notes of requests and bytes anew.

        An answer may still be sent whose caller has left: what is left of it is not noted any more.
        """
        with self._lock:
            self._notes += 1
            self.requests.clear()
            self.sent_bytes.clear()
            self.connections = 0

    def close(self) -> None:
        """Stop; callers that still wait are left with a closed connection."""
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def note(self, seen: Seen) -> tuple[int, Fault | None]:
        """Note a request and choose its fault; the handler calls it.

        Returns:
            The number of the notes that it is in, for :meth:`note_sent`, and the fault.
        """
        with self._lock:
            self.requests.append(seen)
            for rule in self._rules:
                if rule.left == 0 or not fnmatch.fnmatchcase(seen.path, rule.pattern):
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                if rule.left is not None:
                    rule.left -= 1
                return self._notes, rule.fault
            return self._notes, None

    def note_sent(self, notes: int, path: str, size_bytes: int) -> None:
        """Count body bytes of a request in these notes; the handler calls it."""
        with self._lock:
            if notes == self._notes:
                self.sent_bytes[path] = self.sent_bytes.get(path, 0) + size_bytes

    def note_socket(self, sock: socket.socket, *, is_open: bool) -> None:
        """Know which connections to close at the end; the handler calls it."""
        with self._lock:
            if is_open:
                self.connections += 1
                self._sockets.add(sock)
            else:
                self._sockets.discard(sock)


@contextlib.contextmanager
def hostile_server(folder: Path, tls: tuple[Path, Path] | None = None) -> Iterator[HostileServer]:
    """Serve a folder for the length of a block.

    Args:
        folder: What is served; may change while it is.
        tls: Files of the certificate and its key: then it speaks HTTPS as ``localhost``.
    """
    server = HostileServer(folder, tls)
    try:
        yield server
    finally:
        server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    owner: HostileServer

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Say nothing: callers leave in the middle all the time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = CLIENT_SILENCE_S
    server: _Server

    def setup(self) -> None:
        if self.server.owner.tls is not None:
            self.request.settimeout(CLIENT_SILENCE_S)
            self.request = self.server.owner.tls.wrap_socket(self.request, server_side=True)
        self.server.owner.note_socket(self.request, is_open=True)
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.server.owner.note_socket(self.request, is_open=False)
        if self.server.owner.tls is not None:
            self.request.close()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        headers = {name.lower(): text for name, text in self.headers.items()}
        self._notes, fault = self.server.owner.note(Seen(self.command, path, headers))
        file = (self.server.owner.folder / unquote(path).lstrip("/")).resolve()
        inside = file.is_relative_to(self.server.owner.folder.resolve())
        body = file.read_bytes() if inside and file.is_file() else None
        with contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError):
            self._answer(path, body, fault)

    def _answer(self, path: str, body: bytes | None, fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        if fault is not None and kind == "hang_up":
            self.close_connection = True
        elif fault is not None and kind == "drip_head":
            self._drip_head(fault)
        elif fault is not None and kind in {"status", "redirect"}:
            self._whole(path, fault.code, fault.body, fault.headers)
        elif fault is not None and kind == "replace":
            self._whole(path, 200, fault.body, fault.headers)
        elif body is None:
            self._whole(path, HTTPStatus.NOT_FOUND, b"there is no such file", {})
        elif fault is not None and kind == "endless":
            self._endless(body[: fault.after_bytes])
        else:
            code, part, headers = self._ranged(body, fault)
            self._head(code, len(part), headers)
            if self.command != "HEAD":
                self._body(path, part, fault)

    def _ranged(self, body: bytes, fault: Fault | None) -> tuple[int, bytes, dict[str, str]]:
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range", "")
        ignored = fault is not None and fault.kind == "ignore_range"
        if not asked.startswith("bytes=") or ignored or self.headers.get("If-Range", tag) != tag:
            return HTTPStatus.OK, body, headers
        first, _, last = asked.removeprefix("bytes=").partition("-")
        begin = int(first) if first else max(0, len(body) - int(last))
        end = min(int(last) + 1 if first and last else len(body), len(body))
        if begin >= len(body) or end <= begin:
            headers["Content-Range"] = f"bytes */{len(body)}"
            return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, b"", headers
        if fault is not None and fault.kind == "wrong_range":
            begin = min(begin + fault.after_bytes, len(body) - 1)
            end = max(begin + 1, min(end + fault.after_bytes, len(body)))
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(body)}"
        return HTTPStatus.PARTIAL_CONTENT, body[begin:end], headers

    def _head(self, code: int, length: int | None, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, text in headers.items():
            self.send_header(name, text)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _whole(self, path: str, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(code, len(body), headers)
        if self.command != "HEAD":
            self._send(path, body)

    def _send(self, path: str, data: bytes) -> None:
        for begin in range(0, len(data), PIECE_BYTES):
            piece = data[begin : begin + PIECE_BYTES]
            # Before it goes: who has read it all may look at the count.
            self.server.owner.note_sent(self._notes, path, len(piece))
            self.wfile.write(piece)

    def _body(self, path: str, part: bytes, fault: Fault | None) -> None:
        if fault is None or fault.kind in {"wrong_range", "ignore_range"}:
            self._send(path, part)
            return
        self._send(path, part[: fault.after_bytes])
        self.close_connection = True
        if fault.kind == "reset":
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()  # or the descriptor stays open, and is closed politely
            self.request.close()
        elif fault.kind == "stall":
            self._wait_until_left()
        elif fault.kind == "drip":
            for byte in part[fault.after_bytes :]:
                if self.server.owner.closing.wait(fault.pause_s):
                    return
                self._send(path, bytes([byte]))

    def _wait_until_left(self) -> None:
        # The caller sends nothing more; an end of its stream, or the server's, ends the wait.
        select.select([self.request], [], [])

    def _drip_head(self, fault: Fault) -> None:
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        while not self.server.owner.closing.wait(fault.pause_s):
            self.wfile.write(b".")

    def _endless(self, begin: bytes) -> None:
        self.close_connection = True
        self._head(HTTPStatus.OK, None, {"Connection": "close"})
        self.wfile.write(begin)
        path = urlsplit(self.path).path
        while not self.server.owner.closing.is_set():
            self._send(path, b" " * PIECE_BYTES)
