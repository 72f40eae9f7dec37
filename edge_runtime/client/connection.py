"""One blocking connection to a daemon, and the pool that a client's threads share."""

import os
import select
import socket
import time
from threading import Condition
from typing import Any, Final

from edge_runtime.client.calls import Call
from edge_runtime.client.deadline import Deadline
from edge_runtime.client.endpoint import Endpoint, unreachable
from edge_runtime.client.wire import READ_BUFFER_BYTES, Answer, AnswerReader, Buffers, advance
from edge_runtime.errors import InvalidRequestError, TransportError

BUFFERS_PER_WRITE: Final = 512  # the system takes at most 1024 (IOV_MAX)
CONNECT_PAUSE_S: Final = 0.002  # a Unix socket whose backlog is full refuses at once
# Room for an image: the sender need not wait for the daemon to read (measured with 600 kB and the
# system's 208 KiB: 0.47 ms a call, with this 0.38 ms). The kernel takes what net.core.wmem_max has.
UNIX_SEND_BUFFER_BYTES: Final = 1_048_576


class Connection:
    """A keep-alive connection that carries one request at a time; opens when first used.

    Args:
        endpoint: Where to.
        connect_timeout_s: Seconds that connecting may take; ``None``: as long as the call.
    """

    def __init__(self, endpoint: Endpoint, connect_timeout_s: float | None = None) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._scratch = memoryview(bytearray(READ_BUFFER_BYTES))
        self._socket: socket.socket | None = None
        self._poll = select.poll()
        self._sent = False
        #: Whether it may carry another request.
        self.is_reusable = False

    def exchange(self, buffers: Buffers, deadline: Deadline) -> Answer:
        """Send a request and wait for its answer.

        A connection that the server closed before a byte was sent is replaced, once; a request of
        which a byte may have arrived is never sent again.

        Args:
            buffers: The request.
            deadline: When it must be over.

        Raises:
            DeadlineExceededError: It was not.
            TransportError: The daemon could not be reached, or went away, or a limit that is less
                than the call's passed.
            ProtocolError: The answer is not of the protocol.
        """
        self._sent = False
        try:
            if self._socket is not None:
                try:
                    self._send(self._socket, buffers, deadline)
                except ConnectionError:  # nothing was sent
                    self.close()
                else:
                    return self._receive(self._socket, deadline)
            self._socket = self._open(deadline)
            self._send(self._socket, buffers, deadline)
            return self._receive(self._socket, deadline)
        except OSError as error:
            if deadline.explains(error):
                raise deadline.exceeded(self._endpoint, request_sent=self._sent) from error
            raise gone(self._endpoint, error, request_sent=self._sent) from error

    def is_stale(self) -> bool:
        """Tell whether the server has closed it, or sent what nobody asked for."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Close it; a request that is still queued is cancelled by the daemon."""
        self.is_reusable = False
        if self._socket is not None:
            self._poll.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _open(self, deadline: Deadline) -> socket.socket:
        limit = deadline.within(self._connect_timeout_s, "connecting")
        try:
            sock = _connected(self._endpoint, limit)
        except OSError as error:
            if limit.explains(error):
                raise limit.exceeded(self._endpoint, request_sent=False) from error
            raise unreachable(self._endpoint, error) from error
        self._poll.register(sock, select.POLLIN)
        return sock

    def _send(self, sock: socket.socket, buffers: Buffers, deadline: Deadline) -> None:
        left = list(buffers)
        try:
            while left:
                sock.settimeout(deadline.remaining_s())
                count = sock.sendmsg(left[:BUFFERS_PER_WRITE])
                self._sent = True
                advance(left, count)
        except ConnectionError:
            # A server that refuses a request before its end answers, then closes: read on.
            if not self._sent:
                raise

    def _receive(self, sock: socket.socket, deadline: Deadline) -> Answer:
        reader = AnswerReader(self._scratch)
        answer = None
        while answer is None:
            sock.settimeout(deadline.remaining_s())
            answer = reader.received(sock.recv_into(reader.buffer()))
        self.is_reusable = reader.keep_alive
        return answer


def unix_socket() -> socket.socket:
    """Make an unconnected socket with room for a request of the usual size."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_SEND_BUFFER_BYTES)
    return sock


def gone(endpoint: Endpoint, error: OSError, *, request_sent: bool) -> TransportError:
    """Say that the daemon went away in the middle of a call.

    Args:
        endpoint: Who was asked.
        error: What the system said.
        request_sent: Whether a byte of the request had left.
    """
    what = "the request may have run" if request_sent else "nothing was sent"
    said = error.strerror or str(error)
    return TransportError(f"{endpoint}: {said} ({what})", request_sent=request_sent)


def _connected(endpoint: Endpoint, deadline: Deadline) -> socket.socket:
    if endpoint.path is None:
        address = (endpoint.host, endpoint.port)
        sock = socket.create_connection(address, deadline.remaining_s())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = unix_socket()
    try:
        while True:
            sock.settimeout(deadline.remaining_s())
            try:
                sock.connect(os.fspath(endpoint.path))
            except BlockingIOError:
                time.sleep(CONNECT_PAUSE_S)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


class Pool:
    """The connections of one client: as many as calls go on at once, up to a limit.

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
        self._limit = connections
        self._closed = False
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._changed = Condition()
        self._idle: list[Connection] = []
        self._open = 0

    def exchange(self, call: Call[Any], deadline: Deadline) -> Answer:
        """Send a call on a connection of its own and wait for the answer.

        Args:
            call: What to ask.
            deadline: When it must be over.

        Raises:
            InvalidRequestError: The client is closed.
            DeadlineExceededError: It was not over in time.
            TransportError: The daemon could not be reached, or went away.
            ProtocolError: The answer is not of the protocol.
        """
        buffers = call.buffers(self._endpoint)
        connection = self.take(deadline)
        try:
            return connection.exchange(buffers, deadline)
        except BaseException:
            connection.close()  # an answer that comes late must not meet the next request
            raise
        finally:
            self.give_back(connection)

    def take(self, deadline: Deadline) -> Connection:
        """Take a connection that nobody uses; ``give_back`` is due.

        Args:
            deadline: How long to wait for one.

        Raises:
            InvalidRequestError: The client is closed.
            UnavailableError: None came free in time.
        """
        if self._process != os.getpid():
            self._forked()
        with self._changed:
            while True:
                if self._closed:
                    raise InvalidRequestError("this client is closed; make a new one")
                # The last one used is the one least likely to have been closed meanwhile.
                while self._idle:
                    connection = self._idle.pop()
                    if not connection.is_stale():
                        return connection
                    connection.close()
                    self._open -= 1
                if self._open < self._limit:
                    self._open += 1
                    return Connection(self._endpoint, self._connect_timeout_s)
                try:
                    self._changed.wait(deadline.remaining_s())
                except TimeoutError as error:
                    raise deadline.exceeded(self._endpoint, request_sent=False) from error

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next call, or close it if it cannot carry one.

        Args:
            connection: From ``take``.
        """
        with self._changed:
            if connection.is_reusable and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()
                self._open -= 1
            self._changed.notify()

    def close(self) -> None:
        """Close what is idle; what is in use closes when it is given back. May be called again."""
        with self._changed:
            self._closed = True
            while self._idle:
                self._idle.pop().close()
                self._open -= 1
            self._changed.notify_all()

    def _forked(self) -> None:
        """Start anew in a forked child: two processes on one connection mix their answers up."""
        inherited = self._idle
        self._start()
        for connection in inherited:
            connection.close()  # the parent's descriptor stays open
