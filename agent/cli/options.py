"""What several commands need of their options."""

import argparse
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from agent import locations
from agent.config import Config, load

VARIABLE: Final = "EDGE_AGENT_CONFIG"
SYSTEM_CONFIG: Final = Path("/etc/edge-agent.toml")


def config_of(options: argparse.Namespace) -> Config:
    """Read the configuration that the options ask for.

    Raises:
        ConfigError: It cannot be read, or something in it is wrong.
    """
    given = options.config or os.environ.get(VARIABLE, "")
    if given:
        return load(Path(given))
    return load(SYSTEM_CONFIG if SYSTEM_CONFIG.exists() else None)


def state_of(options: argparse.Namespace) -> Path:
    """Find the agent's folder; it need not be there."""
    return locations.state_directory(config_of(options).state_dir)


def print_json(value: Any) -> None:  # noqa: ANN401 - any struct or plain data
    """Print a value as JSON, indented for readers."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
