"""The prediction journal on the admin door: collected row by row, and let go of.

The file is opened for each question, on a thread; the daemon's writer goes on meanwhile.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from edge_runtime.api.bodies import body_of, query_of
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers, Names
from edge_runtime.errors import InvalidRequestError, UnavailableError
from edge_runtime.protocol import journal_schemas as schemas

if TYPE_CHECKING:
    from edge_runtime.observation.journal_file import JournalFile

_T = TypeVar("_T")

AT_ONCE_MAX: Final = 2
"""Questions about the journal that are answered at the same time; each may hold 4 MiB."""


class JournalDoor:
    """What the routes of the journal call.

    Args:
        handlers: Know where it is.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers
        self._asked = 0

    def rows(self, exchange: Exchange, _: Names) -> None:
        """Give rows, the oldest first, as many as fit an answer."""
        after = query_of(exchange, schemas.JournalQuery).after
        empty = schemas.JournalRows(journal="", rows=[], has_more=False)
        self._answer(exchange, lambda file: _page(file, after), empty)

    def collected(self, exchange: Exchange, _: Names) -> None:
        """Remove rows that are safe elsewhere."""
        wanted = body_of(exchange, schemas.Collected)

        def remove(file: "JournalFile") -> schemas.Removed:
            if file.name != wanted.journal:
                raise InvalidRequestError(
                    "that journal is not this one: it began anew; collect it from its first row"
                )
            return schemas.Removed(rows=file.remove(through=wanted.through))

        self._answer(exchange, remove, schemas.Removed(rows=0))

    def _answer(self, exchange: Exchange, ask: Callable[["JournalFile"], _T], empty: _T) -> None:
        path = self._handlers.journal
        if self._asked >= AT_ONCE_MAX:
            raise UnavailableError("the journal is being read; ask again in a moment")
        self._asked += 1

        async def work() -> None:
            try:
                exchange.json(await asyncio.to_thread(_asked, path, ask, empty))
            finally:
                self._asked -= 1

        self._handlers.later(exchange, work())


def _asked(path: Path | None, ask: Callable[["JournalFile"], _T], empty: _T) -> _T:
    if path is None or not path.exists():
        return empty  # nothing was ever kept, and asking makes no file
    from edge_runtime.observation.journal_file import JournalFile  # noqa: PLC0415 - imports SQLite

    file = JournalFile.open(path)
    try:
        return ask(file)
    finally:
        file.close()


def _page(file: "JournalFile", after: int) -> schemas.JournalRows:
    page = schemas.JournalRows(journal=file.name, rows=[], has_more=False)
    size = 0
    for row in file.rows(after=after):
        size += len(row.record)
        if page.rows and size > schemas.ANSWER_BYTES:
            page.has_more = True
            break
        page.rows.append(
            schemas.JournalRow(
                number=row.number,
                **row.facts._asdict(),
                is_encrypted=row.is_encrypted,
                record=row.record,
            )
        )
    return page
