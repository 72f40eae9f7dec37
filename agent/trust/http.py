"""Files over HTTP(S) or from a stick, with a limit on everything; trust is never here.

What comes is believed only for its signed digest, so plain HTTP and mirrors are as good as any.
"""

import contextlib
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Final, Protocol
from urllib.parse import urljoin, urlsplit

import urllib3

from agent import __version__
from agent.errors import (
    AgentError,
    ConfigError,
    NetworkError,
    RefusedError,
    TooLargeError,
)
from agent.settings.device import Repository as RepositorySettings
from agent.trust.connections import pool_manager
from agent.trust.local_files import local_file
from agent.trust.patience import Limits, LowSpeed, Patience
from agent.trust.patient_reading import Waiting
from agent.trust.retry_after import retry_after_s
from agent.trust.tls import chain_dates, check_dates, client_context

PIECE_BYTES: Final = 65_536
REDIRECTS_MAX: Final = 5
DRAIN_BYTES_MAX: Final = 16_384
"""A longer text of an error is not read: the connection is closed instead."""
LOW_SPEED_WINDOW_S: Final = 60.0
OK: Final = 200
REDIRECTED: Final = 300
BAD_REQUEST: Final = 400
SERVER_ERROR: Final = 500
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
LATER: Final = frozenset({408, 425, 429})
"""Refusals that pass: too slow, too early, too many requests."""


class Clock(Protocol):
    """What is known of the time."""

    @property
    def own_floor_s(self) -> float:
        """A time that is past for sure, seconds since 1970."""

    def wall_s(self) -> float:
        """Now, as well as it is known."""

    def is_trusted(self) -> bool:
        """Whether that can be believed."""


class Answer:
    """An answer whose body is still to be read.

    Args:
        status: HTTP status, 200 to 299.
        headers: By lower-case name.
        pieces: The body.
        limit_bytes: Most bytes it may have.
        origin: Its URL, for messages.

    Attributes:
        status: HTTP status.
        headers: By lower-case name.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        pieces: Iterator[bytes],
        limit_bytes: int,
        origin: str,
    ) -> None:
        self.status = status
        self.headers = headers
        self._pieces = pieces
        self._limit_bytes = limit_bytes
        self._origin = origin

    def chunks(self) -> Iterator[bytes]:
        """Read the body, at most 64 KiB at a time, as soon as something is there.

        Raises:
            TooLargeError: More comes than the limit; what is over it is not given.
            NetworkError: It ends too early, or comes too slowly (``TooSlowError``).
        """
        left = self._limit_bytes
        for piece in self._pieces:
            left -= len(piece)
            if left < 0:
                raise TooLargeError(
                    f"{self._origin}: sends more than the {self._limit_bytes} bytes it may have"
                )
            yield piece

    def read(self) -> bytes:
        """Read the whole body.

        Raises:
            TooLargeError: More comes than the limit.
            NetworkError: It ends too early, or comes too slowly (``TooSlowError``).
        """
        return b"".join(self.chunks())


class Http:
    """Asks servers for files; one thread at a time.

    Args:
        settings: Time limits, certificates and proxy.
        clock: By which certificates' dates are judged.
    """

    def __init__(self, settings: RepositorySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._waiting = Waiting()
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._low_speed = LowSpeed(settings.low_speed_bytes_per_s, LOW_SPEED_WINDOW_S)

    @property
    def received_bytes(self) -> int:
        """Everything that ever came over the network, with heads, without TLS's own bytes."""
        return self._waiting.received_bytes

    @contextlib.contextmanager
    def get(
        self,
        url: str,
        *,
        limit_bytes: int,
        headers: Mapping[str, str] | None = None,
        first_byte_s: float | None = None,
        whole_s: float | None = None,
        low_speed: LowSpeed | None = None,
    ) -> Iterator[Answer]:
        """Ask for a file; redirects are followed, but never from TLS to plain text.

        Args:
            url: ``http://``, ``https://`` or ``file://``, percent-encoded.
            limit_bytes: Most bytes of the body; more is never read.
            headers: Such as ``Range`` and ``If-Range``.
            first_byte_s: Most seconds until the head is there; ``None``: the settings' silence,
                four times.
            whole_s: Most seconds until the last byte; ``None``: no limit.
            low_speed: Least speed; ``None``: the settings'.

        Raises:
            RefusedError: The server says that it will not (400 to 499).
            NetworkError: It cannot be reached or believed to be itself, fails, or is too slow.
            TooLargeError: It says that the body is over the limit.
        """
        lowered = {name.lower(): text for name, text in (headers or {}).items()}
        scheme = urlsplit(url).scheme
        if scheme == "file":
            with local_file(url, lowered) as local:
                _check_length(local.headers, limit_bytes, url)
                yield Answer(local.status, local.headers, local.pieces(), limit_bytes, url)
            return
        limits = Limits(
            silence_s=self._settings.read_s,
            first_byte_s=first_byte_s or 4 * self._settings.read_s,
            whole_s=whole_s,
            low_speed=low_speed or self._low_speed,
        )
        patience = Patience(limits, url, time.monotonic())
        with _translated(url):
            response = self._followed(url, lowered, patience)
        try:
            patience.head_is_there()
            answered = {name.lower(): text for name, text in response.headers.items()}
            _check_status(response, url)
            _check_length(answered, limit_bytes, url)
            yield Answer(response.status, answered, _pieces(response, url), limit_bytes, url)
        finally:
            _let_go(response)

    def abort(self) -> None:
        """End the answer that another thread reads: it gets a ``NetworkError``."""
        self._waiting.abort()

    def close(self) -> None:
        """Close idle connections; the next request opens them again."""
        for manager in self._managers.values():
            manager.clear()

    def _followed(
        self, url: str, headers: Mapping[str, str], patience: Patience
    ) -> urllib3.BaseHTTPResponse:
        for _ in range(REDIRECTS_MAX + 1):
            response = self._asked(url, headers, patience)
            if response.status not in REDIRECTS:
                return response
            target = urljoin(url, response.headers.get("location", url))
            response.close()
            schemes = (urlsplit(url).scheme, urlsplit(target).scheme)
            if schemes[1] not in {"http", "https"} or schemes == ("https", "http"):
                raise NetworkError(f"{url} sends us to {target}, which is not followed")
            url = target
        raise NetworkError(f"{url}: more than {REDIRECTS_MAX} redirects")

    def _asked(
        self, url: str, headers: Mapping[str, str], patience: Patience
    ) -> urllib3.BaseHTTPResponse:
        manager = self._manager(url)
        self._waiting.patience = patience
        return manager.request(
            "GET",
            url,
            headers={
                "user-agent": f"edge-agent/{__version__}",
                "accept-encoding": "identity",  # digests are of the bytes as they are
                **headers,
            },
            redirect=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=self._settings.connect_s, read=self._settings.read_s),
        )

    def _manager(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f"{url} is neither https://, http:// nor file://; see [repository]")
        proxy = self._settings.proxy
        if not proxy and not urllib.request.proxy_bypass(parts.hostname):
            proxy = urllib.request.getproxies().get(parts.scheme, "")
        if proxy not in self._managers:
            context = client_context(self._settings.ca)
            self._managers[proxy] = pool_manager(self._waiting, context, self._judge, proxy)
        return self._managers[proxy]

    def _judge(self, sock: ssl.SSLSocket, host: str) -> None:
        check_dates(
            chain_dates(sock),
            host,
            now_s=self._clock.wall_s(),
            floor_s=self._clock.own_floor_s,
            is_trusted=self._clock.is_trusted(),
        )


def open_http(settings: RepositorySettings, clock: Clock) -> Http:
    """Make what asks servers for files; nothing is opened before the first request.

    Args:
        settings: Time limits, certificates and proxy.
        clock: By which certificates' dates are judged.
    """
    return Http(settings, clock)


def _pieces(response: urllib3.BaseHTTPResponse, url: str) -> Iterator[bytes]:
    with _translated(url):
        while piece := response.read1(PIECE_BYTES, decode_content=False):
            yield piece


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except AgentError:
        raise
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise NetworkError(f"{url}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    text = str(error)
    return text or type(error).__name__


def _check_status(response: urllib3.BaseHTTPResponse, url: str) -> None:
    status = response.status
    if OK <= status < REDIRECTED:
        return
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) <= DRAIN_BYTES_MAX:
        with _translated(url):
            response.drain_conn()  # so that the connection can be used again
    if BAD_REQUEST <= status < SERVER_ERROR and status not in LATER:
        raise RefusedError(status, f"{url}: the server refuses with status {status}")
    raise NetworkError(
        f"{url}: the server failed with status {status}",
        retry_after_s(response.headers.get("retry-after", "")),
    )


def _check_length(headers: Mapping[str, str], limit_bytes: int, url: str) -> None:
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > limit_bytes:
        raise TooLargeError(f"{url}: {length} bytes, but it may have {limit_bytes}")


def _let_go(response: urllib3.BaseHTTPResponse) -> None:
    # A body that was read to its end frees the connection by itself; one that was not must never
    # be read on, however it goes.
    if not response.closed:
        response.close()
    response.release_conn()
