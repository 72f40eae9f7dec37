"""What several commands need of their options."""

import argparse
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from agent import locations
from agent.config import Config, load
from agent.errors import ConfigError

VARIABLE: Final = "EDGE_AGENT_CONFIG"
SYSTEM_CONFIG: Final = Path("/etc/edge-agent.toml")


def config_of(options: argparse.Namespace) -> Config:
    """Read the configuration that the options ask for.

    Raises:
        ConfigError: It cannot be read, or something in it is wrong.
    """
    given = options.config or os.environ.get(VARIABLE, "")
    path = Path(given or SYSTEM_CONFIG)
    config = load(path if given or path.exists() else None)
    if options.state_dir:
        config = msgspec.structs.replace(config, state_dir=options.state_dir)
    return config


def state_of(options: argparse.Namespace) -> Path:
    """Find the agent's folder; it need not be there."""
    return locations.state_directory(config_of(options).state_dir)


def check_has_run(state: Path) -> None:
    """Refuse to look where no agent has run: a command that looks makes nothing.

    Raises:
        ConfigError: None has, or it is another user's.
    """
    check_own(state)
    if not (state / locations.DATABASE).exists():
        raise ConfigError(
            f"no agent is running, and none has run in {state}: start `edge-agent run` first"
        )


def check_own(state: Path) -> None:
    """Refuse to work in another user's folder: its files would become ours.

    Args:
        state: The agent's folder; it need not be there.

    Raises:
        ConfigError: It is another user's.
    """
    try:
        owner = state.stat().st_uid
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"cannot look into {state}: {error.strerror}; be its user") from error
    if owner != os.geteuid():
        raise ConfigError(
            f"{state} belongs to the user with uid {owner}: run this as that user (`runuser -u "
            "edge-agent -- edge-agent ...`), else files in it become yours"
        )


def print_json(value: Any) -> None:  # noqa: ANN401 - any struct or plain data
    """Print a value as JSON, indented for readers."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
