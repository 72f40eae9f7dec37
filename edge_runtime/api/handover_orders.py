"""What can be asked on the hand-over socket: from a packet to an order, and to an answer.

A descriptor may lead to a file system that never answers, so the loop touches none: they are
looked at, read and closed on threads of their own.
"""

import logging
import os
import stat
from collections.abc import Iterable
from functools import partial
from typing import Final

import msgspec

from edge_runtime.access import Peer
from edge_runtime.api.admins import check_may_order
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.handover_packets import Packet
from edge_runtime.api.release_door import ReleaseDoor
from edge_runtime.bundle import unreadable
from edge_runtime.errors import (
    InvalidRequestError,
    RequestTooLargeError,
    UnavailableError,
    UnsupportedError,
)
from edge_runtime.manifest import MAX_BYTES
from edge_runtime.protocol import handover_schemas as schemas
from edge_runtime.protocol.release_schemas import Release
from edge_runtime.release.disk_thread import aside
from edge_runtime.release_orders import Answers, Orders

_log = logging.getLogger(__name__)

_DECODER: Final = msgspec.json.Decoder(schemas.Request)
_TAKES: Final[dict[type[schemas.Request], str]] = {
    schemas.NeedsRequest: "a file that holds a manifest",
    schemas.StageRequest: "a bundle's folder or tar file",
}


class HandoverOrders:
    """Does what a packet asks for.

    Args:
        handlers: Know who takes orders, and who may give them.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._door = ReleaseDoor(handlers)

    async def answer(self, packet: Packet, peer: Peer) -> tuple[object, int | None]:
        """Do it.

        Args:
            packet: What came; its descriptors stay the caller's.
            peer: Who sent it.

        Returns:
            What it led to, and the descriptor that goes with it, which is the caller's.

        Raises:
            EdgeRuntimeError: It is refused.
        """
        check_may_order(self._handlers, peer)
        request = _read(packet)
        if isinstance(request, schemas.OpenRequest):
            return await self._open(request.sha256)
        descriptor = packet.descriptors[0]
        if isinstance(request, schemas.NeedsRequest):
            return await self._needs(descriptor, request.signature), None
        return await self._stage(descriptor, request, peer), None

    async def _needs(self, descriptor: int, signature: str | None) -> schemas.Needs:
        manifest = await aside(partial(_manifest, descriptor))
        text = None if signature is None else signature.encode("utf-8", "surrogatepass")
        return await (await self._answers()).needs(manifest, text)

    async def _open(self, sha256: str) -> tuple[schemas.Content | None, int | None]:
        descriptor = await (await self._answers()).content(sha256)
        if descriptor is None:
            return None, None
        return schemas.Content(size=os.fstat(descriptor).st_size), descriptor

    async def _stage(self, descriptor: int, request: schemas.StageRequest, peer: Peer) -> Release:
        order = self._door.stage_order(peer, request)
        await aside(partial(_check_bundle, descriptor))
        _log.info("a bundle was handed over; ordered by %r", order["asked_by"])
        return await (await self._orders()).stage(descriptor, **order)

    async def _answers(self) -> Answers:
        """Give what answers questions: on a device without releases that makes nothing."""
        open_answers = self._handlers.open_answers
        return await (self._orders() if open_answers is None else open_answers())

    async def _orders(self) -> Orders:
        open_orders = self._handlers.open_orders
        if open_orders is None:
            raise UnsupportedError("this daemon takes no releases; its log says why")
        return await open_orders()


async def let_go(descriptors: Iterable[int]) -> None:
    """Close what was received; even that may take for ever on another's file system."""
    given = tuple(descriptors)
    if given:
        await aside(partial(_close, given))


def _read(packet: Packet) -> schemas.Request:
    """Read a request, and make sure that it has the descriptor that it needs, and no other."""
    if packet.is_long:
        raise RequestTooLargeError(
            f"the request is over {schemas.PACKET_BYTES_MAX} bytes; hand what is large over as a "
            "descriptor"
        )
    if packet.is_stripped:
        raise UnavailableError(
            "descriptors of the request were lost: send one at most, or try again later"
        )
    try:
        request: schemas.Request = _DECODER.decode(packet.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the packet is not what this takes: {error}") from error
    takes = _TAKES.get(type(request))
    if len(packet.descriptors) != (0 if takes is None else 1):
        raise InvalidRequestError(
            f"the request came with {len(packet.descriptors)} descriptors; send "
            + ("none with it" if takes is None else f"one with it: {takes}")
        )
    return request


def _manifest(descriptor: int) -> bytes:
    """Read a manifest from its beginning; whoever handed it over shares the offset."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidRequestError(
                f"the descriptor is not a regular file; hand over {_TAKES[schemas.NeedsRequest]}"
            )
        data = b""
        while len(data) <= MAX_BYTES:
            chunk = os.pread(descriptor, MAX_BYTES + 1 - len(data), len(data))
            if not chunk:
                break
            data += chunk
    except OSError as error:
        raise InvalidRequestError(unreadable("the manifest that was handed over", error)) from error
    return data


def _check_bundle(descriptor: int) -> None:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError as error:
        raise InvalidRequestError(unreadable("the bundle that was handed over", error)) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InvalidRequestError(
            "the descriptor is neither a folder nor a regular file; hand over "
            f"{_TAKES[schemas.StageRequest]}"
        )


def _close(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
