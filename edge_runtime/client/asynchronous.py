"""``AsyncClient``: the daemon's API for programs on asyncio or uvloop."""

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Self, TypeVar

from edge_runtime.client import calls
from edge_runtime.client.arrays import Input
from edge_runtime.client.blocking import CONNECTIONS_DEFAULT, TIMEOUT_DEFAULT_S
from edge_runtime.client.calls import Call, Prediction, Version
from edge_runtime.client.connection import BUFFERS_PER_WRITE, CONNECT_PAUSE_S, gone, unix_socket
from edge_runtime.client.deadline import Deadline
from edge_runtime.client.endpoint import Endpoint, unreachable
from edge_runtime.client.wire import (
    READ_BUFFER_BYTES,
    Answer,
    AnswerReader,
    Buffer,
    Buffers,
    advance,
    request_buffers,
)
from edge_runtime.errors import InvalidRequestError
from edge_runtime.protocol import schemas
from edge_runtime.tensors import Array

T = TypeVar("T")


class AsyncClient:
    """``Client`` for asyncio: the same calls, to be awaited, in one event loop.

    Many tasks may use it at once. Cancelling a task closes its connection, and the daemon then
    drops the request if it still waits. What calls raise is what those of ``Client`` raise.

    Args:
        address: As for ``Client``.
        timeout_s: Seconds that a call may take; ``None``: no limit. Each call may say otherwise.
        connections: Most connections at once; further calls wait for one.

    Raises:
        ConfigError: The address is none.
        InvalidRequestError: A number is out of range.
        SocketError: The default folder of the sockets is not private.

    Example::

        async with AsyncClient() as client:
            outputs = await client.infer("digits", {"image": image})
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
        Deadline(timeout_s)
        self.endpoint = Endpoint.of(address)
        self.timeout_s = timeout_s
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.endpoint)!r})"

    async def close(self) -> None:
        """Close the connections; calls that other tasks wait for finish first."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Input],
        *,
        version: Version = "",
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        binary: bool = True,
    ) -> dict[str, Array]:
        """Ask for a prediction, and give its arrays; see ``Client.infer``.

        Raises:
            EdgeRuntimeError: As ``Client.infer``.
        """
        prediction = await self.predict(
            model, inputs, version=version, outputs=outputs, timeout_s=timeout_s, binary=binary
        )
        return prediction.outputs

    async def predict(
        self,
        model: str,
        inputs: Mapping[str, Input],
        *,
        version: Version = "",
        outputs: Sequence[str] | None = None,
        classes: int = 0,
        id: str = "",  # noqa: A002 - the protocol's word
        priority: int = 0,
        server_timeout_s: float | None = None,
        timeout_s: float | None = None,
        binary: bool = True,
    ) -> Prediction:
        """Ask for a prediction, and give all that the answer says; see ``Client.predict``.

        Raises:
            EdgeRuntimeError: As ``Client.predict``.
        """
        call = calls.infer(
            model,
            inputs,
            version=version,
            outputs=outputs,
            classes=classes,
            request_id=id,
            priority=priority,
            server_timeout_s=server_timeout_s,
            binary=binary,
        )
        return await self._perform(call, timeout_s)

    async def infer_raw(
        self,
        model: str,
        body: Buffer,
        *,
        json_length: int | None = None,
        version: Version = "",
        timeout_s: float | None = None,
    ) -> Answer:
        """Send the body of an ``infer`` request as it is; see ``Client.infer_raw``.

        Raises:
            EdgeRuntimeError: As ``Client.infer_raw``.
        """
        call = calls.infer_raw(model, body, json_length=json_length, version=version)
        return await self._perform(call, timeout_s)

    async def live(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether the daemon runs; one that cannot be reached is an error, not a no.

        Raises:
            UnavailableError: It cannot be reached.
        """
        return await self._perform(calls.live(), timeout_s)

    async def ready(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether the daemon can answer predictions.

        Raises:
            UnavailableError: It cannot be reached.
        """
        return await self._perform(calls.ready(), timeout_s)

    async def model_ready(
        self, model: str, version: Version = "", *, timeout_s: float | None = None
    ) -> bool:
        """Ask whether a model can answer; false while it loads or when it is unloaded.

        Raises:
            ModelNotFoundError: Nobody knows a model or version of that name.
            UnavailableError: The daemon cannot be reached.
        """
        return await self._perform(calls.model_ready(model, version), timeout_s)

    async def metadata(self, *, timeout_s: float | None = None) -> schemas.ServerMetadata:
        """Ask what the server is: name, version, protocol extensions.

        Raises:
            UnavailableError: The daemon cannot be reached.
        """
        return await self._perform(calls.metadata(), timeout_s)

    async def model_metadata(
        self, model: str, version: Version = "", *, timeout_s: float | None = None
    ) -> schemas.ModelMetadata:
        """Ask what a model takes and gives.

        Raises:
            ModelNotFoundError: There is no such model or version.
            UnavailableError: The model is not loaded, or the daemon cannot be reached.
        """
        return await self._perform(calls.model_metadata(model, version), timeout_s)

    async def statistics(
        self, model: str = "", version: Version = "", *, timeout_s: float | None = None
    ) -> schemas.Statistics:
        """Ask what a model did, or every loaded model if none is named.

        Raises:
            ModelNotFoundError: There is no such model or version.
            UnavailableError: The model is not loaded, or the daemon cannot be reached.
        """
        return await self._perform(calls.statistics(model, version), timeout_s)

    async def index(
        self, *, only_ready: bool = False, timeout_s: float | None = None
    ) -> list[schemas.IndexEntry]:
        """List every version that the daemon knows, with its state.

        Args:
            only_ready: Leave out what cannot answer.
            timeout_s: Instead of the client's.

        Raises:
            UnavailableError: The daemon cannot be reached.
        """
        return await self._perform(calls.index(only_ready=only_ready), timeout_s)

    async def load(self, model: str, *, timeout_s: float | None = None) -> None:
        """Load a model, or its new files; only on the admin socket.

        Raises:
            EdgeRuntimeError: As ``Client.load``.
        """
        await self._perform(calls.load(model), timeout_s)

    async def unload(self, model: str, *, timeout_s: float | None = None) -> None:
        """Unload a model once its requests are answered; only on the admin socket.

        Raises:
            EdgeRuntimeError: As ``Client.unload``.
        """
        await self._perform(calls.unload(model), timeout_s)

    async def _perform(self, call: Call[T], timeout_s: float | None) -> T:
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        buffers = request_buffers(
            self.endpoint, call.method, call.target, call.parts, call.json_length
        )
        connection = None
        try:
            async with asyncio.timeout(deadline.timeout_s), self._slots:
                connection = self._take()
                answer = await connection.exchange(buffers)
                self._give_back(connection)
                connection = None
        except OSError as error:
            sent = connection is not None and connection.sent
            if deadline.explains(error):
                raise deadline.exceeded(self.endpoint, request_sent=sent) from error
            raise gone(self.endpoint, error, request_sent=sent) from error
        finally:
            if connection is not None:  # failed or cancelled: whatever still comes is not wanted
                connection.close()
        return call.decode(answer)

    def _take(self) -> "_Connection":
        if self._closed:
            raise InvalidRequestError("this client is closed; make a new one")
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            connection.close()
        return _Connection(self.endpoint)

    def _give_back(self, connection: "_Connection") -> None:
        if connection.is_reusable and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()


class _Connection:
    """A keep-alive connection that carries one request at a time; opens when first used."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._scratch = memoryview(bytearray(READ_BUFFER_BYTES))
        self._socket: socket.socket | None = None
        self.sent = False
        self.is_reusable = False

    async def exchange(self, buffers: Buffers) -> Answer:
        """Send a request and wait for its answer; the rules are those of the blocking one."""
        self.sent = False
        if self._socket is not None:
            try:
                await self._send(self._socket, buffers)
            except ConnectionError:  # nothing was sent
                self.close()
            else:
                return await self._receive(self._socket)
        self._socket = await self._open()
        await self._send(self._socket, buffers)
        return await self._receive(self._socket)

    def is_stale(self) -> bool:
        """Tell whether the server has closed it, or sent what nobody asked for."""
        if self._socket is None:
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self.is_reusable = False
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _open(self) -> socket.socket:
        try:
            if self._endpoint.path is None:
                return await _connected_tcp(self._endpoint.host, self._endpoint.port)
            return await _connected_unix(os.fspath(self._endpoint.path))
        except OSError as error:
            raise unreachable(self._endpoint, error) from error

    async def _send(self, sock: socket.socket, buffers: Buffers) -> None:
        loop = asyncio.get_running_loop()
        left = list(buffers)
        try:
            # What the socket takes at once needs no turn of the loop, and says if any of it left.
            advance(left, sock.sendmsg(left[:BUFFERS_PER_WRITE]))
            self.sent = True
            for part in left:
                await loop.sock_sendall(sock, part)
        except ConnectionError:
            # A server that refuses a request before its end answers, then closes: read on.
            if not self.sent:
                raise

    async def _receive(self, sock: socket.socket) -> Answer:
        loop = asyncio.get_running_loop()
        reader = AnswerReader(self._scratch)
        answer = None
        while answer is None:
            answer = reader.received(await loop.sock_recv_into(sock, reader.buffer()))
        self.is_reusable = reader.keep_alive
        return answer


async def _connected_unix(path: str) -> socket.socket:
    sock = unix_socket()
    try:
        sock.settimeout(0)
        while True:
            # Not the loop's: it takes a full backlog's EAGAIN for a connection under way.
            try:
                sock.connect(path)
            except BlockingIOError:
                await asyncio.sleep(CONNECT_PAUSE_S)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


async def _connected_tcp(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure = OSError(f"{host} has no address")
    for family, kind, number, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, number)
        try:
            sock.settimeout(0)
            await loop.sock_connect(sock, address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure
