"""What the client commands have in common: the connection, tables, JSON on standard output."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from edge_runtime.client import Client
from edge_runtime.client.blocking import TIMEOUT_DEFAULT_S


def connect(options: argparse.Namespace, *, connections: int = 1) -> Client:
    """Make the client that the options ask for; nothing is sent yet.

    Args:
        options: With ``socket`` and ``timeout``.
        connections: Most requests at once.

    Raises:
        ConfigError: ``--socket`` is no address.
        SocketError: The default folder of the sockets is not private.
    """
    timeout_s = options.timeout or TIMEOUT_DEFAULT_S
    return Client(options.socket, timeout_s=timeout_s, connections=connections)


def print_json(value: Any) -> None:  # noqa: ANN401 - any struct or plain data
    """Print a value as JSON, indented for readers."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    print(text.decode())


def say(message: str) -> None:
    """Tell a person something that is not data."""
    print(message, file=sys.stderr)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns; columns without content are left out.

    Args:
        titles: One per column.
        rows: Cells of each row, as many as there are titles.
    """
    used = [index for index in range(len(titles)) if any(row[index] for row in rows)]
    lines = [
        [printable(row[index]) or "-" for index in used]
        for row in ([titles] if rows else []) + list(rows)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def printable(text: str) -> str:
    """Make text harmless for a terminal: a label could hold control codes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
