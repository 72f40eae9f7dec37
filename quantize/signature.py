"""What a model takes and gives: names, dtypes and shapes. Plain data; only numpy is imported."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a model.

    Attributes:
        name: As the model file declares it.
        dtype: Of its elements; ``object`` for strings.
        shape: Elements per axis; ``None`` for an axis that varies.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        kind = "string" if self.dtype == object else self.dtype.name
        return f"{self.name} {kind} [{sizes}]"


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a model, in the order of its file."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


def listed(names: Iterable[str]) -> str:
    """Join names for a message: quoted, in order, at most eight of them."""
    every = [repr(name) for name in names]
    shown = ", ".join(every[:8]) or "none"
    return shown if len(every) <= 8 else f"{shown} and {len(every) - 8} more"  # noqa: PLR2004
