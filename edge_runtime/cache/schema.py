"""Facts of the file that the daemon, the migrations and the command share. Imports nothing heavy.

The tables themselves are stated in ``migrations``, and nowhere else.
"""

from typing import Final

SCHEMA_VERSION: Final = 1
"""``PRAGMA user_version`` of a file that this code reads and writes."""

DIRECTORY: Final = "cache"
"""The cache's folder, in the state directory."""

DATABASE: Final = "cache.db"
LOCK: Final = "cache.lock"
DEBT: Final = "cache.owed"
"""What is to be cleared before the file is used again."""
SIDES: Final = ("-wal", "-shm", "-journal")
"""What SQLite puts beside a file that is in use or was left in a crash."""
