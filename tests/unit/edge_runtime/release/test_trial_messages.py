"""Messages of a trial arrive as they were, and what is none is refused whatever it is."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from edge_runtime.datatypes import ALL, BF16, BYTES, Datatype
from edge_runtime.errors import InvalidTensorError, ProtocolError
from edge_runtime.release import trial_messages
from edge_runtime.release.trial_messages import (
    HEAD,
    Ask,
    Compared,
    Ready,
    Tried,
    Try,
    frame,
    join,
    lengths,
    read_answer,
    read_order,
    split,
)
from edge_runtime.tensors import Array, Signature, TensorSpec
from tests.models import add_constant
from tests.trials import DEVICE, subject

names = st.text(min_size=1, max_size=5)
shapes = numpy_strategies.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Datatype, Array]:
    datatype = draw(st.sampled_from(ALL))
    shape = draw(shapes)
    if datatype is BYTES:
        texts = st.text(st.characters(codec="utf-8"), max_size=4)
        return datatype, draw(numpy_strategies.arrays(object, shape, elements=texts))
    return datatype, draw(numpy_strategies.arrays(np.dtype(datatype.numpy), shape))


def signature(found: Mapping[str, tuple[Datatype, Array]]) -> Signature:
    return Signature(
        [TensorSpec(name, datatype, array.shape) for name, (datatype, array) in found.items()], []
    )


@given(st.dictionaries(names, tensors(), max_size=4))
def test_inputs_arrive_as_they_were(found: dict[str, tuple[Datatype, Array]]) -> None:
    feeds = {name: array for name, (_, array) in found.items()}
    heads, parts = split(feeds)
    data = memoryview(b"".join(map(bytes, parts)))
    arrived = join(heads, data, signature(found))
    assert arrived.keys() == feeds.keys()
    for name, array in feeds.items():
        assert arrived[name].dtype == array.dtype
        assert arrived[name].shape == array.shape
        if array.dtype == object:
            assert arrived[name].tolist() == array.tolist()
        else:
            assert arrived[name].tobytes() == array.tobytes()


@given(st.dictionaries(names, tensors(), min_size=1, max_size=3), st.data())
def test_other_inputs_than_the_model_takes_are_refused(
    found: dict[str, tuple[Datatype, Array]], data: st.DataObject
) -> None:
    heads, parts = split({name: array for name, (_, array) in found.items()})
    body = memoryview(b"".join(map(bytes, parts)))
    left_out = data.draw(st.sampled_from(sorted(found)))
    kept = [head for head in heads if head.name != left_out]
    with pytest.raises(InvalidTensorError, match="the model takes"):
        join(kept, body, signature(found))


def test_bytes_that_are_missing_are_noticed() -> None:
    array = np.ones((2, 2), "<f4")
    heads, parts = split({"x": array})
    specs = signature({"x": (ALL[11], array)})
    with pytest.raises(InvalidTensorError, match="needs 16 bytes"):
        join(heads, memoryview(bytes(parts[0])[:-1]), specs)


def test_bits_of_bf16_are_told_from_other_integers_by_the_signature() -> None:
    array = np.ones((1, 2), BF16.numpy)
    heads, parts = split({"x": array})
    arrived = join(heads, memoryview(bytes(parts[0])), signature({"x": (BF16, array)}))
    assert arrived["x"].dtype == np.dtype("<u2")


def test_more_inputs_than_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_messages, "TENSORS_BYTES_MAX", 15)
    with pytest.raises(InvalidTensorError, match="inputs of 16 bytes are not tried out"):
        split({"x": np.ones((2, 2), "<f4")})


def test_orders_arrive_as_they_were(tmp_path: Path) -> None:
    candidate = subject(add_constant(tmp_path / "m.onnx", 1.0))
    order = Try(subject=candidate, device=DEVICE, runs=3, runs_cpu_s=0.5)
    sent = frame(order)
    header_bytes, tensors_bytes = lengths(sent[: HEAD.size], 2**20, 0)
    assert (header_bytes, tensors_bytes) == (len(sent) - HEAD.size, 0)
    assert read_order(sent[HEAD.size :]) == order


def test_numbers_that_json_has_not_arrive() -> None:
    answer = Compared(active_s=float("inf"), candidate_s=1e-9)
    assert read_answer(frame(answer)[HEAD.size :]) == answer


@given(st.binary(max_size=200))
def test_nonsense_is_refused(header: bytes) -> None:
    for read in (read_order, read_answer):
        try:
            found = read(header)
        except ProtocolError:
            continue
        assert isinstance(found, Ask | Compared | Ready | Tried)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_nobody_receives_more_than_is_allowed(header: int, body: int) -> None:
    head = HEAD.pack(header, body)
    if header <= 100 and body <= 10:
        assert lengths(head, 100, 10) == (header, body)
        return
    with pytest.raises(ProtocolError, match="at most 100 and 10 are allowed"):
        lengths(head, 100, 10)
