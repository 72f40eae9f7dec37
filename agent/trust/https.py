"""Small requests over TLS: a body each way, in memory, and dates judged by our clock."""

import http.client
import ssl
from collections.abc import Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

from agent.errors import ConfigError, Distrust, NetworkError, RefusedError, TrustError
from agent.trust.tls import NO_CHECK_TIME, chain_dates, check_dates

ANSWER_BYTES_MAX: Final = 1_048_576
TIMEOUT_S: Final = 30.0

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
    def floor_s(self) -> float:
        """A moment that is past for sure."""
        ...

    def is_trusted(self) -> bool:
        """Whether the system's clock can be believed."""
        ...


class Https:
    """Asks servers whose certificates lead to one CA.

    Args:
        clock: Judges certificates' dates; ``None``: nobody does, see ``stranger``.
        context: Of TLS.
    """

    def __init__(self, clock: Clock | None, context: ssl.SSLContext) -> None:
        self._clock = clock
        self._context = context

    @classmethod
    def believing(cls, ca: str, clock: Clock) -> "Https":
        """Believe a CA.

        Args:
            ca: Its certificate, as PEM.
            clock: Judges dates.

        Raises:
            TrustError: It is no certificate.
        """
        try:
            context = ssl.create_default_context(cadata=ca)
        except ssl.SSLError as error:
            raise TrustError(Distrust.MALFORMED, f"the CA is no certificate: {error}") from error
        context.verify_flags |= NO_CHECK_TIME
        return cls(clock, context)

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
            NetworkError: It cannot be reached, or fails.
        """
        parts = urlsplit(url)
        check_url(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=TIMEOUT_S, context=self._context
        )
        try:
            connection.connect()
            self._judge(connection.sock, parts.hostname or "")
            connection.request(method, target or "/", body, dict(headers or {}))
            response = connection.getresponse()
            data = response.read(ANSWER_BYTES_MAX + 1)
        except ssl.SSLCertVerificationError as error:
            raise TrustError(
                Distrust.WRONG_HASH,
                f"{url}: the server's certificate is not of this fleet ({error.verify_message}); "
                "nothing was sent to it",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise NetworkError(f"{url} cannot be reached: {why}") from error
        finally:
            connection.close()
        return _checked(url, response.status, data)

    def _judge(self, sock: ssl.SSLSocket, host: str) -> None:
        clock = self._clock
        if clock is not None:
            check_dates(
                chain_dates(sock),
                host,
                now_s=clock.wall_s(),
                floor_s=clock.floor_s,
                is_trusted=clock.is_trusted(),
            )


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
