"""Data files: the two forms, and a clear sentence for everything that is wrong with them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantize.data import read_data
from quantize.errors import BadInputError
from quantize.execution import open_runner
from quantize.signature import Shape, Signature, TensorInfo
from tests.conftest import DIGITS


def takes(*shapes: Shape, dtype: type = np.float32) -> Signature:
    inputs = [
        TensorInfo(name, np.dtype(dtype), each) for name, each in zip("xyz", shapes, strict=False)
    ]
    return Signature(tuple(inputs), ())


def npz(folder: Path, **arrays: Any) -> Path:  # noqa: ANN401 - anything may be in a file
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def test_reads_the_digits_with_their_labels() -> None:
    with open_runner(DIGITS / "digits-fp32.onnx") as runner:
        data = read_data(DIGITS / "test.npz", runner.signature)
    assert data.samples == 450
    assert data.inputs["image"].shape == (450, 1, 8, 8)
    assert data.labels is not None
    assert data.labels.shape == (450,)


def test_a_sample_is_a_row_or_with_one_axis_more_a_whole_input(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.zeros((4, 3), np.float32))
    assert read_data(path, takes((None, 3))).whole == frozenset()
    assert read_data(path, takes((1, 3))).run_rows == 1
    assert read_data(path, takes((3,))).whole == {"x"}
    mixed = npz(tmp_path, x=np.zeros((4, 3), np.float32), y=np.zeros(4, np.float32))
    data = read_data(mixed, takes((None, 3), ()))
    assert data.whole == {"y"}
    assert data.rows_per_run(8) == 1


def test_an_input_called_labels_is_an_input(tmp_path: Path) -> None:
    signature = Signature((TensorInfo("labels", np.dtype(np.int64), (None,)),), ())
    data = read_data(npz(tmp_path, labels=np.arange(3)), signature)
    assert list(data.inputs) == ["labels"]
    assert data.labels is None


def test_another_byte_order_is_read_as_the_same_numbers(tmp_path: Path) -> None:
    data = read_data(npz(tmp_path, x=np.arange(4, dtype=">f4").reshape(2, 2)), takes((None, 2)))
    assert data.inputs["x"].dtype == np.float32
    assert data.inputs["x"].tolist() == [[0, 1], [2, 3]]


GOOD = np.zeros((4, 3), np.float32)
HOLED, ENDLESS = GOOD.copy(), GOOD.copy()
HOLED[2, 1] = np.nan
ENDLESS[3, 0] = np.inf


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"image": GOOD}, r"has no array 'x' and has 'image', which .*inputs are 'x'"),
        ({"x": GOOD, "extra": GOOD}, r"has 'extra', which the model does not take"),
        ({"x": GOOD.astype(np.float64)}, r"'x' is float64, the model takes float32.*astype"),
        ({"x": GOOD[:, :2]}, r"shape \[4, 2\].*x float32 \[\?, 3\]; expected \[samples, 3\]"),
        ({"x": np.zeros((4, 3, 3, 3), np.float32)}, r"shape \[4, 3, 3, 3\]"),
        ({"x": np.float32(1)}, r"shape \[\]"),
        ({"x": GOOD[:0]}, r"'x' holds no sample"),
        ({"x": HOLED}, r"'x' holds NaN in sample 2"),
        ({"x": ENDLESS}, r"'x' holds infinity in sample 3"),
        ({"x": GOOD, "labels": np.zeros(3)}, r"'labels' holds 3 samples and 'x' holds 4"),
        ({"x": GOOD, "labels": np.float32(1)}, r"'labels' holds 0 samples"),
        ({"x": GOOD, "labels": np.array([0, 0, np.nan, 0])}, r"'labels' holds NaN in sample 2"),
        ({"x": np.array([{}, {}])}, r"array 'x' cannot be read.*no Python objects"),
    ],
)
def test_wrong_arrays_are_refused_with_file_array_and_remedy(
    tmp_path: Path, arrays: dict[str, Any], says: str
) -> None:
    path = npz(tmp_path, **arrays)
    with pytest.raises(BadInputError, match=says) as told:
        read_data(path, takes((None, 3)))
    assert str(path) in told.value.message
    assert "\n" not in told.value.message


def test_arrays_with_different_numbers_of_samples_are_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, x=GOOD, y=GOOD[:2])
    with pytest.raises(BadInputError, match="'y' holds 2 samples and 'x' holds 4"):
        read_data(path, takes((None, 3), (None, 3)))


def test_inputs_that_take_different_numbers_of_rows_need_whole_samples(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"'x' 2, 'y' 4.*one axis more"):
        read_data(npz(tmp_path, x=GOOD, y=GOOD), takes((2, 3), (4, 3)))
    whole = npz(tmp_path, x=np.zeros((5, 2, 3), np.float32), y=np.zeros((5, 4, 3), np.float32))
    assert read_data(whole, takes((2, 3), (4, 3))).samples == 5


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut"], ids=["empty", "text", "cut"])
def test_what_is_no_npz_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"data\.npz is not a \.npz file; write one with"):
        read_data(path, takes((None, 3)))


def test_a_damaged_npz_file_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.random.default_rng(0).random((64, 3), np.float32))
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"data\.npz is damaged"):
        read_data(path, takes((None, 3)))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"none\.npz: no such file"):
        read_data(tmp_path / "none.npz", takes((None, 3)))


def test_a_model_without_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no input"):
        read_data(npz(tmp_path, x=GOOD), Signature((), ()))


def write_set(folder: Path, *arrays: np.ndarray[Any, Any]) -> None:
    folder.mkdir(parents=True)
    for place, array in enumerate(arrays):
        tensor = numpy_helper.from_array(array)
        (folder / f"input_{place}.pb").write_bytes(tensor.SerializeToString())


def test_sets_of_test_data_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        write_set(tmp_path / f"test_data_set_{number}", np.full((1, 3), number, np.float32))
    (tmp_path / "test_data_set_0" / "output_0.pb").write_bytes(b"not read")
    np.save(tmp_path / "labels.npy", np.array([7, 8, 9]))
    data = read_data(tmp_path, takes((None, 3)))
    assert data.inputs["x"][:, 0].tolist() == [0, 2, 10]
    assert data.labels is not None
    assert data.labels.tolist() == [7, 8, 9]
    assert read_data(tmp_path / "test_data_set_2", takes((None, 3))).samples == 1


def test_a_set_is_one_sample_where_its_inputs_have_no_common_rows(tmp_path: Path) -> None:
    for number in range(3):
        write_set(
            tmp_path / f"test_data_set_{number}",
            np.zeros((4, 3), np.float32),
            np.array([1, 2], np.float32),
        )
    data = read_data(tmp_path, takes((None, 3), (2,)))
    assert data.whole == {"x", "y"}
    assert data.samples == 3


def test_sets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInputError, match="no test_data_set"):
        read_data(empty, takes((None, 3)))
    short = tmp_path / "short"
    write_set(short / "test_data_set_0", np.zeros((1, 3), np.float32))
    with pytest.raises(BadInputError, match=r"inputs input_0\.pb, the model takes 2"):
        read_data(short, takes((None, 3), (None, 3)))
    uneven = tmp_path / "uneven"
    for number, size in enumerate((3, 4)):
        write_set(uneven / f"test_data_set_{number}", np.zeros((1, size), np.float32))
    with pytest.raises(BadInputError, match=r"test_data_set_1: 'x' has shape \[1, 4\].*pad"):
        read_data(uneven, takes((None, None)))
    noise = tmp_path / "noise" / "test_data_set_0"
    noise.mkdir(parents=True)
    (noise / "input_0.pb").write_bytes(b"\xff\xff")
    with pytest.raises(BadInputError, match=r"input_0\.pb is not an ONNX tensor"):
        read_data(noise.parent, takes((None, 3)))


def test_a_tensor_that_points_to_another_file_is_refused(tmp_path: Path) -> None:
    tensor = onnx.TensorProto(dims=[1, 3], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(BadInputError, match="in another file"):
        read_data(tmp_path, takes((None, 3)))
