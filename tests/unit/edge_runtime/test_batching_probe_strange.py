"""Neighbours that give a model away: of strange values, and in models of dynamic quantization."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from edge_runtime.batching import Verdict
from edge_runtime.batching_probe import probe
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import ModelFailedError
from edge_runtime.external_data import operators
from edge_runtime.samples import synthetic
from edge_runtime.session import Session, SessionSettings
from edge_runtime.settings import Batching
from edge_runtime.tensors import VARIABLE, Array, Signature, TensorSpec
from tests.models import save, value

SLOW = Batching(min_gain=0.0, latency_objective_s=10.0, probe_budget_s=10.0)
ROWS = (VARIABLE, 4)
FLOATS = Signature(
    [TensorSpec("x", BY_NAME["FP32"], ROWS)], [TensorSpec("y", BY_NAME["FP32"], ROWS)]
)


def tried(compute: Callable[[Array], Array]) -> Verdict:
    """Probe a computation of floats."""
    return probe(
        lambda _, feeds: [compute(feeds["x"])],
        FLOATS,
        partial(synthetic, FLOATS),
        settings=SLOW,
        rows_max=256,
    )


# -- strange values ------------------------------------------------------------------------------


def has_nan(x: Array) -> bool:
    return bool(np.isnan(x).any())


def has_infinity(x: Array) -> bool:
    return bool(np.isinf(x).any())


def has_large_negative(x: Array) -> bool:
    return bool((x < -1000).any())


@pytest.mark.parametrize("gives_way", [has_nan, has_infinity, has_large_negative])
def test_a_neighbour_of_strange_values_that_changes_others_gives_a_model_away(
    gives_way: Callable[[Array], bool],
) -> None:
    verdict = tried(lambda x: x * (2.0 if gives_way(x) else 1.0))
    assert not verdict.joins
    assert verdict.reason.startswith("a neighbour changes the answer: output 'y' differs")


def test_a_nan_that_spreads_to_the_rows_of_others_gives_a_model_away() -> None:
    verdict = tried(lambda x: x + 0 * x.sum())
    assert verdict.reason == (
        "a neighbour changes the answer: output 'y' differs when runs are joined"
    )


def test_what_becomes_of_the_strange_rows_themselves_decides_nothing() -> None:
    def whimsical(x: Array) -> Array:
        strange = ~np.isfinite(x)
        return np.where(strange, float(len(x)), x)

    assert tried(whimsical).joins


def test_strange_values_that_a_model_refuses_are_left_out() -> None:
    def picky(x: Array) -> Array:
        if not np.isfinite(x).all():
            raise ModelFailedError("it takes numbers")
        return x

    assert tried(picky).joins


# -- dynamic quantization ------------------------------------------------------------------------


def embedding(path: Path) -> Path:
    """Tokens, INT64 ``[batch, length]``, to an embedding and a layer on it: FP32."""
    random = np.random.default_rng(7)
    rows = np.linspace(0.1, 3.0, 32)[:, None]  # tokens of larger numbers have larger vectors
    tensors = [
        numpy_helper.from_array((random.normal(size=(32, 16)) * rows).astype(np.float32), "table"),
        numpy_helper.from_array(random.normal(size=(16, 4)).astype(np.float32), "weights"),
    ]
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["embedded"]),
        helper.make_node("MatMul", ["embedded", "weights"], ["y"]),
    ]
    shape = ("batch", "length")
    return save(path, nodes, [value("x", "INT64", shape)], [value("y", shape=(*shape, 4))], tensors)


def quantized(folder: Path) -> Path:
    """Quantize it as people do."""
    path = folder / "int8.onnx"
    quantize_dynamic(
        embedding(folder / "fp32.onnx"),
        path,
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
    )
    return path


def probed(path: Path, known: frozenset[str] = frozenset()) -> Verdict:
    session = Session.load(path, SessionSettings())
    try:
        return probe(
            session.run,
            session.signature,
            partial(synthetic, session.signature),
            settings=SLOW,
            rows_max=256,
            operators=known,
        )
    finally:
        session.close()


def test_a_model_of_tokens_that_was_dynamically_quantized_is_refused(tmp_path: Path) -> None:
    path = quantized(tmp_path)
    made_of = operators(path)
    assert "DynamicQuantizeLinear" in made_of
    verdict = probed(path, frozenset(made_of))
    assert not verdict.joins
    assert "DynamicQuantizeLinear scales a run by its largest value" in verdict.reason


def test_its_answers_give_it_away_too_and_the_one_it_was_made_of_is_joined(
    tmp_path: Path,
) -> None:
    verdict = probed(quantized(tmp_path))
    assert not verdict.joins
    assert "a neighbour changes the answer: output 'y' differs by" in verdict.reason
    assert probed(tmp_path / "fp32.onnx").joins


def test_a_neighbour_does_change_the_answers_of_such_a_model(tmp_path: Path) -> None:
    session = Session.load(quantized(tmp_path), SessionSettings())

    def ask(*rows: list[int]) -> Array:
        return session.run(["y"], {"x": np.array(rows, np.int64)})[0]

    quiet, loud = [0, 1, 2], [29, 30, 31]
    alone, beside = ask(quiet)[0], ask(quiet, loud)[0]
    session.close()
    assert np.abs(alone - beside).max() > 0.01 * np.abs(alone).max()
