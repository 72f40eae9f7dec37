"""Which groups of nodes lose what quantisation loses, and what leaving them in float would cost.

Both models run on the same samples, one after the other; the result of every group is compared
and let go. What counts against a group is the noise it adds: noise that came in is not its fault.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import inf, log10
from pathlib import Path
from typing import Final

import numpy as np
import onnx

from quantize.calibration import Samples
from quantize.errors import StepFailedError
from quantize.exact_results import reads_integers
from quantize.execution import open_runner
from quantize.groups import Group
from quantize.probing import chunks, float_tensors, tensor_bytes, with_outputs
from quantize.progress import Progress, Silent
from quantize.quantizers import DEQUANTIZED
from quantize.records import Sensitivity
from quantize.signature import Array

LOUDEST: Final = 200.0
"""Decibels that stand for no noise at all."""


def rank(
    model: Path,
    quantised: Path,
    groups: Sequence[Group],
    data: Samples,
    *,
    seconds: Sequence[float] = (),
    excluded: Iterable[str] = (),
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[Sensitivity, ...]:
    """Order groups by what leaving them in float would mend for the time it costs.

    Args:
        model: The float model.
        quantised: A candidate made from it.
        groups: Of the float model.
        data: Samples, of the search set.
        seconds: Time of every group in the float model; empty: not known, all count the same.
        excluded: Nodes that the candidate has in float.
        threads: Threads of a run.
        progress: Is told of every run.

    Returns:
        The group to leave out first comes first. Only groups that the candidate computes in
        integers, or excludes, and whose result both models have.

    Raises:
        StepFailedError: One of the models cannot be run, or they have no tensor in common.
    """
    signals = signal_to_noise(
        model, quantised, groups, data, threads=threads, progress=progress or Silent()
    )
    if not signals:
        raise StepFailedError(f"{quantised.name} keeps no tensor of {model.name} to compare")
    left_out = set(excluded)
    in_integers = _in_integers(quantised, groups)
    total = sum(seconds)
    shares = [each / total for each in seconds] if total > 0 else [1 / len(groups)] * len(groups)
    ranked: list[tuple[float, int, Sensitivity]] = []
    for place, group in enumerate(groups):
        decibels = signals.get(group.output)
        is_excluded = left_out.issuperset(group.nodes)
        if decibels is None or not (is_excluded or group.output in in_integers):
            continue
        incoming = max((_noise(signals.get(name, LOUDEST)) for name in group.inputs), default=0.0)
        added = max(_noise(decibels) - incoming, 0.0)
        # The least share keeps a group that takes no time from being worth everything.
        worth = added / (shares[place] + 1 / len(groups))
        found = Sensitivity(
            nodes=group.nodes,
            operator=group.operator,
            signal_to_noise_db=decibels,
            time_share=shares[place] if total > 0 else 0.0,
            excluded=is_excluded,
        )
        ranked.append((-worth, place, found))
    return tuple(each for _, _, each in sorted(ranked, key=lambda entry: entry[:2]))


def signal_to_noise(
    model: Path,
    quantised: Path,
    groups: Sequence[Group],
    data: Samples,
    *,
    threads: int,
    progress: Progress,
) -> dict[str, float]:
    """Compare the groups' results, quantised against float.

    Args:
        model: The float model.
        quantised: A candidate made from it.
        groups: Of the float model.
        data: Samples.
        threads: Threads of a run.
        progress: Is told of every run.

    Returns:
        Decibels by tensor; ``LOUDEST`` where both are equal.
    """
    pairs = _twins(quantised, [name for group in groups for name in (*group.inputs, group.output)])
    feeds = next(data.feeds(1), None)
    if not pairs or feeds is None:
        return {}
    pairs = _comparable(model, pairs)
    sizes = tensor_bytes(model, list(pairs), feeds)
    powers = {name: np.zeros(2) for name in pairs}
    parts = chunks({name: 2 * size for name, size in sizes.items()})
    with (
        with_outputs(model, pairs) as float_copy,
        with_outputs(quantised, pairs.values()) as rounded_copy,
        open_runner(float_copy, threads=threads, optimize="none") as exact,
        open_runner(rounded_copy, threads=threads, optimize="none") as rounded,
        progress.step("compare layers", data.samples * len(parts)) as step,
    ):
        for names in parts:
            twins = [pairs[name] for name in names]
            for feeds in data.feeds(1):
                clean = exact.run(feeds, names)
                noisy = rounded.run(feeds, twins)
                for name, twin in zip(names, twins, strict=True):
                    powers[name] += _powers(clean[name], noisy[twin])
                step.advance()
    return {name: _decibels(*power) for name, power in powers.items()}


def _twins(quantised: Path, tensors: Iterable[str]) -> dict[str, str]:
    """Find the tensor of the candidate that stands for each of the float model's."""
    graph = onnx.load(quantised, load_external_data=False).graph
    made = {tensor for node in graph.node for tensor in node.output}
    twins = {}
    for name in dict.fromkeys(tensors):
        if name + DEQUANTIZED in made:
            twins[name] = name + DEQUANTIZED
        elif name in made:
            twins[name] = name
    return twins


def _in_integers(quantised: Path, groups: Sequence[Group]) -> set[str]:
    """Find the results that are rounded, or made by a node that integers have replaced."""
    graph = onnx.load(quantised, load_external_data=False).graph
    nodes = {node.name: node for node in graph.node}
    makers = {tensor: node for node in graph.node for tensor in node.output}
    rounded = {
        tensor.removesuffix(DEQUANTIZED)
        for tensor, node in makers.items()
        if node.op_type == "DequantizeLinear"
    }
    found = set()
    for group in groups:
        first = nodes.get(group.nodes[0])
        if group.output in rounded or first is None or reads_integers(first, makers):
            found.add(group.output)
    return found


def _comparable(model: Path, pairs: Mapping[str, str]) -> dict[str, str]:
    graph = onnx.load(model, load_external_data=False).graph
    inputs = {value.name for value in graph.input}
    floats = set(float_tensors(model)) - inputs
    return {name: twin for name, twin in pairs.items() if name in floats}


def _powers(clean: Array, noisy: Array) -> Array:
    if clean.shape != noisy.shape:
        return np.array([0.0, inf])
    signal = clean.astype(np.float64)
    noise = signal - noisy
    return np.array([np.vdot(signal, signal), np.vdot(noise, noise)])


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return LOUDEST
    if signal == 0 or not np.isfinite(noise):
        return -LOUDEST
    return float(np.clip(10 * log10(signal / noise), -LOUDEST, LOUDEST))


def _noise(decibels: float) -> float:
    """Give the noise as a share of the signal's power."""
    return float(10 ** (-decibels / 10))
