"""The hand-over door: the agent gives bundles as descriptors, and gets contents as descriptors.

Connections keep the borders of packets (``SOCK_SEQPACKET``) and are served here, not by the event
loop's transports, which know no descriptors. One request of a connection is answered before the
next is read.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Coroutine
from typing import Final

import msgspec

from edge_runtime.access import Peer
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.handover_orders import HandoverOrders, let_go
from edge_runtime.api.handover_packets import Packet, attached, receive, send
from edge_runtime.errors import EdgeRuntimeError, OverloadedError
from edge_runtime.protocol import handover_schemas as schemas
from edge_runtime.protocol.status import status_of

_log = logging.getLogger(__name__)

OPEN_MAX: Final = 16
"""Connections at a time; one more takes the place of the one that is idle for longest."""
IN_FLIGHT_MAX: Final = 4
"""Requests at a time, of all connections together."""
IDLE_S: Final = 60.0
"""A connection on which nothing was asked for so long is closed."""

_PAUSE_S: Final = 1.0  # when this process has no descriptors left
_NO_ROOM: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_FAILED: Final = 500


class HandoverDoor:
    """Accepts on the hand-over socket, and serves the connections.

    Used on the event loop's thread.

    Args:
        handlers: Know who takes orders, and who may give them.

    Attributes:
        empty: Set while there is no connection.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._loop = asyncio.get_running_loop()
        self._orders = HandoverOrders(handlers)
        # The longest idle one first.
        self._open: dict[_Conversation, None] = {}
        self._in_flight = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_draining = False
        self.empty = asyncio.Event()
        self.empty.set()

    def accept(self, listening: socket.socket) -> None:
        """Let in whoever has connected."""
        try:
            sock, _ = listening.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                _log.warning("nobody can hand anything over now: %s", error.strerror)
                self._pause(listening)
            return  # else: it is gone already
        sock.setblocking(False)  # noqa: FBT003 - the only argument
        if len(self._open) >= OPEN_MAX and not self._evict():
            refused = OverloadedError("too many connections to the hand-over socket; try later")
            with contextlib.closing(sock), contextlib.suppress(OSError):
                send(sock, _refusal(refused), None)
            return
        self.empty.clear()
        conversation = _Conversation(self, sock)
        self._open[conversation] = None
        conversation.listen()

    def drain(self) -> None:
        """Close what is idle, and everything else after its answer, if somebody waits for it."""
        self.is_draining = True
        for each in list(self._open):
            if each.is_idle or each.has_left():
                each.close()

    def abort(self) -> None:
        """Cut every connection; what was ordered goes on."""
        self.is_draining = True
        for each in list(self._open):
            each.close()

    def serve(self, conversation: "_Conversation", packet: Packet) -> None:
        """Answer a request when it is done; it is done even if the other end leaves."""
        self._open[conversation] = self._open.pop(conversation)
        task = self._loop.create_task(self._served(conversation, packet))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def closed(self, conversation: "_Conversation") -> None:
        """Forget a connection."""
        self._open.pop(conversation, None)
        if not self._open:
            self.empty.set()

    async def _served(self, conversation: "_Conversation", packet: Packet) -> None:
        try:
            text, descriptor = await self._answer(packet, conversation.peer)
        finally:
            # Not waited for: what somebody handed over may not even let itself be closed.
            self._later(let_go(packet.descriptors))
        try:
            conversation.reply(text, descriptor)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    async def _answer(self, packet: Packet, peer: Peer) -> tuple[bytes, int | None]:
        if self._in_flight >= IN_FLIGHT_MAX:
            refused = OverloadedError("too many hand-overs at a time; try again later")
            return _refusal(refused), None
        self._in_flight += 1
        descriptor: int | None = None
        try:
            found, descriptor = await self._orders.answer(packet, peer)
            text = msgspec.json.encode(schemas.Done(ok=found))
            if len(text) > schemas.PACKET_BYTES_MAX:  # no answer of both kinds is that long
                descriptor = attached(text)
                text = msgspec.json.encode(schemas.Attached(attached=len(text)))
        except EdgeRuntimeError as error:
            return _refusal(error), None
        except Exception:  # noqa: BLE001 - the outermost frame; it is logged
            _log.exception("a hand-over failed in a way nobody foresaw")
            sentence = "the daemon failed to do this; its log says why"
            return msgspec.json.encode(schemas.Refused(error=sentence, status=_FAILED)), None
        finally:
            self._in_flight -= 1
        return text, descriptor

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _evict(self) -> bool:
        """Close the connection that is idle for longest; tell whether there was one."""
        for each in self._open:
            if each.is_idle:
                each.close()
                return True
        return False

    def _pause(self, listening: socket.socket) -> None:
        """Look again in a while: whoever waits to be accepted would call without end."""
        self._loop.remove_reader(listening)

        def again() -> None:
            if listening.fileno() >= 0 and not self.is_draining:
                self._loop.add_reader(listening, self.accept, listening)

        self._loop.call_later(_PAUSE_S, again)


class _Conversation:
    """One connection: one packet, one answer, and so on."""

    def __init__(self, door: HandoverDoor, sock: socket.socket) -> None:
        self.peer = Peer.of_unix_socket(sock)
        self._door = door
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being done for it."""
        return self._timer is not None

    def has_left(self) -> bool:
        """Tell whether the other end has closed and left nothing to be read."""
        try:
            return not self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True

    def listen(self) -> None:
        """Wait for the next packet."""
        if self._door.is_draining:
            self.close()
            return
        self._timer = self._loop.call_later(IDLE_S, self.close)
        self._loop.add_reader(self._sock, self._readable)

    def reply(self, text: bytes, descriptor: int | None) -> None:
        """Send the answer, if there is still somebody."""
        if self._sock.fileno() < 0:
            return
        try:
            send(self._sock, text, descriptor)
        except OSError:  # gone; or it asks without reading answers
            self.close()
            return
        self.listen()

    def close(self) -> None:
        """Close it; may be called again."""
        if self._sock.fileno() < 0:
            return
        self._rest()
        self._sock.close()
        self._door.closed(self)

    def _rest(self) -> None:
        """Read nothing for now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._loop.remove_reader(self._sock)

    def _readable(self) -> None:
        try:
            packet = receive(self._sock)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if packet.is_end:
            self.close()
            return
        self._rest()
        self._door.serve(self, packet)


def _refusal(error: EdgeRuntimeError) -> bytes:
    return msgspec.json.encode(schemas.Refused(error=error.message, status=status_of(error)))
