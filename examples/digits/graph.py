"""The trained digit classifier as an ONNX graph, built node by node."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 17
IR_VERSION = 8  # the one of opset 17's time: older runtimes can load the files too


def named_weights(network: nn.Sequential) -> list[onnx.TensorProto]:
    """Take the trained weights out of the network.

    Args:
        network: a trained network.

    Returns:
        Float32 tensors: conv1 and conv2 weights ``[out, in, 3, 3]``, fc weight ``[inputs, 10]``,
        and a bias of each, ``[out]``.
    """
    tensors = []
    for name, values in network.state_dict().items():
        array = values.numpy()
        # Gemm takes the fc weight as [inputs, outputs]; torch keeps it the other way round.
        array = np.ascontiguousarray(array.T) if array.ndim == 2 else array
        tensors.append(numpy_helper.from_array(array, name))
    return tensors


def build_float_model(network: nn.Sequential) -> onnx.ModelProto:
    """Build the ONNX graph node by node, with names of our own and no exporter's traces.

    Args:
        network: a trained network.

    Returns:
        The checked model: ``image`` float32 ``[batch, 1, 8, 8]`` to ``scores`` float32
        ``[batch, 10]`` (probabilities) and ``label`` int64 ``[batch]``.
    """
    conv: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    pool: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["conv1"], **conv),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        helper.make_node("MaxPool", ["relu1"], ["pool1"], **pool),
        helper.make_node("Conv", ["pool1", "conv2.weight", "conv2.bias"], ["conv2"], **conv),
        helper.make_node("Relu", ["conv2"], ["relu2"]),
        helper.make_node("MaxPool", ["relu2"], ["pool2"], **pool),
        helper.make_node("Flatten", ["pool2"], ["features"], axis=1),
        helper.make_node("Gemm", ["features", "fc.weight", "fc.bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        # Of the scores, not the logits, so that label is the argmax of scores bit for bit.
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    for node in nodes:
        node.name = node.output[0]
    float_type, int_type = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", float_type, ["batch", 1, 8, 8])],
        [
            helper.make_tensor_value_info("scores", float_type, ["batch", 10]),
            helper.make_tensor_value_info("label", int_type, ["batch"]),
        ],
        named_weights(network),
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return finish_model(helper.make_model(graph, opset_imports=opsets))


def finish_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Strip what a tool left in a model, set its header and check it.

    Args:
        model: any model; changed in place.

    Returns:
        The same model, with no documentation strings, metadata, inner shapes or unused opsets.
    """
    model.producer_name = "digits"
    model.producer_version = ""
    model.ir_version = IR_VERSION
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    del model.graph.value_info[:]
    parts = [model, model.graph, *model.graph.node, *model.graph.initializer]
    for part in [*parts, *model.graph.input, *model.graph.output]:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    onnx.checker.check_model(model, full_check=True)
    return model
