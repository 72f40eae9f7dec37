"""What the commands print: JSON for programs, text for people."""

from typing import Any

import msgspec


def print_json(value: Any) -> None:  # noqa: ANN401 - any struct or plain data
    """Print a value as JSON, indented for readers."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
