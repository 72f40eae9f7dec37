"""Small requests over TLS: a body each way, in memory, and dates judged by our clock.

Each has a time after which it is over, however its server drips, and can be called off by another
thread.
"""

import contextlib
import http.client
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from agent.errors import (
    CanceledError,
    ConfigError,
    Distrust,
    NetworkError,
    RefusedError,
    TrustError,
)
from agent.trust.patience import Limits, Patience
from agent.trust.patient_reading import Waiting, patient_responses
from agent.trust.tls import NO_CHECK_TIME, chain_dates, check_dates

ANSWER_BYTES_MAX: Final = 1_048_576
TIMEOUT_S: Final = 30.0
"""Longest silence, and longest wait for a connection."""
WHOLE_S: Final = 120.0
"""Most time of a request with its answer, beside the time that its own body may take."""
SEND_BYTES_PER_S: Final = 1000.0
"""A body may take as long as a link of this speed needs for it."""
PIECE_BYTES: Final = 65_536

_OK: Final = range(200, 300)
_CLIENT_ERRORS: Final = range(400, 500)
_TRY_AGAIN: Final = {408, 425, 429}
_SENTENCE_BYTES: Final = 200


class Clock(Protocol):
    """What certificates' dates are judged by."""

    def wall_s(self) -> float:
        """Seconds since the epoch, as far as the device knows."""
        ...

    @property
    def own_floor_s(self) -> float:
        """A moment that is past for sure."""
        ...

    def is_trusted(self) -> bool:
        """Whether the system's clock can be believed."""
        ...


class Https:
    """Asks servers whose certificates lead to one CA; one thread at a time.

    Args:
        clock: Judges certificates' dates; ``None``: nobody does, see ``stranger``.
        context: Of TLS.
        whole_s: See ``WHOLE_S``.
    """

    def __init__(
        self, clock: Clock | None, context: ssl.SSLContext, whole_s: float = WHOLE_S
    ) -> None:
        self._clock = clock
        self._context = context
        self._whole_s = whole_s
        self._waiting = Waiting()
        self._is_called_off = False

    @classmethod
    def believing(cls, ca: str, clock: Clock, whole_s: float = WHOLE_S) -> "Https":
        """Believe a CA.

        Args:
            ca: Its certificate, as PEM.
            clock: Judges dates.
            whole_s: See ``WHOLE_S``.

        Raises:
            TrustError: It is no certificate.
        """
        try:
            context = ssl.create_default_context(cadata=ca)
        except ssl.SSLError as error:
            raise TrustError(Distrust.MALFORMED, f"the CA is no certificate: {error}") from error
        context.verify_flags |= NO_CHECK_TIME
        return cls(clock, context, whole_s)

    @classmethod
    def stranger(cls) -> "Https":
        """Believe nobody: for what is compared with a fingerprint afterwards."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return cls(None, context)

    def ask(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send one request over a connection of its own.

        Args:
            method: HTTP method.
            url: ``https://...``.
            body: What to send.
            headers: Beside those that follow from the body.

        Returns:
            The body of a success, at most ``ANSWER_BYTES_MAX`` bytes.

        Raises:
            ConfigError: The URL is none.
            TrustError: The server is not one of this CA's, or its answer has no end.
            RefusedError: It says that it will not (4xx).
            NetworkError: It cannot be reached, fails, or takes too long (``TooSlowError``).
            CanceledError: Another thread called it off.
        """
        parts = urlsplit(url)
        check_url(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        whole_s = self._whole_s + len(body or b"") / SEND_BYTES_PER_S
        patience = Patience(Limits(silence_s=TIMEOUT_S, whole_s=whole_s), url, time.monotonic())
        self._waiting.patience = patience
        with self._translated(url):
            connection = _Connection(parts.hostname or "", parts.port, self._context, patience)
            connection.response_class = patient_responses(self._waiting)
            with contextlib.closing(connection):
                connection.connect()
                self._waiting.sock = connection.sock
                self._check()  # before that, there was nothing that could be called off
                self._judge(connection.sock, parts.hostname or "")
                connection.request(method, target or "/", body, dict(headers or {}))
                response = connection.getresponse()
                data = response.read(ANSWER_BYTES_MAX + 1)
            if response.length and len(data) <= ANSWER_BYTES_MAX:
                raise http.client.IncompleteRead(data, response.length)
        self._check()  # what was called off looks like an end of the answer
        return _checked(url, response.status, data)

    def abort(self) -> None:
        """Call off what another thread asks, and whatever it would ask after that."""
        self._is_called_off = True
        self._waiting.abort()

    def _check(self) -> None:
        if self._is_called_off:
            raise CanceledError("the request was called off")

    @contextlib.contextmanager
    def _translated(self, url: str) -> Iterator[None]:
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise TrustError(
                Distrust.WRONG_HASH,
                f"{url}: the server's certificate is not of this fleet ({error.verify_message}); "
                "nothing was sent to it",
            ) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._check()
            why = str(error) or type(error).__name__
            raise NetworkError(f"{url} cannot be reached: {why}") from error

    def _judge(self, sock: ssl.SSLSocket, host: str) -> None:
        clock = self._clock
        if clock is not None:
            check_dates(
                chain_dates(sock),
                host,
                now_s=clock.wall_s(),
                floor_s=clock.own_floor_s,
                is_trusted=clock.is_trusted(),
            )


class _Connection(http.client.HTTPSConnection):
    """A connection that sends no longer than somebody has patience."""

    def __init__(
        self, host: str, port: int | None, context: ssl.SSLContext, patience: Patience
    ) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S, context=context)
        self._patience = patience

    def send(self, data: Any) -> None:  # noqa: ANN401 - as in http.client
        """Send a head or a body; http.client calls it."""
        rest = memoryview(data)
        while rest:
            self.sock.settimeout(self._patience.timeout_s(time.monotonic()))
            try:
                rest = rest[self.sock.send(rest[:PIECE_BYTES]) :]
            except TimeoutError as error:
                raise self._patience.nothing_came(time.monotonic()) from error


def check_url(url: str) -> None:
    """Refuse what is no ``https`` URL.

    Raises:
        ConfigError: It is none.
    """
    parts = urlsplit(url)
    try:
        is_usable = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.fragment:
        raise ConfigError(
            f"{url!r} is no server: https://HOST, maybe :PORT and a path, is expected"
        )


def _checked(url: str, status: int, data: bytes) -> bytes:
    if len(data) > ANSWER_BYTES_MAX:
        raise TrustError(Distrust.TOO_LARGE, f"{url}: over {ANSWER_BYTES_MAX} bytes")
    if status in _OK:
        return data
    sentence = data[:_SENTENCE_BYTES].decode("utf-8", "replace").strip() or "nothing more"
    if status in _CLIENT_ERRORS and status not in _TRY_AGAIN:
        raise RefusedError(status, f"{url} says {status}: {sentence}")
    raise NetworkError(f"{url} fails ({status}): {sentence}")
