"""A journal of an earlier program is brought up to date, whole or not at all, and loses nothing."""

import logging
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edge_runtime.release import journal_migration
from edge_runtime.release.journal import Journal
from edge_runtime.release.journal_checks import empty
from edge_runtime.release.journal_schema import DATABASE, SCHEMA_VERSION
from edge_runtime.release.records import Override, Slots
from tests import journal_of_schema_1 as schema_1
from tests.release_records import NOW_S, note, release

RAN, NEVER_RAN = "a" * 64, "b" * 64
DIGEST = "d" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of schema 1: one version was rolled back in canary, one failed its self-test."""
    path = tmp_path / DATABASE
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(f"{schema_1.TABLES}{schema_1.GUARDS}PRAGMA user_version = 1;")
        for version, manifest, digest in ((2, RAN, DIGEST), (3, NEVER_RAN, "")):
            connection.execute(
                "INSERT INTO releases VALUES (NULL, 'm', ?, ?, ?, 'rolled-back', 0, '[50,100]',"
                " 'automatic', 'operator', ?, NULL, '', '', 0, 0.0, 0, 'verdict', 'it is wrong',"
                " '', '', 1.0, 2.0)",
                (version, manifest, digest, version),
            )
            connection.execute(
                "INSERT INTO bad_digests VALUES (?, 'm', ?, 'verdict', 'it is wrong', ?, 2.0)",
                (manifest, version, version),
            )
            connection.execute(
                "INSERT INTO history VALUES (NULL, ?, 'm', ?, 'canary', 'rolling-back',"
                " 'roll-back', 'verdict', 'it is wrong', '', '{}', 2.0, 1.0, 'boot')",
                (version - 1, version),
            )
        connection.execute("INSERT INTO slots VALUES ('m', 1, 'seed', '', NULL, '', '', '')")
        connection.execute("INSERT INTO traffic VALUES ('m', 1, 100)")
        connection.execute("UPDATE daemon SET orders = 7, boot_id = 'boot', awake_s = 12.5")
    return path


def test_every_version_of_the_schema_says_what_it_added() -> None:
    assert set(journal_migration.ADDED) == set(range(2, SCHEMA_VERSION + 1))


def test_an_old_journal_keeps_all_it_says_and_learns_which_digests_were_bad(path: Path) -> None:
    with Journal(path).open() as journal:
        assert (journal.damage, journal.problem) == ("", "")
        assert {each.manifest_sha256: each.digest for each in journal.all_bad("m")} == {
            RAN: DIGEST,
            NEVER_RAN: "",
        }
        assert [(each.version, each.manifest_sha256) for each in journal.releases()] == [
            (3, NEVER_RAN),
            (2, RAN),
        ]
        assert len(journal.history("m")) == 2
        assert journal.slots("m") == Slots(
            model="m", active=1, active_source="seed", traffic={"1": 100}
        )
        assert journal.next_order() == 8
        assert journal.previous().awake_s == 12.5
        assert journal.insert(release("m", 4)).id == 3


def test_a_migrated_journal_is_like_a_new_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Journal(path).open().close()
    assert not caplog.records, "nothing had to be mended"
    shape = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
    with closing(sqlite3.connect(path)) as found, closing(empty()) as wanted:
        assert found.execute(shape).fetchall() == wanted.execute(shape).fetchall()
    before = path.read_bytes()
    with Journal.read(path) as reader:
        assert len(reader.all_bad()) == 2
    assert path.read_bytes() == before


def test_an_old_journal_can_be_read_without_being_changed(path: Path) -> None:
    before = path.read_bytes()
    with Journal.read(path) as reader:
        assert {each.digest for each in reader.all_bad()} == {DIGEST, ""}
    assert path.read_bytes() == before


def test_a_migration_that_fails_leaves_the_old_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        shape = list(connection.iterdump())
    added = {**journal_migration.ADDED, 2: {"bad_digests": {"digest": "NULL"}}}
    monkeypatch.setattr(journal_migration, "ADDED", added)
    with Journal(path).open() as journal:
        assert "makes no sense" in journal.damage
    kept = path.with_name(f"{DATABASE}.damaged-1")
    with closing(sqlite3.connect(kept)) as connection:
        assert list(connection.iterdump()) == shape


def test_a_disk_that_takes_nothing_leaves_the_old_journal_and_it_can_be_read(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            journal.open()
            assert journal.problem
            assert journal.damage == ""
            assert {each.digest for each in journal.all_bad()} == {DIGEST, ""}
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert journal.next_order() == 8
        assert journal.problem == ""
    with Journal(path).open() as journal:
        assert {each.digest for each in journal.all_bad()} == {DIGEST, ""}
    assert not [*path.parent.glob("*.damaged-*")]


def test_what_only_says_that_it_is_old_is_put_aside(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE overrides")
    with Journal(path).open() as journal:
        assert "damaged" in journal.damage
        journal.set_override(Override(model="m", kind="hold", created_s=NOW_S), note("m"))
