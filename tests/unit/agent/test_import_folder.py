"""Where imports lie: the name leads to the old files or to the new ones, whatever happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.download.import_folder import ImportFolder
from agent.errors import AgentError, StateError
from edge_runtime.failpoints import VARIABLE


class Stop(Exception):  # noqa: N818 - not a failure of its own
    """Ends a block."""


@pytest.fixture
def folder(tmp_path: Path) -> ImportFolder:
    return ImportFolder(tmp_path / "state" / "imported")


def lay_out(folder: ImportFolder, text: str) -> None:
    folder.spare.mkdir(parents=True)
    (folder.spare / "file").write_text(text)


def take(folder: ImportFolder, text: str) -> None:
    with folder.alone():
        lay_out(folder, text)
        with folder.replaced():
            assert (folder.path / "file").read_text() == text


def names(folder: ImportFolder) -> list[str]:
    return sorted(path.name for path in folder.path.parent.iterdir())


def test_each_import_takes_the_place_of_the_last_and_only_it_stays(folder: ImportFolder) -> None:
    for number in range(4):
        take(folder, str(number))
        assert (folder.path / "file").read_text() == str(number)
        assert len(names(folder)) == 2


@pytest.mark.parametrize("leads_to", ["", "elsewhere/imported.a", "gone"])
def test_what_an_old_program_or_a_copy_left_there_makes_way(
    folder: ImportFolder, leads_to: str
) -> None:
    folder.path.parent.mkdir()
    if leads_to:
        folder.path.symlink_to(leads_to)
    else:
        folder.path.mkdir()
        (folder.path / "file").write_text("old")
        with folder.alone():
            assert (folder.path / "file").read_text() == "old"
    take(folder, "new")
    assert (folder.path / "file").read_text() == "new"
    assert len(names(folder)) == 2


def test_a_block_that_fails_brings_the_old_one_back(folder: ImportFolder) -> None:
    take(folder, "old")
    before = names(folder)
    lay_out(folder, "new")
    with pytest.raises(Stop), folder.replaced():
        raise Stop
    assert (folder.path / "file").read_text() == "old"
    folder.clear()
    assert names(folder) == before


def test_a_first_import_that_fails_leaves_nothing(folder: ImportFolder) -> None:
    lay_out(folder, "new")
    with pytest.raises(Stop), folder.replaced():
        raise Stop
    folder.clear()
    assert names(folder) == []


def test_clearing_never_takes_what_is_in_place(folder: ImportFolder) -> None:
    take(folder, "kept")
    lay_out(folder, "left by one that was ended")
    folder.clear()
    folder.clear()
    assert (folder.path / "file").read_text() == "kept"


def test_two_cannot_import_at_once(folder: ImportFolder) -> None:
    with folder.alone(), pytest.raises(AgentError, match="just now"), folder.alone():
        pass
    with folder.alone():
        pass


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError), ImportFolder(tmp_path / "file" / "imported").alone():
        pass


@pytest.mark.parametrize("had_one", [True, False])
def test_after_a_kill_the_name_leads_to_a_whole_import(
    folder: ImportFolder, *, had_one: bool
) -> None:
    if had_one:
        take(folder, "old")
    lay_out(folder, "new")
    code = (
        "import sys; from pathlib import Path\n"
        "from agent.download.import_folder import ImportFolder\n"
        "with ImportFolder(Path(sys.argv[1])).replaced(): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder.path)],
        env={**os.environ, VARIABLE: "agent.import.placed=kill"},
        capture_output=True,
        check=False,
    )
    assert done.returncode < 0, done.stderr
    assert (folder.path / "file").read_text() == "new"
    folder.clear()
    assert len(names(folder)) == 2
    take(folder, "again")
    assert (folder.path / "file").read_text() == "again"
