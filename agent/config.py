"""Reads the agent's configuration: defaults, then the TOML file, then the environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from agent.errors import ConfigError
from agent.settings.device import (
    Device,
    Downloads,
    JournalUpload,
    Repository,
    Runtime,
    Updates,
)
from agent.settings.group import Settings
from agent.settings.messaging import Mqtt, Outbox, Telemetry
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.toml_settings import file_settings, put_environment

ENVIRONMENT_PREFIX: Final = "EDGE_AGENT__"


class Config(Settings, frozen=True):
    """Everything that can be set."""

    state_dir: Annotated[
        str,
        Meta(
            description="State directory. Empty: `$STATE_DIRECTORY`, else "
            "`$XDG_STATE_HOME/edge-agent`, else `~/.local/state/edge-agent`."
        ),
    ] = ""
    device: Device = Device()
    runtime: Runtime = Runtime()
    repository: Repository = Repository()
    downloads: Downloads = Downloads()
    updates: Updates = Updates()
    mqtt: Mqtt = Mqtt()
    outbox: Outbox = Outbox()
    telemetry: Telemetry = Telemetry()
    journal: JournalUpload = JournalUpload()


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.

    Args:
        path: TOML file, or ``None`` for none.
        environment: Where ``EDGE_AGENT__SECTION__KEY`` variables are looked up; lists and tables
            are written as in TOML, plain text needs no quotes.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; names the key.
    """
    origin = "the environment" if path is None else str(path)
    try:
        raw = {} if path is None else file_settings(path)
        put_environment(raw, ENVIRONMENT_PREFIX, environment)
    except EdgeRuntimeError as error:
        raise ConfigError(error.message) from error
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        message, _, key = str(error).partition(" - at `$")
        raise ConfigError(
            f"{origin}: {key.rstrip('`').lstrip('.') or 'top level'}: {message}"
        ) from error
