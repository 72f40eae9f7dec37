"""Small float networks with seeded random weights, as exporters write them.

Every builder takes the file to write and returns it. Weights are scaled so that activations keep
about unit size through all layers; nodes and tensors have names that tests can ask for.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
CUSTOM_DOMAIN = "acme.layers"

Floats = npt.NDArray[np.float32]


class _Graph:
    """Collects nodes and weights; weights are drawn in the order of the calls."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, npt.NDArray[np.generic]] = {}

    def add(self, operator: str, inputs: Sequence[str], name: str, **attributes: object) -> str:
        """Append a node with one output of its own name; return the name."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        self.tensors[name] = np.asarray(value, dtype)
        return name

    def weight(self, name: str, shape: Sequence[int], fan_in: int, gain: float = 2.0) -> str:
        scale = np.sqrt(gain / fan_in)
        return self.constant(name, self._random.normal(0.0, scale, tuple(shape)))

    def around(self, name: str, mean: float, spread: float, size: int) -> str:
        return self.constant(name, self._random.uniform(mean - spread, mean + spread, size))

    def convolution(self, source: str, name: str, channels: tuple[int, int], stride: int) -> str:
        """3x3 Conv without bias, then BatchNormalization; channels in and out."""
        taken, given = channels
        weight = self.weight(f"{name}.weight", (given, taken, 3, 3), taken * 9)
        attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [stride, stride]}
        made = self.add("Conv", [source, weight], name, **attributes)
        normal = [
            self.around(f"{name}.scale", 1.0, 0.3, given),
            self.around(f"{name}.shift", 0.0, 0.2, given),
            self.around(f"{name}.mean", 0.0, 0.2, given),
            self.around(f"{name}.variance", 1.0, 0.4, given),
        ]
        return self.add("BatchNormalization", [made, *normal], f"{name}_normal", epsilon=1e-5)

    def linear(self, source: str, name: str, sizes: tuple[int, int], gain: float = 1.0) -> str:
        """MatMul and Add of a bias, as exporters of transformers write it."""
        weight = self.weight(f"{name}.weight", sizes, sizes[0], gain)
        product = self.add("MatMul", [source, weight], name)
        return self.add(
            "Add", [product, self.around(f"{name}.bias", 0, 0.1, sizes[1])], f"{name}_biased"
        )

    def model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        *,
        opset: int = OPSET,
        name: str = "test",
        domains: Mapping[str, int] | None = None,
    ) -> onnx.ModelProto:
        tensors = [numpy_helper.from_array(value, key) for key, value in self.tensors.items()]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, tensors)
        versions = {"": opset, **(domains or {})}
        imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
        return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def cnn(path: Path, *, width: int = 16, size: int = 16, classes: int = 10, seed: int = 0) -> Path:
    """``image`` [batch, 3, size, size] to ``logits`` [batch, classes].

    Conv ``stem``, a residual block of Conv ``left`` and ``right`` with Add ``join``, Conv ``down``
    of stride 2, each with BatchNormalization and Relu; GlobalAveragePool, Flatten, Gemm ``head``.
    """
    return _written(_cnn(width, size, classes, seed), path)


def mlp(path: Path, *, sizes: Sequence[int] = (16, 64, 32, 4), seed: int = 0) -> Path:
    """``x`` [batch, first size] to ``y`` [batch, last size]: Gemm ``dense0``... with Relu."""
    return _written(_mlp(sizes, seed), path)


def transformer(
    path: Path, *, hidden: int = 32, heads: int = 4, seed: int = 0, plain: bool = False
) -> Path:
    """``x`` [batch, seq, hidden] to ``y`` of the same shape: one encoder block, post-norm.

    MatMuls ``query``, ``key``, ``value``, ``attention``, ``context``, ``project``, ``expand`` and
    ``shrink``; Gelu is written with Erf. With ``plain`` LayerNormalization is written with
    ReduceMean, Pow and Sqrt, as exporters for opset 16 and before do.
    """
    graph = _Graph(seed)
    attended = _attention(graph, "x", hidden, heads)
    first = _layer_norm(
        graph, graph.add("Add", ["x", attended], "join1"), "norm1", hidden, plain=plain
    )
    wide = graph.linear(first, "expand", (hidden, 4 * hidden))
    graph.constant("root2", np.sqrt(2.0))
    graph.constant("one", 1.0)
    graph.constant("half", 0.5)
    error = graph.add("Erf", [graph.add("Div", [wide, "root2"], "gelu_div")], "gelu_erf")
    gate = graph.add("Mul", [wide, graph.add("Add", [error, "one"], "gelu_add")], "gelu_mul")
    narrow = graph.linear(
        graph.add("Mul", [gate, "half"], "gelu"), "shrink", (4 * hidden, hidden), 2.0
    )
    _layer_norm(graph, graph.add("Add", [narrow, first], "join2"), "y", hidden, plain=plain)
    shape = ("batch", "seq", hidden)
    return _written(graph.model([_float("x", shape)], [_float("y", shape)]), path)


def external(path: Path, *, seed: int = 0) -> Path:
    """The network of ``mlp`` with its weights in the file ``<name>.data`` beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        _mlp((16, 64, 32, 4), seed),
        path,
        save_as_external_data=True,
        location=f"{path.name}.data",
        size_threshold=0,
    )
    return path


def opset9(path: Path, *, seed: int = 0) -> Path:
    """The network of ``cnn`` as exporters of 2018 wrote it: ``image`` [1, 3, 16, 16].

    Opset 9 and IR 3: initializers are listed as inputs too, ``head.weight`` comes from
    ConstantOfShape, and a Dropout with its ratio as an attribute stands before the head.
    """
    model = _cnn(16, 16, 10, seed)
    model.ir_version = 3
    model.opset_import[0].version = 9
    graph = model.graph
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    for tensor in list(graph.initializer):
        if tensor.name == "head.weight":
            shape = numpy_helper.from_array(np.asarray(tensor.dims, np.int64), "head.shape")
            graph.initializer.remove(tensor)
            graph.initializer.append(shape)
            filled = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.125])
            node = helper.make_node("ConstantOfShape", ["head.shape"], ["head.weight"])
            node.attribute.append(helper.make_attribute("value", filled))
            graph.node.insert(0, node)
    graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
    )
    head = graph.node[-1]
    dropout = helper.make_node("Dropout", [head.input[0]], ["dropped"], name="dropout", ratio=0.5)
    head.input[0] = "dropped"
    graph.node.insert(len(graph.node) - 1, dropout)
    return _written(model, path)


def custom_operator(path: Path) -> Path:
    """``y = Mystery(x)`` of a domain that nobody knows, in a node named ``secret``."""
    graph = _Graph(0)
    graph.add("Mystery", [graph.add("Relu", ["x"], "relu")], "secret", domain=CUSTOM_DOMAIN)
    graph.nodes[-1].output[0] = "y"
    shape = ("batch", 4)
    domains = {CUSTOM_DOMAIN: 1}
    return _written(graph.model([_float("x", shape)], [_float("y", shape)], domains=domains), path)


def quantized(path: Path) -> Path:
    """``y = x @ w`` whose tensors pass through QuantizeLinear and DequantizeLinear already."""
    graph = _Graph(0)
    graph.constant("scale", 0.05)
    graph.constant("zero", 128, np.uint8)
    graph.constant("w.scale", 0.01)
    graph.constant("w.zero", 0, np.int8)
    graph.constant("w.quantized", np.arange(-32, 32).reshape(16, 4), np.int8)
    levels = graph.add("QuantizeLinear", ["x", "scale", "zero"], "quantize")
    floats = graph.add("DequantizeLinear", [levels, "scale", "zero"], "dequantize")
    weight = graph.add("DequantizeLinear", ["w.quantized", "w.scale", "w.zero"], "w")
    graph.add("MatMul", [floats, weight], "y")
    taken, given = _float("x", ("batch", 16)), _float("y", ("batch", 4))
    return _written(graph.model([taken], [given]), path)


def _cnn(width: int, size: int, classes: int, seed: int) -> onnx.ModelProto:
    graph = _Graph(seed)
    stem = graph.add("Relu", [graph.convolution("image", "stem", (3, width), 1)], "stem_relu")
    left = graph.add("Relu", [graph.convolution(stem, "left", (width, width), 1)], "left_relu")
    right = graph.convolution(left, "right", (width, width), 1)
    joined = graph.add("Relu", [graph.add("Add", [right, stem], "join")], "join_relu")
    down = graph.convolution(joined, "down", (width, 2 * width), 2)
    pooled = graph.add("GlobalAveragePool", [graph.add("Relu", [down], "down_relu")], "pool")
    flat = graph.add("Flatten", [pooled], "flat")
    weight = graph.weight("head.weight", (classes, 2 * width), 2 * width, 8.0)
    bias = graph.around("head.bias", 0.0, 0.1, classes)
    graph.add("Gemm", [flat, weight, bias], "head", transB=1)
    graph.nodes[-1].output[0] = "logits"
    taken, given = ("batch", 3, size, size), ("batch", classes)
    return graph.model([_float("image", taken)], [_float("logits", given)])


def _mlp(sizes: Sequence[int], seed: int) -> onnx.ModelProto:
    graph = _Graph(seed)
    source = "x"
    for place, (taken, given) in enumerate(pairwise(sizes)):
        name = f"dense{place}"
        weight = graph.weight(f"{name}.weight", (taken, given), taken)
        bias = graph.around(f"{name}.bias", 0.0, 0.1, given)
        source = graph.add("Gemm", [source, weight, bias], name)
        if place < len(sizes) - 2:
            source = graph.add("Relu", [source], f"{name}_relu")
    graph.nodes[-1].output[0] = "y"
    return graph.model([_float("x", ("batch", sizes[0]))], [_float("y", ("batch", sizes[-1]))])


def _attention(graph: _Graph, source: str, hidden: int, heads: int) -> str:
    graph.constant("split", [0, 0, heads, hidden // heads], np.int64)
    graph.constant("merge", [0, 0, hidden], np.int64)
    graph.constant("root", np.sqrt(hidden // heads))
    parts = []
    for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        flat = graph.linear(source, name, (hidden, hidden))
        split = graph.add("Reshape", [flat, "split"], f"{name}_split")
        parts.append(graph.add("Transpose", [split], f"{name}_heads", perm=order))
    scores = graph.add("MatMul", parts[:2], "attention")
    scaled = graph.add("Div", [scores, "root"], "attention_scaled")
    shares = graph.add("Softmax", [scaled], "attention_shares", axis=-1)
    context = graph.add("MatMul", [shares, parts[2]], "context")
    back = graph.add("Transpose", [context], "context_back", perm=[0, 2, 1, 3])
    merged = graph.add("Reshape", [back, "merge"], "context_merged")
    return graph.linear(merged, "project", (hidden, hidden))


def _layer_norm(graph: _Graph, source: str, name: str, hidden: int, *, plain: bool) -> str:
    scale = graph.around(f"{name}.scale", 1.0, 0.3, hidden)
    shift = graph.around(f"{name}.shift", 0.0, 0.2, hidden)
    if not plain:
        return graph.add("LayerNormalization", [source, scale, shift], name, axis=-1)
    graph.constant("two", 2.0)
    graph.constant("epsilon", 1e-5)
    mean = graph.add("ReduceMean", [source], f"{name}_mean", axes=[-1])
    centred = graph.add("Sub", [source, mean], f"{name}_centred")
    square = graph.add("Pow", [centred, "two"], f"{name}_square")
    variance = graph.add("ReduceMean", [square], f"{name}_variance", axes=[-1])
    safe = graph.add("Add", [variance, "epsilon"], f"{name}_safe")
    deviation = graph.add("Sqrt", [safe], f"{name}_deviation")
    unit = graph.add("Div", [centred, deviation], f"{name}_unit")
    return graph.add("Add", [graph.add("Mul", [unit, scale], f"{name}_scaled"), shift], name)


def _float(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _written(model: onnx.ModelProto, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path
