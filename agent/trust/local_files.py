"""``file://``: a repository on a stick, read as if a web server gave it."""

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

from agent.errors import NetworkError, RefusedError

PIECE_BYTES: Final = 65_536
OK: Final = 200
PARTIAL: Final = 206
NOT_FOUND: Final = 404
UNSATISFIABLE: Final = 416


@dataclass(frozen=True)
class LocalAnswer:
    """What an HTTP server would have said.

    Attributes:
        status: 200 or 206.
        headers: By lower-case name.
        size_bytes: Of the body.
        path: The file.
        file: The same, open at the first byte of the body.
    """

    status: int
    headers: Mapping[str, str]
    size_bytes: int
    path: Path
    file: BinaryIO

    def pieces(self) -> Iterator[bytes]:
        """Read the body.

        Raises:
            NetworkError: It cannot be read now.
        """
        left = self.size_bytes
        while left > 0:
            try:
                piece = self.file.read(min(left, PIECE_BYTES))
            except OSError as error:
                raise NetworkError(f"cannot read {self.path}: {error.strerror}") from error
            if not piece:
                raise NetworkError(f"{self.path} became shorter while it was read")
            left -= len(piece)
            yield piece


@contextlib.contextmanager
def local_file(url: str, headers: Mapping[str, str]) -> Iterator[LocalAnswer]:
    """Open the file that a URL names.

    Args:
        url: ``file:///PATH``, percent-encoded.
        headers: ``range`` (one range, not from the end) and ``if-range`` count; in lower case.

    Raises:
        RefusedError: There is no such file (404), or the range begins after its end (416).
        NetworkError: It cannot be read now.
    """
    path = Path(unquote(urlsplit(url).path))
    try:
        # Not to wait for a writer, should somebody have put a pipe there.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RefusedError(NOT_FOUND, f"there is no file {path}") from error
    except OSError as error:
        raise NetworkError(f"cannot read {path}: {error.strerror}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise RefusedError(NOT_FOUND, f"{path} is no plain file")
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        tag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        begin, end = _range(headers, tag, facts.st_size, path)
        answered = {"etag": tag, "content-length": str(end - begin)}
        status = OK
        if (begin, end) != (0, facts.st_size):
            status = PARTIAL
            answered["content-range"] = f"bytes {begin}-{end - 1}/{facts.st_size}"
        file.seek(begin)
        yield LocalAnswer(status, answered, end - begin, path, file)


def _range(headers: Mapping[str, str], tag: str, size: int, path: Path) -> tuple[int, int]:
    unit, _, text = headers.get("range", "").partition("=")
    first, dash, last = text.partition("-")
    if unit != "bytes" or not dash or not first.isdigit() or headers.get("if-range", tag) != tag:
        return 0, size
    begin = int(first)
    end = min(int(last) + 1, size) if last.isdigit() else size
    if begin >= end:
        raise RefusedError(UNSATISFIABLE, f"{path} has {size} bytes; there is no byte {begin}")
    return begin, end
