"""Blocks of 4 and 8 bits: packed as ONNX Runtime's kernel reads them."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest

from quantize import matmul_nbits
from quantize.execution import open_runner
from tests import quantize_graphs


@pytest.mark.parametrize(("bits", "error"), [(4, 0.15), (8, 0.012)])
@pytest.mark.parametrize("rows", [64, 50])
def test_the_kernel_reads_what_was_packed(
    tmp_path: Path, bits: Literal[4, 8], error: float, rows: int
) -> None:
    net = quantize_graphs.Network()
    net.node("MatMul", ["x", net.weight("w", rows, 48)], "y")
    path = net.save(tmp_path / "m.onnx", {"x": ["batch", rows]}, ["y"])
    model = onnx.load(path)
    assert matmul_nbits.rewrite(model, bits=bits, block_size=32, least=0) == 1
    assert "w" not in {tensor.name for tensor in model.graph.initializer}
    packed = tmp_path / "packed.onnx"
    onnx.save(model, packed)
    feeds = next(quantize_graphs.samples(rows).feeds(8))
    with open_runner(path) as exact, open_runner(packed) as rounded:
        reference = exact.run(feeds)["y"]
        difference = rounded.run(feeds)["y"] - reference
    assert np.linalg.norm(difference) / np.linalg.norm(reference) < error


def test_whole_steps_come_back_exactly() -> None:
    matrix = np.arange(-8, 8, dtype=np.float32).reshape(16, 1) * 0.5
    packed, scales = matmul_nbits.pack(matrix, 4, 16)
    assert packed.shape == (1, 1, 8)
    steps = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1).astype(np.float32)
    np.testing.assert_array_equal((steps - 8) * scales[0], matrix[:, 0])


def test_small_shared_and_excluded_matrices(tmp_path: Path) -> None:
    net = quantize_graphs.Network()
    weight = net.weight("w", 32, 32)
    net.node("MatMul", ["x", weight], "a")
    net.node("MatMul", ["a", weight], "b")
    net.node("MatMul", ["b", net.weight("small", 32, 4)], "y")
    path = net.save(tmp_path / "m.onnx", {"x": ["batch", 32]}, ["y"])
    model = onnx.load(path)
    count = matmul_nbits.rewrite(model, bits=4, block_size=32, exclude=["a"], least=1000)
    assert count == 1
    assert [node.op_type for node in model.graph.node] == ["MatMul", "MatMulNBits", "MatMul"]
    assert "w" in {tensor.name for tensor in model.graph.initializer}
