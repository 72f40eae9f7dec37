"""HTTP over a Unix socket, with a limit on what is read."""

import http.client
import socket
from pathlib import Path
from typing import Final, NamedTuple

from agent.errors import RuntimeAwayError

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024


class Answer(NamedTuple):
    """What a server said.

    Attributes:
        status: HTTP status.
        body: At most ``ANSWER_BYTES_MAX`` bytes.
    """

    status: int
    body: bytes


def ask(
    path: Path, method: str, target: str, body: bytes | None = None, *, timeout_s: float
) -> Answer:
    """Send one request over a connection of its own, and read the answer.

    Args:
        path: The Unix socket.
        method: HTTP method.
        target: Path and query.
        body: JSON, or ``None``.
        timeout_s: Most silence of the server, in seconds.

    Raises:
        RuntimeAwayError: Nobody answers there, or not with HTTP, or without end.
    """
    connection = _Connection(path, timeout_s)
    headers = {"Content-Type": "application/json"} if body is not None else {}
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        data = response.read(ANSWER_BYTES_MAX + 1)
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeAwayError(
            f"the runtime does not answer at {path} ({str(error) or type(error).__name__}); is "
            "edge-runtime running, and may this user open its socket?"
        ) from error
    finally:
        connection.close()
    if len(data) > ANSWER_BYTES_MAX:
        raise RuntimeAwayError(f"the answer of {path} to {target} is over {ANSWER_BYTES_MAX} bytes")
    return Answer(response.status, data)


class _Connection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket; http.client calls it."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
