"""A program that fills a cache: ``python -m tests.cache_writer STATE START [UID]``.

It prints the last number of every batch that is on disk, and ``problem: ...`` where that fails, and
ends when it is killed. With a UID it does so as that user, who need not be able to read the code.
"""

import os
import sys
from pathlib import Path

import edge_runtime.cache.disk  # noqa: F401 - while it can still be read
from edge_runtime.cache.worth import Worth
from edge_runtime.settings import Cache, Model
from tests.caching import RUN_NS, CachedModel, TurnableClock, outputs

BATCH = 20
BATCHES = 500


def main() -> None:
    """Fill the cache."""
    start = int(sys.argv[2])
    for uid in map(int, sys.argv[3:]):
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    settings = Cache(ram_bytes=0, disk_bytes=2**25)
    model = Model(cache_ttl_s=3600)
    with CachedModel(Path(sys.argv[1]), TurnableClock(), settings=settings, model=model) as cached:
        print("ready", flush=True)  # noqa: T201 - this is how it talks
        for batch in range(BATCHES):
            first = start + batch * BATCH
            cached.version.worth = Worth()  # its questions never repeat
            for number in range(first, first + BATCH):
                asked = cached.ask(number)
                if asked.tickets:
                    asked.ticket.done(outputs(number), RUN_NS)
            cached.settle()
            file = cached.cache.status().file
            assert file is not None
            said = f"problem: {file.problem}" if file.problem else f"{first + BATCH - 1}"
            print(said, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
