"""Last step: every tensor's type and shape written down, and every node with a name of its own.

Quantisers ask for the types; nodes are left out of quantisation, timed and blamed by name.
"""

from pathlib import Path
from typing import Final

import onnx

from quantize.model import storage
from quantize.model.operators import graphs
from quantize.model.shapes import with_shapes
from quantize.passes.step import Pass, always


def call(source: Path, destination: Path) -> None:
    """Write types, shapes and names into a model."""
    model = with_shapes(storage.load_graph(source))
    name_nodes(model)
    storage.save(model, destination, weights_in=source.parent)


def name_nodes(model: onnx.ModelProto) -> None:
    """Name nodes that have no name, or that of a node before them, after their first output."""
    every = [node for graph in graphs(model) for node in graph.node]
    given = {node.name for node in every}
    seen: set[str] = set()
    for node in every:
        if not node.name or node.name in seen:
            first = next((name for name in node.output if name), node.op_type)
            name, count = first, 1
            while name in given:
                count += 1
                name = f"{first}_{count}"
            node.name = name
            given.add(name)
        seen.add(node.name)


FINISHING: Final = Pass("shapes and names", requires=always, call=call, is_needed=True)
