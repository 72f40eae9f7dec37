"""An agent.db from before ``agent.elapsed_time``: what still guards the device is carried over.

Version changes were noted by the time of day then, and so were the moments at which stages were
seen. And one row held whatever time was latest, be it known to this device or signed by others.
An older program can open a newer file, and makes its own tables again: so it is these tables, not
a number, that say whether there is something to do.
"""

import sqlite3
import time
from typing import Final

DAY_S: Final = 86_400.0
"""No guard-rail looks further back at version changes."""
NOT_YET_S: Final = 1e12
"""A moment that is ahead of every counter of elapsed time: ``guard_times`` makes it one of now when
it looks for the first time, so that the change counts for a whole day more."""
OLD: Final = ("version_changes", "stage_sights")


def carry_over(connection: sqlite3.Connection) -> None:
    """Bring the rows of the old tables into the new ones, and drop the old ones; all or nothing.

    Stages begin anew, which makes them slower. So does the time floor: nobody can tell any more who
    said that it is so late, and a false one would stay for ever.

    Args:
        connection: Not in a transaction; the new tables are there.

    Raises:
        sqlite3.Error: The disk refused; nothing changed.
    """
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    there = {name for (name,) in rows}
    if there.isdisjoint(OLD):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if {"version_changes", "versions_changed"} <= there:
            # By the earlier of the system clock and the latest change: either may be ahead.
            connection.execute(
                "INSERT OR IGNORE INTO versions_changed SELECT update_id, model, ?1 "
                "FROM version_changes WHERE at_s > "
                "min(?2, (SELECT max(at_s) FROM version_changes)) - ?3",
                (NOT_YET_S, time.time(), DAY_S),
            )
        if "time_floor" in there:
            connection.execute("DELETE FROM time_floor")
        for table in there.intersection(OLD):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
