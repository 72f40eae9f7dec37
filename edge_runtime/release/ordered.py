"""What was ordered of a release, until it is done or too late."""

import asyncio
from typing import Final

from edge_runtime.release.records import Release
from edge_runtime.release.steps import Outcome


class Ordered:
    """An order: a step is given up for it.

    Args:
        outcome: How the step ends.
        release: As it is when the order comes: the order is about this step and no other.

    Attributes:
        outcome: The same.
        is_done: Done with whether it was carried out; without: something else came first.
    """

    def __init__(self, outcome: Outcome, release: Release) -> None:
        self.outcome: Final = outcome
        self.is_done: Final = asyncio.get_running_loop().create_future()
        self._step: Final = (release.state, release.stage)

    def is_about(self, release: Release) -> bool:
        """Tell whether the step goes on that the order is about."""
        return self._step == (release.state, release.stage)

    def answer(self, *, is_done: bool) -> None:
        """Tell who gave it; once."""
        if not self.is_done.done():
            self.is_done.set_result(is_done)
