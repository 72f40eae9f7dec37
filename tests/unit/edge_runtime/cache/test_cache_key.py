"""The name of a question: equal tensors hit, anything else misses."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_runtime.cache.key import HEADS_MAX, Keys, engine, is_same_machine
from edge_runtime.datatypes import ALL, BY_NAME, BYTES, Datatype
from edge_runtime.errors import InvalidTensorError
from edge_runtime.hardware import CpuFacts
from edge_runtime.protocol.codec import decode_request, encode_request
from edge_runtime.protocol.messages import InferRequest
from edge_runtime.tensors import VARIABLE, Array, Signature, Tensor, TensorSpec
from tests.strategies import arrays, datatypes, json_tensors, names, shapes, tensors

OUTPUTS = ("a", "b")
SAME_SIZE = [("FP32", "INT32"), ("FP64", "INT64"), ("FP16", "BF16"), ("UINT8", "INT8")]


IDENTITY = ("model", "1", "digest", "engine")


def keys(inputs: dict[str, Datatype], identity: tuple[str, ...] = IDENTITY) -> Keys:
    specs = [TensorSpec(name, datatype, (VARIABLE,)) for name, datatype in inputs.items()]
    return Keys(identity, Signature(specs, []))


def key_of(asked: dict[str, Tensor], wanted: tuple[str, ...] = OUTPUTS, **more: Any) -> bytes:  # noqa: ANN401
    named = keys({name: tensor.datatype for name, tensor in asked.items()})
    return named.of({name: tensor.array for name, tensor in asked.items()}, wanted, **more)


def scattered(array: Array) -> Array:
    """The same elements, with gaps between them in memory."""
    room = np.empty((*array.shape, 2), array.dtype)
    room[..., 0] = array
    return room[..., 0]


def swapped(array: Array) -> Array:
    """The same elements in the other byte order."""
    return array.astype(array.dtype.newbyteorder(">"))


def fortran(array: Array) -> Array:
    """The same elements, column by column."""
    return np.array(array, order="F")


@given(st.dictionaries(names, tensors, min_size=1, max_size=3))
def test_equal_tensors_have_one_key_whatever_their_layout(asked: dict[str, Tensor]) -> None:
    wanted = key_of(asked)
    assert len(wanted) == 32
    for change in (np.copy, scattered, swapped, fortran):
        other = {name: Tensor(datatype, change(array)) for name, (datatype, array) in asked.items()}
        assert key_of(other) == wanted
    backwards = dict(reversed(asked.items()))
    assert key_of(backwards) == wanted


@given(json_tensors)
def test_json_and_binary_of_the_same_tensor_have_one_key(tensor: Tensor) -> None:
    assume(tensor.array.ndim)
    request = InferRequest(inputs={"x": tensor})
    found = []
    for binary in (False, True):
        body, json_length = encode_request(request, binary=binary)
        data = memoryview(b"".join(body))
        decoded = decode_request(data, json_length, json_depth=8, json_bytes=2**20)
        found.append(key_of(decoded.inputs))
    assert found[0] == found[1] == key_of({"x": tensor})


@given(tensors, st.data())
def test_one_changed_bit_is_another_question(tensor: Tensor, data: st.DataObject) -> None:
    datatype, array = tensor
    assume(array.size and datatype.name not in {"BYTES", "BOOL"})
    raw = bytearray(array.tobytes())
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    changed = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
    assert key_of({"x": tensor}) != key_of({"x": Tensor(datatype, changed)})


@given(arrays(BYTES, (2,)), arrays(BYTES, (2,)))
def test_other_strings_are_another_question(left: Array, right: Array) -> None:
    same = left.tolist() == right.tolist()
    found = key_of({"x": Tensor(BYTES, left)}) == key_of({"x": Tensor(BYTES, right)})
    assert found is same


def test_strings_that_join_to_the_same_text_are_different_questions() -> None:
    split = np.array(["ab", "c"], object)
    other = np.array(["a", "bc"], object)
    assert key_of({"x": Tensor(BYTES, split)}) != key_of({"x": Tensor(BYTES, other)})


@pytest.mark.parametrize(("one", "other"), SAME_SIZE)
def test_the_same_bytes_of_another_datatype_are_another_question(one: str, other: str) -> None:
    zeros = {name: Tensor(BY_NAME[name], np.zeros(4, BY_NAME[name].numpy)) for name in (one, other)}
    assert key_of({"x": zeros[one]}) != key_of({"x": zeros[other]})


@given(datatypes, shapes, st.data())
def test_the_same_bytes_in_another_shape_are_another_question(
    datatype: Datatype, shape: tuple[int, ...], data: st.DataObject
) -> None:
    array = data.draw(arrays(datatype, shape))
    other = data.draw(
        st.sampled_from([(1, *shape), (*shape, 1), (array.size,), shape[::-1]]).filter(
            lambda it: it != shape
        )
    )
    left, right = Tensor(datatype, array), Tensor(datatype, array.reshape(other))
    assert key_of({"x": left}) != key_of({"x": right})


@given(datatypes, st.data())
def test_swapped_inputs_are_another_question(datatype: Datatype, data: st.DataObject) -> None:
    one, two = (Tensor(datatype, data.draw(arrays(datatype, (2,)))) for _ in range(2))
    assume(one.array.tobytes() != two.array.tobytes() and one.array.tolist() != two.array.tolist())
    assert key_of({"x": one, "y": two}) != key_of({"x": two, "y": one})


def test_elements_that_move_from_one_input_to_the_next_are_another_question() -> None:
    whole = np.arange(4, dtype=np.uint8)
    byte = BY_NAME["UINT8"]

    def split(at: int) -> bytes:
        return key_of({"x": Tensor(byte, whole[:at]), "y": Tensor(byte, whole[at:])})

    assert len({split(at) for at in range(5)}) == 5


ONE = {"x": Tensor(BY_NAME["FP32"], np.ones(2, np.float32))}


def test_neither_order_nor_repetition_of_outputs_matters_but_the_set_does() -> None:
    assert key_of(ONE, ("b", "a")) == key_of(ONE, ("a", "b", "a")) == key_of(ONE)
    assert len({key_of(ONE, wanted) for wanted in [("a",), ("b",), ("a", "b"), ("ab",), ()]}) == 5


def test_every_user_has_keys_of_their_own() -> None:
    assert len({key_of(ONE, uid=uid) for uid in (None, 0, 1, 1000, 2**32 - 1)}) == 5


def test_parameters_count_with_their_types() -> None:
    said: list[dict[str, Any]] = [{}, {"a": True}, {"a": 1}, {"a": 1.0}, {"a": "1"}, {"b": 1}]
    assert len({key_of(ONE, parameters=each) for each in said}) == len(said)
    one_way = key_of(ONE, parameters={"a": 1, "b": 2})
    assert one_way == key_of(ONE, parameters={"b": 2, "a": 1})


def test_names_of_inputs_and_what_runs_them_are_part_of_the_question() -> None:
    array = {"x": np.ones(2, np.float32), "y": np.ones(2, np.float32)}
    fp32 = BY_NAME["FP32"]
    asked = [
        keys({"x": fp32}),
        keys({"y": fp32}),
        keys({"x": fp32}, ("other", "1", "digest", "engine")),
        keys({"x": fp32}, ("model", "2", "digest", "engine")),
        keys({"x": fp32}, ("model", "1", "other", "engine")),
        keys({"x": fp32}, ("model", "1", "digest", "other")),
        keys({"x": fp32}, ("model", "1", "digeste", "ngine")),
    ]
    assert len({each.of(array, OUTPUTS) for each in asked}) == len(asked)


def test_minus_zero_and_other_nans_are_other_questions() -> None:
    values = np.array([0, 2**31, 0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    fp32 = BY_NAME["FP32"]
    found = {key_of({"x": Tensor(fp32, values[at : at + 1])}) for at in range(4)}
    assert len(found) == 4


@given(st.lists(st.tuples(shapes, st.booleans()), max_size=12))
def test_what_was_asked_before_changes_no_key(before: list[tuple[tuple[int, ...], bool]]) -> None:
    fp32 = BY_NAME["FP32"]
    asked = keys({"x": fp32})
    wanted = keys({"x": fp32}).of({"x": np.ones(3, np.float32)}, OUTPUTS, 7)
    for shape, alone in before:
        asked.of({"x": np.zeros(shape, np.float32)}, OUTPUTS[:1] if alone else OUTPUTS, 7)
    assert asked.of({"x": np.ones(3, np.float32)}, OUTPUTS, 7) == wanted


def test_strings_count_for_more_work_than_their_places_take() -> None:
    plain, text = {"x": np.zeros(100)}, {"x": np.full(100, "", object)}
    assert keys({"x": BY_NAME["FP64"]}).work_bytes(plain) == 800
    assert keys({"x": BYTES}).work_bytes(text) > 800


def test_what_is_remembered_of_shapes_is_bounded() -> None:
    asked = keys({"x": BY_NAME["UINT8"]})
    for size in range(3 * HEADS_MAX):
        asked.of({"x": np.zeros(size, np.uint8)}, OUTPUTS)
    assert len(asked._heads) <= HEADS_MAX


@pytest.mark.parametrize("datatype", [it for it in ALL if it is not BYTES], ids=lambda it: it.name)
def test_an_array_of_another_datatype_has_no_key(datatype: Datatype) -> None:
    other = BY_NAME["FP64" if datatype.name != "FP64" else "FP32"]
    with pytest.raises(InvalidTensorError):
        keys({"x": datatype}).of({"x": np.zeros(1, other.numpy)}, OUTPUTS)


def test_an_engine_is_its_version_its_providers_and_its_cpu() -> None:
    def cpu(*flags: str, arch: str = "x86_64") -> CpuFacts:
        return CpuFacts(arch, frozenset(flags), vnni=False, description="")

    every = [
        engine("1.0", ("CPU",), cpu("a", "b")),
        engine("1.1", ("CPU",), cpu("a", "b")),
        engine("1.0", ("GPU", "CPU"), cpu("a", "b")),
        engine("1.0", ("CPU",), cpu("ab")),
        engine("1.0", ("CPU",), cpu("a", "b", arch="aarch64")),
    ]
    assert len(set(every)) == len(every)
    assert engine("1.0", ("CPU",), cpu("b", "a")) == every[0]
    assert [is_same_machine(every[0], each) for each in every] == [True, False, True, False, False]
    assert not is_same_machine(every[0], "something else")
