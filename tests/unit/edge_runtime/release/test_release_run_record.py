"""What a run has loaded is known to the next one, or nothing is."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.release.run_record import Run, RunRecord, read


def test_the_next_run_is_told_what_this_one_loaded(tmp_path: Path) -> None:
    path = tmp_path / "runtime.run"
    first = RunRecord(path)
    assert first.begin("boot", 3.0) is None, "none ran before"
    first.loading("digits", 2)
    first.loading("digits", 2)
    first.loading("faces\n[", 7)
    # It died here: nothing was closed, and nothing was synced.
    told = Run("boot", 3.0, frozenset({("digits", 2), ("faces\n[", 7)}))
    second = RunRecord(path)
    assert second.begin("boot", 9.0) == told
    assert read(path) == Run("boot", 9.0)
    assert path.stat().st_mode & 0o777 == 0o600
    first.end()
    second.end()
    second.loading("digits", 3)
    assert read(path) == Run("boot", 9.0), "nothing is written after the end"


def test_the_next_run_is_told_the_awake_time_at_which_this_one_began(tmp_path: Path) -> None:
    path = tmp_path / "runtime.run"
    record = RunRecord(path)
    record.begin("boot", 3.0)
    record.loading("digits", 2)
    record.awake(86_400.5)
    record.loading("digits", 3)
    assert read(path) == Run("boot", 3.0, frozenset({("digits", 2), ("digits", 3)}), 86_400.5)
    record.end()
    record.awake(9.0)
    assert read(path) == Run("boot", 3.0, frozenset({("digits", 2), ("digits", 3)}), 86_400.5)


def test_what_is_loaded_before_it_begins_is_noted_too(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "runtime.run")
    record.loading("digits", 1)
    record.begin("boot", 0.0)
    assert read(tmp_path / "runtime.run") == Run("boot", 0.0, frozenset({("digits", 1)}))
    record.end()


def test_a_folder_that_takes_no_file_costs_the_record_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = RunRecord(tmp_path / "missing" / "runtime.run")
    assert record.begin("boot", 0.0) is None
    record.loading("digits", 1)
    record.end()
    assert "nobody can tell which version was in memory" in caplog.text


def test_a_record_that_cannot_go_on_says_nothing_rather_than_half(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runtime.run"
    record = RunRecord(path)
    record.begin("boot", 0.0)
    record.loading("digits", 1)
    # The disk breaks: what was a file is a pipe that nobody reads.
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, record._file)
    os.close(writer)
    record.loading("digits", 2)
    record.loading("digits", 3)
    assert "nobody can tell" in caplog.text


@given(st.binary(max_size=200))
def test_any_other_file_tells_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("run") / "runtime.run"
    path.write_bytes(b'["boot", 1.0]\n["digits", 2]\n' + data)
    found = read(path)
    assert found is None or ("digits", 2) in found.loaded, "never an alibi for what was loaded"
    path.write_bytes(data)
    assert read(path) is None


def test_a_last_line_that_was_not_finished_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "runtime.run"
    path.write_bytes(b'["boot", 1.0]\n["digits", 2]\n["dig')
    assert read(path) == Run("boot", 1.0, frozenset({("digits", 2)}))
    assert read(tmp_path / "none") is None
