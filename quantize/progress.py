"""How long work tells how far it is: a protocol, and the silent one.

``cli`` gives the one that draws bars; everything else only counts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Step(Protocol):
    """One piece of work that goes on."""

    def advance(self, count: int = 1) -> None:
        """Say that so many more of its parts are done."""


class Progress(Protocol):
    """Where work tells how far it is."""

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Step]:
        """Begin a piece of work.

        Args:
            text: What it is, for a person.
            total: Parts it has; ``None``: not known.
        """
        ...


class _NoStep:
    def advance(self, count: int = 1) -> None:
        """Count nothing."""


class Silent:
    """Tells nobody."""

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Step]:  # noqa: ARG002 - a protocol's
        """Do nothing around the work."""
        yield _NoStep()
