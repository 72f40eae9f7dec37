"""What commands print: tables and bars for people, JSON for scripts. Only this imports rich."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fleet.repository import bundles

TIME_FORMAT: Final = "%Y-%m-%d %H:%M"


def print_json(value: Any) -> None:  # noqa: ANN401 - any struct or plain data
    """Print a value as JSON, indented for readers."""
    text = msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2)
    print(text.decode(), flush=True)


def say(message: str) -> None:
    """Tell a person something that is not data."""
    print(printable(message), file=sys.stderr)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a title; nothing of them is taken for markup."""
    print(printable(title))
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table)


def printable(text: str) -> str:
    """Make text harmless for a terminal: a name could hold control codes."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )


def megabytes(size_bytes: int) -> str:
    """Write a number of bytes for people."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes} B"  # noqa: PLR2004


@contextmanager
def bar(what: str, total_bytes: int | None, *, shown: bool) -> Iterator[bundles.Progress]:
    """Show how far many bytes are, where somebody looks.

    Args:
        what: Is done to them.
        total_bytes: How many there are; ``None``: nobody knows yet.
        shown: Whether to show it if this is a terminal.

    Yields:
        To be told of bytes that are done.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task(what, total=total_bytes)
        yield lambda done: progress.advance(task, done)
