"""``edge-runtime config``: what the daemon would run with, as TOML or JSON."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edge_runtime.config import load
from edge_runtime.exit_codes import ExitCode
from edge_runtime.hardware import usable_cpus
from edge_runtime.locations import (
    ADMIN_SOCKET_NAME,
    RUNTIME_SOCKET_NAME,
    default_socket_directory,
    state_directory,
    temporary_directory,
)
from edge_runtime.settings import Config
from edge_runtime.toml_text import toml_text


def run(options: argparse.Namespace) -> int:
    """Print the resolved configuration.

    Raises:
        ConfigError: A file, key or value is wrong.
        SocketError: The default folder of the sockets is not private.
    """
    config = resolved(load(Path(options.config) if options.config else None), os.environ)
    settings = msgspec.to_builtins(config)
    if options.json:
        json.dump(settings, sys.stdout, indent=2)
        print()
    else:
        print(toml_text(settings))
    return ExitCode.DONE


def resolved(settings: Config, environment: Mapping[str, str]) -> Config:
    """Put the values that a daemon started here would use where the defaults are taken from it.

    Args:
        settings: As loaded.
        environment: Where the folders' variables are looked up.

    Raises:
        SocketError: The default folder of the sockets is not private.
    """
    sockets, engine = settings.sockets, settings.engine
    if sockets.runtime:
        runtime = Path(sockets.runtime)
    else:
        temporary = temporary_directory(environment)
        folder = default_socket_directory(environment, os.getuid(), temporary)
        runtime = folder / RUNTIME_SOCKET_NAME
    admin = sockets.admin or str(runtime.with_name(ADMIN_SOCKET_NAME))
    state = str(state_directory(settings.state_dir, environment))
    cpus = usable_cpus()
    return msgspec.structs.replace(
        settings,
        state_dir=state,
        sockets=msgspec.structs.replace(sockets, runtime=str(runtime), admin=admin),
        engine=msgspec.structs.replace(
            engine,
            intra_op_threads=engine.intra_op_threads or cpus,
            pool_threads=engine.pool_threads or cpus,
        ),
    )
