"""Connections of urllib3 that keep deadlines at every read, and let us judge certificates' dates.

urllib3 has a timeout for silence only. A server that drips one byte now and then, in the head or
in the body, would be waited for without end: so every byte is read through a reader of ours.
"""

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import SystemTimeWarning

from agent.errors import ConfigError
from agent.trust.patience import Patience

POOLS_MAX: Final = 4
BUFFER_BYTES: Final = 65_536

Judge = Callable[[ssl.SSLSocket, str], None]
"""Refuses a server by its certificates' dates; gets the connection and the server's name."""


class Waiting:
    """What the answer that is asked for next is waited with.

    Args:
        patience: Of that answer; may be replaced at any time.

    Attributes:
        patience: The same.
        received_bytes: Everything that ever came, with heads, after decryption.
        sock: The newest connection that was asked something.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience
        self.received_bytes = 0
        self.sock: socket.socket | None = None

    def abort(self) -> None:
        """Wake up the thread that waits for bytes; its answer ends."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                # Not the method of a TLS socket, which says goodbye first.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _PatientReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, waiting: Waiting) -> None:
        super().__init__()
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._waiting = waiting
        self._patience = waiting.patience
        waiting.sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - as in io.RawIOBase
        begun_s = time.monotonic()
        if self._patience is not None:
            self._sock.settimeout(self._patience.timeout_s(begun_s))
        try:
            size = self._raw.readinto(buffer)
        except TimeoutError as error:
            if self._patience is None:
                raise
            raise self._patience.nothing_came(time.monotonic()) from error
        self._waiting.received_bytes += size or 0
        if self._patience is not None and size:
            now_s = time.monotonic()
            self._patience.waited(now_s - begun_s, size, now_s)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


def pool_manager(
    waiting: Waiting, context: ssl.SSLContext, judge: Judge, proxy: str
) -> urllib3.PoolManager:
    """Make what connects.

    Args:
        waiting: Where the patience of each answer is put before it is asked for.
        context: For ``https://``.
        judge: Called after each handshake.
        proxy: URL of an HTTP proxy, or empty.

    Raises:
        ConfigError: The proxy's URL is none.
    """
    urllib3.disable_warnings(SystemTimeWarning)  # a clock at 1970 is expected, and judged by us
    options: dict[str, Any] = {
        "num_pools": POOLS_MAX,
        "maxsize": 1,
        "retries": False,
        "ssl_context": context,
    }
    manager = _proxied(proxy, options) if proxy else urllib3.PoolManager(**options)
    manager.pool_classes_by_scheme = _pool_classes(waiting, judge)
    return manager


def _proxied(proxy: str, options: dict[str, Any]) -> urllib3.ProxyManager:
    try:
        url = urllib3.util.parse_url(proxy)
        if url.scheme != "http" or not url.host:
            raise ConfigError(f"the proxy {proxy} is not http://HOST:PORT")
        headers = urllib3.make_headers(proxy_basic_auth=url.auth) if url.auth else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
    except urllib3.exceptions.LocationParseError as error:
        raise ConfigError(f"the proxy {proxy} is not http://HOST:PORT") from error


def _pool_classes(waiting: Waiting, judge: Judge) -> dict[str, type[HTTPConnectionPool]]:
    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            super().__init__(sock, *args, **kwargs)
            self.fp.close()
            self.fp = io.BufferedReader(_PatientReader(sock, waiting), BUFFER_BYTES)

    class Plain(HTTPConnection):
        response_class = Response

    class Encrypted(HTTPSConnection):
        response_class = Response

        def connect(self) -> None:
            super().connect()
            try:
                name = str(self._tunnel_host or self.host)
                judge(cast("ssl.SSLSocket", self.sock), name)
            except BaseException:
                self.close()
                raise

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}
