"""An older file becomes one of today, in a process of its own, and nothing is lost."""

import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from edge_runtime.cache.folder import Folder, FolderError
from edge_runtime.cache.migrations import STEPS, main, migrate
from edge_runtime.cache.schema import DATABASE, SCHEMA_VERSION
from edge_runtime.cache.store import Store
from edge_runtime.settings import Cache


def pragma(path: Path, name: str) -> object:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        connection.close()


def schema(path: Path) -> list[tuple[str, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    finally:
        connection.close()


def test_there_is_a_step_to_every_version() -> None:
    assert len(STEPS) == SCHEMA_VERSION


def test_an_empty_file_becomes_one_that_the_store_opens(folder: Path) -> None:
    path = folder / DATABASE
    migrate(path)
    assert pragma(path, "user_version") == SCHEMA_VERSION
    assert pragma(path, "auto_vacuum") == 2
    Store.open(path, Cache()).close()


def test_migrating_twice_changes_nothing(folder: Path) -> None:
    path = folder / DATABASE
    migrate(path)
    before = schema(path)
    migrate(path)
    assert schema(path) == before
    assert pragma(path, "user_version") == SCHEMA_VERSION


def test_a_file_of_version_1_keeps_its_rows_through_the_next_step(folder: Path) -> None:
    path = folder / DATABASE
    migrate(path, STEPS[:1])
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO versions VALUES (7, 'm', '1', 'd', 'e', x'00', 1, 2, 0)")
    connection.commit()
    connection.close()

    def with_a_note(db: Database) -> None:
        db.table("versions").add_column("note", str)

    migrate(path, (*STEPS[:1], with_a_note))
    assert pragma(path, "user_version") == 2
    with Database(path) as db:
        (row,) = db.table("versions").rows
        assert (row["id"], row["model"], row["note"]) == (7, "m", None)


def test_a_step_that_fails_leaves_the_file_as_it_was(folder: Path) -> None:
    path = folder / DATABASE
    migrate(path, STEPS[:1])
    before = schema(path)

    def fails(db: Database) -> None:
        db.table("versions").add_column("note", str)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        migrate(path, (*STEPS[:1], fails))
    assert schema(path) == before
    assert pragma(path, "user_version") == 1


def test_the_process_of_its_own_does_the_same(folder: Path) -> None:
    path = folder / DATABASE
    migrate(path)
    kept = Folder(folder / "cache")
    kept.take()
    kept.migrate()
    assert schema(kept.database) == schema(path)
    kept.release()


def test_a_process_that_fails_is_told_in_one_line(folder: Path) -> None:
    kept = Folder(folder)
    kept.database.write_bytes(b"this is no database, and long enough to tell" * 100)
    with pytest.raises(FolderError, match="not a database"):
        kept.migrate()


def test_the_command_migrates_what_it_is_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / DATABASE
    monkeypatch.setattr("sys.argv", ["migrations", str(path)])
    monkeypatch.setattr("os.nice", lambda _: 0)
    assert main() == 0
    assert pragma(path, "user_version") == SCHEMA_VERSION
