"""The folder of a search that goes on: model files, and a journal of what is known already.

It stands beside the output while the search runs, so that an interrupted one can be taken up
again, and is removed when the search has ended. One search at a time works in it.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from quantize.errors import BadInputError

JOURNAL: Final = "journal.jsonl"
_LOCK: Final = "lock"

_Known = TypeVar("_Known")


class _Line(msgspec.Struct, frozen=True):
    """One line of the journal.

    Attributes:
        kind: What sort of record it is; ``search`` in the first line.
        key: Unique among the records of that kind; of ``search``: its fingerprint.
        record: The record as JSON.
    """

    kind: str
    key: str
    record: msgspec.Raw = msgspec.Raw(b"null")


class Workspace:
    """A folder and its journal; made by ``workspace``.

    Args:
        root: The folder.
        fingerprint: Of everything the results depend on.

    Attributes:
        root: The folder.
        resumed: Records that an interrupted search of the same fingerprint left.
        is_worth_keeping: Whether the folder stays even if the input turns out bad: there are
            results that took long.
    """

    def __init__(self, root: Path, fingerprint: str) -> None:
        self.root = root
        lines = _read(root / JOURNAL)
        if not lines or lines[0] != _Line("search", fingerprint):
            _empty(root)
            lines = []
        self._known = {(line.kind, line.key): line.record for line in lines[1:]}
        self.resumed = len(self._known)
        self.is_worth_keeping = bool(self._known)
        self._journal = (root / JOURNAL).open("ab")
        # A line that was cut off by the interruption must not swallow the next one.
        if lines:
            self._journal.write(b"\n")
        else:
            self._append(_Line("search", fingerprint))

    def path(self, *parts: str) -> Path:
        """Give the path of a file in the folder; the folders above it are made.

        Args:
            parts: Names below the workspace.
        """
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def recall(self, kind: str, key: str, type_: type[_Known]) -> _Known | None:
        """Give a record of an earlier session, or of this one.

        Args:
            kind: Sort of record.
            key: Which one.
            type_: What it is; a record that does not fit counts as unknown.
        """
        raw = self._known.get((kind, key))
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=type_)
        except msgspec.MsgspecError:
            return None

    def note(self, kind: str, key: str, record: object) -> None:
        """Keep a record: on disk when this returns.

        Args:
            kind: Sort of record.
            key: Which one; a later one of the same key replaces it.
            record: What ``recall`` gives back.
        """
        raw = msgspec.Raw(msgspec.json.encode(record))
        self._known[kind, key] = raw
        self._append(_Line(kind, key, raw))

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _append(self, line: _Line) -> None:
        self._journal.write(msgspec.json.encode(line) + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())


@contextmanager
def workspace(output: Path, fingerprint: str) -> Iterator[Workspace]:
    """Work in the folder that belongs to an output; it is removed unless an exception ends this.

    Bad input ends it for good: nothing stays then, unless it holds results already.

    Args:
        output: The bundle directory that is to be made; its parent must exist.
        fingerprint: Of model, data and settings; another one starts anew.

    Raises:
        BadInputError: Another search works on the same output, or the folder cannot be written.
    """
    root = folder_of(output)
    try:
        root.mkdir(exist_ok=True)
        lock = (root / _LOCK).open("ab")
    except OSError as error:
        raise BadInputError(
            f"cannot write {root}: {error.strerror}; choose another --output"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInputError(
                f"another edge-quantize works on {output}; wait for it, or choose another --output"
            ) from error
        work = Workspace(root, fingerprint)
        try:
            yield work
        except BadInputError:
            if not work.is_worth_keeping:
                shutil.rmtree(root)
            raise
        finally:
            work.close()
        shutil.rmtree(root)


def folder_of(output: Path) -> Path:
    """Name the workspace of an output.

    Args:
        output: The bundle directory.
    """
    return output.absolute().parent / f".{output.name}.work"


def _read(path: Path) -> list[_Line]:
    """Read a journal; lines that were cut off are left out."""
    lines: list[_Line] = []
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    for line in content.split(b"\n"):
        try:
            lines.append(msgspec.json.decode(line, type=_Line))
        except msgspec.MsgspecError:
            continue
    return lines


def _empty(root: Path) -> None:
    """Remove what another search left."""
    for entry in root.iterdir():
        if entry.name == _LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
