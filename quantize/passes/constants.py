"""Computes what does not depend on the inputs, and stores it: weights that nodes make included.

Exporters and test models write weights as ConstantOfShape, Constant, Identity, Unsqueeze or
Transpose of others; a quantiser only finds stored tensors.
"""

from pathlib import Path
from typing import Final

import onnx
from onnx import AttributeProto, helper, numpy_helper

from quantize.execution import open_runner
from quantize.model import storage
from quantize.model.operators import KNOWN_DOMAINS, graphs, nodes
from quantize.passes.step import Pass, Subject

_RANDOM: Final = frozenset(
    {
        "Bernoulli",
        "Dropout",  # random where its training input says so
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_NO_TENSOR: Final = ("Optional", "Sequence", "SplitToSequence", "ConcatFromSequence")
_GRAPHS: Final = frozenset({AttributeProto.GRAPH, AttributeProto.GRAPHS})


def requires(subject: Subject) -> str:
    """Require nodes that do not depend on an input."""
    return "" if constant_nodes(subject.model) else "no node is independent of the inputs"


def call(source: Path, destination: Path) -> None:
    """Replace constant nodes by the values that ONNX Runtime computes for them.

    Raises:
        StepFailedError: ONNX Runtime cannot compute them.
    """
    model = storage.load_graph(source)
    folded = constant_nodes(model)
    made = {name for node in folded for name in node.output if name}
    wanted = sorted(made & _read_outside(model, folded))
    alone = source.with_name(f"{source.stem}-constants.onnx")
    if wanted:
        storage.save(_extracted(model, folded, wanted), alone, weights_in=source.parent)
        try:
            with open_runner(alone) as runner:
                values = runner.run({})
        finally:
            storage.remove(alone)
    else:
        values = {}
    gone = {node.output[0] for node in folded}
    kept = [node for node in model.graph.node if node.output[0] not in gone]
    _replace_nodes(model.graph, kept)
    for name in wanted:
        model.graph.initializer.append(numpy_helper.from_array(values.pop(name), name))
    _drop_unread(model)
    storage.save(model, destination, weights_in=source.parent)


def constant_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes of the main graph that give the same in every run, in their order.

    A node that gives an output of the model stays where it is.
    """
    graph = model.graph
    known = {tensor.name for tensor in graph.initializer}
    given = {value.name for value in graph.output}
    found = []
    for node in graph.node:
        reads = {name for name in node.input if name}
        if reads <= known and _is_pure(node) and given.isdisjoint(node.output):
            found.append(node)
            known.update(node.output)
    return found


def _is_pure(node: onnx.NodeProto) -> bool:
    return (
        bool(node.output)
        and bool(node.output[0])
        and node.domain in KNOWN_DOMAINS
        and node.op_type not in _RANDOM
        and not node.op_type.startswith(_NO_TENSOR)
        and not any(attribute.type in _GRAPHS for attribute in node.attribute)
    )


def _read_outside(model: onnx.ModelProto, folded: list[onnx.NodeProto]) -> set[str]:
    inside = {node.output[0] for node in folded}
    main = [node for node in model.graph.node if node.output[0] not in inside]
    direct = {name for node in main for name in node.input}
    # Subgraphs read the tensors around them by name, and may give them back as they are.
    inner = [graph for graph in graphs(model) if graph is not model.graph]
    nested = {name for graph in inner for node in graph.node for name in node.input}
    return direct | nested | {value.name for graph in inner for value in graph.output}


def _extracted(
    model: onnx.ModelProto, folded: list[onnx.NodeProto], wanted: list[str]
) -> onnx.ModelProto:
    reads = {name for node in folded for name in node.input}
    tensors = [each for each in model.graph.initializer if each.name in reads]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    graph = helper.make_graph(folded, "constants", [], outputs, tensors)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _replace_nodes(graph: onnx.GraphProto, kept: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)


def _drop_unread(model: onnx.ModelProto) -> None:
    """Remove stored tensors that were only read by nodes that are gone."""
    read = {name for node in nodes(model) for name in node.input}
    read |= {value.name for graph in graphs(model) for value in graph.output}
    graph = model.graph
    for place in range(len(graph.initializer) - 1, -1, -1):
        if graph.initializer[place].name not in read:
            del graph.initializer[place]


CONSTANTS: Final = Pass("constants", requires=requires, call=call)
