"""Binds every socket of the daemon: what systemd passed, and what the settings ask for."""

import os
import socket
from pathlib import Path
from typing import Final

from edge_runtime import access
from edge_runtime.errors import EdgeRuntimeError, SocketError
from edge_runtime.listeners import BoundSocket, adopt, bind_tcp, bind_unix
from edge_runtime.locations import (
    ADMIN_SOCKET_NAME,
    HANDOVER_SOCKET_NAME,
    RUNTIME_SOCKET_NAME,
    default_socket_directory,
    temporary_directory,
)
from edge_runtime.settings import Config
from edge_runtime.systemd import listen_fds

_DOORS: Final = (access.RUNTIME, access.ADMIN, access.HANDOVER, access.HTTP)


def bind(settings: Config) -> list[BoundSocket]:
    """Bind every socket that systemd did not pass: data and admin always, TCP when asked for.

    The hand-over socket is beside an admin socket of ours. If systemd passes the admin socket, it
    passes this one too, or nothing is handed over: its folder need not be ours to write to.

    Raises:
        SocketError: One of them cannot be bound; those that were are closed again.
    """
    bound: list[BoundSocket] = []
    try:
        for name, passed in listen_fds().items():
            if name not in _DOORS:
                raise SocketError(
                    f"systemd passes a socket named {name!r}; FileDescriptorName= must be one of "
                    f"{', '.join(_DOORS)}"
                )
            bound += [adopt(sock, name=name) for sock in passed]
        names = {each.address.name for each in bound}
        sockets = settings.sockets
        runtime = Path(sockets.runtime) if sockets.runtime else None
        if runtime is None and not {access.RUNTIME, access.ADMIN} <= names:
            folder = default_socket_directory(
                os.environ, os.getuid(), temporary_directory(os.environ)
            )
            runtime = folder / RUNTIME_SOCKET_NAME
        if runtime is not None and access.RUNTIME not in names:
            bound.append(bind_unix(runtime, group=sockets.group, name=access.RUNTIME))
        if runtime is not None and access.ADMIN not in names:
            admin = Path(sockets.admin) if sockets.admin else runtime.with_name(ADMIN_SOCKET_NAME)
            bound.append(bind_unix(admin, group=sockets.admin_group, name=access.ADMIN))
            if access.HANDOVER not in names:
                bound.append(
                    bind_unix(
                        admin.with_name(HANDOVER_SOCKET_NAME),
                        group=sockets.admin_group,
                        name=access.HANDOVER,
                        kind=socket.SOCK_SEQPACKET,
                    )
                )
        if settings.http.listen and access.HTTP not in names:
            bound.append(bind_tcp(settings.http.listen))
    except EdgeRuntimeError:
        for each in bound:
            each.close()
        raise
    return bound
