"""From files to a version that answers: sizes, samples, and what must not be served."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import DigestMismatchError, ManifestError, ModelLoadError
from edge_runtime.optimized_graphs import OptimizedGraphs
from edge_runtime.process_memory import resident_bytes
from tests import models
from tests.loads import bare, expected, load, published

WEIGHT_BYTES = 4 * 2048 * 2048
NOWHERE = OptimizedGraphs(None)


@pytest.fixture
def facts_only(tmp_path: Path) -> OptimizedGraphs:
    return OptimizedGraphs(tmp_path / "state" / "optimized")


def large(folder: Path) -> Path:
    return models.slow(folder / "m.onnx", size=2048, layers=1)


# -- sizes -------------------------------------------------------------------------------------


def test_memory_that_a_version_holds_is_measured(tmp_path: Path) -> None:
    load(bare(models.two_inputs(tmp_path / "first.onnx")))  # what the first session ever costs
    loaded = load(bare(large(tmp_path)))
    assert WEIGHT_BYTES <= loaded.size_bytes < 2 * WEIGHT_BYTES
    loaded.session.close()


def test_size_is_never_below_that_of_the_files(tmp_path: Path) -> None:
    path = models.two_inputs(tmp_path / "m.onnx")
    for _ in range(2):
        loaded = load(bare(path))
        assert loaded.size_bytes >= path.stat().st_size
        loaded.session.close()


def test_before_the_first_load_the_size_of_the_files_is_expected(
    facts_only: OptimizedGraphs, tmp_path: Path
) -> None:
    path = large(tmp_path)
    for bundle in (bare(path), published(path)):
        for graphs in (NOWHERE, facts_only):
            assert expected(bundle, graphs) == path.stat().st_size


def test_after_a_load_what_it_measured_is_expected_also_by_a_daemon_started_later(
    facts_only: OptimizedGraphs, tmp_path: Path
) -> None:
    path = large(tmp_path)
    loaded = load(bare(path), facts_only)
    later = OptimizedGraphs(tmp_path / "state" / "optimized")
    for bundle in (bare(path), published(path)):  # a plain file is known by its looks
        assert expected(bundle, later) == loaded.size_bytes
    loaded.session.close()


def test_what_was_measured_is_not_expected_of_other_files_or_settings(
    facts_only: OptimizedGraphs, tmp_path: Path
) -> None:
    path = large(tmp_path)
    load(bare(path), facts_only).session.close()
    assert expected(bare(path), facts_only, memory_arena=False) == path.stat().st_size
    assert expected(bare(path), facts_only, intra_op_threads=2) == path.stat().st_size
    models.slow(path, size=64, layers=1)
    assert expected(bare(path), facts_only) == path.stat().st_size


def test_expecting_reads_no_model_file(facts_only: OptimizedGraphs, tmp_path: Path) -> None:
    path = large(tmp_path)
    bundle = bare(path)
    loaded = load(bundle, facts_only)
    size_bytes = path.stat().st_size
    path.unlink()
    assert expected(bundle, facts_only) == size_bytes  # looked at in vain, not opened
    loaded.session.close()


def test_reloading_200_times_does_not_grow(facts_only: OptimizedGraphs, tmp_path: Path) -> None:
    paths = [models.add_constant(tmp_path / f"{n}.onnx", n, note="x" * 100_000) for n in range(2)]

    def reload(times: int) -> None:
        for turn in range(times):
            load(bare(paths[turn % 2]), facts_only).session.close()

    reload(50)
    before = resident_bytes()
    reload(200)
    assert resident_bytes() - before < 8 * 2**20


# -- samples -----------------------------------------------------------------------------------


def test_model_that_fails_on_made_up_inputs_is_loaded_all_the_same(tmp_path: Path) -> None:
    loaded = load(bare(models.gather(tmp_path / "m.onnx", table=[10.0])))  # 1 is no index
    (output,) = loaded.session.run(["y"], {"x": np.array([0])})
    assert output.tolist() == [10.0]


def test_model_that_fails_on_its_golden_inputs_is_not_loaded(tmp_path: Path) -> None:
    path = models.gather(tmp_path / "m.onnx")
    good, bad = {"x": np.array([2, 0])}, {"x": np.array([3])}
    load(published(path, {"good.npz": good}))
    with pytest.raises(
        ModelLoadError, match=r"fails on its golden inputs, bad\.npz: .* data bounds"
    ):
        load(published(path, {"good.npz": good, "bad.npz": bad}))


def test_changed_golden_is_a_failed_load(tmp_path: Path) -> None:
    bundle = published(models.gather(tmp_path / "m.onnx"), {"g.npz": {"x": np.array([2])}})
    (tmp_path / "g.npz").write_bytes((tmp_path / "g.npz").read_bytes().replace(b"x.npy", b"z.npy"))
    with pytest.raises(DigestMismatchError, match=r"g\.npz"):
        load(bundle)


def test_golden_of_another_model_is_a_failed_load(tmp_path: Path) -> None:
    bundle = published(models.gather(tmp_path / "m.onnx"), {"g.npz": {"z": np.array([2])}})
    with pytest.raises(ManifestError, match=r"g\.npz has no array for input 'x'"):
        load(bundle)


def test_without_warm_up_goldens_are_not_tried(tmp_path: Path) -> None:
    bundle = published(models.gather(tmp_path / "m.onnx"), {"g.npz": {"z": np.array([2])}})
    load(bundle, warm_up_runs=0)


# -- what serves already ------------------------------------------------------------------------


def test_unchanged_version_is_given_back_and_a_changed_one_is_not(tmp_path: Path) -> None:
    path = models.add_constant(tmp_path / "m.onnx", 1)
    first = load(bare(path))
    assert load(bare(path), serving=first) is first
    assert load(bare(path), serving=first, intra_op_threads=2) is not first
    models.add_constant(path, 2)
    assert load(bare(path), serving=first) is not first
