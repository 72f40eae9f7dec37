"""Where ``edge-runtime cache export`` writes and where it does not; models that are not there."""

import stat
import subprocess
from pathlib import Path

import pytest

from edge_runtime.cache.schema import DATABASE, DIRECTORY, LOCK
from tests.caching import DISK_ONLY, CachedModel, make_database
from tests.daemons import COMMAND

pytestmark = pytest.mark.integration

WAIT_S = 60.0


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with six answers."""
    make_database(tmp_path)
    with CachedModel(tmp_path, settings=DISK_ONLY) as model:
        for number in range(6):
            model.predict(number)
    return tmp_path


@pytest.fixture
def database(state: Path) -> Path:
    """The file."""
    return state / DIRECTORY / DATABASE


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "cache", *arguments],
        env={"EDGE_RUNTIME_ADMIN_SOCKET": "/nowhere/admin.sock"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def test_an_export_is_private_even_where_an_open_file_was(state: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    path.chmod(0o666)
    assert run("export", "--state-dir", str(state), "-o", str(path)).returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text("utf-8").splitlines()) == 6
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".export")] == []


def test_an_export_follows_no_link(state: Path, tmp_path: Path) -> None:
    path, target = tmp_path / "out.json", tmp_path / "target"
    target.write_text("mine")
    path.symlink_to(target)
    done = run("export", "--state-dir", str(state), "-o", str(path))
    assert done.returncode == 4
    assert "link" in done.stderr
    assert target.read_text() == "mine"
    assert path.is_symlink()


@pytest.mark.parametrize("name", [DATABASE, LOCK, "new.json"])
def test_an_export_does_not_write_into_the_cache_s_folder(
    state: Path, database: Path, tmp_path: Path, name: str
) -> None:
    before, names = database.read_bytes(), sorted(database.parent.iterdir())
    (tmp_path / "way").symlink_to(database.parent)
    for folder in (database.parent, tmp_path / "way"):
        done = run("export", "--state-dir", str(state), "-o", str(folder / name))
        assert done.returncode == 4
        assert "the cache's own folder" in done.stderr
    assert database.read_bytes() == before
    assert sorted(database.parent.iterdir()) == names


@pytest.mark.parametrize("action", ["clear", "export"])
def test_a_model_of_which_nothing_is_kept_is_told(state: Path, database: Path, action: str) -> None:
    done = run(action, "--state-dir", str(state), "--model", "nosuch")
    assert done.returncode == 0
    assert not done.stdout
    assert "of nosuch is kept" in done.stderr
    assert "cleared" not in done.stderr
    assert database.exists()
