"""Outputs of two versions beside each other: what agrees, what is bad, and nothing raises."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import ArrayLike, DTypeLike

from edge_runtime.datatypes import BF16, BY_NAME
from edge_runtime.manifest import Comparison as Rules
from edge_runtime.manifest import Tolerance
from edge_runtime.release.compare import Comparison, OutputComparison, compare
from edge_runtime.tensors import Array, TensorSpec

FP32 = BY_NAME["FP32"]
RULES = Rules()
BY_COSINE = Rules(compare_top=False)


def spec(
    shape: tuple[int, ...], datatype: str = "FP32", labels: tuple[str, ...] = ()
) -> TensorSpec:
    return TensorSpec("scores", BY_NAME[datatype], shape, labels=labels)


def one(
    active: ArrayLike,
    candidate: ArrayLike,
    described: TensorSpec | None = None,
    rules: Rules = RULES,
    *,
    dtype: DTypeLike = np.float32,
    tolerances: Sequence[Tolerance] = (),
) -> OutputComparison:
    ours, theirs = np.array(candidate, dtype), np.array(active, dtype)
    described = described or spec((-1,) * ours.ndim)
    (output,) = compare([theirs], [ours], [described], rules, tolerances).outputs
    return output


# -- scores of classes ---------------------------------------------------------------------------


def test_scores_agree_where_the_highest_is_at_the_same_place() -> None:
    output = one([[0.1, 0.9], [0.8, 0.2]], [[0.3, 0.7], [0.6, 0.4]])
    assert (output.agreement, output.top1_agreement, output.agrees) == (1.0, 1.0, True)
    assert output.max_abs_difference == pytest.approx(0.2)


def test_agreement_is_the_share_of_rows() -> None:
    output = one(
        [[0.1, 0.9], [0.8, 0.2], [1.0, 0.0], [0.0, 1.0]],
        [[0.3, 0.7], [0.4, 0.6], [1.0, 0.0], [0.0, 1.0]],
    )
    assert (output.agreement, output.top1_agreement, output.agrees) == (0.75, 0.75, False)


def test_a_model_without_an_opinion_does_not_agree() -> None:
    random = np.random.default_rng(3)
    scores = random.random((100, 10))
    assert one(scores, np.zeros((100, 10))).agreement < 0.3


def test_labels_make_scores_of_any_output_that_has_as_many_columns() -> None:
    labels = spec((3,), "INT32", ("cat", "dog", "cow"))
    assert one([1, 5, 2], [2, 9, 3], labels, dtype=np.int32).top1_agreement == 1
    assert one([1, 5, 2], [2, 1, 3], labels, dtype=np.int32).agreement == 0
    other = spec((4,), "INT32", ("cat", "dog", "cow"))
    assert one([1, 5, 2, 0], [2, 9, 3, 0], other, dtype=np.int32).top1_agreement is None


def test_a_volume_is_no_table_of_scores_unless_the_manifest_says_so() -> None:
    active = np.zeros((1, 2, 2))
    active[0, :, 0] = 1
    candidate = active.copy()
    candidate[0, 0] = [0.4, 0.5]
    assert one(active, candidate).top1_agreement is None
    said = one(active, candidate, rules=Rules(compare_top=True))
    assert said.top1_agreement == said.agreement == 0.5


# -- vectors and single numbers ------------------------------------------------------------------


def test_floats_agree_by_their_cosine_where_they_are_no_scores() -> None:
    assert one([[1, 2, 3]], [[1.1, 2, 3]], rules=BY_COSINE).agrees
    turned = one([[1, 2, 3], [1, 0, 0]], [[1, 2, 3], [1, 1, 0]], rules=BY_COSINE)
    assert turned.agreement == 0.5
    assert turned.cosine == pytest.approx(math.sqrt(0.5))
    assert turned.top1_agreement is None


def test_the_floor_of_the_cosine_is_the_manifests() -> None:
    turned = [[1, 2, 3]], [[1, 2, 5]]
    assert one(*turned, rules=Rules(compare_top=False, cosine_floor=0.9)).agrees
    assert not one(*turned, rules=Rules(compare_top=False, cosine_floor=0.99)).agrees


def test_a_vector_of_zeros_is_like_another_only() -> None:
    assert one([[0, 0]], [[0, 0]], rules=BY_COSINE).cosine == 1
    assert one([[0, 0]], [[1, 0]], rules=BY_COSINE).cosine == 0


def test_an_axis_of_fixed_size_is_one_vector_and_a_varying_one_is_rows() -> None:
    active, candidate = [10.0, 20.0, 30.0], [10.0, 20.0, 60.0]
    assert one(active, candidate, spec((3,)), BY_COSINE).agreement == 0
    assert one(active, candidate, spec((-1,)), BY_COSINE).agreement == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("active", "candidate", "agrees"),
    [
        (100.0, 101.0, True),
        (100.0, 1000.0, False),
        (100.0, -100.0, False),
        (0.001, 0.002, True),
        (0.1, 0.9, False),
        (0.0, 0.0, True),
        (1e300, -1e300, False),
        (5e-324, -5e-324, True),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (1.0, math.nan, False),
    ],
)
def test_single_numbers_agree_if_they_are_close(
    active: float, candidate: float, *, agrees: bool
) -> None:
    assert one(active, candidate, dtype=np.float64).agrees is agrees
    column = one([[active]], [[candidate]], dtype=np.float64)
    assert column.agrees is agrees
    assert column.top1_agreement is None


def test_what_is_within_the_tolerance_of_goldens_agrees() -> None:
    turned = [[1, 2, 3]], [[3, 2, 1]]
    assert not one(*turned).agrees
    assert one(*turned, tolerances=[Tolerance(atol=2.0)]).agrees
    assert one(*turned, tolerances=[Tolerance(output="scores", rtol=2.0)]).agrees
    assert not one(*turned, tolerances=[Tolerance(output="other", atol=2.0)]).agrees
    assert not one([[math.inf]], [[1.0]], tolerances=[Tolerance(rtol=1.0)]).agrees


# -- everything else -----------------------------------------------------------------------------


def test_integers_booleans_and_text_agree_if_they_are_equal() -> None:
    assert one([1, 2, 3, 4], [1, 2, 3, 5], dtype=np.int64).agreement == 0.75
    assert one([2**63], [2**63 + 1], dtype=np.uint64).agreement == 0
    assert one([True, False], [True, True], dtype=np.bool_).agreement == 0.5
    assert one(["a", "b"], ["a", "c"], dtype=object).agreement == 0.5
    assert one([["a", "b"], ["c", "d"]], [["a", "b"], ["c", "x"]], dtype=object).agreement == 0.5
    assert one("same", "same", dtype=object).agrees


def test_a_stranger_among_text_is_not_asked_whether_it_is_equal() -> None:
    class Stranger:
        def __eq__(self, other: object) -> bool:
            raise AssertionError

        def __hash__(self) -> int:
            return 0

    first, second = (np.array([Stranger()], object) for _ in range(2))
    assert one(first, second, dtype=object).agreement == 0


def test_bf16_is_compared_as_the_numbers_it_stands_for() -> None:
    def bits(values: list[list[float]]) -> Array:
        return np.asarray(np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)

    described = TensorSpec("scores", BF16, (-1, 2))
    numbers = [[-1.0, 0.5]], [[-2.0, 0.25]]
    (output,) = compare([bits(numbers[0])], [bits(numbers[1])], [described], RULES).outputs
    assert (output.top1_agreement, output.max_abs_difference) == (1.0, 1.0)
    (bad,) = compare([bits(numbers[0])], [bits([[math.nan, 1.0]])], [described], RULES).outputs
    assert bad.candidate_bad


def test_nothing_agrees_with_nothing() -> None:
    assert one(np.zeros((0, 3)), np.zeros((0, 3))).agrees
    assert one(np.zeros((3, 0)), np.zeros((3, 0))).agrees
    assert compare([], [], [], RULES).agrees


def test_another_shape_or_datatype_is_a_problem_in_words() -> None:
    shape = one([[1.0, 2.0]], [[1.0]])
    assert not shape.agrees
    assert shape.problem == "has shape [1, 1], the active version's [1, 2]"
    other = compare([np.zeros(1, np.float32)], [np.zeros(1)], [spec((1,))], RULES)
    assert not other.agrees
    assert other.outputs[0].problem == "is float64, the active version's float32"


def test_an_output_that_one_of_them_lacks_is_a_problem() -> None:
    array = np.zeros((1, 2), np.float32)
    described = [spec((-1, 2)), TensorSpec("boxes", FP32, (-1, 4))]
    result = compare([array, array], [array], described, RULES)
    assert not result.agrees
    assert result.outputs[1].name == "boxes"
    assert "not given by the candidate" in result.outputs[1].problem
    assert not compare([array], [array, array], described, RULES).agrees
    assert compare([array], [array], [], RULES).outputs[0].name == "output 0"


# -- bad values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_where_the_active_version_has_one_is_bad(value: float) -> None:
    for shape in ((1, 4), (1, 1), (4,), ()):
        active = np.ones(shape, np.float32)
        candidate = active.copy()
        candidate[(0,) * len(shape)] = value
        for ours, theirs, bad in (
            (candidate, active, True),
            (active, candidate, False),
            (candidate, candidate, False),
        ):
            result = compare([theirs], [ours], [spec(shape)], RULES)
            assert result.is_bad is bad
            assert not (bad and result.agrees)


def test_a_bad_row_costs_that_row_only() -> None:
    active = np.array([[0, 1], [0, 1], [0, 1], [0, 1]], np.float32)
    candidate = active.copy()
    candidate[2, 0] = np.nan
    result = compare([active], [candidate], [spec((-1, 2))], RULES)
    assert (result.agreement, result.is_bad) == (0.75, True)


def test_the_least_agreeing_output_counts() -> None:
    good, turned = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    result = compare([good, good], [good, turned], [], RULES)
    assert [output.agrees for output in result.outputs] == [True, False]
    assert (result.agreement, result.agrees) == (0.0, False)


# -- whatever comes ------------------------------------------------------------------------------

TOPS = st.sampled_from([None, True, False])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
DTYPES = st.one_of(
    st.sampled_from(["f2", "f4", "f8", "g", "i1", "i8", "u2", "u8", "?", "O", "U0", "U3", "S2"]),
    st.sampled_from(["c8", "m8[s]", "M8[s]", "V0", "V3", "<f4,O", ">f4", ">i2"]),
).map(np.dtype)
TEXTS = st.text(max_size=2) | st.binary(max_size=2) | st.none() | st.floats() | st.lists(st.none())


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[Array, Array]:
    def array(shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Array:
        size = math.prod(shape)
        if dtype.kind == "O":
            made = np.empty(size, object)
            for place in range(size):
                made[place] = draw(TEXTS)
            return made.reshape(shape)
        if dtype.hasobject or not dtype.itemsize:
            return np.zeros(shape, dtype)
        if dtype.kind in "US":
            return (
                np.array(draw(st.lists(st.text("ab"), min_size=size, max_size=size)))
                .astype(dtype)
                .reshape(shape)
            )
        if dtype.kind == "b":
            return (
                np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8).reshape(
                    shape
                )
                > 127
            )
        data = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
        special = draw(st.sampled_from([None, math.nan, math.inf, -math.inf, 0.0]))
        made = np.frombuffer(data, dtype).reshape(shape)
        if special is not None and dtype.kind == "f":
            made = np.where(draw(arrays.arrays(np.bool_, shape)), np.array(special, dtype), made)
        return made

    shape, dtype = draw(SHAPES), draw(DTYPES)
    is_alike = draw(st.booleans())
    other = (shape, dtype) if is_alike else (draw(SHAPES), draw(DTYPES))
    return array(shape, dtype), array(*other)


@given(
    _pairs(),
    st.sampled_from(sorted(BY_NAME)),
    st.lists(st.integers(-1, 4), max_size=4).map(tuple),
    st.builds(Rules, compare_top=TOPS, cosine_floor=st.floats(-1, 1)),
    st.sampled_from([(), (Tolerance(atol=1.0, rtol=1.0),)]),
)
def test_no_pair_of_arrays_raises_or_warns(
    pair: tuple[Array, Array],
    datatype: str,
    shape: tuple[int, ...],
    rules: Rules,
    tolerances: tuple[Tolerance, ...],
) -> None:
    labels = ("a", "b") if len(shape) > 1 else ()
    described = TensorSpec("any", BY_NAME[datatype], shape, labels=labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compare([pair[0]], [pair[1]], [described], rules, tolerances)
    (output,) = result.outputs
    for number in (output.top1_agreement, output.cosine, output.max_abs_difference):
        assert number is None or math.isfinite(number)
    assert 0 <= output.agreement <= 1
    assert not (output.problem and output.agreement)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=Comparison) == result


@given(_pairs(), st.sampled_from(sorted(BY_NAME)), st.builds(Rules, compare_top=TOPS))
def test_everything_agrees_with_itself(
    pair: tuple[Array, Array], datatype: str, rules: Rules
) -> None:
    described = TensorSpec("any", BY_NAME[datatype], ())
    result = compare([pair[0]], [pair[0].copy()], [described], rules)
    assert result.agrees
    assert not result.is_bad
