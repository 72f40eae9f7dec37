"""The JSON part of binary requests, when it comes again."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.protocol import codec
from edge_runtime.protocol.known_json import BYTES_MAX, KnownJsons

NUMERIC = sorted(
    name for name, datatype in BY_NAME.items() if name not in {"BYTES", "BOOL"} and datatype.numpy
)


def _body(inputs: list[tuple[str, str, list[int], bytes]], **fields: object) -> tuple[bytes, int]:
    entries = [
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": len(data)},
        }
        for name, datatype, shape, data in inputs
    ]
    text = json.dumps({"inputs": entries, **fields}).encode()
    return text + b"".join(data for *_, data in inputs), len(text)


@st.composite
def _two_requests(draw: st.DrawFn) -> tuple[list[tuple[str, str, list[int]]], list[bytes]]:
    described: list[tuple[str, str, list[int]]] = []
    for index in range(draw(st.integers(1, 3))):
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        described.append((f"input{index}", draw(st.sampled_from(NUMERIC)), shape))
    size = sum(
        BY_NAME[datatype].size_bytes * int(np.prod(shape, dtype=int))
        for _, datatype, shape in described
    )
    return described, [draw(st.binary(min_size=size, max_size=size)) for _ in range(2)]


@given(requests=_two_requests(), wants_binary=st.booleans())
def test_the_second_request_is_decoded_like_the_first(
    *, requests: tuple[list[tuple[str, str, list[int]]], list[bytes]], wants_binary: bool
) -> None:
    described, binaries = requests
    parameters = {"binary_data_output": wants_binary, "priority": 3, "timeout": 17}
    for binary in (*binaries, *binaries):
        inputs, start = [], 0
        for name, datatype, shape in described:
            size = BY_NAME[datatype].size_bytes * int(np.prod(shape, dtype=int))
            inputs.append((name, datatype, shape, binary[start : start + size]))
            start += size
        body, length = _body(inputs, parameters=parameters, outputs=[{"name": "y"}])
        request = codec.decode_request(body, length)
        assert list(request.inputs) == [name for name, *_ in inputs]
        for name, datatype, shape, data in inputs:
            tensor = request.inputs[name]
            assert tensor.datatype.name == datatype
            assert tensor.array.shape == tuple(shape)
            assert tensor.array.tobytes() == data
            assert tensor.array.flags.aligned
        assert (request.binary_outputs, request.priority, request.timeout_us) == (
            wants_binary,
            3,
            17,
        )
        assert request.outputs is not None
        assert [output.name for output in request.outputs] == ["y"]


def test_requests_share_nothing_that_one_of_them_could_change() -> None:
    body, length = _body([("x", "FP32", [1, 2], bytes(8))])
    first, second = (codec.decode_request(body, length) for _ in range(2))
    third = codec.decode_request(body, length)
    second.inputs["other"] = second.inputs.pop("x")
    second.cancelled = True
    assert set(first.inputs) == set(third.inputs) == {"x"}
    assert not third.cancelled


def test_a_binary_part_of_another_length_is_refused_as_before() -> None:
    body, length = _body([("x", "FP32", [1, 2], bytes(8))])
    codec.decode_request(body, length)
    for wrong in (body[:-1], body + b"\0"):
        with pytest.raises(EdgeRuntimeError, match=r"reaches beyond the body|belong to no input"):
            codec.decode_request(wrong, length)


def test_the_limit_of_json_holds_for_what_is_known_too() -> None:
    body, length = _body([("x", "FP32", [1, 2], bytes(8))])
    codec.decode_request(body, length)
    with pytest.raises(EdgeRuntimeError, match=r"limits\.json_bytes"):
        codec.decode_request(body, length, json_bytes=length - 1)


def test_every_truth_value_is_looked_at_again() -> None:
    good, length = _body([("x", "BOOL", [2], b"\0\1")])
    codec.decode_request(good, length)
    codec.decode_request(good, length)
    with pytest.raises(EdgeRuntimeError, match="BOOL element"):
        codec.decode_request(good[:-1] + b"\2", length)


def test_what_is_remembered_is_bounded_in_number_and_size() -> None:
    known = KnownJsons()
    for index in range(1000):
        body, length = _body([(f"x{index}", "FP32", [1], bytes(4))])
        request = codec.decode_request(body, length)
        inputs = codec._request_decoder.decode(body[:length]).inputs
        known.keep(body[:length], request, inputs, 4)
        assert known.find(body[:length], 4) is not None
    assert len(known._known) <= 128
    long, length = _body([("x" * BYTES_MAX, "FP32", [1], bytes(4))])
    codec.decode_request(long, length)
    assert long[:length] not in codec._known._known


def test_requests_with_an_id_are_not_remembered() -> None:
    body, length = _body([("x", "FP32", [1], bytes(4))], id="7")
    assert codec.decode_request(body, length).id == "7"
    assert codec.decode_request(body, length).id == "7"
    assert body[:length] not in codec._known._known
