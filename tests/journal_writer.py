"""A program that fills a release journal: ``python -m tests.journal_writer FILE [NAME=VALUE...]``.

It prints ``ready``, then the state of each release that is on the disk, and ``refused: ...`` where
that fails, and ends when it is killed, or after ``times`` states. ``bytes`` limits how large a file
it may write, and ``uid`` is the user it becomes, who need not be able to read the code.
"""

import os
import resource
import sys
from pathlib import Path

import msgspec

from edge_runtime.errors import StorageError
from edge_runtime.release.journal import Journal
from edge_runtime.release.records import Slots
from tests.release_records import release, transition


def main() -> None:
    """Fill the journal."""
    options = dict(each.split("=", 1) for each in sys.argv[2:])
    if "uid" in options:
        os.setgroups([])
        os.setgid(int(options["uid"]))
        os.setuid(int(options["uid"]))
    with Journal(Path(sys.argv[1])).open() as journal:
        if "bytes" in options:
            limit = int(options["bytes"])
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        _say(f"ready {journal.problem}")
        fill(journal, int(options.get("times", 1_000_000)))


def fill(journal: Journal, times: int) -> None:
    """Move the release of model ``digits`` from state to state, each named by its number."""
    found = journal.releases("digits") or [journal.insert(release(state="state-0"))]
    last = found[0]
    first = int(last.state.removeprefix("state-")) + 1
    for number in range(first, first + times):
        moved = msgspec.structs.replace(last, state=f"state-{number}", looks=number)
        row = msgspec.structs.replace(transition(last, moved), reason="x" * 900)
        slots = Slots(model="digits", active=number, active_source="store")
        try:
            journal.move(moved, row, slots=slots)
        except StorageError as error:
            _say(f"refused: {error.message}")
        else:
            last = moved
            _say(last.state)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is how it talks


if __name__ == "__main__":
    main()
