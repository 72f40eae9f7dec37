"""How python-tuf gets metadata: through our HTTP, with our limits, the announcement from memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from agent.errors import RefusedError
from agent.trust.http import Http
from agent.trust.room import Room, bounded, unlimited

TIMESTAMP: Final = "timestamp"
ROOT: Final = "root"
NOT_FOUND: Final = 404
UNKNOWN_BYTES_MAX: Final = 8 * 1024 * 1024
"""Limit where python-tuf names none; above each of its own."""


class Fetcher(FetcherInterface):
    """Gets metadata of one refresh.

    Errors of ours pass through python-tuf as they are; only refusals are told in its words, since
    a missing root means that there is no newer one.

    Args:
        http: Asks the server.
        file_s: Most seconds of one file.
        count: Told how many bytes came over the network.
        announced: A timestamp that was announced; it is not asked for then.
        room: Says how many more bytes may come.

    Attributes:
        role: Which role was asked for last.
        version: Which version of it; ``None``: the newest.
        data: What was answered; empty before.
    """

    def __init__(
        self,
        http: Http,
        file_s: float,
        count: Callable[[int], None],
        announced: bytes | None,
        room: Room = unlimited,
    ) -> None:
        self._http = http
        self._file_s = file_s
        self._count = count
        self._announced = announced
        self._room = room
        self.role = ""
        self.version: int | None = None
        self.data = b""

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Get a metadata file.

        Args:
            url: Where it is.
            max_length: Most bytes it may have.

        Raises:
            DownloadHTTPError: The server refuses (400 to 499).
            NetworkError: It cannot be reached, fails, or is too slow.
            TooLargeError: It sends more.
            BudgetError: The byte budget has no room for it.
        """
        self.role, self.version = role_of(url)
        self.data = b""
        if self.role == TIMESTAMP and self._announced is not None:
            self.data = self._announced[:max_length]
            return self.data
        before = self._http.received_bytes
        try:
            with (
                bounded(self._room, max_length) as limit_bytes,
                self._http.get(
                    url, limit_bytes=limit_bytes, first_byte_s=self._file_s, whole_s=self._file_s
                ) as answer,
            ):
                self.data = answer.read()
        except RefusedError as error:
            raise DownloadHTTPError(error.message, error.status) from error
        finally:
            self._count(self._http.received_bytes - before)
        return self.data

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, UNKNOWN_BYTES_MAX)


class FolderFetcher(FetcherInterface):
    """Answers from the metadata that is already here: what it lacks is not there.

    Args:
        folder: Of python-tuf's metadata.

    Attributes:
        role: Which role was asked for last.
        version: Which version of it; ``None``: the newest.
        data: What was answered.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.role = ""
        self.version: int | None = None
        self.data = b""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.role, self.version = role_of(url)
        missing = DownloadHTTPError(f"{self.role} is not here", NOT_FOUND)
        if self.role == ROOT:
            raise missing  # python-tuf looks into its own history of roots first
        try:
            self.data = (self._folder / f"{self.role}.json").read_bytes()
        except OSError as error:
            raise missing from error
        yield self.data


def role_of(url: str) -> tuple[str, int | None]:
    """Read role and version from the URL of a metadata file: ``.../3.root.json``."""
    name = unquote(urlsplit(url).path.rpartition("/")[2]).removesuffix(".json")
    first, dot, rest = name.partition(".")
    return (rest, int(first)) if dot and first.isdigit() else (name, None)
