"""Real optimised graphs: made in a process of their own, proven, used, never trusted blindly."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from edge_runtime import graph_optimization
from edge_runtime.errors import ModelLoadError
from edge_runtime.optimized_graphs import MODEL, WEIGHTS, OptimizedGraphs, seal
from edge_runtime.routing import LoadedVersion
from edge_runtime.tensors import Array
from tests import models
from tests.loads import CPU, Loader, bare, externalize, load, network, published

pytestmark = pytest.mark.integration

LIMIT = 2**26
ROWS = np.random.default_rng(7).standard_normal((3, 64)).astype("<f4")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let graphs be made on machines that have no time to spare."""
    monkeypatch.setattr(graph_optimization, "PATIENCE_S", 200.0)


def make(path: Path) -> OptimizedGraphs:
    return OptimizedGraphs(path / "state" / "optimized", LIMIT, model_bytes_min=0)


@pytest.fixture
def loads(caplog: pytest.LogCaptureFixture) -> Loader:
    return Loader(caplog)


@pytest.fixture
def graphs(tmp_path: Path) -> OptimizedGraphs:
    return make(tmp_path)


def answers(loaded: LoadedVersion, feed: Array = ROWS) -> bytes:
    (output,) = loaded.session.run(["y"], {"x": feed})
    loaded.session.close()
    return output.tobytes()


def kept(path: Path) -> list[Path]:
    return sorted((path / "state" / "optimized").glob("*/graph"))


# -- made once, used ever after -----------------------------------------------------------------


def test_graph_is_made_at_the_first_load_used_by_all_and_gives_the_same_answers(
    loads: Loader, graphs: OptimizedGraphs, tmp_path: Path
) -> None:
    bundle = bare(network(tmp_path / "m.onnx"))
    plain = loads(bundle, None)
    assert not loads.used_graph()
    first = loads(bundle, graphs)
    assert loads.used_graph()
    (graph,) = kept(tmp_path)
    model = onnx.load(graph / MODEL, load_external_data=False)
    assert "Identity" not in {node.op_type for node in model.graph.node}  # it is optimised
    made = graph.stat().st_ino
    later = loads(bundle, make(tmp_path))  # as a daemon started later
    assert loads.used_graph()
    assert kept(tmp_path)[0].stat().st_ino == made
    assert plain.digest == first.digest == later.digest
    assert answers(plain) == answers(first) == answers(later)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "state"}


def test_signature_is_that_of_the_original_model(
    loads: Loader, graphs: OptimizedGraphs, tmp_path: Path
) -> None:
    bundle = published(network(tmp_path / "m.onnx"), {"g.npz": {"x": ROWS}})
    plain, cached = loads(bundle, None), loads(bundle, graphs)
    assert loads.used_graph()
    assert cached.signature.inputs == plain.signature.inputs
    assert cached.signature.outputs == plain.signature.outputs
    assert cached.session.providers == plain.session.providers


def test_model_with_external_weights_is_optimised_too(
    loads: Loader, graphs: OptimizedGraphs, tmp_path: Path
) -> None:
    path = network(tmp_path / "m.onnx")
    wanted = answers(loads(bare(path), None))
    externalize(path)
    assert answers(loads(bare(path), graphs)) == wanted
    assert loads.used_graph()


def test_another_cpu_runtime_or_model_has_a_graph_of_its_own(
    graphs: OptimizedGraphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network(tmp_path / "m.onnx")
    load(bare(path), graphs)
    assert len(kept(tmp_path)) == 1
    load(bare(path), graphs, cpu=replace(CPU, flags=CPU.flags | {"new"}))
    assert len(kept(tmp_path)) == 2
    monkeypatch.setattr("edge_runtime.loading.RUNTIME_VERSION", "999.0")
    load(bare(path), graphs)
    assert len(kept(tmp_path)) == 3
    model = onnx.load(path)
    model.doc_string = "another digest"
    onnx.save(model, path)
    load(bare(path), graphs)
    assert len(kept(tmp_path)) == 4


@pytest.mark.parametrize("name", [MODEL, WEIGHTS])
def test_damaged_graph_is_made_anew_and_the_answers_stay_right(
    name: str, loads: Loader, graphs: OptimizedGraphs, tmp_path: Path
) -> None:
    bundle = bare(network(tmp_path / "m.onnx"))
    wanted = answers(loads(bundle, graphs))
    file = kept(tmp_path)[0] / name
    whole = file.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2] ^= 0x40
    file.write_bytes(data)
    assert answers(loads(bundle, graphs)) == wanted
    assert f"{name} is damaged" in loads.log.text
    assert file.read_bytes() == whole


def test_graph_that_this_runtime_cannot_load_is_dropped_and_the_model_loaded(
    loads: Loader, graphs: OptimizedGraphs, tmp_path: Path
) -> None:
    bundle = bare(network(tmp_path / "m.onnx"))
    wanted = answers(loads(bundle, graphs))
    (graph,) = kept(tmp_path)
    (graph / MODEL).write_bytes(b"\x08\x0a\x3a\x00")  # what nobody made, with its checksums
    seal(graph)
    assert answers(loads(bundle, graphs)) == wanted
    assert not loads.used_graph()
    assert "an optimised graph is removed" in loads.log.text
    assert not kept(tmp_path)


def test_small_models_are_loaded_without_a_graph(loads: Loader, tmp_path: Path) -> None:
    graphs = OptimizedGraphs(tmp_path / "state" / "optimized", LIMIT)
    loads(bare(network(tmp_path / "m.onnx")), graphs)
    assert not loads.used_graph()
    assert not kept(tmp_path)


def test_model_that_cannot_be_loaded_says_what_it_says_without_a_cache(
    graphs: OptimizedGraphs, tmp_path: Path
) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="ai.onnx.ml")
    path = models.save(tmp_path / "m.onnx", [node], [models.value("x")], [models.value("y")])
    for each in (graphs, None):
        with pytest.raises(ModelLoadError, match=r"cannot load m\.onnx: .*Frobnicate"):
            load(bare(path), each)
    assert graphs.wants("another", 1)
    assert not [*(tmp_path / "state" / "optimized").glob(".new-*")]


# -- what goes wrong -----------------------------------------------------------------------------


def interpreter(path: Path, script: str) -> str:
    """Write a program that stands in for Python."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_model_that_crashes_onnx_runtime_is_refused_and_the_daemon_lives(
    loads: Loader, graphs: OptimizedGraphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bare(network(tmp_path / "m.onnx"))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", interpreter(tmp_path / "crash", "kill -SEGV $$"))
        with pytest.raises(
            ModelLoadError, match=r"crashed \(SIGSEGV\) while m\.onnx was tried out"
        ):
            loads(bundle, graphs)
    loads(bundle, graphs)
    assert loads.used_graph()


def test_graph_that_crashes_onnx_runtime_is_not_kept(
    loads: Loader, graphs: OptimizedGraphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bare(network(tmp_path / "m.onnx"))
    crash = interpreter(tmp_path / "crash", "cat >/dev/null; echo original ran; kill -BUS $$")
    monkeypatch.setattr(sys, "executable", crash)
    loads(bundle, graphs)
    assert "ONNX Runtime crashed (SIGBUS) while it tried its optimised graph" in loads.log.text
    assert not loads.used_graph()
    assert not kept(tmp_path)


def test_graph_that_is_not_made_in_time_is_left_for_another_load(
    loads: Loader, graphs: OptimizedGraphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bare(network(tmp_path / "m.onnx"))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", interpreter(tmp_path / "busy", "exec sleep 60"))
        patched.setattr(graph_optimization, "PATIENCE_S", 0.1)
        assert answers(loads(bundle, graphs)) == answers(load(bundle))
    assert "no optimised graph this time" in loads.log.text
    assert not [*(tmp_path / "state" / "optimized").glob(".*")]
    loads(bundle, graphs)
    assert loads.used_graph()


@pytest.mark.parametrize("script", ["exit 3", "cat >/dev/null; echo nonsense"])
def test_process_that_fails_costs_the_cache_and_nothing_else(
    script: str,
    loads: Loader,
    graphs: OptimizedGraphs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = bare(network(tmp_path / "m.onnx"))
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path / "python", script))
    assert answers(loads(bundle, graphs)) == answers(load(bundle))
    assert "cannot keep an optimised graph" in loads.log.text
    loads(bundle, graphs)
    assert not [record for record in loads.log.records if record.levelno >= logging.WARNING]


FULL_DISK = """
import logging, resource, sys
from pathlib import Path
from edge_runtime import graph_optimization
from edge_runtime.optimized_graphs import OptimizedGraphs
from tests.loads import bare, load
logging.basicConfig(format="%(levelname)s %(message)s")
graph_optimization.PATIENCE_S = 200.0
model, folder = map(Path, sys.argv[1:])
graphs = OptimizedGraphs(folder, 2**26, model_bytes_min=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # half of the weights
for _ in range(2):
    assert load(bare(model), graphs).size_bytes
print("loaded")
"""


def test_full_disk_costs_the_cache_and_nothing_else(tmp_path: Path) -> None:
    model, folder = network(tmp_path / "m.onnx"), tmp_path / "state" / "optimized"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(model), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout == "loaded\n", done.stderr
    assert done.stderr.count("WARNING") == 1, done.stderr
    assert not kept(tmp_path)
    assert not [*folder.glob(".new-*")]


def test_folder_that_others_may_write_to_is_refused_and_the_model_loaded(
    loads: Loader, graphs: OptimizedGraphs, tmp_path: Path
) -> None:
    bundle = bare(network(tmp_path / "m.onnx"))
    loads(bundle, graphs)
    (tmp_path / "state" / "optimized").chmod(0o777)
    later = make(tmp_path)
    loads(bundle, later)
    assert not loads.used_graph()
    assert loads.log.text.count("others may write to") == 1


def test_relative_paths_are_found_by_the_process_that_optimises(
    loads: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    graphs = OptimizedGraphs(Path("state/optimized"), LIMIT, model_bytes_min=0)
    loads(bare(Path("m.onnx")), graphs)
    assert loads.used_graph()
