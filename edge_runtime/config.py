"""Reads the daemon's configuration.

``load`` merges, in this order: the defaults in ``settings``, the TOML file, the environment;
command-line options go on top.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_runtime.errors import ConfigError
from edge_runtime.settings import Config, Model
from edge_runtime.toml_settings import file_settings, put_environment

ENVIRONMENT_PREFIX: Final = "EDGE_RUNTIME__"
_alias: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.

    Args:
        path: TOML file, or ``None`` for none.
        environment: Where ``EDGE_RUNTIME__SECTION__KEY`` variables are looked up; lists and
            tables are written as in TOML, plain text needs no quotes.

    Returns:
        The resolved configuration.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; names the key.
    """
    raw: dict[str, Any] = {}
    origin = "the environment"
    if path is not None:
        origin = str(path)
        raw = file_settings(path)
        _anchor(raw, path.absolute().parent)
    put_environment(raw, ENVIRONMENT_PREFIX, environment)
    return parse(raw, origin)


def parse(raw: Mapping[str, Any], origin: str) -> Config:
    """Check a configuration that was read from somewhere.

    Args:
        raw: Nested tables as TOML gives them.
        origin: Where they came from, for the message.

    Raises:
        ConfigError: A key is unknown or a value is wrong; the message names the key.
    """
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{origin}: {_with_key(raw, str(error))}") from error
    for name, model in config.models.items():
        policy = model.version_policy
        if (policy.latest is not None) + policy.all + bool(policy.specific) > 1:
            raise ConfigError(
                f"{origin}: models.{name}.version_policy: give one of latest, all and specific"
            )
        _check_residency(f"{origin}: models.{name}", model)
    return config


def _check_residency(where: str, model: Model) -> None:
    if model.load == "always" and model.idle_unload_s:
        raise ConfigError(
            f'{where}.idle_unload_s: load = "always" keeps the model in memory; give one of both'
        )
    for alias, version in model.aliases.items():
        if not _alias.fullmatch(alias):
            raise ConfigError(
                f"{where}.aliases: {alias!r} is not a name for a version: a letter, then at most "
                "63 more of letters, digits, '_', '-' and '.'"
            )
        if alias == "latest":
            raise ConfigError(f"{where}.aliases: 'latest' is the highest version that can answer")
        if version < 1:
            raise ConfigError(f"{where}.aliases.{alias}: {version} is no version; they begin at 1")


def _anchor(raw: dict[str, Any], folder: Path) -> None:
    """Make a file's relative model and repository paths start at its folder.

    What is no path is left for ``parse`` to refuse.
    """
    repositories, models = raw.get("repositories"), raw.get("models")
    if isinstance(repositories, list):
        raw["repositories"] = [_anchored(each, folder) for each in repositories]
    for model in models.values() if isinstance(models, dict) else ():
        if isinstance(model, dict) and "path" in model:
            model["path"] = _anchored(model["path"], folder)


def _anchored(path: Any, folder: Path) -> Any:  # noqa: ANN401 - any TOML value
    return str(folder / path) if isinstance(path, str) and path else path


def _with_key(raw: Mapping[str, Any], text: str) -> str:
    """Turn msgspec's ``... - at `$.limits.chunks``` into ``limits.chunks: ...``."""
    message, _, path = text.partition(" - at `$")
    key = path.rstrip("`").lstrip(".")
    if key.startswith("models[...]"):
        # msgspec names no keys of a dict: the first model that it refuses is the one it meant.
        for name, model in raw["models"].items():
            try:
                msgspec.convert(model, Model)
            except msgspec.ValidationError:
                key = f"models.{name}{key.removeprefix('models[...]')}"
                break
    unknown = message.removeprefix("Object contains unknown field `")
    if unknown != message:
        return f"unknown key `{key}{'.' if key else ''}{unknown}"  # ends with a backtick already
    return f"{key or 'top level'}: {message}"
