"""A look into ``cache.db`` from outside the daemon, which may be running; for the command."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import msgspec
from sqlite_utils import Database

from edge_runtime.cache.entry import CorruptEntryError, decode_checked
from edge_runtime.cache.schema import SCHEMA_VERSION
from edge_runtime.errors import ArtifactError
from edge_runtime.tensors import Tensor

_MS: Final = 1000


class KeptVersion(msgspec.Struct, kw_only=True):
    """What is kept of one version.

    Attributes:
        model: The model's name.
        version: Its number.
        digest: Of what ran.
        entries: Answers.
        size_bytes: What they take.
        oldest_s: When the oldest was computed, in seconds since the epoch; 0: there is none.
        newest_s: When the newest was.
        dead: Answers of no use to anybody any more; they leave when others come.
        retired: Whether another digest took its place: its answers are on their way out.
    """

    model: str
    version: str
    digest: str
    entries: int
    size_bytes: int
    oldest_s: float
    newest_s: float
    dead: int
    retired: bool


class KeptAnswer(msgspec.Struct, kw_only=True):
    """One kept answer, without its outputs.

    Attributes:
        model: The model's name.
        version: Its number.
        digest: Of what ran.
        engine: What ran it.
        key: The question's digest, hexadecimal.
        created_s: When it was computed, in seconds since the epoch.
        dead_s: When it will be of no use to anybody, in seconds since the epoch.
        run_ms: How long its run took, in milliseconds.
        size_bytes: What it takes.
    """

    model: str
    version: str
    digest: str
    engine: str
    key: str
    created_s: float
    dead_s: float
    run_ms: float
    size_bytes: int


class Inspection:
    """An open file. The daemon may go on using it.

    Args:
        path: The file.

    Raises:
        ArtifactError: It is no cache, of another version of this program, or damaged. Every method
            raises that too.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._told():
            # Not ``mode=ro``: that leaves the log's files behind. Nothing is written.
            connection = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)
            self._db = Database(connection, execute_plugins=False)
            try:
                self._db.execute("PRAGMA query_only = ON")
                (found,) = self._db.execute("PRAGMA user_version").fetchone()
            except BaseException:
                connection.close()
                raise
        if found != SCHEMA_VERSION:
            self._db.close()
            advice = "start the daemon once" if found < SCHEMA_VERSION else "use the newer program"
            raise ArtifactError(
                f"{path} has schema {found}, this program knows {SCHEMA_VERSION}: {advice}"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def versions(self, model: str, now_s: float) -> list[KeptVersion]:
        """Count what is kept, by version.

        Args:
            model: Only this one; empty: all.
            now_s: Seconds since the epoch.
        """
        query = (
            "SELECT model, versions.version AS number, digest, retired,"
            " count(answers.id) AS entries, coalesce(sum(size), 0) AS size_bytes,"
            " coalesce(min(created_ms), 0) AS oldest, coalesce(max(created_ms), 0) AS newest,"
            " coalesce(sum(created_ms + keep_ms <= :now), 0) AS dead"
            " FROM versions LEFT JOIN answers ON answers.version = versions.id"
            " WHERE :model IN ('', model) GROUP BY versions.id ORDER BY model, versions.version"
        )
        with self._told():
            rows = list(self._db.query(query, {"model": model, "now": now_s * _MS}))
            return [
                KeptVersion(
                    model=row["model"],
                    version=row["number"],
                    digest=row["digest"],
                    entries=row["entries"],
                    size_bytes=row["size_bytes"],
                    oldest_s=row["oldest"] / _MS,
                    newest_s=row["newest"] / _MS,
                    dead=row["dead"],
                    retired=bool(row["retired"]),
                )
                for row in rows
            ]

    def answers(
        self, model: str, *, with_outputs: bool
    ) -> Iterator[tuple[KeptAnswer, dict[str, Tensor] | None]]:
        """List what is kept, the oldest first.

        Args:
            model: Only of this one; empty: of all.
            with_outputs: Whether to read the outputs too.

        Returns:
            Each answer and its outputs; ``None`` if they were not asked for, or are damaged.
        """
        query = (
            "SELECT model, versions.version AS number, digest, engine, key, created_ms, keep_ms,"
            " run_ns, size, CASE WHEN :outputs THEN checksum END AS checksum,"
            " CASE WHEN :outputs THEN payload END AS payload"
            " FROM answers JOIN versions ON answers.version = versions.id"
            " WHERE :model IN ('', model) ORDER BY answers.id"
        )
        with self._told():
            for row in self._db.query(query, {"model": model, "outputs": with_outputs}):
                yield _answer(row), _outputs(row) if with_outputs else None

    def forget(self, model: str) -> int:
        """Remove a model's answers. No daemon may be using the file.

        Returns:
            How many there were.
        """
        with self._told():
            self._db.execute("PRAGMA query_only = OFF")
            versions, answers = self._db.table("versions"), self._db.table("answers")
            with self._db.atomic():
                count = 0
                for row in list(versions.rows_where("model = ?", [model])):
                    count += answers.count_where("version = ?", [row["id"]])
                    answers.delete_where("version = ?", [row["id"]])
                    versions.delete(row["id"])
            self._db.vacuum()
            return count

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say in our words what goes wrong."""
        try:
            yield
        except (sqlite3.Error, OSError, AttributeError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"cannot read {self._path}: {error}; if it is damaged, the daemon puts it aside by "
                "itself, and `edge-runtime cache clear` removes it"
            ) from error


def _answer(row: dict[str, Any]) -> KeptAnswer:
    created_s = row["created_ms"] / _MS
    return KeptAnswer(
        model=row["model"],
        version=row["number"],
        digest=row["digest"],
        engine=row["engine"],
        key=row["key"].hex(),
        created_s=created_s,
        dead_s=created_s + row["keep_ms"] / _MS,
        run_ms=row["run_ns"] / 1e6,
        size_bytes=row["size"],
    )


def _outputs(row: dict[str, Any]) -> dict[str, Tensor] | None:
    try:
        return decode_checked(
            row["key"], row["created_ms"], row["run_ns"], row["checksum"], row["payload"]
        )
    except CorruptEntryError:
        return None
