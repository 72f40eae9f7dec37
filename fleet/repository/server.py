"""Serves a repository's public files over HTTP: the only import of starlette and uvicorn.

For a desk, a lab or a local network. Any web server, bucket or CDN serves the same folder.
"""

import os
import re
import socket
from pathlib import PurePath
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Scope

from fleet.documents.paths import ARTIFACTS_FOLDER, METADATA_FOLDER
from fleet.errors import BadInputError
from fleet.repository.layout import ROOT_FILE, Layout

FOR_EVER: Final = "public, max-age=31536000, immutable"
"""Of names that hold a digest or a version: what they give never changes."""
ASK_AGAIN: Final = "no-cache"
KEEP_ALIVE_S: Final = 30
CONNECTIONS_MAX: Final = 1024

_DIGEST: Final = re.compile(r"^([0-9a-f]{64})\.")
_VERSION: Final = re.compile(r"^[1-9][0-9]*\.[a-z]+\.json$")


class PublicFiles(StaticFiles):
    """Files with validators that say what they hold, so that any mirror gives the same ones."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Answer with a file, or a part of it; see Starlette."""
        name = PurePath(full_path).name
        digest = _DIGEST.match(name)
        is_fixed = digest or _VERSION.match(name)
        headers = {"cache-control": FOR_EVER if is_fixed else ASK_AGAIN}
        if digest:
            headers["etag"] = f'"{digest[1]}"'
        response = FileResponse(full_path, status_code, headers, stat_result=stat_result)
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return NotModifiedResponse(response.headers)
        return response


def application(layout: Layout) -> Starlette:
    """Make the server's application: metadata, artifacts and the root; nothing else is shown.

    Args:
        layout: The repository.

    Raises:
        BadInputError: It is not one.
    """
    layout.check()

    def root(_: object) -> Response:
        return FileResponse(layout.root, headers={"cache-control": ASK_AGAIN})

    return Starlette(
        routes=[
            Mount(f"/{METADATA_FOLDER}", PublicFiles(directory=layout.metadata)),
            Mount(f"/{ARTIFACTS_FOLDER}", PublicFiles(directory=layout.artifacts)),
            Route(f"/{ROOT_FILE}", root),
        ]
    )


def bind(host: str, port: int) -> socket.socket:
    """Take an address.

    Args:
        host: A name or an address.
        port: 0: any that is free.

    Raises:
        BadInputError: It cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS_MAX)
    except OSError as error:
        raise BadInputError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another"
        ) from error


def server(layout: Layout) -> uvicorn.Server:
    """Make a server; ``run(sockets=[…])`` serves until it is told to stop.

    Args:
        layout: The repository.

    Raises:
        BadInputError: It is not one.
    """
    config = uvicorn.Config(
        application(layout),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    return uvicorn.Server(config)
