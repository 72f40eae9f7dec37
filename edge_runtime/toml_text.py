"""Writes plain data as TOML, for people; the standard library only reads it."""

import json
from collections.abc import Mapping
from typing import Any


def toml_text(table: Mapping[str, Any]) -> str:
    """Write a table: values first, then the tables below it; what is ``None`` is left out.

    Args:
        table: Strings, numbers, booleans, lists and tables, as ``msgspec.to_builtins`` gives them.
    """
    return "\n".join(_lines(table, ())).strip()


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
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
            lines += _lines(value, (*path, key))
    return lines


def _key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "").isalnum() and key.isascii()
    return key if bare else json.dumps(key)


def _value(value: Any) -> str:  # noqa: ANN401 - any TOML value
    if isinstance(value, dict):
        pairs = (f"{_key(key)} = {_value(each)}" for key, each in value.items() if each is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # TOML's strings, numbers and booleans are written as JSON's are.
    return json.dumps(value, ensure_ascii=False)
