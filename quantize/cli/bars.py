"""Progress on standard error: bars with the remaining time for people, nothing for files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never

from tqdm import tqdm

from quantize.progress import Progress, Silent, Step


def bars(*, quiet: bool) -> Progress:
    """Choose how to show progress.

    Args:
        quiet: Whether nobody wants to see it.
    """
    return Silent() if quiet else Bars(draws=sys.stderr.isatty())


class _Bar:
    def __init__(self, bar: "tqdm[Never]") -> None:
        self._bar = bar

    def advance(self, count: int = 1) -> None:
        self._bar.update(count)


class _NoBar:
    def advance(self, count: int = 1) -> None:
        """Draw nothing."""


class Bars:
    """Draws a bar for each piece of work; where nobody can see it move, one line for each.

    Args:
        draws: Whether standard error is a terminal.
    """

    def __init__(self, *, draws: bool) -> None:
        self._draws = draws

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Step]:
        """Begin a piece of work.

        Args:
            text: What it is.
            total: Parts it has; ``None``: not known.
        """
        if not self._draws:
            print(text, file=sys.stderr)
            yield _NoBar()
            return
        with tqdm(total=total, desc=text, file=sys.stderr, dynamic_ncols=True, leave=False) as bar:
            yield _Bar(bar)
