"""The tables of ``cache.db``, and how an older file becomes one of today.

Run as ``python -m edge_runtime.cache.migrations FILE`` in a process of its own, and only for a file
that is older than ``SCHEMA_VERSION``: the daemon never imports sqlite-utils (docs/adr/0003).
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlite_utils import Database, Migrations

from edge_runtime.cache.schema import SCHEMA_VERSION

PAGE_BYTES: Final = 4096
_INCREMENTAL: Final = 2  # auto_vacuum: free pages go back to the file system when we say so
_NICENESS: Final = 10

Step = Callable[[Database], None]


def create(db: Database) -> None:
    """Make the tables: the versions that have answers, and the answers."""
    db.table("versions").create(
        {
            "id": int,
            "model": str,
            "version": str,
            "digest": str,
            "engine": str,
            "described": bytes,
            "keep_ms": int,
            "max_bytes": int,
            "retired": int,
        },
        pk="id",
        not_null={
            "model",
            "version",
            "digest",
            "engine",
            "described",
            "keep_ms",
            "max_bytes",
            "retired",
        },
    )
    db.table("versions").create_index(["model", "version", "digest", "engine"], unique=True)
    answers = db.table("answers")
    answers.create(
        {
            "id": int,
            "fingerprint": int,
            "version": int,
            "size": int,
            "created_ms": int,
            "run_ns": int,
            "key": bytes,
            "checksum": bytes,
            "payload": bytes,  # last, so that nothing else lies behind its pages
        },
        pk="id",
        not_null={
            "fingerprint",
            "version",
            "size",
            "created_ms",
            "run_ns",
            "key",
            "checksum",
            "payload",
        },
        foreign_keys=[("version", "versions", "id")],
    )
    answers.create_index(["fingerprint"], unique=True)
    # What is counted and what is let go is found here, without touching an answer.
    answers.create_index(["version", "id", "size", "created_ms", "fingerprint"])


STEPS: Final[tuple[Step, ...]] = (create,)
"""Step ``n`` (from 1) makes a file of version ``n`` from one of version ``n - 1``."""


def migrate(path: Path, steps: tuple[Step, ...] = STEPS) -> None:
    """Bring a file up to date; each step is one transaction.

    Args:
        path: The file; may be empty.
        steps: What leads from each version to the next.

    Raises:
        sqlite3.Error: It is no database, or another one's, or cannot be written.
    """
    with Database(path, execute_plugins=False) as db:
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
        migrations = Migrations("cache")
        for number, step in enumerate(steps, 1):
            migrations(name=f"{number:04}")(_numbered(number, step))
        migrations.apply(db)


def _numbered(number: int, step: Step) -> Step:
    def run(db: Database) -> None:
        step(db)
        db.execute(f"PRAGMA user_version = {number}")

    return run


def main() -> int:
    """Migrate the file that the command line names."""
    os.nice(_NICENESS)
    migrate(Path(sys.argv[1]))
    return 0


assert len(STEPS) == SCHEMA_VERSION  # noqa: S101 - checked when the migrations are tested

if __name__ == "__main__":
    sys.exit(main())
