"""The process in which a candidate is tried out. What happens to it here happens to nobody else."""

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import process_time
from typing import Final, NamedTuple

from edge_runtime.errors import EdgeRuntimeError, InvalidTensorError, ProtocolError
from edge_runtime.release.compare import compare
from edge_runtime.release.self_test import load, try_variant
from edge_runtime.release.stopwatch import Lap, timed
from edge_runtime.release.trial_limits import DOING_BYTES, confine
from edge_runtime.release.trial_messages import (
    ACTIVE,
    CANDIDATE,
    HEAD,
    ORDER_BYTES_MAX,
    TENSORS_BYTES_MAX,
    Answer,
    Ask,
    Compared,
    Order,
    Pair,
    Ready,
    Side,
    Subject,
    Try,
    frame,
    join,
    lengths,
    read_order,
)
from edge_runtime.routing import LoadedVersion
from edge_runtime.tensors import Array, receive_buffer

_SHAPES_MAX: Final = 256
_SHORT_S: Final = 0.005
_REPEATS: Final = 3


def main() -> None:
    """Obey until the other side is gone; ``sys.argv`` holds two descriptors and the limits."""
    channel, doing = int(sys.argv[1]), int(sys.argv[2])
    confine(memory_bytes=int(sys.argv[3]), cpu_s=float(sys.argv[4]))
    with socket.socket(fileno=channel) as peer:
        trial = _Trial(partial(_say, doing))
        while (received := _receive(peer)) is not None:
            answer = trial.obey(*received)
            _say(doing, "")
            peer.sendall(frame(answer))


class _Sides(NamedTuple):
    active: LoadedVersion
    candidate: LoadedVersion


class _Outcome(NamedTuple):
    """What one version did: outputs, or an error."""

    outputs: list[Array] | None
    error: str
    lap: Lap


class _Trial:
    """What this process has loaded."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._sides: _Sides | None = None
        self._shapes: set[tuple[tuple[int, ...], ...]] = set()

    def obey(self, order: Order, tensors: memoryview) -> Answer:
        match order:
            case Try():
                return try_variant(order, self._say)
            case Pair():
                return self._load(order)
            case Ask():
                return self._compare(order, tensors)

    def _load(self, order: Pair) -> Ready:
        loaded = []
        pair: tuple[tuple[Side, Subject], ...]
        pair = (ACTIVE, order.active), (CANDIDATE, order.candidate)
        for side, subject in pair:
            self._say(f"{side}: loading the model")
            try:
                version = load(subject, order.device)
            except EdgeRuntimeError as error:
                return Ready(side=side, why=error.message)
            if subject.digest not in ("", version.digest):
                return Ready(side=side, why="its files are not the ones that were tested")
            loaded.append(version)
        self._sides = _Sides(*loaded)
        return Ready(active_digest=loaded[0].digest, candidate_digest=loaded[1].digest)

    def _compare(self, order: Ask, tensors: memoryview) -> Compared:
        began_s, sides = process_time(), self._sides
        if sides is None:
            raise ProtocolError("nothing was loaded to be compared")
        try:
            feeds = join(order.tensors, tensors, sides.candidate.signature)
        except InvalidTensorError as error:
            return Compared(skipped=error.loggable)
        outputs = tuple(sides.candidate.signature.outputs.values())
        names = [spec.name for spec in outputs]
        run_active = partial(self._run, ACTIVE, sides.active, names, feeds)
        run_candidate = partial(self._run, CANDIDATE, sides.candidate, names, feeds)
        turns = (
            (run_candidate, run_active) if order.candidate_first else (run_active, run_candidate)
        )
        first, second = _twice(turns, is_new=self._is_new(feeds))
        active, candidate = (second, first) if order.candidate_first else (first, second)
        comparison = None
        if active.outputs is not None and candidate.outputs is not None:
            comparison = compare(
                active.outputs,
                candidate.outputs,
                outputs,
                sides.candidate.manifest.acceptance.comparison,
                sides.candidate.manifest.acceptance.tolerances,
            )
        return Compared(
            active_error=active.error,
            candidate_error=candidate.error,
            comparison=comparison,
            active_s=active.lap.own_s if comparison else 0.0,
            candidate_s=candidate.lap.own_s if comparison else 0.0,
            cpu_s=process_time() - began_s,
        )

    def _is_new(self, feeds: Mapping[str, Array]) -> bool:
        """Tell whether inputs of these shapes were not run yet, as far back as is remembered."""
        shapes = tuple(array.shape for array in feeds.values())
        if shapes in self._shapes:
            return False
        if len(self._shapes) >= _SHAPES_MAX:
            self._shapes.clear()
        self._shapes.add(shapes)
        return True

    def _run(
        self,
        side: Side,
        version: LoadedVersion,
        names: Sequence[str],
        feeds: Mapping[str, Array],
    ) -> _Outcome:
        self._say(f"{side}: running")
        try:
            outputs, lap = timed(partial(version.session.run, names, feeds))
        except EdgeRuntimeError as error:
            return _Outcome(None, error.loggable, Lap(0.0, 0.0))
        return _Outcome(outputs, "", lap)


def _twice(
    turns: tuple[Callable[[], _Outcome], Callable[[], _Outcome]], *, is_new: bool
) -> tuple[_Outcome, _Outcome]:
    """Run one, then the other, and again where the first time is no measure.

    That is so for inputs of a new shape, for which memory is allocated, and for runs so short that
    whoever begins pays for a CPU that was asleep.

    Returns:
        What each did, with its quickest time; an error of any run counts.
    """
    found = [turn() for turn in turns]
    is_short = sum(each.lap.own_s for each in found) < _SHORT_S
    for repeat in range((_REPEATS if is_short else 1) if is_new or is_short else 0):
        if any(each.error for each in found):
            break
        again = [turn() for turn in turns]
        found = [
            new if new.error or not repeat or new.lap.own_s < old.lap.own_s else old
            for old, new in zip(found, again, strict=True)
        ]
    return found[0], found[1]


def _say(file: int, what: str) -> None:
    os.pwrite(file, what.encode("utf-8", "replace")[:DOING_BYTES].ljust(DOING_BYTES, b"\0"), 0)


def _receive(peer: socket.socket) -> tuple[Order, memoryview] | None:
    """Wait for an order; ``None``: there will be none."""
    head = bytearray(HEAD.size)
    if not _fill(peer, memoryview(head)):
        return None
    header_bytes, tensors_bytes = lengths(head, ORDER_BYTES_MAX, TENSORS_BYTES_MAX)
    header = bytearray(header_bytes)
    tensors = receive_buffer(tensors_bytes, 0)
    if not (_fill(peer, memoryview(header)) and _fill(peer, tensors)):
        return None
    return read_order(header), tensors


def _fill(peer: socket.socket, room: memoryview) -> bool:
    while room:
        received = peer.recv_into(room)
        if not received:
            return False
        room = room[received:]
    return True
