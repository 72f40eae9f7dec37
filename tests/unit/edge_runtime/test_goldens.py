"""Golden files: written the same every time, read with care, compared without surprises."""

import re
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import DigestMismatchError, ManifestError, ModelLoadError
from edge_runtime.goldens import (
    UNPACKED_BYTES_MAX,
    Golden,
    OutputCheck,
    check_outputs,
    decode,
    distance,
    encode,
    read_goldens,
)
from edge_runtime.manifest import (
    Acceptance,
    File,
    Manifest,
    TensorDescription,
    Tolerance,
    Variant,
)
from edge_runtime.tensors import Array, Signature, Tensor, TensorSpec
from tests import strategies

ROW = np.arange(4, dtype=np.float32).reshape(2, 2)
GOLDEN = Golden("samples-00", {"x": ROW}, {"y": ROW + 1})
X = TensorSpec("x", BY_NAME["FP32"], (-1, 2))
Y = TensorSpec("y", BY_NAME["FP32"], (-1, 2))


def _manifest(
    *goldens: File, tolerances: tuple[Tolerance, ...] = (), outputs: str = "FP32"
) -> Manifest:
    return Manifest(
        name="m",
        version=3,
        outputs=(TensorDescription("y", outputs, (-1, 2)),),
        variants=(Variant("as-is", "model.onnx"),),
        acceptance=Acceptance(goldens, tolerances),
    )


def _put(folder: Path, data: bytes, name: str = "g.npz") -> File:
    (folder / name).write_bytes(data)
    return File(name, sha256(data).hexdigest(), len(data))


# -- files ---------------------------------------------------------------------------------------


def test_writes_the_same_bytes_for_the_same_arrays() -> None:
    assert encode(GOLDEN) == encode(GOLDEN)


@given(strategies.tensors)
def test_reads_back_arrays_of_every_datatype(tensor: Tensor) -> None:
    # numpy's fixed-width text drops zeros at the end of an element.
    if tensor.array.dtype == object:
        tensor.array[...] = np.frompyfunc(lambda text: text.rstrip("\0"), 1, 1)(tensor.array)
    found = decode(encode(Golden("g", {"x": tensor.array}, {})), ["x"], [], "g").feeds["x"]
    assert found.dtype == tensor.array.dtype
    assert found.shape == tensor.array.shape
    if found.dtype == object:
        assert found.tolist() == tensor.array.tolist()
    else:
        assert found.tobytes() == tensor.array.tobytes()


def test_refuses_to_unpack_a_bomb() -> None:
    data = encode(Golden("g", {"x": np.zeros((1000, 1000), np.float32)}, {}))
    assert len(data) < 10_000
    with pytest.raises(ManifestError, match="g unpacks to more than 1000000 bytes"):
        decode(data, ["x"], [], "g", 1_000_000)
    assert decode(data, ["x"], [], "g", UNPACKED_BYTES_MAX).feeds["x"].shape == (1000, 1000)


@given(st.binary(max_size=64), st.integers(min_value=0))
def test_damaged_files_are_refused_in_words(junk: bytes, place: int) -> None:
    data = bytearray(encode(GOLDEN))
    at = place % len(data)
    data[at : at + len(junk)] = junk
    found = refusal = None
    try:
        found = decode(bytes(data), ["x"], ["y"], "g")
    except ManifestError as error:
        refusal = error.message
    if found is None:
        assert re.fullmatch("g .*; build the bundle again", refusal or "", re.DOTALL)
    else:  # the change hit what zip repeats or ignores
        np.testing.assert_array_equal(found.feeds["x"], ROW)


def test_goldens_of_a_bundle_fit_the_model_and_are_named_by_their_path(tmp_path: Path) -> None:
    manifest = _manifest(_put(tmp_path, encode(GOLDEN)))
    (found,) = read_goldens(tmp_path, manifest, Signature([X], [Y]))
    assert found.name == "g.npz"
    np.testing.assert_array_equal(found.feeds["x"], ROW)
    np.testing.assert_array_equal(found.outputs["y"], ROW + 1)


def test_goldens_that_are_not_what_the_manifest_says_are_refused(tmp_path: Path) -> None:
    manifest = _manifest(_put(tmp_path, encode(GOLDEN)))
    (tmp_path / "g.npz").write_bytes(encode(GOLDEN._replace(feeds={"x": ROW * 2})))
    with pytest.raises(DigestMismatchError, match=r"m version 3: g\.npz has SHA-256"):
        list(read_goldens(tmp_path, manifest, Signature([X], [Y])))
    (tmp_path / "g.npz").unlink()
    with pytest.raises(ModelLoadError, match=r"cannot read m version 3: g\.npz"):
        list(read_goldens(tmp_path, manifest, Signature([X], [Y])))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TensorSpec("other", BY_NAME["FP32"], (-1, 2)), "no array for input 'other'"),
        (TensorSpec("x", BY_NAME["INT64"], (-1, 2)), "'x' is float32; the model takes INT64"),
        (TensorSpec("x", BY_NAME["FP32"], (-1, 3)), r"shape \[2, 2\]"),
    ],
)
def test_goldens_that_do_not_fit_the_model_are_refused(
    spec: TensorSpec, words: str, tmp_path: Path
) -> None:
    manifest = _manifest(_put(tmp_path, encode(GOLDEN)))
    with pytest.raises(ManifestError, match=words):
        list(read_goldens(tmp_path, manifest, Signature([spec], [Y])))


def test_goldens_of_a_kind_that_is_not_read_here_are_named(tmp_path: Path) -> None:
    manifest = _manifest(_put(tmp_path, b"protobuf", "input_0.pb"))
    with pytest.raises(ManifestError, match=r"input_0\.pb: only \.npz goldens are read here"):
        list(read_goldens(tmp_path, manifest, Signature([X], [Y])))


# -- answers -------------------------------------------------------------------------------------


def test_an_output_is_checked_by_its_own_tolerance_else_by_the_one_for_all() -> None:
    golden = Golden("g", {}, {"y": ROW, "z": ROW})
    found = {"y": ROW + 0.5, "z": ROW + 0.5}
    tolerances = (Tolerance("", 0.25), Tolerance("z", 0.75))
    first, second = check_outputs(golden, found, _manifest(tolerances=tolerances))
    assert (first.output, first.passed, first.allowed) == ("y", False, 0.25)
    assert (second.output, second.passed, second.allowed) == ("z", True, 0.75)
    assert first.sentence == "g: output 'y' is 0.5 off, allowed are 0.25 (row 0)"


def test_outputs_that_no_tolerance_is_for_are_not_compared() -> None:
    assert check_outputs(GOLDEN, {"y": ROW}, _manifest()) == []
    tolerances = (Tolerance("other", 0.1),)
    assert check_outputs(GOLDEN, {"y": ROW}, _manifest(tolerances=tolerances)) == []


def test_an_output_that_the_model_does_not_give_is_a_failure() -> None:
    (check,) = check_outputs(GOLDEN, {}, _manifest(tolerances=(Tolerance("", 1e9),)))
    assert not check.passed
    assert check.sentence == "samples-00: output 'y' is not given by the model (row 0)"


def test_bf16_is_compared_as_the_numbers_it_stands_for() -> None:
    one, next_after_one = np.array([[0x3F80]], "<u2"), np.array([[0x3F81]], "<u2")
    golden = Golden("g", {}, {"y": one})
    manifest = _manifest(tolerances=(Tolerance("", 0.01),), outputs="BF16")
    (check,) = check_outputs(golden, {"y": next_after_one}, manifest)
    assert check.passed
    assert check.beyond == 2**-7


def test_a_check_is_a_json_object() -> None:
    (check,) = check_outputs(GOLDEN, {"y": ROW}, _manifest(tolerances=(Tolerance("", 0.5),)))
    assert msgspec.json.decode(msgspec.json.encode(check), type=OutputCheck) == check


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


@pytest.mark.parametrize("kind", ["i1", "u1", "<i4", "<i8", "<u8"])
def test_integers_that_differ_by_one_do_so_at_any_size(kind: str) -> None:
    limits = np.iinfo(kind)
    for value in (limits.min, limits.max - 1):
        first, second = np.array(value, kind), np.array(value + 1, kind)
        assert distance(first, second).beyond == distance(second, first).beyond == 1
    ends = np.array([limits.min, 0], kind), np.array([limits.max, 0], kind)
    assert distance(*ends).beyond == float(limits.max) - float(limits.min)


def test_texts_are_equal_or_infinitely_far_apart() -> None:
    golden = np.array([["a"], ["b"]], object)
    assert distance(np.array([["a"], ["c"]], object), golden)[:2] == (np.inf, 1)
    assert distance(golden.copy(), golden) == (0.0, 0, "")
