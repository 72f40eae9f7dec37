"""Golden files: written the same every time, read with care, compared without surprises."""

from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quantize.errors import VerificationError
from quantize.execution import open_runner
from quantize.goldens import Golden, answered, distance, encode, read
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


def test_writes_the_same_bytes_for_the_same_arrays() -> None:
    assert encode(_golden()) == encode(_golden())


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


def test_refuses_to_unpack_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "g.npz"
    path.write_bytes(encode(_golden()))
    with ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    monkeypatch.setattr("quantize.goldens.UNPACKED_BYTES_MAX", size - 1)
    with pytest.raises(VerificationError, match="unpacks to more than"):
        read(path, _signature(["x"], ["y"]), "g")


def test_answers_come_in_the_order_of_the_feeds(tmp_path: Path) -> None:
    row = np.zeros((1, 2), np.float32)
    with open_runner(models.add_constant(tmp_path / "m.onnx", 5.0)) as runner:
        found = answered(runner, [{"x": row}, {"x": row + 1}])
    assert [each["y"][0, 0] for each in found] == [5.0, 6.0]


# -- distance -----------------------------------------------------------------------------------

_floats = arrays.arrays(
    np.float32,
    arrays.array_shapes(max_dims=3, max_side=4),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@given(_floats)
def test_anything_is_at_no_distance_from_itself(array: Array) -> None:
    assert distance(array, array.copy()) == (0.0, 0, "")


@given(_floats, st.data())
def test_a_change_is_found_where_it_is(array: Array, data: st.DataObject) -> None:
    base = np.clip(np.nan_to_num(array), -1e6, 1e6)
    place = data.draw(st.integers(0, base.size - 1))
    changed = base.astype(np.float64)
    changed.reshape(-1)[place] += 1e3
    found = distance(changed, base.astype(np.float64))
    assert found.beyond == pytest.approx(1e3)
    assert found.row == np.unravel_index(place, base.shape)[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_infinitely_far_from_a_number(bad: float) -> None:
    good = np.zeros((3, 2), np.float32)
    broken = good.copy()
    broken[2, 1] = bad
    assert distance(broken, good).beyond == distance(good, broken).beyond == np.inf
    assert distance(broken, good).row == 2


def test_the_relative_part_counts_by_the_golden() -> None:
    golden, found = np.array([100.0, 1.0]), np.array([109.0, 1.2])
    assert distance(found, golden, rtol=0.1).beyond == pytest.approx(0.1)
    assert distance(found, golden, rtol=0.1).row == 1


def test_says_in_words_what_is_no_matter_of_numbers() -> None:
    row = np.zeros((2, 3), np.float32)
    assert "shape [2, 2], the golden [2, 3]" in distance(row[:, :2], row).problem
    assert "float64, the golden float32" in distance(row.astype(np.float64), row).problem
    assert distance(np.array(["a"]), np.array(["b"])).beyond == np.inf
    assert distance(np.zeros((0, 3)), np.zeros((0, 3))).beyond == 0
    assert distance(np.array(2.0), np.array(3.0)).beyond == 1
