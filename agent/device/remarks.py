"""What the fleet should know of downloads: kept until it was reported, over restarts.

A file that cannot be made of older ones, a mirror that lies, a blob that rotted: the download goes
on, and costs more than was planned. Nobody on the device looks, so it goes along with the reports.
"""

import contextlib
import logging
import threading
from pathlib import Path
from typing import Final

import msgspec

from agent.download.notices import Notice, NoticeKind
from agent.durable_file import replace_file
from agent.errors import StateError

_log = logging.getLogger(__name__)

FILE: Final = "remarks.json"
REMARKS_MAX: Final = 64
"""Most that are kept; the oldest go."""
TOLD_MAX: Final = 8
"""Most that one report says."""
TEXT_CHARS_MAX: Final = 500
#: A retry is no news: what a network does anyway is not reported.
_NO_NEWS: Final = frozenset({NoticeKind.RETRYING})


class Remark(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was noticed.

    Attributes:
        model: Of what.
        version: Of which version.
        rollout: For which rollout it was downloaded.
        notice: What.
    """

    model: str
    version: int
    rollout: str
    notice: Notice


class Remarks:
    """A short list in a file. Any thread may add and ask.

    Args:
        state: The agent's folder.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._lock = threading.Lock()
        self._kept: list[Remark] = []
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeError, RecursionError):
            kept = msgspec.json.decode(self._path.read_bytes(), type=list[Remark])
            self._kept = kept[-REMARKS_MAX:]

    def add(self, model: str, version: int, rollout: str, notice: Notice) -> None:
        """Keep a notice; one that is kept already, and one that is no news, is not.

        Args:
            model: Of what.
            version: Of which version.
            rollout: For which rollout.
            notice: What.
        """
        if notice.kind in _NO_NEWS:
            return
        short = Notice(notice.kind, notice.text[:TEXT_CHARS_MAX], notice.bytes_more)
        remark = Remark(model=model, version=version, rollout=rollout, notice=short)
        with self._lock:
            if remark in self._kept:
                return
            self._kept = [*self._kept, remark][-REMARKS_MAX:]
            try:
                replace_file(self._path, msgspec.json.encode(self._kept))
            except StateError as error:
                _log.warning("a notice is forgotten at the next start: %s", error.message)

    def of(self, model: str, version: int | None, rollout: str) -> tuple[Remark, ...]:
        """Give what was noticed of an update, the oldest first; the last ones of many."""
        wanted = (model, version, rollout)
        with self._lock:
            found = [
                each for each in self._kept if (each.model, each.version, each.rollout) == wanted
            ]
        return tuple(found[-TOLD_MAX:])
