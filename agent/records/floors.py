"""Below what nobody goes again: the newest time, and the newest versions of signed metadata.

The TUF folder has its own protection against old versions, but a folder can be wiped. These rows
hold what was seen and believed once. Versions, and times that others signed, hold for an authority,
that is for the set of keys that signed: when the root replaced those keys they begin anew, which is
how a fleet recovers after somebody with a stolen key signed the highest version, or the latest
time, that there is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from agent.clock import SignedTime
from agent.records.file import RecordsFile

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS time_floor (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seconds REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS signed_time (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seconds REAL NOT NULL,
    authority TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS version_floors (
    role TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    authority TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True)
class VersionFloor:
    """The newest version of a role that was believed.

    Attributes:
        version: Its number.
        authority: Digest of the keys it counts for.
    """

    version: int
    authority: str


class Floors:
    """The rows; any thread may use them.

    Args:
        file: Where they are.
    """

    def __init__(self, file: RecordsFile) -> None:
        self._file = file

    def time_s(self) -> float:
        """Read the time floor, seconds since 1970; 0: there is none.

        Raises:
            StateError: The disk refused.
        """
        with self._file.reading() as connection:
            row = connection.execute("SELECT seconds FROM time_floor").fetchone()
        return float(row[0]) if row else 0.0

    def keep_time(self, seconds: float) -> None:
        """Write the time floor; an earlier one than is kept changes nothing.

        Args:
            seconds: Since 1970.

        Raises:
            StateError: The disk refused.
        """
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO time_floor VALUES (1, :seconds) ON CONFLICT (id) "
                "DO UPDATE SET seconds = max(seconds, :seconds)",
                {"seconds": seconds},
            )

    def signed_time(self) -> SignedTime | None:
        """Read the time that others vouch for; ``None``: there is none.

        Raises:
            StateError: The disk refused.
        """
        with self._file.reading() as connection:
            row = connection.execute("SELECT seconds, authority FROM signed_time").fetchone()
        return SignedTime(*row) if row else None

    def keep_signed_time(self, signed: SignedTime | None) -> None:
        """Write the time that others vouch for, or forget it.

        Raises:
            StateError: The disk refused; nothing changed.
        """
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM signed_time")
            if signed is not None:
                connection.execute(
                    "INSERT INTO signed_time VALUES (1, ?, ?)", (signed.seconds, signed.authority)
                )

    def versions(self) -> dict[str, VersionFloor]:
        """Read the newest versions that were believed, by role.

        Raises:
            StateError: The disk refused.
        """
        with self._file.reading() as connection:
            rows = connection.execute("SELECT role, version, authority FROM version_floors")
            return {role: VersionFloor(version, keys) for role, version, keys in rows}

    def keep_versions(self, versions: Mapping[str, VersionFloor]) -> None:
        """Write newest versions; those of other roles stay.

        Args:
            versions: By role; what they replace is the caller's decision.

        Raises:
            StateError: The disk refused; nothing changed.
        """
        with self._file.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO version_floors VALUES (?, ?, ?)",
                [(role, floor.version, floor.authority) for role, floor in versions.items()],
            )
