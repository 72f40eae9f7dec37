"""Sample inputs: golden ones that are what the manifest says, or synthetic ones that fit."""

import io
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import samples as subject
from edge_runtime.bundle import Bundle
from edge_runtime.datatypes import ALL, BF16, BY_NAME, BYTES
from edge_runtime.errors import (
    ArtifactError,
    DigestMismatchError,
    InvalidTensorError,
    ManifestError,
    ModelLoadError,
)
from edge_runtime.manifest import Acceptance, File, Manifest, Variant
from edge_runtime.samples import samples, synthetic
from edge_runtime.tensors import VARIABLE, Array, Signature, Tensor, TensorSpec

VARIANT = Variant("as-is", "model.onnx")


def spec(name: str, datatype: str, *axes: int | str | None) -> TensorSpec:
    """Declare an input: a size, a symbol, or ``None`` for an unnamed varying axis."""
    shape = tuple(axis if isinstance(axis, int) else VARIABLE for axis in axes)
    return TensorSpec(
        name, BY_NAME[datatype], shape, tuple(a if isinstance(a, str) else None for a in axes)
    )


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, [])


@dataclass
class Goldens:
    """A bundle folder that only has goldens."""

    folder: Path
    files: list[File] = field(default_factory=list)

    def add(self, path: str, **arrays: Any) -> None:  # noqa: ANN401 - any array
        """Put a golden of these arrays into the folder and the manifest."""
        data = io.BytesIO()
        np.savez(data, **arrays)
        self.add_bytes(path, data.getvalue())

    def add_bytes(self, path: str, data: bytes) -> None:
        """Put a golden of these bytes into the folder and the manifest."""
        (self.folder / path).write_bytes(data)
        self.files.append(File(path, sha256(data).hexdigest(), len(data)))

    def bundle(self) -> Bundle:
        """Give the bundle."""
        acceptance = Acceptance(tuple(self.files))
        manifest = Manifest(name="m", version=3, variants=(VARIANT,), acceptance=acceptance)
        return Bundle(manifest, self.folder)


@pytest.fixture
def goldens(tmp_path: Path) -> Goldens:
    return Goldens(tmp_path)


X = signature(spec("x", "FP32", "batch", 2))


# -- synthetic ---------------------------------------------------------------------------------

_axes = st.one_of(st.integers(0, 4), st.sampled_from(["n", "k", "batch"]), st.none())
_inputs = st.lists(
    st.tuples(st.sampled_from([each.name for each in ALL]), st.lists(_axes, max_size=4)),
    min_size=1,
    max_size=4,
)


@given(inputs=_inputs, rows=st.integers(0, 5), seed=st.integers(0, 2**32 - 1))
def test_synthetic_inputs_fit_every_signature_that_can_be_met(
    inputs: list[tuple[str, list[int | str | None]]], rows: int, seed: int
) -> None:
    specs = [spec(f"i{place}", name, *axes) for place, (name, axes) in enumerate(inputs)]
    wanted = signature(*specs)
    feeds = synthetic(wanted, rows, seed)
    checked = wanted.check({each.name: Tensor(each.datatype, feeds[each.name]) for each in specs})
    for each in specs:
        array = checked[each.name]
        assert array.dtype == np.dtype(each.datatype.numpy)
        assert array.flags.c_contiguous
        if each.shape[:1] == (VARIABLE,) and each.symbols[0] is None:
            assert array.shape[0] == rows


def test_axis_that_the_manifest_fixed_decides_the_size_of_its_name() -> None:
    fixed = TensorSpec("a", BY_NAME["FP32"], (7,), ("n",))
    feeds = synthetic(signature(spec("b", "FP32", "n", None), fixed), rows=3)
    assert {name: array.shape for name, array in feeds.items()} == {"a": (7,), "b": (7, 1)}


def test_synthetic_inputs_are_the_same_every_time_and_others_with_another_seed_or_name() -> None:
    wanted = signature(spec("a", "FP32", None, 3), spec("b", "FP32", None, 3))
    first, again, other = synthetic(wanted, 4), synthetic(wanted, 4), synthetic(wanted, 4, seed=1)
    assert first["a"].tobytes() == again["a"].tobytes()
    assert first["a"].tobytes() != other["a"].tobytes()
    assert first["a"].tobytes() != first["b"].tobytes()


def test_first_rows_do_not_depend_on_how_many_follow() -> None:
    few, many = synthetic(X, 3)["x"], synthetic(X, 100_000)["x"]
    assert few.tobytes() == many[:3].tobytes()


def test_floats_are_standard_normal_times_the_amplitude() -> None:
    (numbers,) = synthetic(signature(spec("x", "FP32", None, 1000)), 200).values()
    assert abs(float(numbers.mean())) < 0.01
    assert float(numbers.std()) == pytest.approx(1, abs=0.01)
    assert np.isfinite(numbers).all()
    (large,) = synthetic(signature(spec("x", "FP32", None, 1000)), 200, amplitude=100).values()
    np.testing.assert_allclose(large, 100 * numbers, rtol=1e-6)


def test_bf16_holds_the_same_numbers_as_fp32_up_to_its_precision() -> None:
    (bits,) = synthetic(signature(spec("x", BF16.name, None)), 50).values()
    (numbers,) = synthetic(signature(spec("x", "FP32", None)), 50).values()
    np.testing.assert_allclose((bits.astype("<u4") << 16).view("<f4"), numbers, rtol=1 / 128)


@pytest.mark.parametrize("datatype", [each.name for each in ALL if each.json == "int"])
def test_integers_are_0_or_1_because_they_may_be_indices(datatype: str) -> None:
    (numbers,) = synthetic(signature(spec("x", datatype, None)), 50).values()
    assert {*numbers.tolist()} == {0, 1}


@pytest.mark.parametrize("datatype", [each.name for each in ALL if each.json == "int"])
def test_loud_integers_are_as_large_as_asked_and_never_negative(datatype: str) -> None:
    (numbers,) = synthetic(signature(spec("x", datatype, None)), 50, amplitude=1e4).values()
    assert numbers.min() >= 0
    assert 1 < numbers.max() <= 10_000


def test_texts_are_short_text() -> None:
    (texts,) = synthetic(signature(spec("x", BYTES.name, None)), 50).values()
    assert all(isinstance(text, str) and 0 < len(text) < 20 for text in texts.tolist())


def test_input_that_would_be_too_large_is_refused_and_gives_no_sample(goldens: Goldens) -> None:
    large = signature(spec("x", "UINT8", 2**13, 2**13))
    with pytest.raises(InvalidTensorError, match=r"'x' .* \[8192, 8192\]"):
        synthetic(large)
    assert samples(goldens.bundle(), large) == ()


# -- goldens -----------------------------------------------------------------------------------


def test_without_goldens_there_is_one_synthetic_sample(goldens: Goldens) -> None:
    goldens.add_bytes("input_0.pb", b"not read here")
    (sample,) = samples(goldens.bundle(), X, rows=3)
    assert sample.golden == ""
    assert sample.feeds["x"].tobytes() == synthetic(X, 3)["x"].tobytes()


def rows_of(count: int) -> Array:
    return np.arange(2 * count, dtype="<f4").reshape(count, 2)


@pytest.mark.parametrize(
    ("there", "wanted", "taken"), [(3, 1, [0]), (3, 3, [0, 1, 2]), (2, 5, [0, 1, 0, 1, 0])]
)
def test_goldens_are_cut_or_repeated_to_the_rows_wanted(
    there: int, wanted: int, taken: list[int], goldens: Goldens
) -> None:
    goldens.add("first.npz", x=rows_of(there), y=np.zeros(3))
    goldens.add("second.npz", x=rows_of(there) + 1)
    first, second = samples(goldens.bundle(), X, rows=wanted)
    assert (first.golden, second.golden) == ("first.npz", "second.npz")
    assert [*first.feeds] == ["x"]
    assert first.feeds["x"].tolist() == rows_of(there)[taken].tolist()
    assert second.feeds["x"].tolist() == (rows_of(there)[taken] + 1).tolist()


def test_golden_whose_rows_cannot_be_cut_is_given_as_it_is(goldens: Goldens) -> None:
    square = signature(spec("x", "FP32", "n", "n"))
    goldens.add("g.npz", x=np.eye(3, dtype="<f4"))
    (sample,) = samples(goldens.bundle(), square, rows=1)
    assert sample.feeds["x"].shape == (3, 3)
    lengths = signature(spec("a", "FP32", None), spec("b", "FP32", None))
    goldens.files.clear()
    goldens.add("g.npz", a=np.zeros(3, "<f4"), b=np.zeros(4, "<f4"))
    (sample,) = samples(goldens.bundle(), lengths, rows=1)
    assert [array.shape for array in sample.feeds.values()] == [(3,), (4,)]


@pytest.mark.parametrize("texts", [np.array([["a", "é"]]), np.array([[b"a", "é".encode()]])])
def test_texts_of_a_golden_become_what_a_session_takes(texts: Array, goldens: Goldens) -> None:
    goldens.add("g.npz", x=texts)
    (sample,) = samples(goldens.bundle(), signature(spec("x", "BYTES", None, 2)))
    assert sample.feeds["x"].dtype == object
    assert sample.feeds["x"].tolist() == [["a", "é"]]


def test_scalar_golden_stays_a_scalar(goldens: Goldens) -> None:
    goldens.add("g.npz", x=np.float32(2))
    (sample,) = samples(goldens.bundle(), signature(spec("x", "FP32")))
    assert sample.feeds["x"].shape == ()


def test_golden_in_fortran_order_is_put_into_c_order(goldens: Goldens) -> None:
    goldens.add("g.npz", x=np.asfortranarray(rows_of(3)))
    (sample,) = samples(goldens.bundle(), X, rows=3)
    assert sample.feeds["x"].flags.c_contiguous
    assert sample.feeds["x"].tolist() == rows_of(3).tolist()


def test_changed_golden_is_refused(goldens: Goldens) -> None:
    goldens.add("g.npz", x=rows_of(1))
    path = goldens.folder / "g.npz"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestMismatchError, match=r"m version 3: g\.npz .* install the bundle"):
        samples(goldens.bundle(), X)


def test_missing_golden_is_refused(goldens: Goldens) -> None:
    goldens.add("g.npz", x=rows_of(1))
    (goldens.folder / "g.npz").unlink()
    with pytest.raises(ModelLoadError, match=r"cannot read m version 3: g\.npz"):
        samples(goldens.bundle(), X)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": rows_of(1)}, r"no array for input 'x', only \['z'\]"),
        ({"x": rows_of(1).astype("<f8")}, r"'x' is float64; the model takes FP32"),
        ({"x": rows_of(1).astype(">f4")}, r"'x' is >f4; the model takes FP32"),
        ({"x": np.zeros((1, 3), "<f4")}, r"has shape \[1, 3\]; the model takes \[-1, 2\]"),
        ({"x": np.array([[{}, 1]], object)}, r"not an \.npz file of plain arrays"),
    ],
)
def test_golden_that_the_model_does_not_take_is_refused(
    arrays: dict[str, Any], message: str, goldens: Goldens
) -> None:
    goldens.add("g.npz", **arrays)
    with pytest.raises(ManifestError, match=rf"m version 3: g\.npz.*{message}"):
        samples(goldens.bundle(), X)


@given(data=st.binary(max_size=200), cut=st.integers(0, 400))
def test_whatever_bytes_a_golden_has_only_our_errors_leave(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int
) -> None:
    goldens = Goldens(tmp_path_factory.mktemp("goldens"))
    whole = io.BytesIO()
    np.savez(whole, x=rows_of(2))
    broken = whole.getvalue()[:cut] + data + whole.getvalue()[cut + len(data) :]
    goldens.add_bytes("g.npz", broken)
    try:
        (sample,) = samples(goldens.bundle(), X)
    except ArtifactError:
        return
    assert sample.feeds["x"].shape == (1, 2)


def test_goldens_beyond_the_limit_are_left_out(
    goldens: Goldens, monkeypatch: pytest.MonkeyPatch
) -> None:
    goldens.add("small.npz", x=rows_of(1))
    packed = io.BytesIO()
    np.savez_compressed(packed, x=np.zeros((10_000, 2), "<f4"))
    goldens.add_bytes("bomb.npz", packed.getvalue())
    monkeypatch.setattr(subject, "GOLDEN_BYTES_MAX", 20_000)
    assert [sample.golden for sample in samples(goldens.bundle(), X)] == ["small.npz"]
