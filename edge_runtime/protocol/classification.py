"""The classification extension: an output as its highest values, with indices and labels."""

import math
from collections.abc import Sequence

import numpy as np

from edge_runtime.tensors import Array


def top_classes(array: Array, count: int, labels: Sequence[str] = ()) -> Array:
    """Turn scores into text, best first.

    Args:
        array: Scores, floats or integers; the last axes of a batch of rows ``[rows, ...]`` are
            taken together, a single axis is one row.
        count: How many classes per row; more than there are gives them all.
        labels: Class names by index.

    Returns:
        An object array of ``str``, ``value:index`` or ``value:index:label``, of shape
        ``[rows, count]``, or ``[count]`` for a single axis.

    Source:
        Triton, classification extension.
    """
    # Not reshape(n, -1): that cannot be told for a batch of no rows.
    width = math.prod(array.shape[1:]) if array.ndim > 1 else array.size
    rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, width)
    count = min(count, width)
    # NaN sorts last in numpy, and would be the best class; it is the worst.
    keys = np.where(np.isnan(rows), -np.inf, rows) if rows.dtype.kind == "f" else rows
    # Sorted backwards and turned around, so that of equals the lower index is first, as in argmax.
    best = width - 1 - np.flip(np.argsort(keys[:, ::-1], axis=1, kind="stable"), axis=1)[:, :count]
    text = np.empty(best.shape, object)
    for row, indices in enumerate(best.tolist()):
        for rank, index in enumerate(indices):
            value = rows[row, index]
            shown = f"{value:f}" if rows.dtype.kind == "f" else str(int(value))
            label = f":{labels[index]}" if index < len(labels) else ""
            text[row, rank] = f"{shown}:{index}{label}"
    return text if array.ndim > 1 else text[0]
