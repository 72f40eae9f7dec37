"""The folder of optimised graphs: whole ones or none, bounded, private, shared by daemons."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime import optimized_graphs as subject
from edge_runtime.hardware import CpuFacts
from edge_runtime.optimized_graphs import MODEL, WEIGHTS, OptimizedGraphs, graph_key, seal

LIMIT = 10_000
CPU = CpuFacts("x86_64", frozenset({"avx2", "fma"}), vnni=False, description="a CPU")
KEY = "k" * 64


def make(path: Path, limit_bytes: int = LIMIT) -> OptimizedGraphs:
    return OptimizedGraphs(path, limit_bytes, model_bytes_min=10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "optimized"


@pytest.fixture
def graphs(path: Path) -> OptimizedGraphs:
    return make(path)


def keep(graphs: OptimizedGraphs, key: str = KEY, size: int = 100) -> Path | None:
    """Do what the optimiser does, without ONNX Runtime."""
    assert graphs.wants(key, size)
    with graphs.workshop() as folder:
        (folder / MODEL).write_bytes(b"graph of " + key.encode())
        (folder / WEIGHTS).write_bytes(b"w" * size)
        seal(folder)
        return graphs.keep(key, folder)


def kept(path: Path) -> set[str]:
    return {each.parent.name for each in path.glob("*/graph")}


# -- keys --------------------------------------------------------------------------------------


def test_key_is_the_same_for_the_same_facts_in_any_order() -> None:
    other_order = replace(CPU, flags=frozenset(sorted(CPU.flags, reverse=True)))
    assert graph_key("d", "1.32.0", CPU) == graph_key("d", "1.32.0", other_order)


def test_another_variant_runtime_or_cpu_has_another_key() -> None:
    keys = [
        graph_key("d", "1.32.0", CPU),
        graph_key("e", "1.32.0", CPU),
        graph_key("d", "1.32.1", CPU),
        graph_key("d", "1.32.0", replace(CPU, arch="aarch64")),
        graph_key("d", "1.32.0", replace(CPU, flags=CPU.flags | {"avx512f"})),
        graph_key("d", "1.32.0", replace(CPU, flags=frozenset())),
        graph_key("d1", ".32.0", CPU),
    ]
    assert len(set(keys)) == len(keys)


# -- kept and found ----------------------------------------------------------------------------


def test_kept_graph_is_found_again_also_by_another_daemon(
    graphs: OptimizedGraphs, path: Path
) -> None:
    assert graphs.find(KEY) is None
    model = keep(graphs)
    assert model == path / KEY / "graph" / MODEL
    for each in (graphs, make(path)):
        assert each.find(KEY) == model
    assert graphs.find("other") is None
    assert not [*path.glob(".*")]


def test_graph_without_weights_of_its_own_is_kept(graphs: OptimizedGraphs) -> None:
    assert graphs.wants(KEY, 100)
    with graphs.workshop() as folder:
        (folder / MODEL).write_bytes(b"small")
        seal(folder)
        graphs.keep(KEY, folder)
    assert graphs.find(KEY) is not None


def test_what_is_not_kept_leaves_nothing_behind(graphs: OptimizedGraphs, path: Path) -> None:
    assert graphs.wants(KEY, 100)
    with graphs.workshop() as folder:
        (folder / MODEL).write_bytes(b"half")
    assert not [*path.iterdir()]


def test_second_daemon_that_made_the_same_graph_keeps_the_first_ones(
    graphs: OptimizedGraphs, path: Path
) -> None:
    other = make(path)
    assert other.wants(KEY, 100)
    with other.workshop() as folder:
        (folder / MODEL).write_bytes(b"made meanwhile")
        seal(folder)
        first = keep(graphs)
        assert other.keep(KEY, folder) == first
    assert first is not None
    assert first.read_bytes().startswith(b"graph of")
    assert other.find(KEY) == first


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("name", [MODEL, WEIGHTS, "checksums.json"])
@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_damaged_graph_is_not_given_and_makes_room_for_a_new_one(
    name: str, damage: Callable[[Path], None], graphs: OptimizedGraphs, path: Path
) -> None:
    keep(graphs)
    damage(path / KEY / "graph" / name)
    assert graphs.find(KEY) is None
    assert keep(graphs) is not None
    assert graphs.find(KEY) is not None


def test_checksums_that_name_other_files_are_not_believed(
    graphs: OptimizedGraphs, path: Path, tmp_path: Path
) -> None:
    keep(graphs)
    (tmp_path / "outside").write_bytes(b"x")
    for listed in (b"{}", b'{"weights.bin": ""}', b'{"../../../outside": "2d"}'):
        (path / KEY / "graph" / "checksums.json").write_bytes(listed)
        assert graphs.find(KEY) is None
        assert kept(path) == set()
        keep(graphs)


def test_refused_graph_is_not_made_again_and_the_reason_is_kept(
    graphs: OptimizedGraphs, path: Path
) -> None:
    graphs.refuse(KEY, "it gives other answers")
    assert not graphs.wants(KEY, 100)
    assert not make(path).wants(KEY, 100)
    assert graphs.wants("other", 100)
    assert graphs.facts.of(KEY, "graph") == {"refused": "it gives other answers"}


def test_small_and_far_too_large_models_are_not_worth_a_graph(graphs: OptimizedGraphs) -> None:
    assert [graphs.wants(KEY, size) for size in (9, 10, LIMIT, LIMIT + 1)] == [
        False,
        True,
        True,
        False,
    ]


# -- bounded -----------------------------------------------------------------------------------


def age(path: Path, *keys: str) -> None:
    """Make entries used in this order, long ago."""
    for place, key in enumerate(keys):
        os.utime(path / key, (place, place))


def test_least_recently_used_graphs_leave_and_their_facts_stay(
    graphs: OptimizedGraphs, path: Path
) -> None:
    for key in "abc":
        keep(graphs, key, 3000)
        graphs.facts.remember(key, "run", size_bytes=1)
    age(path, "a", "b", "c")
    assert graphs.find("a") is not None  # used now
    keep(graphs, "d", 3000)
    assert kept(path) == {"a", "c", "d"}
    assert graphs.facts.of("b", "run") == {"size_bytes": 1}
    keep(graphs, "e", 9000)
    assert kept(path) == {"e"}


def test_graph_that_is_larger_than_the_limit_is_not_kept(
    graphs: OptimizedGraphs, path: Path
) -> None:
    keep(graphs, "a", 3000)
    with graphs.workshop() as folder:
        (folder / MODEL).write_bytes(b"x" * (LIMIT + 1))
        seal(folder)
        assert graphs.keep("b", folder) is None
    assert kept(path) == {"a"}
    assert not graphs.wants("b", 100)


def test_only_so_many_variants_have_facts(
    graphs: OptimizedGraphs, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "_ENTRIES_MAX", 3)
    for key in "abcd":
        graphs.facts.remember(key, "run", size_bytes=1)
    age(path, "b", "a", "d", "c")
    keep(graphs, "e")
    assert {each.name for each in path.iterdir()} == {"c", "d", "e"}


def test_limit_of_nothing_keeps_facts_only(path: Path) -> None:
    graphs = make(path, limit_bytes=0)
    keep(make(path))
    assert graphs.find(KEY) is None
    assert not graphs.wants(KEY, 100)
    graphs.facts.remember(KEY, "run", size_bytes=1)
    assert graphs.facts.of(KEY, "run") == {"size_bytes": 1}


# -- failures, and who may touch it ------------------------------------------------------------


def test_after_a_failed_write_no_more_graphs_are_made_and_those_there_are_used(
    graphs: OptimizedGraphs, caplog: pytest.LogCaptureFixture
) -> None:
    keep(graphs)
    for _ in range(2):
        graphs.failed(OSError(28, "No space left on device"))
    assert not graphs.wants("other", 100)
    assert graphs.find(KEY) is not None
    (record,) = caplog.records
    assert record.getMessage() == (
        "cannot keep an optimised graph: No space left on device; models load without the cache "
        "of optimised graphs until the daemon is started again"
    )


def test_planted_graph_in_a_folder_that_others_may_write_to_is_not_used(
    graphs: OptimizedGraphs, path: Path
) -> None:
    keep(graphs)
    path.chmod(0o777)
    for each in (graphs, make(path)):
        assert each.find(KEY) is None
        assert not each.wants("other", 100)


def test_missing_state_directory_is_no_trouble(path: Path) -> None:
    graphs = make(path)
    keep(graphs)
    shutil.rmtree(path.parent)
    assert graphs.find(KEY) is None
    assert keep(graphs) is not None


def hold_a_workshop(path: Path, ready: "multiprocessing.connection.Connection") -> None:
    with make(path).workshop() as folder:
        (folder / MODEL).write_bytes(b"half")
        ready.send(folder.name)
        signal.pause()


def test_what_a_killed_daemon_left_is_removed_and_a_living_ones_work_is_not(
    graphs: OptimizedGraphs, path: Path
) -> None:
    assert graphs.wants(KEY, 100)
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe()
    other = spawn.Process(target=hold_a_workshop, args=(path, theirs))
    other.start()
    try:
        left = mine.recv()
        keep(graphs, "a")
        assert (path / left / MODEL).exists()
    finally:
        other.kill()
        other.join()
    assert (path / left / MODEL).exists()
    (path / ".gone-1").mkdir()
    keep(graphs, "b")
    assert {each.name for each in path.iterdir()} == {"a", "b"}
