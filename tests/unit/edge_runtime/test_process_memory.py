"""What this process holds in memory."""

import psutil

from edge_runtime.process_memory import resident_bytes


def test_resident_memory_is_what_the_system_says() -> None:
    assert abs(resident_bytes() - psutil.Process().memory_info().rss) < 2**20


def test_touched_memory_counts_until_it_is_given_back() -> None:
    before = resident_bytes()
    block = bytearray(64 * 2**20)
    assert resident_bytes() - before > 60 * 2**20
    del block
    assert resident_bytes() - before < 8 * 2**20
