"""``Client``: the daemon's API for programs with threads, or with none."""

import os
from typing import Final, Self, TypeVar

from edge_runtime.client import calls
from edge_runtime.client.blocking_calls import BlockingCalls
from edge_runtime.client.calls import Call
from edge_runtime.client.connection import Pool
from edge_runtime.client.deadline import Deadline
from edge_runtime.client.endpoint import Endpoint
from edge_runtime.errors import InvalidRequestError

T = TypeVar("T")

TIMEOUT_DEFAULT_S: Final = 30.0
CONNECTIONS_DEFAULT: Final = 64  # an eighth of what the daemon takes from all its clients


class Client(BlockingCalls):
    """Asks a daemon for predictions. Threads may share it; each call has a connection of its own.

    Every call raises, beside what it names itself: ``TransportError`` (the daemon could not be
    reached or went away; ``request_sent`` tells whether it may have run), ``DeadlineExceededError``
    (``timeout_s`` passed), ``ProtocolError`` (the answer is not of the protocol), or the error of
    ``edge_runtime.errors`` that the daemon answered. Connections are opened when needed and kept.

    Args:
        address: Path of a Unix socket, ``unix:PATH``, ``http://HOST:PORT[/BASE]``, or an
            ``Endpoint``; by default ``$EDGE_RUNTIME_SOCKET``, else this user's daemon.
        timeout_s: Seconds that a call may take, from connecting to the last byte; ``None``: no
            limit. Each call may say otherwise.
        connections: Most connections at once; further calls wait for one.

    Raises:
        ConfigError: The address is none.
        InvalidRequestError: A number is out of range.
        SocketError: The default folder of the sockets is not private.

    Example::

        with Client() as client:
            scores = client.infer("digits", {"image": image})["scores"]
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | Endpoint | None = None,
        *,
        timeout_s: float | None = TIMEOUT_DEFAULT_S,
        connections: int = CONNECTIONS_DEFAULT,
    ) -> None:
        if connections < 1:
            raise InvalidRequestError(f"connections must be 1 or more: {connections}")
        Deadline(timeout_s)  # a wrong default is told here, not at the first call
        self.endpoint = Endpoint.of(address)
        self.timeout_s = timeout_s
        self._pool = Pool(self.endpoint, connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.endpoint)!r})"

    def close(self) -> None:
        """Close the connections; calls that go on in other threads finish first."""
        self._pool.close()

    def load(self, model: str, *, timeout_s: float | None = None) -> None:
        """Load a model, or its new files; only on the admin socket.

        Args:
            model: Name of the model.
            timeout_s: Instead of the client's; a large model takes its time to load.

        Raises:
            ForbiddenError: This is not the admin socket (``Client(Endpoint.default_admin())``).
            ModelNotFoundError: There is no such model.
            ModelFailedError: It could not be loaded; the message says why.
        """
        self._perform(calls.load(model), timeout_s)

    def unload(self, model: str, *, timeout_s: float | None = None) -> None:
        """Unload a model once its requests are answered; only on the admin socket.

        Raises:
            ForbiddenError: This is not the admin socket (``Client(Endpoint.default_admin())``).
            ModelNotFoundError: There is no such model.
        """
        self._perform(calls.unload(model), timeout_s)

    def _perform(self, call: Call[T], timeout_s: float | None) -> T:
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        return call.decode(self._pool.exchange(call, deadline))
