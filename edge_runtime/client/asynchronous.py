"""``AsyncClient``: the daemon's API for programs on asyncio or uvloop."""

import asyncio
import os
import socket
from typing import Any, Self, TypeVar

from edge_runtime.client import calls
from edge_runtime.client.asynchronous_calls import AsynchronousCalls
from edge_runtime.client.blocking import CONNECTIONS_DEFAULT, TIMEOUT_DEFAULT_S
from edge_runtime.client.calls import Call
from edge_runtime.client.connection import BUFFERS_PER_WRITE, CONNECT_PAUSE_S, gone, unix_socket
from edge_runtime.client.deadline import Deadline
from edge_runtime.client.endpoint import Endpoint, unreachable
from edge_runtime.client.wire import (
    READ_BUFFER_BYTES,
    Answer,
    AnswerReader,
    Buffers,
    advance,
)
from edge_runtime.errors import InvalidRequestError

T = TypeVar("T")


class AsyncClient(AsynchronousCalls):
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
        self._pool = AsyncPool(self.endpoint, connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.endpoint)!r})"

    async def close(self) -> None:
        """Close the connections; calls that other tasks wait for finish first."""
        self._pool.close()

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
        return call.decode(await self._pool.exchange(call, deadline))


class AsyncPool:
    """The connections of one client to one endpoint, in one event loop.

    Args:
        endpoint: Where to.
        connections: Most connections open at once; more calls wait for one.
        connect_timeout_s: Seconds that connecting may take; ``None``: as long as the call.
    """

    def __init__(
        self, endpoint: Endpoint, connections: int, connect_timeout_s: float | None = None
    ) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._closed = False

    async def exchange(self, call: Call[Any], deadline: Deadline) -> Answer:
        """Send a call on a connection of its own and wait for the answer.

        Args:
            call: What to ask.
            deadline: When it must be over.

        Raises:
            EdgeRuntimeError: As ``Pool.exchange``.
        """
        buffers = call.buffers(self._endpoint)
        connection = await self._take(deadline)
        try:
            return await connection.exchange(buffers, deadline)
        except BaseException:
            connection.close()  # failed or cancelled: whatever still comes is not wanted
            raise
        finally:
            self._give_back(connection)

    def close(self) -> None:
        """Close what is idle; what is in use closes when its call is over. May be called again."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    async def _take(self, deadline: Deadline) -> "_Connection":
        if self._slots.locked():
            try:
                async with asyncio.timeout(deadline.remaining_s()):
                    await self._slots.acquire()
            except TimeoutError as error:
                raise deadline.exceeded(self._endpoint, request_sent=False) from error
        else:
            await self._slots.acquire()  # at once
        if self._closed:
            self._slots.release()
            raise InvalidRequestError("this client is closed; make a new one")
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            connection.close()
        return _Connection(self._endpoint, self._connect_timeout_s)

    def _give_back(self, connection: "_Connection") -> None:
        if connection.is_reusable and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()
        self._slots.release()


class _Connection:
    """A keep-alive connection that carries one request at a time; opens when first used."""

    def __init__(self, endpoint: Endpoint, connect_timeout_s: float | None) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._scratch = memoryview(bytearray(READ_BUFFER_BYTES))
        self._socket: socket.socket | None = None
        self._sent = False
        self.is_reusable = False

    async def exchange(self, buffers: Buffers, deadline: Deadline) -> Answer:
        """Send a request and wait for its answer; the rules are those of the blocking one."""
        self._sent = False
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                if self._socket is not None:
                    try:
                        await self._send(self._socket, buffers)
                    except ConnectionError:  # nothing was sent
                        self.close()
                    else:
                        return await self._receive(self._socket)
                self._socket = await self._open(deadline)
                await self._send(self._socket, buffers)
                return await self._receive(self._socket)
        except OSError as error:
            if deadline.explains(error):
                raise deadline.exceeded(self._endpoint, request_sent=self._sent) from error
            raise gone(self._endpoint, error, request_sent=self._sent) from error

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

    async def _open(self, deadline: Deadline) -> socket.socket:
        limit = deadline.within(self._connect_timeout_s, "connecting")
        try:
            # The call's own timer runs already.
            async with asyncio.timeout(None if limit is deadline else limit.remaining_s()):
                if self._endpoint.path is None:
                    return await _connected_tcp(self._endpoint.host, self._endpoint.port)
                return await _connected_unix(os.fspath(self._endpoint.path))
        except OSError as error:
            if limit.explains(error):
                raise limit.exceeded(self._endpoint, request_sent=False) from error
            raise unreachable(self._endpoint, error) from error

    async def _send(self, sock: socket.socket, buffers: Buffers) -> None:
        loop = asyncio.get_running_loop()
        left = list(buffers)
        try:
            # What the socket takes at once needs no turn of the loop, and says if any of it left.
            advance(left, sock.sendmsg(left[:BUFFERS_PER_WRITE]))
            self._sent = True
            for part in left:
                await loop.sock_sendall(sock, part)
        except ConnectionError:
            # A server that refuses a request before its end answers, then closes: read on.
            if not self._sent:
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
