"""``edge-runtime config``: what the daemon would run with, as TOML or JSON."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.cli.exit_codes import ExitCode
from edge_runtime.config import load


def run(options: argparse.Namespace) -> int:
    """Print the resolved configuration."""
    settings = msgspec.to_builtins(load(Path(options.config) if options.config else None))
    if options.json:
        json.dump(settings, sys.stdout, indent=2)
        print()
    else:
        print("\n".join(_toml(settings, ())).strip())
    return ExitCode.DONE


def _toml(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Write a table as TOML: values first, then the tables below it."""
    lines = [
        f"{_key(key)} = {_value(value)}"
        for key, value in table.items()
        if not isinstance(value, dict) and value is not None
    ]
    if path and lines:
        lines.insert(0, f"[{'.'.join(map(_key, path))}]")
    if lines:
        lines.append("")
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _toml(value, (*path, key))
    return lines


def _key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "").isalnum() and key.isascii()
    return key if bare else json.dumps(key)


def _value(value: Any) -> str:  # noqa: ANN401 - any TOML value
    # TOML's strings, numbers, booleans and arrays of them are written as JSON's are.
    return json.dumps(value, ensure_ascii=False)
