"""What a download tells while it runs: how far it is, and what its owner should know."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

EVERY_S: Final = 0.5
_MEMORY_S: Final = 5.0


class NoticeKind(StrEnum):
    """What happened; stored and sent, so the words are frozen."""

    MIRROR_SET_ASIDE = "mirror-set-aside"
    REUSE_FAILED = "reuse-failed"
    FULL_DOWNLOAD = "full-download"
    RETRYING = "retrying"
    DAMAGED_BLOB = "damaged-blob"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the owner of the device or the fleet should know.

    Attributes:
        kind: What happened.
        text: The same for people.
        bytes_more: Bytes that it costs beyond what was planned.
    """

    kind: NoticeKind
    text: str
    bytes_more: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is.

    Attributes:
        done_bytes: Of the file that are there.
        total_bytes: Of the whole file.
        received_bytes: That came over the network in this run, of use or not.
        bytes_per_s: Received lately.
    """

    done_bytes: int
    total_bytes: int
    received_bytes: int
    bytes_per_s: float


class Meter:
    """Makes progress of single reads.

    Args:
        tell: Who wants to know; called at most every ``EVERY_S`` seconds, and at the end.
        total_bytes: Of the whole file.
        now_s: Now, in seconds of a clock that only goes forwards.

    Attributes:
        received_bytes: That came over the network.
    """

    def __init__(self, tell: Callable[[Progress], None], total_bytes: int, now_s: float) -> None:
        self.received_bytes = 0
        self._tell = tell
        self._total = total_bytes
        self._told_s = now_s
        self._told_bytes = 0
        self._bytes_per_s = 0.0

    def note(self, received: int, done: int, now_s: float) -> None:
        """Note that bytes came.

        Args:
            received: How many over the network.
            done: Bytes of the file that are there.
            now_s: Now, by the same clock.
        """
        self.received_bytes += received
        passed_s = now_s - self._told_s
        if passed_s < EVERY_S and done < self._total:
            return
        if passed_s > 0:
            rate = (self.received_bytes - self._told_bytes) / passed_s
            weight = min(1.0, passed_s / _MEMORY_S) if self._told_bytes else 1.0
            self._bytes_per_s += weight * (rate - self._bytes_per_s)
        self._told_s, self._told_bytes = now_s, self.received_bytes
        self._tell(Progress(done, self._total, self.received_bytes, self._bytes_per_s))
