"""How much of a long fault table a run of the tests takes: ``make soak`` takes all of it."""

import os
from typing import Final

IS_EVERY_ROW: Final = os.environ.get("EVERY_ROW") == "1"


def every(sampled: int) -> int:
    """Give the step through a table: 1 with ``$EVERY_ROW``, else each ``sampled``-th row."""
    return 1 if IS_EVERY_ROW else sampled
