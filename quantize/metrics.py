"""Which metric it is, which of a model's outputs it reads, and how much of a score is kept.

Needs only numpy, so that a bundle can be verified on a device.
"""

import importlib
import os
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol

from quantize.errors import BadInputError
from quantize.measures import Cosine, Custom, Direction, Distance, Outputs, Scores, TopK
from quantize.signature import Array, Signature, TensorInfo, listed

NAMES: Final = ("top1", "top5", "mae", "rmse", "cosine")
RATIO_MAX: Final = 10.0
"""More than this is not told apart: an error that all but vanished has no useful ratio."""

_BATCH_AND_CLASSES: Final = 2


class Metric(Protocol):
    """A way to score answers.

    Attributes:
        name: As the user says it.
        needs_labels: Whether it compares with labels.
        outputs: The model's outputs that it reads.
        better: Whether more of it is better, or less.
        is_share: Whether a sample's score is the share of it that is right, 0 to 1.
        power: Of the mean of all samples' scores, in the metric's own unit.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def needs_labels(self) -> bool: ...  # noqa: D102
    @property
    def outputs(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def better(self) -> Direction: ...  # noqa: D102
    @property
    def is_share(self) -> bool: ...  # noqa: D102
    @property
    def power(self) -> float: ...  # noqa: D102

    def per_sample(self, outputs: Outputs, reference: Outputs, labels: Array | None) -> Scores:
        """Score every sample.

        Args:
            outputs: Of the model, by name; the first axis counts samples.
            reference: Of the float model for the same samples.
            labels: First axis as in ``outputs``; ``None``: there are none.

        Returns:
            Float64 ``[samples]``.

        Raises:
            BadInputError: The labels, or a user's function, do not fit the outputs.
            StepFailedError: The outputs are not numbers that can be scored.
        """
        ...


def aggregate(metric: Metric, scores: Scores) -> float:
    """Make one number of the scores of all samples, in the metric's own unit.

    Args:
        metric: That gave the scores.
        scores: Float64 ``[samples]``, at least one.
    """
    mean = float(scores.mean())
    return mean if metric.power == 1 else mean**metric.power


def ratio(value: float, reference: float, better: Direction) -> float:
    """Say how much of the float model's score is kept.

    Args:
        value: The candidate's score.
        reference: The float model's, not negative.
        better: Of the metric.

    Returns:
        1: all of it; below 1: less; never more than ``RATIO_MAX``.
    """
    kept, whole = (value, reference) if better == "higher" else (reference, value)
    if kept == whole:
        return 1.0
    return min(kept / whole, RATIO_MAX) if whole > 0 else (RATIO_MAX if kept > 0 else 0.0)


def metric(name: str, *, has_labels: bool, signature: Signature, output: str = "") -> Metric:
    """Find a metric, and the outputs of this model that it reads.

    ``top1`` and ``top5`` read the float output that looks most like scores of classes: two axes
    before more, then the most classes, then the first. ``mae`` and ``rmse`` read the first float
    output. ``cosine`` reads every float output, and the worst of them counts. A user's function is
    given all outputs.

    Args:
        name: One of ``NAMES``, ``module:function``, or ``auto``: ``top1`` with labels, else
            ``cosine``.
        has_labels: Whether the samples that decide have labels.
        signature: Of the model.
        output: Name of the output to read; empty: chosen as above.

    Raises:
        BadInputError: There is no such metric, function or output, no output suits the metric, or
            it needs labels and there are none.
    """
    if name == "auto":
        name = "top1" if has_labels else "cosine"
    if output and output not in {info.name for info in signature.outputs}:
        raise BadInputError(
            f"the model has no output {output!r} for the metric {name}; its outputs are "
            f"{listed(info.name for info in signature.outputs)}"
        )
    wanted = [info for info in signature.outputs if output in ("", info.name)]
    every = tuple(info.name for info in wanted)
    if ":" in name:
        return Custom(name, _imported(name), every, _source_sha256(name))
    if name not in NAMES:
        raise BadInputError(
            f"there is no metric {name!r}; it is auto, {', '.join(NAMES)}, or module:function"
        )
    floats = [info for info in wanted if info.dtype.kind == "f"]
    if name != "cosine" and not has_labels:
        raise BadInputError(
            f"labels missing: the metric {name} compares with them; add an array 'labels' to the "
            "data, one for each sample, or use --metric cosine, which compares with the float model"
        )
    if name == "cosine":
        return Cosine(tuple(info.name for info in _required(floats, name, wanted)))
    if name in ("mae", "rmse"):
        return Distance(name, _required(floats, name, wanted)[0].name)
    return TopK(name, _scores_output(wanted, name), 1 if name == "top1" else 5)


def _required(found: list[TensorInfo], name: str, wanted: list[TensorInfo]) -> list[TensorInfo]:
    if not found:
        raise BadInputError(
            f"the metric {name} needs a float output, the model gives "
            f"{', '.join(map(str, wanted))}; use --metric module:function"
        )
    return found


def _scores_output(wanted: list[TensorInfo], name: str) -> str:
    floats = [info for info in wanted if info.dtype.kind == "f" and len(info.shape) > 1]
    if floats:
        return max(floats, key=_likeness).name
    whole = [info for info in wanted if info.dtype.kind in "iu"]
    if whole and name == "top1":
        return whole[0].name
    return _required([], name, wanted)[0].name


def _likeness(info: TensorInfo) -> tuple[bool, int]:
    """Rank an output by how much it looks like one score for each class."""
    sizes = [size for size in info.shape[1:] if size != 1]
    return len(sizes) + 1 <= _BATCH_AND_CLASSES, max((size or 0 for size in sizes), default=0)


def _imported(name: str) -> Callable[[dict[str, Array], Array | None], Any]:
    module, _, attribute = name.partition(":")
    folder = os.getcwd()  # noqa: PTH109 - sys.path holds text
    sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # it is the user's code
        raise BadInputError(
            f"cannot use the metric {name}: {type(error).__name__}: {error}; it names a function "
            "in a module that can be imported from the folder you are in"
        ) from error
    finally:
        sys.path.remove(folder)
    if not callable(function):
        raise BadInputError(f"the metric {name} is not a function but {type(function).__name__}")
    return function  # type: ignore[no-any-return]


def _source_sha256(name: str) -> str:
    """Hash the file of a user's function that was imported."""
    file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
    if file is None:
        return ""
    try:
        return sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return ""
