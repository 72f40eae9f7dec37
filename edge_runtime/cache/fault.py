"""What an error says of the file. Pure."""

import sqlite3
from enum import Enum
from typing import Final

from edge_runtime.cache.store import LogTooLongError

_WRITE_CODES: Final = frozenset({
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
})  # fmt: skip
_PASSING_CODES: Final = frozenset({
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_INTERRUPT,
})  # fmt: skip


class Fault(Enum):
    """What an error says of the file."""

    BROKEN = "broken"
    NOT_WRITABLE = "not writable"
    PASSING = "passing"


def fault(error: Exception) -> Fault:
    """Judge an error; pure."""
    if isinstance(error, LogTooLongError):
        return Fault.NOT_WRITABLE
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        if code in _WRITE_CODES or code & 0xFF in _WRITE_CODES:
            return Fault.NOT_WRITABLE
        return Fault.PASSING if code & 0xFF in _PASSING_CODES else Fault.BROKEN
    # A broken page can hold values of any type, so an error of any other type means that too.
    return Fault.PASSING if isinstance(error, OSError | MemoryError) else Fault.BROKEN
