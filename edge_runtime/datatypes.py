"""The datatypes of the Open Inference Protocol, once, with their names in every other system.

Imports nothing: the manifest and the client need this table without numpy.
"""

from dataclasses import dataclass
from typing import Final, Literal

JsonKind = Literal["float", "int", "bool", "str", "none"]


@dataclass(frozen=True, slots=True, eq=False)
class Datatype:
    """One datatype.

    Attributes:
        name: The protocol's name, for example ``FP32``.
        size_bytes: Bytes per element on the wire; 0 for ``BYTES``, whose elements vary.
        numpy: numpy's name, little-endian. ``BF16`` travels as its 16 raw bits in ``<u2``.
        pack: Code of one element for ``struct``, or empty where JSON cannot carry it.
        json: What a JSON element of it must be; ``none`` where only binary is allowed
            (Triton: FP16 and BF16 have no JSON form).
        onnx: Number in ONNX's ``TensorProto.DataType``.
        ort: ONNX Runtime's name of the tensor type.
        triton: Name in Triton's model configuration.
    """

    name: str
    size_bytes: int
    numpy: str
    pack: str
    json: JsonKind
    onnx: int
    ort: str
    triton: str


ALL: Final = (
    Datatype("BOOL", 1, "|b1", "?", "bool", 9, "tensor(bool)", "TYPE_BOOL"),
    Datatype("UINT8", 1, "|u1", "B", "int", 2, "tensor(uint8)", "TYPE_UINT8"),
    Datatype("UINT16", 2, "<u2", "H", "int", 4, "tensor(uint16)", "TYPE_UINT16"),
    Datatype("UINT32", 4, "<u4", "I", "int", 12, "tensor(uint32)", "TYPE_UINT32"),
    Datatype("UINT64", 8, "<u8", "Q", "int", 13, "tensor(uint64)", "TYPE_UINT64"),
    Datatype("INT8", 1, "|i1", "b", "int", 3, "tensor(int8)", "TYPE_INT8"),
    Datatype("INT16", 2, "<i2", "h", "int", 5, "tensor(int16)", "TYPE_INT16"),
    Datatype("INT32", 4, "<i4", "i", "int", 6, "tensor(int32)", "TYPE_INT32"),
    Datatype("INT64", 8, "<i8", "q", "int", 7, "tensor(int64)", "TYPE_INT64"),
    Datatype("FP16", 2, "<f2", "", "none", 10, "tensor(float16)", "TYPE_FP16"),
    Datatype("BF16", 2, "<u2", "", "none", 16, "tensor(bfloat16)", "TYPE_BF16"),
    Datatype("FP32", 4, "<f4", "f", "float", 1, "tensor(float)", "TYPE_FP32"),
    Datatype("FP64", 8, "<f8", "d", "float", 11, "tensor(double)", "TYPE_FP64"),
    Datatype("BYTES", 0, "|O", "", "str", 8, "tensor(string)", "TYPE_STRING"),
)

BY_NAME: Final = {datatype.name: datatype for datatype in ALL}
BY_ORT: Final = {datatype.ort: datatype for datatype in ALL}
BOOL: Final = BY_NAME["BOOL"]
BF16: Final = BY_NAME["BF16"]
BYTES: Final = BY_NAME["BYTES"]
# numpy names are ambiguous for 16 bits: an array of them is UINT16; BF16 is always said.
BY_NUMPY: Final = {datatype.numpy: datatype for datatype in ALL if datatype is not BF16}
