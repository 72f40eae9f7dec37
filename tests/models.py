"""Tiny ONNX models made on the spot."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from edge_runtime.datatypes import BY_NAME

Shape = Sequence[int | str]
OPSET = 19
IR_VERSION = 9


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    note: str = "",
) -> Path:
    """Write a model made of these parts, in one step; a note changes its digest only."""
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    model.doc_string = note
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.new")
    written.write_bytes(model.SerializeToString())
    written.replace(path)
    return path


def value(name: str, datatype: str = "FP32", shape: Shape = ("batch", 2)) -> onnx.ValueInfoProto:
    """Declare an input or output, in the protocol's words."""
    return helper.make_tensor_value_info(name, BY_NAME[datatype].onnx, list(shape))


def identity(path: Path, datatype: str = "FP32", shape: Shape = ("batch", 2)) -> Path:
    """``y = x``, in any datatype."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [node], [value("x", datatype, shape)], [value("y", datatype, shape)])


def add_constant(path: Path, constant: float, shape: Shape = ("batch", 2), note: str = "") -> Path:
    """``y = x + constant``: versions that can be told apart by their answers."""
    tensor = helper.make_tensor("c", TensorProto.FLOAT, [1], [constant])
    node = helper.make_node("Add", ["x", "c"], ["y"])
    inputs, outputs = [value("x", shape=shape)], [value("y", shape=shape)]
    return save(path, [node], inputs, outputs, [tensor], note=note)


def two_inputs(path: Path) -> Path:
    """``sum = a + b`` and ``difference = a - b``, FP32 ``[batch, 2]``."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
    ]
    return save(path, nodes, [value("a"), value("b")], [value("sum"), value("difference")])


def divide(path: Path) -> Path:
    """``y = x / 0``: infinity, or NaN for 0."""
    tensor = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    node = helper.make_node("Div", ["x", "zero"], ["y"])
    return save(path, [node], [value("x")], [value("y")], [tensor])


def gather(path: Path, table: Sequence[float] = (10.0, 20.0, 30.0)) -> Path:
    """``y = table[x]``: an index outside the table makes ONNX Runtime refuse the input."""
    tensor = helper.make_tensor("table", TensorProto.FLOAT, [len(table)], table)
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    shape = ("batch",)
    return save(path, [node], [value("x", "INT64", shape)], [value("y", "FP32", shape)], [tensor])


def slow(path: Path, size: int = 512, layers: int = 8) -> Path:
    """Square matrix products: ``[batch, size]``, milliseconds per row; ``y`` is all zeros."""
    tensor = helper.make_tensor(
        "w", TensorProto.FLOAT, [size, size], bytes(4 * size * size), raw=True
    )
    names = ["x", *(f"h{layer}" for layer in range(layers - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [first, "w"], [second]) for first, second in pairwise(names)
    ]
    shape = ("batch", size)
    return save(path, nodes, [value("x", shape=shape)], [value("y", shape=shape)], [tensor])


def identities(path: Path, inputs: Sequence[tuple[str, Shape]]) -> Path:
    """``y0 = x0``, ``y1 = x1`` and so on: a datatype and a shape each."""
    nodes = [
        helper.make_node("Identity", [f"x{place}"], [f"y{place}"]) for place in range(len(inputs))
    ]
    taken, given = (
        [value(f"{letter}{place}", *each) for place, each in enumerate(inputs)] for letter in "xy"
    )
    return save(path, nodes, taken, given)


def less_mean(path: Path) -> Path:
    """``y = x - mean of all rows``: rows are not independent of each other."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return save(path, nodes, [value("x")], [value("y")], [axes])


def some_rows(path: Path) -> Path:
    """``y`` has those rows of ``x`` whose first number is positive, so perhaps fewer."""
    tensors = [
        helper.make_tensor("first", TensorProto.INT64, [], [0]),
        helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]),
    ]
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
        helper.make_node("Greater", ["column", "zero"], ["wanted"]),
        helper.make_node("Compress", ["x", "wanted"], ["y"], axis=0),
    ]
    return save(path, nodes, [value("x")], [value("y", shape=("some", 2))], tensors)


def dynamically_quantized(path: Path, *, tokens: bool = False) -> Path:
    """One layer as dynamic quantization makes it: the largest value of a run scales all rows.

    With ``tokens`` its input is INT64 ``[batch, length]``, which an embedding turns into numbers.
    """
    width, source = 8, "x"
    weights = bytes((41 * place) % 256 for place in range(3 * width))  # any that differ
    numbers = [(place % 7 - 3) / 2 * (1 + place // width) for place in range(5 * width)]
    tensors = [
        helper.make_tensor("weights", TensorProto.INT8, [width, 3], weights, raw=True),
        helper.make_tensor("unit", TensorProto.FLOAT, [1], [0.01]),
    ]
    nodes = []
    taken, given = value("x", shape=("batch", width)), value("y", shape=("batch", 3))
    if tokens:
        tensors.append(helper.make_tensor("table", TensorProto.FLOAT, [5, width], numbers))
        nodes.append(helper.make_node("Gather", ["table", "x"], ["embedded"]))
        taken, source = value("x", "INT64", ("batch", "length")), "embedded"
        given = value("y", shape=("batch", "length", 3))
    nodes += [
        helper.make_node("DynamicQuantizeLinear", [source], ["quantized", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["quantized", "weights", "zero"], ["product"]),
        helper.make_node("Cast", ["product"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "unit"], ["factor"]),
        helper.make_node("Mul", ["number", "factor"], ["y"]),
    ]
    return save(path, nodes, [taken], [given], tensors)
