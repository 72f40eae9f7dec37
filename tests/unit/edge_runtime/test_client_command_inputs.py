"""``--input``: what a person writes becomes exactly what the model declares, or a clear error."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from edge_runtime.cli.inputs import random_inputs, read_inputs
from edge_runtime.cli.terminal import printable, table
from edge_runtime.datatypes import ALL, BF16, BY_NAME
from edge_runtime.errors import InvalidTensorError
from edge_runtime.protocol.schemas import ModelMetadata, TensorMetadata
from edge_runtime.tensors import Array, Tensor, fits

IMAGE = (-1, 1, 2, 2)


def _model(datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)) -> ModelMetadata:
    return ModelMetadata("m", ["1"], "p", [TensorMetadata("x", datatype, shape)], [], {})


def _read(value: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)) -> Tensor:
    return read_inputs([f"x={value}"], _model(datatype, shape))["x"]


def _saved(folder: Path, array: Array) -> str:
    np.save(folder / "a.npy", array)
    return f"@{folder / 'a.npy'}"


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "expected"),
    [
        ("[[1, 2.5], [3, 4]]", "FP32", (-1, 2), [[1, 2.5], [3, 4]]),
        ("[1, 2, 3, 4]", "FP32", (-1, 2), [[1, 2], [3, 4]]),
        ("[1, 2, 3, 4]", "FP32", IMAGE, [[[[1, 2], [3, 4]]]]),
        ("[[[1, 2], [3, 4]]]", "FP32", IMAGE, [[[[1, 2], [3, 4]]]]),
        ("3", "INT64", (-1,), [3]),
        ("3", "INT64", (), 3),
        ("[true, false]", "BOOL", (2,), [True, False]),
        ('["a", "b"]', "BYTES", (-1, 1), [["a"], ["b"]]),
        ("[0.1]", "FP16", (1,), [np.float16(0.1)]),
        ("[]", "FP32", (-1, 2), np.zeros((0, 2)).tolist()),
    ],
)
def test_json_gets_the_one_shape_it_can_have(
    value: str,
    datatype: str,
    shape: tuple[int, ...],
    expected: Any,  # noqa: ANN401
) -> None:
    tensor = _read(value, datatype, shape)
    assert tensor.datatype.name == datatype
    assert tensor.array.tolist() == expected
    assert fits(tensor.array.shape, shape)


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "said"),
    [
        ("[1, 2, 3]", "FP32", (-1, 2), "nest the lists"),
        ("[1, 2, 3, 4]", "FP32", (-1, -1), "nest the lists"),
        ("[[1, 2], [3]]", "FP32", (-1, 2), "several lengths"),
        ("[[1, 2], 3]", "FP32", (-1, 2), "several lengths"),
        ("[1, [2]]", "FP32", (-1, 2), "mixed"),
        ("[null]", "FP32", (-1,), "mixed"),
        ('{"a": 1}', "FP32", (-1,), "mixed"),
        ("[1, 2", "FP32", (-1, 2), "not JSON"),
        ("image.npy", "FP32", (-1, 2), "@FILE.npy"),
        ("[300]", "UINT8", (-1,), "UINT8"),
        ("[-1]", "UINT64", (-1,), "UINT64"),
        ("[1.5]", "INT64", (-1,), "float"),
        ("[true]", "INT64", (-1,), "bool"),
        ("[1]", "BOOL", (-1,), "int"),
        ('["1"]', "FP32", (-1,), "str"),
        ("[1]", "BYTES", (-1,), "int"),
        ("[70000]", "FP16", (-1,), "65504"),
        ("[1e300]", "FP32", (-1,), "FP32"),
    ],
)
def test_json_that_does_not_fit_is_refused(
    value: str, datatype: str, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(InvalidTensorError, match=said):
        _read(value, datatype, shape)


@pytest.mark.parametrize(
    ("array", "datatype"),
    [
        (np.array([1.0, 2.5]), "FP32"),
        (np.array([1.0, np.nan]), "FP32"),
        (np.array([1, 2]), "FP32"),
        (np.array([1.0, 2.0]), "INT64"),
        (np.array([0, 255]), "UINT8"),
        (np.array([0, 1]), "BOOL"),
        (np.array([1.5], ">f4"), "FP32"),
    ],
)
def test_an_array_is_converted_where_nothing_is_lost(
    tmp_path: Path, array: Array, datatype: str
) -> None:
    tensor = _read(_saved(tmp_path, array), datatype, (-1,))
    assert tensor.array.dtype == np.dtype(BY_NAME[datatype].numpy)
    assert np.array_equal(tensor.array, array, equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize(
    ("array", "datatype"),
    [
        (np.array([0.1]), "FP32"),
        (np.array([2**24 + 1]), "FP32"),
        (np.array([2**53 + 1]), "FP64"),
        (np.array([-1]), "UINT64"),
        (np.array([-1], np.int8), "UINT8"),
        (np.array([256]), "UINT8"),
        (np.array([1.5]), "INT64"),
        (np.array([np.nan]), "INT64"),
        (np.array([2]), "BOOL"),
        (np.array([1e300]), "FP16"),
        (np.array([1j]), "FP32"),
        (np.array(["1"]), "FP32"),
        (np.array([1]), "BYTES"),
        (np.array([1.0], np.float32), "BF16"),
    ],
)
def test_an_array_that_would_lose_is_refused(tmp_path: Path, array: Array, datatype: str) -> None:
    with pytest.raises(InvalidTensorError, match="the model takes"):
        _read(_saved(tmp_path, array), datatype, (-1,))


@settings(deadline=None)
@given(arrays_of.arrays(arrays_of.integer_dtypes() | arrays_of.unsigned_integer_dtypes(), 3))
def test_a_converted_integer_is_the_same_integer(array: Array) -> None:
    from edge_runtime.cli.inputs import _converted  # noqa: PLC0415

    for datatype in ALL:
        if datatype.json not in {"int", "float"}:
            continue
        try:
            converted = _converted("x", array, datatype)
        except InvalidTensorError:
            continue
        assert [int(value) for value in converted.tolist()] == array.tolist()


@settings(deadline=None)
@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=5))
def test_json_numbers_become_the_nearest_bfloat16(values: list[float]) -> None:
    tensor = _read(json.dumps(values), "BF16", (-1,))
    with np.errstate(over="ignore"):
        expected = np.array(values, np.float32).astype(ml_dtypes.bfloat16)
    assert tensor.datatype is BF16
    assert tensor.array.tolist() == expected.view(np.uint16).tolist()


def test_bfloat16_is_read_from_the_files_numpy_writes(tmp_path: Path) -> None:
    array = np.array([1.5, 2.0], ml_dtypes.bfloat16)
    for saved in (array, array.view(np.uint16)):
        tensor = _read(_saved(tmp_path, saved), "BF16", (-1,))
        assert tensor.array.tolist() == [0x3FC0, 0x4000]


def test_one_row_may_come_without_its_batch_axis(tmp_path: Path) -> None:
    assert _read(_saved(tmp_path, np.zeros((1, 2, 2), "f4")), shape=IMAGE).array.shape == (
        1,
        1,
        2,
        2,
    )
    # A fixed first axis is the model's own, and stays for the daemon to judge.
    assert _read(_saved(tmp_path, np.zeros((2, 2), "f4")), shape=(1, 2, 2)).array.shape == (2, 2)


def test_one_array_of_many_is_named_by_its_key(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(file, a=np.zeros(2, "f4"), b=np.ones(2, "f4"))
    assert _read(f"@{file}:b").array.tolist() == [[1, 1]]
    with pytest.raises(InvalidTensorError, match="holds a, b"):
        _read(f"@{file}")
    with pytest.raises(InvalidTensorError, match="holds a, b"):
        _read(f"@{file}:c")
    np.savez(file, only=np.ones(2, "f4"))
    assert _read(f"@{file}").array.tolist() == [[1, 1]]


def test_a_file_that_is_no_array_is_refused(tmp_path: Path) -> None:
    for name, data in (("a.npy", b""), ("b.npy", b"hello"), ("c.npz", b"PK\x03\x04junk")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InvalidTensorError, match=name):
            _read(f"@{tmp_path / name}")
    with pytest.raises(InvalidTensorError, match="No such file"):
        _read(f"@{tmp_path / 'nowhere.npy'}")
    with pytest.raises(InvalidTensorError, match="directory"):
        _read(f"@{tmp_path}")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InvalidTensorError, match=r"not a \.npy"):
        _read(f"@{tmp_path / 'a.npy'}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x"], "NAME=VALUE"),
        (["x="], "NAME=VALUE"),
        (["z=[1]"], "no input 'z'; it takes x"),
        (["x=[1, 2]", "x=[1, 2]"], "twice"),
    ],
)
def test_a_wrong_name_is_told_with_the_right_ones(arguments: list[str], said: str) -> None:
    with pytest.raises(InvalidTensorError, match=said):
        read_inputs(arguments, _model())


@pytest.mark.parametrize("datatype", [each.name for each in ALL])
def test_random_inputs_fit_the_model_and_are_the_same_every_time(datatype: str) -> None:
    model = _model(datatype, (-1, 3, -1))
    first, second = (random_inputs(model, 4)["x"] for _ in range(2))
    assert first.array.shape == (4, 3, 1)
    assert first.array.dtype == np.dtype(BY_NAME[datatype].numpy)
    assert first.array.tolist() == second.array.tolist()


def test_a_table_shows_no_empty_columns_and_no_control_codes() -> None:
    text = table(("NAME", "REASON", "STATE"), [("a\x1b[31m", "", "READY"), ("b", "", "")])
    assert text.splitlines() == ["NAME       STATE", "a\\x1b[31m  READY", "b          -"]
    assert printable("grün") == "grün"
