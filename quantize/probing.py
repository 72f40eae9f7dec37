"""Look into a model while it runs: extra outputs, and the time of every node.

Memory stays bounded: only as many tensors are asked for at once as fit ``CHUNK_BYTES``.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import onnx
from onnx import TensorProto, helper

from quantize.errors import StepFailedError
from quantize.execution import open_runner
from quantize.groups import Group
from quantize.signature import Array

CHUNK_BYTES: Final = 256 << 20
"""Bytes of tensors that are held at once while a model is looked into."""

FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})

_LAYOUT: Final = re.compile(r"(_token_\d+|_nchwc)+$")  # put behind names of moved nodes
_CONVERSION: Final = re.compile(r"_(Quantize|Dequantize)Linear(_\d+)?$")
_BACKWARD: Final = frozenset({"DequantizeLinear", "ReorderOutput"})
_KERNEL: Final = "_kernel_time"


class NodeTime(NamedTuple):
    """Time of one node of the graph as ONNX Runtime runs it: its lower quartile.

    Other programs can only make a run slower.
    """

    name: str
    operator: str
    seconds: float


class _Event(msgspec.Struct):
    """An event of ONNX Runtime's profile; others have less."""

    cat: str
    name: str
    dur: float  # microseconds
    args: dict[str, object] = {}


@contextmanager
def with_outputs(model: Path, tensors: Iterable[str], *, reduced: bool = False) -> Iterator[Path]:
    """Make a copy of a model that gives out some of its inner tensors too.

    Args:
        model: ONNX file. The copy stands beside it, so that external weights are found.
        tensors: Names of float tensors of the graph.
        reduced: Give ``<tensor>:low``, ``<tensor>:high`` (float scalars) and ``<tensor>:count``
            (elements) in place of the tensors themselves.

    Yields:
        The copy; gone afterwards.
    """
    proto = onnx.load(model, load_external_data=False)
    present = {value.name for value in proto.graph.output}
    for tensor in tensors:
        if reduced:
            _add_reductions(proto.graph, tensor)
        elif tensor not in present:
            proto.graph.output.append(onnx.ValueInfoProto(name=tensor))
    with tempfile.NamedTemporaryFile(dir=model.parent, suffix=".onnx") as file:
        file.write(proto.SerializeToString())
        file.flush()
        yield Path(file.name)


def float_tensors(model: Path) -> tuple[str, ...]:
    """List the float tensors of a graph that are no constants, inputs included.

    Args:
        model: ONNX file with the types of its inner tensors.
    """
    graph = onnx.load(model, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    made = {tensor for node in graph.node for tensor in node.output}
    made |= {value.name for value in graph.input}
    values = (*graph.input, *graph.value_info, *graph.output)
    return tuple(
        dict.fromkeys(
            value.name
            for value in values
            if value.type.tensor_type.elem_type in FLOATS
            and value.name in made
            and value.name not in constants
        )
    )


def chunks(sizes: Mapping[str, int], limit: int | None = None) -> list[list[str]]:
    """Divide tensors into lists that fit the limit; one that is larger is alone.

    Args:
        sizes: Bytes by name.
        limit: Most bytes of one list; ``None``: ``CHUNK_BYTES``.
    """
    lists: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not lists or size > room:
            lists.append([])
            room = CHUNK_BYTES if limit is None else limit
        lists[-1].append(name)
        room -= size
    return lists


def node_times(
    model: Path, feeds: Mapping[str, Array], *, threads: int = 1, runs: int = 12
) -> tuple[NodeTime, ...]:
    """Measure every node of a model as ONNX Runtime runs it.

    Args:
        model: ONNX file.
        feeds: What it is run with.
        threads: Threads of a run.
        runs: How often; the lower quartiles count.

    Returns:
        In the order of execution.

    Raises:
        StepFailedError: The model cannot be loaded or run, or the profile cannot be read.
    """
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        file = Path(folder) / "profile.json"
        with open_runner(model, threads=threads, profile=file) as runner:
            for _ in range(runs):
                runner.run(feeds)
        try:
            events = msgspec.json.decode(file.read_bytes(), type=list[msgspec.Raw])
        except (OSError, msgspec.MsgspecError) as error:
            raise StepFailedError(f"{model.name}: its profile cannot be read: {error}") from error
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for raw in events:
        try:
            event = msgspec.json.decode(raw, type=_Event)
        except msgspec.MsgspecError:
            continue
        if event.cat == "Node" and event.name.endswith(_KERNEL):
            operator = str(event.args.get("op_name", ""))
            durations[event.name.removesuffix(_KERNEL), operator].append(event.dur)
    return tuple(
        NodeTime(name, operator, sorted(times)[len(times) // 4] * 1e-6)
        for (name, operator), times in durations.items()
    )


def group_seconds(times: Sequence[NodeTime], groups: Sequence[Group]) -> tuple[float, ...]:
    """Add up the times of nodes by group.

    Fused and moved nodes keep a name that tells where they come from. What ONNX Runtime puts in
    between (transposes, conversions) counts for the group that needs it: the next one, or the one
    before where a result is turned back.

    Args:
        times: In the order of execution.
        groups: Of the float model that ``times`` is of, or that was quantised.

    Returns:
        Seconds, in the order of ``groups``.
    """
    home = {name: place for place, group in enumerate(groups) for name in group.nodes}
    makers = {name: place for place, group in enumerate(groups) for name in group.tensors}
    seconds = [0.0] * len(groups)
    last, waiting = 0, 0.0
    for time in times:
        name = _LAYOUT.sub("", time.name)
        # The fused form of a node is named after the node, or after the tensor it makes.
        place = home.get(name, makers.get(name))
        if place is None and (conversion := _CONVERSION.search(name)) is not None:
            place = makers.get(name[: conversion.start()])
        if place is not None:
            seconds[place] += time.seconds + waiting
            last, waiting = place, 0.0
        elif time.operator in _BACKWARD:
            seconds[last] += time.seconds
        else:
            waiting += time.seconds
    if seconds:
        seconds[last] += waiting
    return tuple(seconds)


def tensor_bytes(model: Path, tensors: Sequence[str], feeds: Mapping[str, Array]) -> dict[str, int]:
    """Find out how large inner tensors are, without holding them.

    Args:
        model: ONNX file.
        tensors: Names of its float tensors.
        feeds: What it is run with.

    Returns:
        Bytes by name.
    """
    with (
        with_outputs(model, tensors, reduced=True) as copy,
        open_runner(copy, optimize="none") as runner,
    ):
        counts = runner.run(feeds, [f"{tensor}:count" for tensor in tensors])
    return {tensor: 4 * int(counts[f"{tensor}:count"]) for tensor in tensors}


def _add_reductions(graph: onnx.GraphProto, tensor: str) -> None:
    for operator, part, kind in (
        ("ReduceMin", "low", TensorProto.FLOAT),
        ("ReduceMax", "high", TensorProto.FLOAT),
        ("Size", "count", TensorProto.INT64),
    ):
        output = f"{tensor}:{part}"
        if operator == "Size":
            graph.node.append(helper.make_node("Size", [tensor], [output]))
        else:
            graph.node.append(helper.make_node(operator, [tensor], [output], keepdims=0))
        value = onnx.ValueInfoProto(name=output)
        if kind == TensorProto.INT64:
            value.type.CopyFrom(helper.make_tensor_type_proto(kind, []))
        graph.output.append(value)
