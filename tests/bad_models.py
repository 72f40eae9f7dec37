"""Models that are bad on purpose, each in one way, beside ``good``; all FP32 ``[batch, 2]``.

``y = x + 1`` is what the active version gives (``tests.models.add_constant(path, 1.0)``), and what
all of these give wherever they are not bad. ``EDGE`` parts the inputs: goldens are below it.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.models import Shape, add_constant, save, value

EDGE = 8.0
LOWEST = -(2**63)
DIES_IN_RUN = 100
# The first number below the limit that ONNX Runtime draws from this seed is the hundredth one.
_SEED, _LIMIT = 4936908.0, 0.005


def good(path: Path) -> Path:
    """``y = x + 1``, with another digest than the active version."""
    return add_constant(path, 1.0, note="good")


def wrong_output_name(path: Path) -> Path:
    """The output is called ``z``."""
    node = helper.make_node("Add", ["x", "one"], ["z"])
    return save(path, [node], [value("x")], [value("z")], [_floats("one", [1.0])])


def wrong_declared_shape(path: Path) -> Path:
    """Takes and gives rows of 3 numbers, and says so."""
    return add_constant(path, 1.0, shape=("batch", 3))


def wrong_real_shape(path: Path) -> Path:
    """Declares ``[batch, 2]`` and gives ``[batch, 4]``."""
    nodes = [
        helper.make_node("Add", ["x", "one"], ["sum"]),
        # Of a size that follows from values nothing is known before it runs.
        *_never("above"),
        helper.make_node("Cast", ["above"], ["none"], to=TensorProto.INT64),
        helper.make_node("Add", ["twice", "none"], ["repeats"]),
        helper.make_node("Tile", ["sum", "repeats"], ["y"]),
    ]
    tensors = [_floats("one", [1.0]), *_NEVER, _integers("twice", [1, 2])]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def not_a_number(path: Path) -> Path:
    """NaN in rows whose first number is above ``EDGE``."""
    return _where(path, [], "nan", [_floats("nan", [float("nan")])])


def other_answer(path: Path) -> Path:
    """``y = -x`` in rows whose first number is above ``EDGE``: goldens do not see it."""
    return _where(path, [helper.make_node("Neg", ["x"], ["minus"])], "minus")


def fails_on_some(path: Path) -> Path:
    """Fails on a row whose first number is above ``EDGE``: an index beyond a table."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "edge"], ["above"]),
        helper.make_node("Cast", ["above"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["one", "index"], ["added"]),
        helper.make_node("Add", ["x", "added"], ["y"]),
    ]
    tensors = [_floats("one", [1.0]), _floats("edge", [EDGE], ())]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def breaks_on_some(path: Path) -> Path:
    """Fails where a number is above ``EDGE``, and does not blame the input: it divides by zero."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "edge"], ["above"]),
        helper.make_node("Where", ["above", "none", "plus_one"], ["divisor"]),
        helper.make_node("Div", ["plus_one", "divisor"], ["quotient"]),
        *_added("quotient"),
    ]
    tensors = [
        *_ADDED,
        _floats("edge", [EDGE], ()),
        _integers("none", [0]),
        _integers("plus_one", [1]),
    ]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def slow(path: Path, layers: int = 8, size: int = 512) -> Path:
    """Much slower than ``y = x + 1``, with the same answers."""
    names = ["h0", *(f"h{layer + 1}" for layer in range(layers))]
    nodes = [
        helper.make_node("MatMul", ["x", "into"], ["h0"]),
        *(helper.make_node("MatMul", [first, "w"], [second]) for first, second in pairwise(names)),
        helper.make_node("MatMul", [names[-1], "out"], ["nothing"]),
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Add", ["sum", "nothing"], ["y"]),
    ]
    tensors = [
        _floats("one", [1.0]),
        _zeros("into", 2, size),
        _zeros("w", size, size),
        _zeros("out", size, 2),
    ]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def hog_at_run(path: Path, mib: int = 1024) -> Path:
    """Fills so much memory in each run."""
    nodes = [
        *_never("above"),
        helper.make_node("Cast", ["above"], ["none"], to=TensorProto.INT64),
        helper.make_node("Add", ["count", "none"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["much"], value=_floats("value", [0.0])),
        helper.make_node("ReduceSum", ["much"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Add", ["sum", "nothing"], ["y"]),
    ]
    tensors = [_floats("one", [1.0]), *_NEVER, _integers("count", [mib * 2**18])]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def hog_at_load(path: Path, mib: int = 1024) -> Path:
    """Fills so much memory when it is loaded: ONNX Runtime folds what is constant."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["much"], value=_floats("value", [0.0])),
        helper.make_node("Cast", ["much"], ["more"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceSum", ["more"], ["double"], keepdims=0),
        helper.make_node("Cast", ["double"], ["nothing"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Add", ["sum", "nothing"], ["y"]),
    ]
    tensors = [_floats("one", [1.0]), _integers("shape", [mib * 2**18])]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def dies_at_load(path: Path) -> Path:
    """Ends its process (SIGFPE, x86 only) when it is loaded.

    The lowest integer by -1 has no result; the CPU refuses it, and ONNX Runtime looks for
    divisions by zero only.
    """
    nodes = [
        helper.make_node("Div", ["lowest", "minus_one"], ["quotient"]),
        *_added("quotient"),
    ]
    tensors = [*_ADDED, _integers("lowest", [LOWEST]), _integers("minus_one", [-1])]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def dies_in_run(path: Path) -> Path:
    """Ends its process (SIGFPE, x86 only) in its hundredth run, as ``dies_at_load`` does."""
    nodes = [
        helper.make_node("RandomUniform", [], ["drawn"], shape=[1], seed=_SEED),
        helper.make_node("Less", ["drawn", "limit"], ["is_low"]),
        helper.make_node("Where", ["is_low", "minus_one", "plus_one"], ["divisor"]),
        helper.make_node("Div", ["lowest", "divisor"], ["quotient"]),
        *_added("quotient"),
    ]
    tensors = [
        *_ADDED,
        _floats("limit", [_LIMIT]),
        _integers("lowest", [LOWEST]),
        _integers("minus_one", [-1]),
        _integers("plus_one", [1]),
    ]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def dies_on_some(path: Path) -> Path:
    """Ends its process (SIGFPE, x86 only) where a number is above ``EDGE``."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "edge"], ["above"]),
        helper.make_node("Where", ["above", "minus_one", "plus_one"], ["divisor"]),
        helper.make_node("Div", ["lowest", "divisor"], ["quotient"]),
        *_added("quotient"),
    ]
    tensors = [
        *_ADDED,
        _floats("edge", [EDGE], ()),
        _integers("lowest", [LOWEST]),
        _integers("minus_one", [-1]),
        _integers("plus_one", [1]),
    ]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def hangs(path: Path) -> Path:
    """Runs for ever."""
    return _loop(path, forever=True)


def hangs_on_some(path: Path) -> Path:
    """Runs for ever where a number is above ``EDGE``."""
    return _loop(path, forever=False)


# -- parts ---------------------------------------------------------------------------------------


def _loop(path: Path, *, forever: bool) -> Path:
    """Add 0 to ``x + 1`` until a condition ends, or for ever."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Add", ["so_far", "zero"], ["further"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            value("so_far"),
        ],
        [helper.make_tensor_value_info("still", TensorProto.BOOL, []), value("further")],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "edge"], ["above"]),
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Loop", ["", "above", "sum"], ["y"], body=body),
    ]
    edge = float("-inf") if forever else EDGE
    tensors = [_floats("one", [1.0]), _floats("zero", [0.0]), _floats("edge", [edge], ())]
    return save(path, nodes, [value("x")], [value("y")], tensors)


def _where(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    other: str,
    tensors: Sequence[onnx.TensorProto] = (),
) -> Path:
    """``y = x + 1``, and something else in rows whose first number is above ``EDGE``."""
    every = [
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
        helper.make_node("Greater", ["column", "edge"], ["above"]),
        *nodes,
        helper.make_node("Where", ["above", other, "sum"], ["y"]),
    ]
    parts = [
        _floats("one", [1.0]),
        _floats("edge", [EDGE]),
        _integers("first", [0]),
        *tensors,
    ]
    return save(path, every, [value("x")], [value("y")], parts)


_NEVER_EDGE = "infinity"


def _never(name: str) -> list[onnx.NodeProto]:
    """Make a boolean that is always false, which nobody can know before it runs."""
    return [
        helper.make_node("ReduceMax", ["x"], ["never_largest"], keepdims=0),
        helper.make_node("Greater", ["never_largest", _NEVER_EDGE], [name]),
    ]


def _added(quotient: str) -> list[onnx.NodeProto]:
    """``y = x + 1 + 0 * quotient``."""
    return [
        helper.make_node("Cast", [quotient], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["number", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Add", ["sum", "nothing"], ["y"]),
    ]


def _floats(name: str, numbers: Sequence[float], shape: Shape | None = None) -> onnx.TensorProto:
    size = [len(numbers)] if shape is None else list(shape)
    return helper.make_tensor(name, TensorProto.FLOAT, size, list(numbers))


def _integers(name: str, numbers: Sequence[int]) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(numbers)], list(numbers))


def _zeros(name: str, rows: int, columns: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.zeros((rows, columns), np.float32), name)


_NEVER = [_floats(_NEVER_EDGE, [float("inf")], ())]
_ADDED = [_floats("one", [1.0]), _floats("zero", [0.0])]
