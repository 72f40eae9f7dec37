"""What an answer to a request for a part of a file means; pure.

Source:
    RFC 9110, sections 8.8.3 (entity tags), 13.1.5 (If-Range) and 14 (range requests).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

OK: Final = 200
PARTIAL: Final = 206
UNSATISFIABLE: Final = 416

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_STRONG_TAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]{1,200}"')
_LENGTH: Final = re.compile(r"[0-9]{1,19}")


class UnusableAnswerError(Exception):
    """An answer that does not hold the bytes that were asked for; the text says why."""


class WrongFileError(UnusableAnswerError):
    """An answer that speaks of another file than the one with this name."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A part of a file for which a server is asked.

    Attributes:
        begin: Its first byte's place.
        end: The place after its last byte.
        size: Of the whole file, in bytes.
        tag: The strong entity tag that the server gave for it before; empty: none.
    """

    begin: int
    end: int
    size: int
    tag: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether all of the file is asked for."""
        return self.begin == 0 and self.end == self.size

    def headers(self) -> dict[str, str]:
        """Give the request's headers."""
        # An encoding of the server's would make other bytes of it.
        headers = {"Accept-Encoding": "identity"}
        if not self.is_whole:
            headers["Range"] = f"bytes={self.begin}-{self.end - 1}"
            if self.tag:
                headers["If-Range"] = self.tag
        return headers


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an answer's bytes belong.

    Attributes:
        begin: The first one's place in the file.
        end: The place after the last that the answer may have.
        tag: The file's strong entity tag at this server; empty: none was given.
    """

    begin: int
    end: int
    tag: str


def strong_tag(text: str) -> str:
    """Give an entity tag back if parts of a file may be joined by it; else empty.

    Args:
        text: An ``ETag`` header's value.
    """
    return text if _STRONG_TAG.fullmatch(text) else ""


def place(status: int, headers: Mapping[str, str], asked: Asked) -> Placed:
    """Find out where the bytes of an answer belong.

    Args:
        status: The answer's; not 4xx or 5xx, but for 416.
        headers: The answer's, by name in any case.
        asked: What was asked for.

    Raises:
        WrongFileError: The server has another file under this name.
        UnusableAnswerError: It cannot be used otherwise: the server does not do ranges well, or
            sends the whole file where a part was asked for.
    """
    low = {name.lower(): text.strip() for name, text in headers.items()}
    tag = strong_tag(low.get("etag", ""))
    if low.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise UnusableAnswerError(f"it is encoded ({low['content-encoding']})")
    if status == PARTIAL:
        return _partial(low, asked, tag)
    if status == UNSATISFIABLE:
        raise WrongFileError(f"it has no bytes from {asked.begin} on of {asked.size}")
    if status != OK:
        raise UnusableAnswerError(f"status {status} to a request for bytes")
    length = low.get("content-length")
    if length is not None and (not _LENGTH.fullmatch(length) or int(length) != asked.size):
        raise WrongFileError(f"it has {length[:20]} bytes, not {asked.size}")
    if not asked.is_whole:
        raise UnusableAnswerError("it is the whole file, where a part was asked for")
    return Placed(0, asked.size, tag)


def _partial(headers: Mapping[str, str], asked: Asked, tag: str) -> Placed:
    said = headers.get("content-range", "")
    match = _CONTENT_RANGE.fullmatch(said)
    if match is None:
        raise UnusableAnswerError(f"it says no range, but {said[:60]!r}")
    begin, end = int(match[1]), int(match[2]) + 1
    if match[3] != "*" and int(match[3]) != asked.size:
        raise WrongFileError(f"it has {match[3]} bytes, not {asked.size}")
    if begin != asked.begin or not begin < end <= asked.end:
        raise UnusableAnswerError(
            f"it is of bytes {begin} to {end}, where {asked.begin} to {asked.end} were asked for"
        )
    if asked.tag and tag and tag != asked.tag:
        raise UnusableAnswerError(f"its entity tag is {tag} now, it was {asked.tag}")
    return Placed(begin, end, tag)
