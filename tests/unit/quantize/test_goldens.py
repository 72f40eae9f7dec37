"""Golden files beside a model that runs: what is wrong with one is a verdict on the bundle."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.goldens import Golden, encode
from quantize.errors import VerificationError
from quantize.execution import open_runner
from quantize.goldens import answered, read
from quantize.signature import Array, Signature, TensorInfo
from tests import models


def _signature(inputs: list[str], outputs: list[str]) -> Signature:
    tensors = [
        tuple(TensorInfo(name, np.dtype(np.float32), (None, 2)) for name in names)
        for names in (inputs, outputs)
    ]
    return Signature(*tensors)


def _golden(**more: Array | None) -> Golden:
    row = np.arange(4, dtype=np.float32).reshape(2, 2)
    return Golden("samples-00", {"x": row}, {"y": row + 1}, more.get("labels"))


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    labels = np.array([1, 0])
    path = tmp_path / "samples-00.npz"
    path.write_bytes(encode(_golden(labels=labels)))
    found = read(path, _signature(["x"], ["y"]), "g")
    assert found.name == "samples-00"
    np.testing.assert_array_equal(found.feeds["x"], _golden().feeds["x"])
    np.testing.assert_array_equal(found.outputs["y"], _golden().outputs["y"])
    np.testing.assert_array_equal(found.labels, labels)


def test_keeps_tensors_whose_names_numpy_or_labels_would_claim(tmp_path: Path) -> None:
    row = np.ones((1, 2), np.float32)
    golden = Golden("g", {"file": row, "a/b:0": row * 2}, {"labels": row * 3}, np.array([7]))
    path = tmp_path / "g.npz"
    path.write_bytes(encode(golden))
    found = read(path, _signature(["file", "a/b:0"], ["labels"]), "g")
    assert found.feeds["a/b:0"][0, 0] == 2
    assert found.outputs["labels"][0, 0] == 3
    assert found.labels is None


def test_keeps_texts_without_pickling_them(tmp_path: Path) -> None:
    texts = np.array(["ä", "bc"], object)
    path = tmp_path / "g.npz"
    path.write_bytes(encode(Golden("g", {"x": texts}, {})))
    found = read(path, _signature(["x"], []), "g")
    assert found.feeds["x"].tolist() == ["ä", "bc"]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_refuses_files_that_hold_no_inputs(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    path.write_bytes(content)
    with pytest.raises(VerificationError, match=r"shown-name .*build the bundle again"):
        read(path, _signature(["x"], ["y"]), "shown-name")


def test_refuses_pickles(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    np.savez(path, allow_pickle=True, x=np.array([{}], object))
    with pytest.raises(VerificationError, match="plain arrays"):
        read(path, _signature(["x"], ["y"]), "g")


def test_answers_come_in_the_order_of_the_feeds(tmp_path: Path) -> None:
    row = np.zeros((1, 2), np.float32)
    with open_runner(models.add_constant(tmp_path / "m.onnx", 5.0)) as runner:
        found = answered(runner, [{"x": row}, {"x": row + 1}])
    assert [each["y"][0, 0] for each in found] == [5.0, 6.0]
