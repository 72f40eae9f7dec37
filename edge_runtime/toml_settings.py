"""Settings as plain tables: a TOML file, with the environment on top. What they mean is others'."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_runtime.errors import ConfigError


def file_settings(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Args:
        path: TOML, in UTF-8.

    Raises:
        ConfigError: It cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no configuration file {path}") from error
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the configuration {path} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def put_environment(raw: dict[str, Any], prefix: str, environment: Mapping[str, str]) -> None:
    """Put variables at their places in the tables: ``PREFIX`` and then ``SECTION__KEY``.

    Args:
        raw: Nested tables as TOML gives them; changed.
        prefix: Of the variables that count.
        environment: Variables; lists and tables are written as in TOML, plain text needs no quotes.

    Raises:
        ConfigError: A variable wants a table where there is a value.
    """
    for variable, text in sorted(environment.items()):
        if variable.startswith(prefix):
            keys = variable.removeprefix(prefix).lower().split("__")
            _put(raw, keys, text, variable)


def _put(raw: dict[str, Any], keys: list[str], text: str, variable: str) -> None:
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
