"""Where a daemon answers: a Unix socket or an HTTP address, and how it is written."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from edge_runtime.errors import ConfigError, TransportError
from edge_runtime.locations import ADMIN_SOCKET_NAME, RUNTIME_SOCKET_NAME, client_path

HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one daemon.

    Attributes:
        path: The Unix socket, or ``None`` for TCP.
        host: Host name or address for TCP.
        port: TCP port.
        base: Path in front of every request's, for a daemon behind a proxy; without a last slash.
    """

    path: Path | None = None
    host: str = "localhost"
    port: int = HTTP_PORT
    base: str = ""

    @classmethod
    def parse(cls, address: str) -> Self:
        """Read an address.

        Args:
            address: A path, ``unix:PATH``, or ``http://HOST[:PORT][/BASE]``.

        Raises:
            ConfigError: It is none of these.
        """
        if address.startswith("unix:"):
            # unix:///run/x and unix:/run/x are the same socket, as for gRPC.
            path = address.removeprefix("unix:")
            path = path.removeprefix("//")
        elif "://" in address:
            return cls._parse_url(address)
        else:
            path = address
            _, colon, port = address.rpartition(":")
            if colon and port.isdecimal() and "/" not in address:
                raise ConfigError(
                    f"address {address!r} reads as a file's name; write http://{address} for TCP"
                )
        if not path:
            raise ConfigError(
                "the address is empty; give a socket's path or http://HOST:PORT, for example "
                "/run/edge-runtime/runtime.sock"
            )
        return cls(path=Path(path))

    @classmethod
    def _parse_url(cls, address: str) -> Self:
        try:
            url = urlsplit(address)
            host, port = url.hostname, url.port
        except ValueError as error:
            raise ConfigError(f"address {address!r}: {error}") from error
        if url.scheme != "http":
            raise ConfigError(
                f"address {address!r}: {url.scheme}:// is not served here; use http://HOST:PORT "
                "or a socket's path"
            )
        if not host or url.username is not None or url.query or url.fragment:
            raise ConfigError(
                f"address {address!r} must be http://HOST[:PORT][/BASE], with neither a user nor "
                "a query"
            )
        # Zero is a port to bind, not one to connect to; the system's message would puzzle.
        if port == 0:
            raise ConfigError(f"address {address!r}: port 0 cannot be connected to")
        return cls(host=host, port=port or HTTP_PORT, base=url.path.rstrip("/"))

    @classmethod
    def of(cls, address: "str | os.PathLike[str] | Endpoint | None") -> "Endpoint":
        """Take an address in any form that the clients accept; ``None`` is the default socket.

        Args:
            address: Text as for ``parse``, a path, or an endpoint.

        Raises:
            ConfigError: The text is no address.
            SocketError: The default folder of the sockets is not private.
        """
        if address is None:
            return cls.default()
        if isinstance(address, Endpoint):
            return address
        if isinstance(address, str):
            return cls.parse(address)
        return cls(path=Path(address))

    @classmethod
    def several(
        cls, addresses: Iterable["str | os.PathLike[str] | Endpoint"]
    ) -> "tuple[Endpoint, ...]":
        """Take the addresses of several daemons.

        Args:
            addresses: Each as for ``of``.

        Raises:
            ConfigError: One is no address, one is there twice, or there is none.
        """
        if isinstance(addresses, str | bytes | os.PathLike | Endpoint):
            raise ConfigError(
                f"addresses is a list: [{str(addresses)!r}]; Client takes a single one"
            )
        if not isinstance(addresses, Iterable):
            raise ConfigError(
                f"addresses is a list of the socket or URL of every daemon: {addresses!r}"
            )
        given = tuple(addresses)
        for address in given:  # unlike one alone, none of several is the default
            if not isinstance(address, str | os.PathLike | Endpoint):
                raise ConfigError(f"addresses: {address!r} is no path, URL or Endpoint")
        endpoints = tuple(cls.of(address) for address in given)
        if not endpoints:
            raise ConfigError("addresses is empty; give the socket or URL of every daemon")
        for place, endpoint in enumerate(endpoints):
            if endpoint in endpoints[:place]:
                raise ConfigError(f"address {str(endpoint)!r} is there twice; weights give more")
        return endpoints

    @classmethod
    def default(cls) -> Self:
        """Find the data socket: ``$EDGE_RUNTIME_SOCKET``, else where this user's daemon puts it.

        The variable takes what ``parse`` takes.

        Raises:
            ConfigError: The variable holds no address.
            SocketError: The default folder of the sockets is not private.
        """
        given = cls._given("EDGE_RUNTIME_SOCKET")
        return given or cls(path=client_path(os.environ, RUNTIME_SOCKET_NAME))

    @classmethod
    def default_admin(cls) -> Self:
        """Find the admin socket: ``$EDGE_RUNTIME_ADMIN_SOCKET``, else the default place.

        The variable takes what ``parse`` takes.

        Raises:
            ConfigError: The variable holds no address.
            SocketError: The default folder of the sockets is not private.
        """
        given = cls._given("EDGE_RUNTIME_ADMIN_SOCKET")
        return given or cls(path=client_path(os.environ, ADMIN_SOCKET_NAME))

    @classmethod
    def _given(cls, variable: str) -> Self | None:
        text = os.environ.get(variable, "")
        try:
            return cls.parse(text) if text else None
        except ConfigError as error:
            raise ConfigError(f"{variable}: {error.message}") from error

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header."""
        if self.path is not None:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"http://{self.authority}{self.base}"


def unreachable(endpoint: Endpoint, error: OSError) -> TransportError:
    """Say that no connection could be made, why, and what to do.

    Args:
        endpoint: What was tried.
        error: What the system said.
    """
    said = error.strerror or str(error)
    if isinstance(error, PermissionError):
        cure = "this user may not open it: join the socket's group (see `ls -l`)"
    elif endpoint.path is not None:
        cure = "is the daemon running? Start it (edge-runtime serve MODEL), or set "
        cure += "EDGE_RUNTIME_SOCKET or --socket to its socket"
    else:
        cure = f"does a daemon listen there (edge-runtime serve MODEL --http {endpoint.authority})?"
    return TransportError(f"cannot reach {endpoint}: {said}; {cure}")
