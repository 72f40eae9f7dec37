"""What a journal says, without changing it. With ``journal``, every statement on ``runtime.db``."""

from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from edge_runtime.release.journal_file import JournalFile, Read, Values
from edge_runtime.release.journal_rows import RecordT, from_row
from edge_runtime.release.journal_schema import BAD_MAX, HISTORY_MAX, RELEASES_MAX
from edge_runtime.release.records import (
    BadDigest,
    Override,
    Previous,
    Release,
    Slots,
    Transition,
)

_RELEASES: Final = """
SELECT * FROM releases WHERE :model IN ('', model)
AND (NOT :unfinished OR state NOT IN ('committed', 'rolled-back', 'failed'))
ORDER BY id DESC LIMIT :limit
"""
_RELEASE: Final = "SELECT * FROM releases WHERE id = :id"
_SLOTS: Final = "SELECT * FROM slots WHERE :model IN ('', model) ORDER BY model"
_TRAFFIC: Final = """
SELECT model, version, percent FROM traffic WHERE :model IN ('', model) ORDER BY model, version
"""
_OVERRIDES: Final = "SELECT * FROM overrides WHERE :model IN ('', model) ORDER BY model"
_HISTORY: Final = """
SELECT * FROM history WHERE id < :before_id ORDER BY id DESC LIMIT :limit
"""
_HISTORY_OF: Final = """
SELECT * FROM history WHERE model = :model AND id < :before_id ORDER BY id DESC LIMIT :limit
"""
_BAD: Final = "SELECT * FROM bad_digests WHERE manifest_sha256 = :manifest_sha256"
_ALL_BAD: Final = """
SELECT * FROM bad_digests WHERE :model IN ('', model)
ORDER BY "order" DESC, created_s DESC LIMIT :limit
"""
_DAEMON: Final = "SELECT boot_id, was_clean, awake_s FROM daemon"
_ID_MAX: Final = 2**63 - 1


class JournalReader:
    """Reads a journal; each method is one look at it.

    Every method but ``close`` raises ``StorageError`` if the file cannot be read or is damaged.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = JournalFile(path, _check)

    def __enter__(self) -> Self:
        """Use it, and close it at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; may be called again."""
        self._file.close()

    @property
    def damage(self) -> str:
        """What was lost when the file was opened, as a sentence; empty: nothing."""
        return self._file.damage

    @property
    def problem(self) -> str:
        """Why nothing can be changed, as a sentence; empty: the last change went well."""
        return self._file.problem

    def releases(
        self, model: str = "", *, unfinished: bool = False, limit: int = RELEASES_MAX
    ) -> list[Release]:
        """List releases, the newest first.

        Args:
            model: Only those of a model; empty: all.
            unfinished: Only those that are not at an end. A state that this program does not know
                is not at an end.
            limit: How many at most.
        """
        values = {"model": model, "unfinished": unfinished, "limit": max(0, limit)}
        return self._all(Release, _RELEASES, values)

    def release(self, release_id: int) -> Release | None:
        """Find a release by its number."""
        return self._one(Release, _RELEASE, {"id": release_id})

    def slots(self, model: str) -> Slots:
        """Say what is active for a model; empty slots where nothing was ever stored."""
        found = self.all_slots(model) if model else []
        return found[0] if found else Slots(model=model)

    def all_slots(self, model: str = "") -> list[Slots]:
        """List what is active, by model.

        Args:
            model: Only this one; empty: all of which something is stored.
        """
        # Two statements, and one journal: the lock lets nobody change it in between.
        return self._file.read(lambda read: _slots(read, model))

    def override(self, model: str) -> Override | None:
        """Find the local decision about a model."""
        return self._one(Override, _OVERRIDES, {"model": model}) if model else None

    def overrides(self) -> list[Override]:
        """List the local decisions, by model."""
        return self._all(Override, _OVERRIDES, {"model": ""})

    def history(
        self, model: str = "", limit: int = HISTORY_MAX, before_id: int = 0
    ) -> list[Transition]:
        """List what happened, the newest first.

        Args:
            model: Only to this model; empty: to all.
            limit: How many rows at most.
            before_id: Only rows that are older than this one; 0: from the newest on.
        """
        values = {"model": model, "limit": max(0, limit), "before_id": before_id or _ID_MAX}
        return self._all(Transition, _HISTORY_OF if model else _HISTORY, values)

    def bad(self, manifest_sha256: str) -> BadDigest | None:
        """Say whether a manifest is remembered as bad, and why."""
        return self._one(BadDigest, _BAD, {"manifest_sha256": manifest_sha256})

    def all_bad(self, model: str = "") -> list[BadDigest]:
        """List what is remembered as bad, the newest order first.

        Args:
            model: Only of this one; empty: of all.
        """
        return self._all(BadDigest, _ALL_BAD, {"model": model, "limit": BAD_MAX})

    def previous(self) -> Previous:
        """Say how the last daemon ended; of the one that runs: that it did not end in order."""
        return self._file.read(_previous)

    def _all(self, kind: type[RecordT], statement: str, values: Values) -> list[RecordT]:
        return self._file.read(
            lambda read: [from_row(kind, row) for row in read(statement, values)]
        )

    def _one(self, kind: type[RecordT], statement: str, values: Values) -> RecordT | None:
        found = self._all(kind, statement, values)
        return found[0] if found else None


def _slots(read: Read, model: str) -> list[Slots]:
    split: dict[str, dict[str, int]] = {}
    for row in read(_TRAFFIC, {"model": model}):
        split.setdefault(row["model"], {})[str(row["version"])] = row["percent"]
    return [
        from_row(Slots, {**row, "traffic": split.get(row["model"], {})})
        for row in read(_SLOTS, {"model": model})
    ]


def _previous(read: Read) -> Previous:
    row: dict[str, Any] = read(_DAEMON, {})[0]
    return from_row(Previous, {**row, "was_clean": bool(row["was_clean"])})


def _check(read: Read) -> None:
    """Read everything that decides what runs; raises ``ValueError`` where that makes no sense."""
    _slots(read, "")
    _previous(read)
    for kind, statement, values in (
        (Release, _RELEASES, {"model": "", "unfinished": False, "limit": -1}),
        (Override, _OVERRIDES, {"model": ""}),
        (BadDigest, _ALL_BAD, {"model": "", "limit": -1}),
    ):
        for row in read(statement, values):
            from_row(kind, row)
