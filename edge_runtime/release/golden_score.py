"""The score over goldens that a manifest may ask for, as far as a device can compute it."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from edge_runtime.goldens import Golden
from edge_runtime.manifest import Metric
from edge_runtime.tensors import Array, Signature

_NAME: Final = re.compile(r"top1(?:\((?P<output>.*)\))?")
_AXES: Final = 2
_FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})


def score(
    metric: Metric, signature: Signature, answers: Sequence[tuple[Golden, Mapping[str, Array]]]
) -> tuple[str, str]:
    """Compare the score that a manifest asks for with its floor.

    Only ``top1`` is computed here, the share of rows whose highest score is at the label; the
    quantiser knows more, and has checked them when it wrote the bundle.

    Args:
        metric: What the manifest asks for.
        signature: Of the model.
        answers: Goldens, and the outputs that the model gave.

    Returns:
        What is wrong, and what else somebody should know; both may be empty.
    """
    found = _NAME.fullmatch(metric.name)
    output = _output(signature, found["output"] or "") if found else ""
    hits, rows = 0, 0
    for golden, outputs in answers if output else ():
        if golden.labels is None or output not in outputs:
            continue
        scores, labels = outputs[output], np.asarray(golden.labels).reshape(-1)
        if scores.ndim != _AXES or not scores.size or len(labels) < len(scores):
            continue
        hits += int(np.count_nonzero(scores.argmax(axis=1) == labels[: len(scores)]))
        rows += len(scores)
    if not rows:
        return "", f"the score {metric.name!r} cannot be computed here and was not checked"
    value = hits / rows
    if value >= metric.floor:
        return "", f"{metric.name} over the goldens is {value:.4g}, the floor {metric.floor:.4g}"
    return (
        f"{metric.name} over the goldens is {value:.4g}, below the floor of {metric.floor:.4g}",
        "",
    )


def _output(signature: Signature, name: str) -> str:
    """Find the output with scores of classes: the one named, else the one of the most classes."""
    found = [
        spec
        for spec in signature.outputs.values()
        if spec.datatype.name in _FLOATS and len(spec.shape) == _AXES and name in ("", spec.name)
    ]
    return max(found, key=lambda spec: spec.shape[1]).name if found else ""
