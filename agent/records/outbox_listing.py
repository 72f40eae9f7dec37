"""What waits in the outbox, read beside the agent that uses it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

from agent.errors import ConfigError, StateError
from agent.records.outbox_rows import Priority

_BUSY_S: Final = 5.0


class Listed(NamedTuple):
    """One message that waits on flash.

    Attributes:
        id: Rises with its age.
        priority: Its class.
        topic: Where it goes.
        payload: What it says.
    """

    id: int
    priority: Priority
    topic: str
    payload: bytes


def listed(path: Path, limit: int) -> tuple[int, list[Listed]]:
    """List messages, those that go first at the top.

    Args:
        path: agent.db; only read.
        limit: Most messages.

    Returns:
        How many wait in all, and the first of them.

    Raises:
        ConfigError: There is no such file.
        StateError: It cannot be read.
    """
    if not path.exists():
        raise ConfigError(f"there is no {path}: has the agent ever run? `--config` says where")
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM outbox").fetchone()
            rows = connection.execute(
                "SELECT id, priority, topic, payload FROM outbox ORDER BY priority, id LIMIT ?",
                (limit,),
            ).fetchall()
    except sqlite3.Error as error:
        raise StateError(f"cannot read {path}: {error}; is this the agent's user?") from error
    return count, [Listed(row[0], Priority(row[1]), row[2], row[3]) for row in rows]
