"""What a cache survives: killed writers, damaged and truncated files, full and read-only disks."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from edge_runtime.cache import version_cache
from edge_runtime.cache.schema import DATABASE, DIRECTORY
from edge_runtime.settings import Cache, Model
from tests.cache_writer import BATCH
from tests.caching import (
    SETTLE_S,
    CachedModel,
    TurnableClock,
    is_answer,
    make_database,
)

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
ROUNDS = 12
ANSWERS = 200
NOBODY = 65_534
MODEL = Model(cache_ttl_s=3600)
DISK_ONLY = Cache(ram_bytes=0)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time: the cache itself gives up a slow disk."""
    for name in ("_READ_S_MIN", "_READ_S_MAX", "_READ_S_UNKNOWN"):
        monkeypatch.setattr(version_cache, name, SETTLE_S)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory with an empty cache."""
    make_database(tmp_path)
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


class Writer:
    """A process that fills a cache."""

    def __init__(
        self, state: Path, *numbers: int, before: Callable[[], None] | None = None
    ) -> None:
        command = [sys.executable, "-m", "tests.cache_writer", str(state), *map(str, numbers)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=before,  # noqa: PLW1509 - the limit of a file's size is set there
        )

    def line(self) -> str:
        """Wait for the next thing it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the writer ended"
        return line.strip()

    def kill(self) -> str:
        """Kill it, and give everything that it had said and nobody had read."""
        self.process.send_signal(signal.SIGKILL)
        said, _ = self.process.communicate(timeout=SETTLE_S)
        return said


def check_every_row(state: Path, least: int) -> None:
    """Whatever is in the file is right, and what was said to be in it is there."""
    with CachedModel(state, TurnableClock(), settings=DISK_ONLY, model=MODEL) as model:
        file = model.cache.status().file
        assert file is not None
        assert (file.problem, file.errors, file.quarantined) == ("", 0, 0)
        assert file.entries >= least
        found = 0
        for number in range(file.entries + 2 * BATCH):
            asked = model.ask(number)
            if asked.hits:
                assert is_answer(asked.hit.outputs, number)
                found += 1
            else:
                asked.ticket.failed()
        assert found == file.entries
        assert file.errors == 0
    connection = sqlite3.connect(state / DIRECTORY / DATABASE)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_writer_that_is_killed_again_and_again_leaves_only_right_rows(state: Path) -> None:
    chance = random.Random(3)  # noqa: S311 - when to kill is no secret
    written = 0
    for _ in range(ROUNDS):
        writer = Writer(state, written)
        assert writer.line() == "ready"
        for _ in range(chance.randrange(4)):
            written = int(writer.line()) + 1
        for line in writer.kill().splitlines():
            if line.isdecimal():
                written = int(line) + 1
        assert writer.process.returncode == -signal.SIGKILL
        check_every_row(state, written)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a file with some hundred answers."""
    folder = tmp_path_factory.mktemp("filled")
    path = make_database(folder)
    with CachedModel(folder, TurnableClock(), settings=DISK_ONLY, model=MODEL) as model:
        for number in range(ANSWERS):
            model.predict(number)
    return path.read_bytes()


def use(state: Path, content: bytes) -> Mapping[str, int]:
    """Use a cache with this file; whatever it holds, no answer may be wrong."""
    path = state / DIRECTORY / DATABASE
    path.write_bytes(content)
    hits = []
    with CachedModel(state, TurnableClock(), settings=DISK_ONLY, model=MODEL) as model:
        for _ in range(3):
            hits.append(sum(model.predict(number) for number in range(ANSWERS)))
            model.settle()
        file = model.cache.status().file
        assert file is not None
        return {"first": hits[0], "last": hits[-1], "quarantined": file.quarantined}


@pytest.mark.parametrize("seed", range(16))
def test_a_file_with_damage_anywhere_gives_no_wrong_answer(
    state: Path, filled: bytes, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same damage at every run
    content = bytearray(filled)
    for _ in range(chance.choice([1, 3, 30])):
        at = chance.randrange(len(content))
        length = chance.choice([1, 8, 512])
        content[at : at + length] = chance.randbytes(len(content[at : at + length]))
    assert use(state, bytes(content))["last"] == ANSWERS


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_gives_no_wrong_answer(state: Path, filled: bytes, share: float) -> None:
    assert use(state, filled[: int(len(filled) * share)])["last"] == ANSWERS


def test_a_file_that_is_whole_is_used_as_it_is(state: Path, filled: bytes) -> None:
    assert use(state, filled) == {"first": ANSWERS, "last": ANSWERS, "quarantined": 0}


def test_on_a_full_disk_nothing_is_written_and_everything_goes_on(state: Path) -> None:
    size = (state / DIRECTORY / DATABASE).stat().st_size + 300_000

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    writer = Writer(state, 0, before=limit)
    assert writer.line() == "ready"
    said = ""
    last = -1
    while not said.startswith("problem"):
        said = writer.line()
        last = int(said) if said.isdecimal() else last
    assert last > 0
    assert "problem" in writer.line(), "and it goes on"
    writer.kill()
    check_every_row(state, last + 1)


def test_in_a_folder_that_cannot_be_written_it_goes_on_in_memory() -> None:
    # Not pytest's folder: nobody else may enter that.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o555)
        # Root may write anywhere.
        writer = Writer(folder, 0, NOBODY) if os.geteuid() == 0 else Writer(folder, 0)
        try:
            assert writer.line() == "ready"
            said = writer.line()
            assert "Permission denied" in said
            assert "memory only" in said
            assert writer.line() == said
        finally:
            writer.kill()
            folder.chmod(0o700)
        assert not list(folder.iterdir())


def test_of_two_daemons_on_one_folder_the_second_goes_on_in_memory(state: Path) -> None:
    first = Writer(state, 0)
    assert first.line() == "ready"
    assert first.line() == str(BATCH - 1)
    second = Writer(state, 1000)
    assert second.line() == "ready"
    assert "another daemon" in second.line()
    first.kill()
    second.kill()
    check_every_row(state, BATCH)
