"""A file that is removed or replaced while it is open is let go, and its name opened anew."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runtime.cache.schema import DATABASE, LOCK, SIDES
from edge_runtime.cache.worker import Outcome
from tests.caching import Make, Seen, empty_database, kept, quarantined, subject, write


def _replace(database: Path, content: bytes) -> None:
    new = database.with_name("new")
    new.write_bytes(content)
    new.chmod(0o600)
    new.replace(database)


def _remove_with_sides(database: Path) -> None:
    for side in ("", *SIDES):
        Path(f"{database}{side}").unlink(missing_ok=True)


GONE: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "removed with its sides": _remove_with_sides,
    "the folder removed": lambda path: shutil.rmtree(path.parent),
    "replaced": lambda path: _replace(path, empty_database()),
}


@pytest.mark.parametrize("how", GONE)
def test_a_file_that_is_gone_is_noticed_with_the_next_batch(
    make: Make, seen: Seen, database: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make()
    write(worker, 1)
    GONE[how](database)
    assert write(worker, 2)
    assert not kept(worker, 1)
    assert kept(worker, 2)
    assert seen.entries == 0, "what was there is not looked for"
    assert (worker.errors, worker.quarantined, worker.problem) == (1, 0, "")
    assert write(worker, 3)
    assert caplog.text.count("removed or replaced") == 1
    worker.close()
    assert (database.parent / LOCK).exists()
    assert kept(make(), 2, 3), "it was written where the next daemon looks"


def test_what_is_put_in_the_place_of_the_file_is_used_if_it_is_a_cache(
    make: Make, database: Path, folder: Path
) -> None:
    worker = make()
    write(worker, 1)
    copy = folder / "copy"
    source, target = sqlite3.connect(database), sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()
    write(worker, 2)
    _replace(database, copy.read_bytes())
    assert write(worker, 3)
    assert kept(worker, 1, 3)
    assert not kept(worker, 2), "the old file's log is not mixed with the new one"
    assert worker.quarantined == 0


def test_what_is_put_in_the_place_of_the_file_is_put_aside_if_it_is_none(
    make: Make, database: Path
) -> None:
    worker = make()
    write(worker, 1)
    _replace(database, b"no cache at all" * 1000)
    assert write(worker, 2)
    assert kept(worker, 2)
    assert [path.read_bytes()[:8] for path in quarantined(database)] == [b"no cache"]


def test_clearing_is_not_done_in_a_file_that_nobody_will_open_again(
    make: Make, database: Path, folder: Path
) -> None:
    worker = make()
    write(worker, 1)
    worker.close()
    content = database.read_bytes()
    worker = make()
    _replace(database, content)
    assert worker.forget(subject().identity, for_good=False)[1] is Outcome.DONE
    worker.close()
    assert not kept(make(), 1)
    assert not (folder / DATABASE).exists()
