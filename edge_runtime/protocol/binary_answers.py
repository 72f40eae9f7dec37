"""Answers that are binary throughout: their JSON is the same again and again, so it is kept."""

from functools import lru_cache

import msgspec

from edge_runtime.protocol.messages import InferResponse
from edge_runtime.protocol.schemas import InferOutput, InferResponseBody
from edge_runtime.tensors import to_buffer

_encode = msgspec.json.Encoder().encode
_Described = tuple[str, str, tuple[int, ...], int]  # an output's name, datatype, shape, bytes


def encode_binary(response: InferResponse) -> tuple[list[bytes | memoryview], int] | None:
    """Encode an answer, if it is nothing but binary tensors.

    Args:
        response: The answer.

    Returns:
        The body's parts and the length of the JSON that is the first; ``None``: something else is
        in it.
    """
    if response.id or response.parameters:
        return None
    tensors: list[bytes | memoryview] = []
    described: list[_Described] = []
    for tensor in response.outputs:
        if not tensor.binary:
            return None
        data = to_buffer(tensor.datatype, tensor.array)
        tensors.append(data)
        described.append((tensor.name, tensor.datatype.name, tensor.array.shape, len(data)))
    if not tensors:
        return None
    text = _text(response.model_name, response.model_version, tuple(described))
    return [text, *tensors], len(text)


@lru_cache(maxsize=256)
def _text(name: str, version: str, described: tuple[_Described, ...]) -> bytes:
    outputs = [
        InferOutput(output, datatype, shape, {"binary_data_size": size_bytes})
        for output, datatype, shape, size_bytes in described
    ]
    return _encode(InferResponseBody(name, version, outputs))
