"""What the tests of loading share: models and bundles, and a load with everything it needs."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_runtime.agreement import agreed
from edge_runtime.bundle import Bundle, bundle_from_directory, bundle_from_model_file
from edge_runtime.hardware import CpuFacts, cpu_facts
from edge_runtime.loading import expected_bytes, load_bundle
from edge_runtime.manifest import (
    Acceptance,
    File,
    Manifest,
    TensorDescription,
    Variant,
    write,
)
from edge_runtime.optimized_graphs import OptimizedGraphs
from edge_runtime.routing import LoadedVersion
from edge_runtime.session import CPU_PROVIDER, Session, SessionSettings
from edge_runtime.settings import Batching, Engine, Model
from edge_runtime.tensors import Array
from tests.models import save, value

CPU = cpu_facts()
NO_PROBE = Batching(enabled=False)
Goldens = Mapping[str, Mapping[str, Array]]


def bare(path: Path, name: str = "m") -> Bundle:
    """Give the bundle of a plain model file."""
    return bundle_from_model_file(path, name)


def published(path: Path, goldens: Goldens | None = None) -> Bundle:
    """Put a manifest beside a model file, with goldens by file name, and give the bundle."""
    folder = path.parent
    for name, arrays in (goldens or {}).items():
        np.savez(folder / name, allow_pickle=False, **arrays)
    session = Session.load(path, SessionSettings())
    inputs, outputs = (
        tuple(TensorDescription(spec.name, spec.datatype.name, spec.shape) for spec in specs)
        for specs in (session.signature.inputs, session.signature.outputs.values())
    )
    session.close()
    model = _file(path)
    manifest = Manifest(
        name="m",
        version=1,
        inputs=inputs,
        outputs=outputs,
        variants=(Variant("only", model.path, model.sha256, model.size_bytes),),
        acceptance=Acceptance(tuple(_file(folder / name) for name in goldens or {})),
    )
    agreed(session.signature, manifest)
    (folder / "manifest.json").write_bytes(write(manifest))
    return bundle_from_directory(folder)


def load(
    bundle: Bundle,
    graphs: OptimizedGraphs | None = None,
    serving: LoadedVersion | None = None,
    *,
    cpu: CpuFacts = CPU,
    **engine: Any,  # noqa: ANN401 - settings of the engine
) -> LoadedVersion:
    """Load a bundle with one thread, unless the engine's settings say something else."""
    return load_bundle(
        bundle,
        serving,
        engine=Engine(**{"intra_op_threads": 1} | engine),
        batching=NO_PROBE,
        settings=Model(),
        providers=(CPU_PROVIDER,),
        cpu=cpu,
        cpus=1,
        graphs=graphs,
    )


def expected(bundle: Bundle, graphs: OptimizedGraphs, **engine: Any) -> int:  # noqa: ANN401
    """Say what a bundle will hold, asked as ``load`` loads."""
    return expected_bytes(
        bundle,
        engine=Engine(**{"intra_op_threads": 1} | engine),
        settings=Model(),
        providers=(CPU_PROVIDER,),
        cpu=CPU,
        cpus=1,
        graphs=graphs,
    )


class Loader:
    """Loads, and tells from the log what was loaded."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        log.set_level(logging.INFO)
        self.log = log

    def __call__(
        self,
        bundle: Bundle,
        graphs: OptimizedGraphs | None,
        **more: Any,  # noqa: ANN401 - as for load
    ) -> LoadedVersion:
        """Load."""
        self.log.clear()
        return load(bundle, graphs, **more)

    def used_graph(self) -> bool:
        """Whether the last load used an optimised graph."""
        return "runs from its optimised graph" in self.log.text


def network(path: Path) -> Path:
    """``y = relu(x w1 + b) w2``, which ONNX Runtime fuses; ``[batch, 64]``."""
    rng = np.random.default_rng(1)

    def tensor(name: str, *shape: int) -> onnx.TensorProto:
        numbers = rng.standard_normal(shape).astype("<f4")
        return helper.make_tensor(name, TensorProto.FLOAT, shape, numbers.tobytes(), raw=True)

    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["positive"]),
        helper.make_node("Identity", ["positive"], ["same"]),
        helper.make_node("MatMul", ["same", "w2"], ["y"]),
    ]
    weights = [tensor("w1", 64, 64), tensor("b", 64), tensor("w2", 64, 64)]
    shape = ("batch", 64)
    return save(path, nodes, [value("x", shape=shape)], [value("y", shape=shape)], weights)


def externalize(path: Path) -> None:
    """Move a model's weights into a file beside it."""
    onnx.save_model(
        onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )


def _file(path: Path) -> File:
    data = path.read_bytes()
    return File(path.name, hashlib.sha256(data).hexdigest(), len(data))
