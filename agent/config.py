"""Reads the agent's configuration: defaults, then the TOML file, then the environment."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

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
    raw: dict[str, Any] = {}
    origin = "the environment"
    if path is not None:
        origin = str(path)
        try:
            raw = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"there is no configuration file {path}") from error
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"the configuration {path} is not UTF-8 text") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not TOML: {error}") from error
    for variable, text in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT_PREFIX):
            keys = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            _set(raw, keys, text, variable)
    try:
        return msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        message, _, key = str(error).partition(" - at `$")
        raise ConfigError(
            f"{origin}: {key.rstrip('`').lstrip('.') or 'top level'}: {message}"
        ) from error


def _set(raw: dict[str, Any], keys: list[str], text: str, variable: str) -> None:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = raw
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{variable}: {key!r} is a value, not a table")
    table[keys[-1]] = value
