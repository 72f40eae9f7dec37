"""Runs of the agent: each has a name of its own, and one that was killed is noticed by the next."""

import os
import sqlite3
from typing import NamedTuple

from agent.records import outbox_rows as rows
from agent.records.outbox_rows import Boot
from agent.records.sequence_mark import Mark

_SALT_BYTES = 4
"""Keep names apart where agent.db was lost, or copied, and runs are counted from one number on."""


class Begun(NamedTuple):
    """A run that has begun.

    Attributes:
        boot: Its number.
        boot_id: Its name.
        names: Of this run and those before it, by their numbers.
        ends: Runs that ended without a word, and have not been told.
    """

    boot: int
    boot_id: str
    names: dict[int, str]
    ends: list[Boot]


def begin(db: sqlite3.Connection, kernel: str, mark: Mark | None) -> Begun:
    """Begin a run.

    Args:
        db: The file, in a transaction.
        kernel: What Linux calls this boot of the device.
        mark: The last number that was written in place.
    """
    known = rows.boots(db)
    number = max((each.boot for each in known), default=0) + 1
    for each in known:
        if each.ended == rows.RUNNING:
            rows.put_boot(db, _ended(db, each, kernel, mark))
    boot_id = f"{kernel}.{os.urandom(_SALT_BYTES).hex()}.{number}"
    rows.put_boot(db, Boot(number, boot_id, rows.RUNNING, 0, is_exact=True))
    rows.prune_boots(db, number)
    every = rows.boots(db)
    names = {each.boot: each.boot_id for each in every}
    return Begun(number, boot_id, names, [each for each in every if each.ended == rows.UNCLEAN])


def _ended(db: sqlite3.Connection, boot: Boot, kernel: str, mark: Mark | None) -> Boot:
    """Say how a run ended that did not say so itself."""
    is_marked = mark is not None and mark.boot == boot.boot
    last = max(mark.seq if mark and is_marked else 0, rows.last_seq(db, boot.boot))
    # After a power cut the mark may be older than the last number.
    is_exact = is_marked and boot.boot_id.startswith(f"{kernel}.")
    ended = rows.UNCLEAN if last or not is_exact else rows.CLEAN
    return boot._replace(ended=ended, last_seq=last, is_exact=is_exact)


def ended_well(run: Begun, last_seq: int, *, is_certain: bool) -> Boot:
    """Say that a run ended as it should.

    Args:
        run: Which.
        last_seq: The last number it gave.
        is_certain: Whether it is known of each number what became of it; else its end is told, so
            that nobody waits for those that did not come.
    """
    ended = rows.CLEAN if is_certain else rows.UNCLEAN
    return Boot(run.boot, run.boot_id, ended, last_seq, is_exact=True)
