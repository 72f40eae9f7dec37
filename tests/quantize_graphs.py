"""Small float networks with seeded weights, for tests of quantisation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantize.data import Dataset
from quantize.signature import Array

OPSET = 17
IR_VERSION = 9
SIDE = 8
CLASSES = 10


class Network:
    """Collects nodes and weights; every node is named after its output."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Append a node."""
        made = helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        self.nodes.append(made)
        return output

    def constant(self, name: str, array: Array) -> str:
        """Keep a constant."""
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Draw a weight, scaled by what it adds up."""
        scale = np.sqrt(2 / np.prod(shape[1:] if len(shape) > 2 else shape[:1]))
        return self.constant(name, self.rng.normal(0, scale, shape).astype(np.float32))

    def conv(self, source: str, output: str, channels: tuple[int, int], group: int = 1) -> str:
        """Append a 3x3 convolution with a bias that keeps the size."""
        before, after = channels
        kernel = self.weight(f"{output}.w", after, before // group, 3, 3)
        bias = self.weight(f"{output}.b", after)
        return self.node(
            "Conv", [source, kernel, bias], output, group=group, pads=[1] * 4, kernel_shape=[3, 3]
        )

    def save(self, path: Path, inputs: dict[str, list[object]], outputs: Sequence[str]) -> Path:
        """Write the model with the shapes of its tensors."""
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
            self.weights,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), path)
        return path


def cnn(path: Path, seed: int = 0) -> Path:
    """Conv-Relu, a residual block, pooling, a Gemm and a softmax; input ``x`` [batch, 3, 8, 8]."""
    net = Network(seed)
    net.node("Relu", [net.conv("x", "conv1", (3, 16))], "relu1")
    net.node("Relu", [net.conv("relu1", "conv2", (16, 16))], "relu2")
    net.conv("relu2", "conv3", (16, 16))
    net.node("Sum", ["conv3", "relu1"], "sum")
    net.node("Relu", ["sum"], "relu3")
    net.node("GlobalAveragePool", ["relu3"], "pool")
    net.node("Flatten", ["pool"], "flat")
    net.node("Gemm", ["flat", net.weight("fc.w", 16, CLASSES), net.weight("fc.b", 10)], "logits")
    net.node("Softmax", ["logits"], "y")
    return net.save(path, {"x": ["batch", 3, SIDE, SIDE]}, ["y"])


def shuffled(path: Path, *, groups: int = 4) -> Path:
    """Grouped convolutions with a channel shuffle between; input ``x`` [1, 8, 8, 8]."""
    net = Network()
    net.conv("x", "conv1", (8, 16), group=2)
    apart = np.array([1, groups, 16 // groups, SIDE, SIDE])
    net.node("Reshape", ["conv1", net.constant("apart", apart)], "split")
    net.node("Transpose", ["split"], "turn", perm=[0, 2, 1, 3, 4])
    together = np.array([1, 16, SIDE, SIDE])
    net.node("Reshape", ["turn", net.constant("together", together)], "join")
    net.conv("join", "y", (16, 16), group=4)
    return net.save(path, {"x": [1, 8, SIDE, SIDE]}, ["y"])


def mlp(path: Path, width: int = 32) -> Path:
    """MatMul-Add-Relu twice, then a Gemm; input ``x`` [batch, 16]."""
    net = Network()
    net.node("MatMul", ["x", net.weight("w1", 16, width)], "product1")
    net.node("Add", ["product1", net.weight("b1", width)], "add1")
    net.node("Relu", ["add1"], "relu1")
    net.node("MatMul", ["relu1", net.weight("w2", width, width)], "product2")
    net.node("Relu", ["product2"], "relu2")
    net.node("Gemm", ["relu2", net.weight("w3", width, CLASSES)], "y")
    return net.save(path, {"x": ["batch", 16]}, ["y"])


def samples(*shape: int, count: int = 8, seed: int = 1) -> Dataset:
    """Draw samples for input ``x`` of this shape, without the batch axis."""
    rng = np.random.default_rng(seed)
    return Dataset({"x": rng.normal(size=(count, *shape)).astype(np.float32)}, None, "test")


def pictures(count: int = 8, seed: int = 1, channels: int = 3) -> Dataset:
    """Draw samples for ``cnn``."""
    return samples(channels, SIDE, SIDE, count=count, seed=seed)
