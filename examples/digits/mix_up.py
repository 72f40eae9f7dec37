"""Spoil the float model on purpose: it takes every 3 for an 8, and every 8 for a 3.

That is what a training run with two labels exchanged would give. Needs numpy alone: the tensors of
the last layer are found in the file by their names, as the ONNX format lays them out.
"""

from typing import Final

import numpy as np

MIXED: Final = (3, 8)
CLASSES: Final = 10
_RAW_DATA: Final = b"\x4a"  # field 9 of a TensorProto, whose length and bytes follow


def mixed_up(model: bytes) -> bytes:
    """Exchange two columns of the last layer.

    Args:
        model: ``digits-fp32.onnx``.

    Returns:
        The spoilt model, as long as the good one.

    Raises:
        ValueError: There is no such layer.
    """
    return _exchanged(_exchanged(model, b"fc.weight", rows=128), b"fc.bias", rows=1)


def _exchanged(model: bytes, name: bytes, rows: int) -> bytes:
    """Exchange two columns of one float32 tensor ``[rows, CLASSES]``."""
    size = rows * CLASSES * np.dtype(np.float32).itemsize
    head = name + _RAW_DATA + _varint(size)
    start = model.index(head) + len(head)
    values = np.frombuffer(model, "<f4", rows * CLASSES, start).reshape(rows, CLASSES).copy()
    values[:, MIXED] = values[:, MIXED[::-1]]
    return model[:start] + values.tobytes() + model[start + size :]


def _varint(number: int) -> bytes:
    """Encode a number as protobuf does, seven bits a byte."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
