"""The folder of a search: what is known survives, and two searches keep out of each other's way."""

from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from quantize.errors import BadInputError
from quantize.workspace import JOURNAL, Workspace, folder_of, workspace


class Note(msgspec.Struct):
    """A record."""

    value: int


class OtherNote(msgspec.Struct):
    """A record of another shape."""

    text: str


def _interrupted(output: Path, notes: int, fingerprint: str = "same") -> None:
    with suppress(KeyboardInterrupt), workspace(output, fingerprint) as work:
        work.path("models", "a.onnx").write_bytes(b"model")
        for number in range(notes):
            work.note("trial", f"t{number}", Note(number))
        raise KeyboardInterrupt


def test_an_interrupted_search_finds_everything_it_noted(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    _interrupted(output, 3)
    with workspace(output, "same") as work:
        assert work.resumed == 3
        assert [work.recall("trial", f"t{n}", Note) for n in range(3)] == [
            Note(n) for n in range(3)
        ]
        assert work.path("models", "a.onnx").read_bytes() == b"model"


def test_a_search_that_ended_leaves_nothing_beside_the_output(tmp_path: Path) -> None:
    with workspace(tmp_path / "bundle", "same") as work:
        work.note("trial", "a", Note(1))
        assert folder_of(tmp_path / "bundle").is_dir()
    assert not list(tmp_path.iterdir())


def test_bad_input_leaves_nothing_unless_there_are_results(tmp_path: Path) -> None:
    for keeps in (False, True):
        with suppress(BadInputError), workspace(tmp_path / "bundle", "same") as work:
            work.note("trial", "a", Note(1))
            work.is_worth_keeping = keeps
            raise BadInputError("no")
        assert folder_of(tmp_path / "bundle").exists() is keeps
    with suppress(BadInputError), workspace(tmp_path / "bundle", "same") as work:
        raise BadInputError("the disk is full")
    assert folder_of(tmp_path / "bundle").exists()


def test_another_fingerprint_starts_anew(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    _interrupted(output, 2)
    with workspace(output, "other") as work:
        assert work.resumed == 0
        assert work.recall("trial", "t0", Note) is None
        assert not (work.root / "models").exists()


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_journal_cut_anywhere_loses_only_the_line_that_was_cut(tmp_path: Path, cut: int) -> None:
    output = tmp_path / "bundle"
    _interrupted(output, 3)
    journal = folder_of(output) / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-cut])
    with suppress(KeyboardInterrupt), workspace(output, "same") as work:
        assert work.recall("trial", "t1", Note) == Note(1)
        work.note("trial", "t3", Note(3))
        raise KeyboardInterrupt
    with workspace(output, "same") as work:
        assert work.recall("trial", "t1", Note) == Note(1)
        assert work.recall("trial", "t3", Note) == Note(3)


def test_the_last_note_of_a_key_counts(tmp_path: Path) -> None:
    with workspace(tmp_path / "bundle", "same") as work:
        work.note("trial", "a", Note(1))
        work.note("trial", "a", Note(2))
        assert work.recall("trial", "a", Note) == Note(2)
        assert work.recall("pass", "a", Note) is None


def test_a_record_of_another_shape_counts_as_unknown(tmp_path: Path) -> None:
    with workspace(tmp_path / "bundle", "same") as work:
        work.note("trial", "a", Note(1))
        assert work.recall("trial", "a", OtherNote) is None


def test_two_searches_cannot_work_on_one_output(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    with workspace(output, "same") as work:
        work.note("trial", "a", Note(1))
        other = workspace(output, "other")
        with pytest.raises(BadInputError, match="another edge-quantize works on"):
            other.__enter__()
        assert work.recall("trial", "a", Note) == Note(1)
        assert (work.root / JOURNAL).is_file()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot write"):
        workspace(tmp_path / "missing" / "bundle", "same").__enter__()


def test_a_link_in_an_old_workspace_is_removed_and_not_followed(tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    _interrupted(output, 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("kept")
    (folder_of(output) / "link").symlink_to(elsewhere)
    with workspace(output, "other") as work:
        assert not (work.root / "link").exists()
    assert (elsewhere / "kept").read_text() == "kept"


def test_notes_are_on_disk_when_they_return(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), workspace(tmp_path / "bundle", "f") as work:
        work.note("trial", "a", Note(7))
        raw = (work.root / JOURNAL).read_bytes()
        assert b'"value":7' in raw
        again = Workspace(work.root, "f")
        assert again.recall("trial", "a", Note) == Note(7)
        again.close()
        raise KeyboardInterrupt
