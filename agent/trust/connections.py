"""Connections of urllib3: deadlines at every read, and dates of certificates judged by us."""

import ssl
from collections.abc import Callable
from typing import Any, Final, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import SystemTimeWarning

from agent.errors import ConfigError
from agent.trust.patient_reading import Waiting, patient_responses

POOLS_MAX: Final = 4

Judge = Callable[[ssl.SSLSocket, str], None]
"""Refuses a server by its certificates' dates; gets the connection and the server's name."""


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
    response = patient_responses(waiting)

    class Plain(HTTPConnection):
        response_class = response

    class Encrypted(HTTPSConnection):
        response_class = response

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
