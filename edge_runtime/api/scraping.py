"""A scrape on the event loop: the metrics are written a little at a time, between other work."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter_ns
from typing import Final

from edge_runtime.api import exposition
from edge_runtime.api.metric_sources import Sources

_TURN_NS: Final = 1_000_000  # then others have their turn


async def scrape(sources: Sources, accept: str) -> tuple[bytes, str]:
    """Write every metric.

    Args:
        sources: Where the numbers are.
        accept: The scraper's ``Accept`` header; empty: it has no wish.

    Returns:
        The text, UTF-8, and its media type.
    """
    if exposition.LIBRARY not in sys.modules:
        # The import takes a tenth of a second, and more on a small device.
        with ThreadPoolExecutor(1, "first-scrape") as thread:
            await asyncio.get_running_loop().run_in_executor(thread, exposition.prepare)
    form = exposition.choose(accept)
    text: list[bytes] = []
    until = perf_counter_ns() + _TURN_NS
    for part in exposition.parts(sources, form):
        text.append(part)
        if perf_counter_ns() >= until:
            await asyncio.sleep(0)
            until = perf_counter_ns() + _TURN_NS
    return b"".join(text), form.content_type
