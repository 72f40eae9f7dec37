"""Facts that are kept from one load to the next."""

from pathlib import Path
from typing import Any

import pytest

from edge_runtime import facts as subject
from edge_runtime.facts import Facts, known
from edge_runtime.private_folder import PrivateFolder


def make(path: Path | None) -> Facts:
    return Facts(PrivateFolder(path, "facts are found out again"))


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return make(tmp_path / "optimized")


def test_facts_survive_and_add_up(facts: Facts, tmp_path: Path) -> None:
    facts.remember("key", "2-threads", size_bytes=5, verdict={"joins": True})
    facts.remember("key", "2-threads", size_bytes=6)
    found = make(tmp_path / "optimized").of("key", "2-threads")
    assert found == {"size_bytes": 6, "verdict": {"joins": True}}


def test_facts_of_another_variant_or_number_of_threads_are_not_mixed_up(facts: Facts) -> None:
    facts.remember("key", "2-threads", size_bytes=5)
    assert facts.of("key", "4-threads") == {}
    assert facts.of("other", "2-threads") == {}


def test_facts_that_do_not_change_are_not_written_again(facts: Facts, tmp_path: Path) -> None:
    facts.remember("key", "run", size_bytes=5)
    path = tmp_path / "optimized" / "key" / "run.json"
    before = path.stat()
    facts.remember("key", "run", size_bytes=5)
    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff"])
def test_damaged_facts_are_no_facts(content: bytes, facts: Facts, tmp_path: Path) -> None:
    facts.remember("key", "run", size_bytes=5)
    (tmp_path / "optimized" / "key" / "run.json").write_bytes(content)
    assert facts.of("key", "run") == {}
    facts.remember("key", "run", size_bytes=7)
    assert facts.of("key", "run") == {"size_bytes": 7}


@pytest.mark.parametrize(
    ("value", "count"), [(5, 5), (0, 0), (-1, 0), ("5", 0), (True, 0), (None, 0), (2.5, 0)]
)
def test_count_that_is_none_is_not_known(value: Any, count: int) -> None:  # noqa: ANN401
    assert known({"size_bytes": value}, "size_bytes") == count
    assert known({}, "size_bytes") == 0


def test_digest_is_known_until_a_file_changes(facts: Facts, tmp_path: Path) -> None:
    paths = [tmp_path / "model.onnx", tmp_path / "weights.bin"]
    for path in paths:
        path.write_bytes(b"first")
    assert facts.digest(paths) == ""
    facts.remember_digest(paths, "d" * 64)
    assert facts.digest(paths) == "d" * 64
    assert make(tmp_path / "optimized").digest(paths) == "d" * 64
    assert facts.digest(paths[:1]) == ""
    new = tmp_path / "new"
    new.write_bytes(b"other")  # as long as it was
    new.replace(paths[1])
    assert facts.digest(paths) == ""
    paths[0].unlink()
    assert facts.digest(paths) == ""
    facts.remember_digest(paths, "e" * 64)
    assert facts.digest(paths) == ""


def test_only_so_many_digests_are_kept_the_latest_ones(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "DIGESTS_MAX", 3)
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        path.write_bytes(b"")
        facts.remember_digest([path], path.name)
    assert [facts.digest([path]) for path in paths] == ["", "", "2", "3", "4"]


def test_without_a_folder_nothing_is_known(tmp_path: Path) -> None:
    nowhere = make(None)
    nowhere.remember("key", "run", size_bytes=5)
    nowhere.remember_digest([tmp_path], "d")
    assert nowhere.of("key", "run") == {}
    assert nowhere.digest([tmp_path]) == ""
