"""``edge-runtime serve``: arguments on top of the configuration, then the daemon."""

import argparse
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.config import load
from edge_runtime.errors import ConfigError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.repository import parse_model_argument
from edge_runtime.settings import Config, Http, Model


@dataclass(frozen=True)
class ServeOptions:
    """The arguments of ``serve``; each that is given wins over the configuration.

    Attributes:
        models: ``[NAME=]MODEL`` arguments.
        socket: Data socket.
        admin_socket: Admin socket.
        http: HOST:PORT.
        state_dir: State directory.
        config: Configuration file.
        log_format: ``text`` or ``json``.
    """

    models: tuple[str, ...]
    socket: str | None
    admin_socket: str | None
    http: str | None
    state_dir: str | None
    config: str | None
    log_format: Any


def run(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    given = ServeOptions(
        models=tuple(options.models),
        socket=options.socket,
        admin_socket=options.admin_socket,
        http=options.http,
        state_dir=options.state_dir,
        config=options.config,
        log_format=options.log_format,
    )
    settings = resolve(given)  # before the slow imports: wrong arguments answer at once
    from edge_runtime import daemon  # noqa: PLC0415 - ONNX Runtime takes a while

    first = [settings]
    if not daemon.run(lambda: first.pop() if first else resolve(given)):
        # Leaving in the ordinary way would wait for the stuck run; everything else is put away.
        logging.shutdown()
        os._exit(ExitCode.DONE)
    return ExitCode.DONE


def resolve(given: ServeOptions) -> Config:
    """Read the configuration and put the arguments on top.

    Raises:
        ConfigError: A file, key, value or argument is wrong.
    """
    settings = load(Path(given.config) if given.config else None)
    models = dict(settings.models)
    repositories = list(settings.repositories)
    named: set[str] = set()
    for argument in given.models:
        name, path = parse_model_argument(argument)
        if not name:
            repositories.append(str(path))
        elif name in named:
            raise ConfigError(f"model {name!r} is named twice; give one another name: NAME={path}")
        else:
            named.add(name)
            # The file's other settings of this model stay.
            models[name] = msgspec.structs.replace(models.get(name, Model()), path=str(path))
    log = settings.log
    if given.log_format:
        log = msgspec.structs.replace(log, format=given.log_format)
    sockets = settings.sockets
    if given.socket:
        sockets = msgspec.structs.replace(sockets, runtime=given.socket)
    if given.admin_socket:
        sockets = msgspec.structs.replace(sockets, admin=given.admin_socket)
    return msgspec.structs.replace(
        settings,
        models=models,
        repositories=tuple(repositories),
        sockets=sockets,
        http=Http(given.http) if given.http else settings.http,
        state_dir=given.state_dir or settings.state_dir,
        log=log,
    )
