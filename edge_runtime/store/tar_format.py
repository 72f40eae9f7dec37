"""The tar format, as far as a bundle needs it: regular files and folders with plain names.

Reads forwards only and holds no more than one header: the standard library's reader takes headers
of any size into memory and understands links, devices and sparse files, all of which a bundle has
no use for and somebody hostile does. Numbers and places are those of POSIX.1-2017 (pax, ustar) and
of GNU tar.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

BLOCK_BYTES: Final = 512
PAX_BYTES_MAX: Final = 65_536
"""Largest extended header."""

_NUMBER: Final = re.compile(rb"[ ]*([0-7]+)[ \0]*")
_POSIX: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \x00"
_BINARY: Final = 0x80
_REGULAR: Final = (b"0", b"\0")
_FOLDER: Final = b"5"
_PAX: Final = b"x"
_PAX_GLOBAL: Final = b"g"
_GNU_NAME: Final = b"L"
_REFUSED: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"K": "a link",
    b"S": "a sparse file",
    b"D": "a GNU listing",
    b"M": "a part of several volumes",
}


class TarError(Exception):
    """It is not a tar archive, or one with things that no bundle has; the text says which."""


class Bytes(Protocol):
    """Where an archive is read from, forwards.

    Attributes:
        position: Bytes read and skipped.
    """

    position: int

    def exactly(self, size_bytes: int) -> bytes:
        """Read so many bytes; fewer only at the end."""
        ...

    def skip_to(self, position: int) -> None:
        """Go on at a later place."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file in an archive.

    Attributes:
        path: Its name, without a leading ``./``; not checked.
        size_bytes: Its size.
        position: Where its content begins.
    """

    path: str
    size_bytes: int
    position: int


def entries(archive: Bytes, entries_max: int) -> Iterator[Entry]:
    """Read an archive, file by file; the content may be read before the next is asked for.

    Args:
        archive: At its beginning.
        entries_max: Most headers in it.

    Yields:
        Every regular file, in order; folders are passed over.

    Raises:
        TarError: It is cut off, damaged or not a tar archive, has too many entries, or one that
            is neither a regular file nor a folder.
    """
    extended: dict[str, str] = {}
    for _ in range(entries_max):
        header = _block(archive)
        if not header.strip(b"\0"):
            if extended:
                raise TarError("its last extended header has no file")
            return
        kind, size_bytes, name = _header(header)
        if kind in {_PAX, _PAX_GLOBAL, _GNU_NAME}:
            said = _extension(archive, kind, size_bytes)
            if extended.keys() & said.keys():
                raise TarError("one file has two extended headers that contradict each other")
            extended |= said
            continue
        path = extended.get("path", name)
        if path.startswith("/") or ".." in path.split("/"):
            raise TarError(f"{path!a} leads out of the bundle")
        if "size" in extended:
            size_bytes = _decimal(extended["size"])
        extended = {}
        position = archive.position
        if kind == _FOLDER or (kind in _REGULAR and path.endswith("/")):
            if size_bytes:
                raise TarError(f"{path!a} is a folder with a content")
        elif kind in _REGULAR:
            yield Entry(path.removeprefix("./"), size_bytes, position)
        else:
            what = _REFUSED.get(kind, f"of the unknown kind {kind!a}")
            raise TarError(f"{path!a} is {what}; a bundle holds regular files and folders only")
        archive.skip_to(position + _padded(size_bytes))
    raise TarError(f"it has more than {entries_max} entries")


def _block(archive: Bytes) -> bytes:
    header = archive.exactly(BLOCK_BYTES)
    if not header and not archive.position:
        raise TarError("it is empty")
    if len(header) < BLOCK_BYTES:
        raise TarError("it is cut off: its end mark is missing")
    return header


def _header(header: bytes) -> tuple[bytes, int, str]:
    """Take one header block apart: kind, size of the content in bytes, and name."""
    magic = header[257:265]
    if magic not in {_POSIX, _GNU}:
        raise TarError("it is not a tar archive (an unpacked one in the format ustar, pax or GNU)")
    # The sum is made with spaces in its own place.
    if _octal(header[148:156]) != sum(header[:148]) + 8 * 0x20 + sum(header[156:]):
        raise TarError("it is damaged: a header has the wrong checksum")
    name = _text(header[:100])
    prefix = _text(header[345:500]) if magic == _POSIX else ""
    return header[156:157], _size(header[124:136]), f"{prefix}/{name}" if prefix else name


def _extension(archive: Bytes, kind: bytes, size_bytes: int) -> dict[str, str]:
    """Read an extended header: what it says of the next file's path and size."""
    if size_bytes > PAX_BYTES_MAX:
        raise TarError(f"an extended header has {size_bytes} bytes, over {PAX_BYTES_MAX}")
    position = archive.position
    data = archive.exactly(size_bytes)
    if len(data) < size_bytes:
        raise TarError("it is cut off within an extended header")
    archive.skip_to(position + _padded(size_bytes))
    if kind == _GNU_NAME:
        return {"path": _text(data)}
    records = dict(_records(data))
    for key in records:
        if key.startswith("GNU.sparse"):
            raise TarError("it holds a sparse file; make it without --sparse")
        if key == "linkpath":
            raise TarError("it holds a link; a bundle holds regular files and folders only")
        if kind == _PAX_GLOBAL and key in {"path", "size"}:
            raise TarError(f"an extended header gives every file the same {key}")
    return {key: value for key, value in records.items() if key in {"path", "size"}}


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Take apart the records of a pax header: length, key, value and a line end each."""
    seen: set[str] = set()
    while data:
        digits, space, _ = data[:8].partition(b" ")
        if not space or not digits.isdigit() or digits.startswith(b"0"):
            raise TarError("an extended header is not in the format pax")
        length = int(digits)
        if length > len(data):
            raise TarError("an extended header is cut off")
        record, data = data[len(digits) + 1 : length], data[length:]
        key, equals, value = record.partition(b"=")
        if not key or not equals or not value.endswith(b"\n"):
            raise TarError("an extended header is not in the format pax")
        word = key.decode("utf-8", "replace")
        if word in seen:
            raise TarError(f"an extended header says {word!a} twice")
        seen.add(word)
        if word in {"path", "size"}:
            yield word, _decoded(value[:-1])
        else:
            yield word, ""


def _text(field: bytes) -> str:
    """Read a name that ends at the first zero, if it ends before its field does."""
    return _decoded(field.partition(b"\0")[0])


def _decoded(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TarError(f"a name is not UTF-8: {raw[:100]!a}") from error
    if "\0" in text:
        raise TarError(f"a name holds a zero byte: {raw[:100]!a}")
    return text


def _size(field: bytes) -> int:
    """Read a size: octal digits, or from 8 GiB on GNU's binary form."""
    if field[0] == _BINARY:
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int:
    match = _NUMBER.fullmatch(field)
    if match is None:
        raise TarError(f"it is damaged: {field!a} is not a number")
    return int(match[1], 8)


def _decimal(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise TarError(f"it is damaged: {text!a} is not a size")
    return int(text)


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
