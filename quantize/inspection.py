"""What a model file holds, and how much of its work could be done in integers. Runs nothing."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto

from quantize.model import storage
from quantize.model.architecture import transformer_type
from quantize.model.operators import STANDARD, elements, tensors
from quantize.model.shapes import dimensions, with_shapes
from quantize.model.source import open_model
from quantize.passes.constants import constant_nodes
from quantize.portability import is_portable
from quantize.records import Record
from quantize.reports.wording import percent, size

Shapes = Mapping[str, tuple[int | None, ...]]

_FLOAT_PRODUCTS: Final = frozenset({"Attention", "Conv", "ConvTranspose", "Gemm", "LSTM", "MatMul"})


class TensorFacts(Record, frozen=True):
    """An input or output of a model.

    Attributes:
        name: As the model declares it.
        datatype: Of its elements, in ONNX's words.
        shape: Elements per axis, or the name of an axis that varies; ``None``: unknown.
    """

    name: str
    datatype: str
    shape: tuple[int | str, ...] | None


class OperatorFacts(Record, frozen=True):
    """All nodes of one type.

    Attributes:
        operator: The type.
        nodes: How many there are.
        parameters: Elements of the constants they read; shared ones count each time.
        products: Multiplications of one run, where every axis that varies has one element.
    """

    operator: str
    nodes: int
    parameters: int
    products: int


class Inspection(Record, frozen=True):
    """Facts of a model file.

    Attributes:
        file: Its name.
        sha256: Of the file and of the files it reads.
        ir_version: Version of the file format.
        opset: Version of ONNX's own operators.
        domains: Version of each domain of operators.
        size_bytes: Of the file and of the files it reads.
        external: Files it reads.
        inputs: What must be fed.
        outputs: What it gives.
        parameters: Stored elements by datatype.
        nodes: Number of nodes, subgraphs included.
        operators: By type; those with most work first, of the main graph.
        products: Multiplications of one run.
        quantizable_share: Share of them in float operators with constant weights: 0 to 1.
        grouped_share: Share of them in convolutions of groups, which gain little.
        transformer: Which transformer optimiser fits; empty: none.
        is_quantized: Whether it is quantised already.
        portable: Whether it gives the same on x86 CPUs without VNNI; ``None``: it is float.
        portability: Why.
    """

    file: str
    sha256: str
    ir_version: int
    opset: int
    domains: dict[str, int]
    size_bytes: int
    external: tuple[str, ...]
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    parameters: dict[str, int]
    nodes: int
    operators: tuple[OperatorFacts, ...]
    products: int
    quantizable_share: float
    grouped_share: float
    transformer: str
    is_quantized: bool
    portable: bool | None
    portability: str


def inspect(path: Path) -> Inspection:
    """Look at a model file, float or quantised.

    Raises:
        BadInputError: It is not a model that can be used; the message says why.
    """
    source = open_model(path, quantized_too=True)
    model = storage.load_graph(path)
    inputs = tuple(_tensor(each) for each in model.graph.input if each.name in source.inputs)
    outputs = tuple(_tensor(each) for each in model.graph.output)
    parameters: Counter[str] = Counter()
    for tensor in tensors(model):
        parameters[_datatype(tensor.data_type)] += elements(tensor)
    transformer = transformer_type(model)
    work = _Work(model)
    portability = is_portable(path) if source.is_quantized else None
    return Inspection(
        file=path.name,
        sha256=source.sha256,
        ir_version=source.ir_version,
        opset=source.opset,
        domains=dict(source.domains),
        size_bytes=source.size_bytes,
        external=source.external,
        inputs=inputs,
        outputs=outputs,
        parameters=dict(parameters.most_common()),
        nodes=source.nodes,
        operators=work.operators,
        products=work.products,
        quantizable_share=work.quantizable / max(work.products, 1),
        grouped_share=work.grouped / max(work.products, 1),
        transformer=transformer,
        is_quantized=source.is_quantized,
        portable=portability.portable if portability else None,
        portability=portability.reason if portability else "",
    )


def as_text(facts: Inspection) -> str:
    """Write an inspection for a person, without a line break at the end."""
    domains = ", ".join(f"{name or 'ONNX'} {version}" for name, version in facts.domains.items())
    stored = ", ".join(f"{count:,} {name}" for name, count in facts.parameters.items())
    lines = [
        f"{facts.file}: {size(facts.size_bytes)}, opset {facts.opset}, format {facts.ir_version}",
        f"  sha256     {facts.sha256}",
        f"  operators  of {domains}",
        f"  stored     {stored or 'nothing'}",
        *(f"  weights in {name}" for name in facts.external),
        *(f"  input      {_shown(each)}" for each in facts.inputs),
        *(f"  output     {_shown(each)}" for each in facts.outputs),
        f"  work       {facts.products:,} products a run, where axes that vary have one element",
    ]
    if facts.is_quantized:
        answer = "portable" if facts.portable else "not portable"
        lines.append(f"  quantised  yes, {answer}: {facts.portability}")
    else:
        grouped = f", {percent(facts.grouped_share)} grouped" if facts.grouped_share else ""
        lines.append(f"  quantised  no; {percent(facts.quantizable_share)} of it could be{grouped}")
    if facts.transformer:
        lines.append(f"  kind       transformer ({facts.transformer})")
    width = max((len(each.operator) for each in facts.operators), default=0)
    lines.append(f"  {'operator':<{width}}  nodes  parameters         products")
    lines.extend(
        f"  {each.operator:<{width}}  {each.nodes:5}  {each.parameters:10,}  {each.products:15,}"
        for each in facts.operators
    )
    return "\n".join(lines)


class _Work:
    """Counts the products of the main graph; changes the model.

    Attributes:
        operators: By type, most work first.
        products: Of all nodes.
        quantizable: Of float nodes with constant weights.
        grouped: Of convolutions of groups.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        _fix_axes(model)
        shapes = dimensions(with_shapes(model))
        stored = {tensor.name: elements(tensor) for tensor in model.graph.initializer}
        for node in constant_nodes(model):  # they will be stored before anything is quantised
            known = {name: shapes[name] for name in node.output if name in shapes}
            stored.update({name: _size(shape) for name, shape in known.items()})
        nodes: Counter[str] = Counter()
        parameters: Counter[str] = Counter()
        products: Counter[str] = Counter()
        self.quantizable = self.grouped = 0
        for node in model.graph.node:
            own = node.domain in STANDARD
            name = node.op_type if own else f"{node.domain}.{node.op_type}"
            work = _products(node, shapes)
            nodes[name] += 1
            parameters[name] += sum(stored.get(each, 0) for each in node.input)
            products[name] += work
            weighted = node.op_type in _FLOAT_PRODUCTS
            if weighted and any(each in stored for each in node.input[:2]):
                self.quantizable += work
            if node.op_type in {"Conv", "QLinearConv"} and _attribute(node, "group", 1) > 1:
                self.grouped += work
        order = sorted(nodes, key=lambda name: (-products[name], -nodes[name], name))
        self.operators = tuple(
            OperatorFacts(
                operator=name,
                nodes=nodes[name],
                parameters=parameters[name],
                products=products[name],
            )
            for name in order
        )
        self.products = products.total()


def _fix_axes(model: onnx.ModelProto) -> None:
    """Give axes of the inputs that vary one element, and forget what was inferred from others."""
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value"):
                axis.dim_value = 1
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def _products(node: onnx.NodeProto, shapes: Shapes) -> int:
    """Count the multiplications of one node; 0 where there are none, or a shape is unknown."""
    rule = _RULES.get(node.op_type)
    if rule is None:
        return 0
    try:
        return rule(node, shapes)
    except (KeyError, IndexError, TypeError):  # a shape that nobody could infer
        return 0


def _size(shape: tuple[int | None, ...]) -> int:
    return math.prod(1 if each is None else each for each in shape)


def _convolution(weight: int) -> Callable[[onnx.NodeProto, Shapes], int]:
    return lambda node, shapes: (
        _size(shapes[node.output[0]]) * _size(shapes[node.input[weight]][1:])
    )


def _transposed(node: onnx.NodeProto, shapes: Shapes) -> int:
    return _size(shapes[node.input[0]]) * _size(shapes[node.input[1]][1:])


def _product(node: onnx.NodeProto, shapes: Shapes) -> int:
    return _size(shapes[node.output[0]]) * _size(shapes[node.input[0]][-1:])


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    inner = shapes[node.input[0]][0 if _attribute(node, "transA", 0) else 1]
    return _size(shapes[node.output[0]]) * (inner or 1)


def _recurrent(node: onnx.NodeProto, shapes: Shapes) -> int:
    steps = _size(shapes[node.input[0]][:2])
    return steps * (_size(shapes[node.input[1]]) + _size(shapes[node.input[2]]))


def _attention(node: onnx.NodeProto, shapes: Shapes) -> int:
    if node.domain in STANDARD:  # has no weights: they are products of their own before it
        return 0
    tokens = _size(shapes[node.input[0]][:-1])
    return tokens * _size(shapes[node.input[1]])


def _few_bits(node: onnx.NodeProto, shapes: Shapes) -> int:
    rows = _size(shapes[node.input[0]][:-1])
    return rows * _attribute(node, "K", 0) * _attribute(node, "N", 0)


_RULES: Final[Mapping[str, Callable[[onnx.NodeProto, Shapes], int]]] = {
    "Attention": _attention,
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed,
    "DynamicQuantizeMatMul": _product,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _product,
    "MatMulInteger": _product,
    "MatMulIntegerToFloat": _product,
    "MatMulNBits": _few_bits,
    "QAttention": _attention,
    "QGemm": _gemm,
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _product,
    "RNN": _recurrent,
}


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(each.i) for each in node.attribute if each.name == name), default)


def _tensor(value: onnx.ValueInfoProto) -> TensorFacts:
    tensor = value.type.tensor_type
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            each.dim_value if each.HasField("dim_value") else each.dim_param or "?"
            for each in tensor.shape.dim
        )
    return TensorFacts(name=value.name, datatype=_datatype(tensor.elem_type), shape=shape)


def _datatype(number: int) -> str:
    return str(TensorProto.DataType.Name(number)).lower()


def _shown(tensor: TensorFacts) -> str:
    if tensor.shape is None:
        return f"{tensor.name} {tensor.datatype}"
    return f"{tensor.name} {tensor.datatype} [{', '.join(map(str, tensor.shape))}]"
