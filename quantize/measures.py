"""The measures themselves: from outputs, and labels or the float model's outputs, to scores.

Needs only numpy, so that a bundle can be verified on a device.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from quantize.errors import BadInputError, StepFailedError
from quantize.signature import Array

Scores = npt.NDArray[np.float64]
Outputs = Mapping[str, Array]
Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class TopK:
    """Share of labels that are among the classes with the highest scores.

    Labels count from 0. Where a sample has several (a class for every pixel), its score is the
    share of them. Of equal scores the first class is the higher, as ONNX's ArgMax and TopK have
    it. NaN is always wrong.
    """

    name: str
    output: str
    count: int
    needs_labels: bool = True
    better: Direction = "higher"
    is_share: bool = True
    power: float = 1.0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output with the scores."""
        return (self.output,)

    def per_sample(self, outputs: Outputs, reference: Outputs, labels: Array | None) -> Scores:
        """Score every sample; see ``Metric``."""
        del reference
        scores = outputs[self.output]
        truth = self._truth(labels)
        if scores.dtype.kind == "f":
            right = self._right(self._classes_last(scores, truth), truth)
        else:  # the model gives the class itself
            if scores.size != truth.size:
                raise self._misfit(scores, truth)
            right = scores.reshape(truth.shape) == truth
        scored: Scores = right.reshape(len(right), -1).mean(axis=1, dtype=np.float64)
        return scored

    def _right(self, classes: Array, truth: Array) -> npt.NDArray[np.bool_]:
        mine = np.take_along_axis(classes, truth[..., None], axis=-1)
        places = np.arange(classes.shape[-1])
        before = (classes > mine) | ((classes == mine) & (places < truth[..., None]))
        right: npt.NDArray[np.bool_] = before.sum(axis=-1) < self.count
        return right & ~np.isnan(classes).any(axis=-1)

    def _truth(self, labels: Array | None) -> Array:
        if labels is None:
            raise BadInputError(f"labels missing: the metric {self.name} compares with them")
        if labels.dtype.kind not in "iu":
            raise BadInputError(
                f"the labels are {labels.dtype.name}; {self.name} needs class numbers from 0: "
                "save them as integers (of one-hot labels: labels.argmax(axis=1))"
            )
        shape = (len(labels), *(size for size in labels.shape[1:] if size > 1))
        return labels.reshape(shape).astype(np.int64)

    def _classes_last(self, scores: Array, truth: Array) -> Array:
        """Bring scores into the labels' shape, with the classes as one axis more."""
        axis = _class_axis(scores, truth.shape)
        if axis is None:
            raise self._misfit(scores, truth)
        moved = np.moveaxis(scores, axis, -1)
        self._check_range(truth, moved.shape[-1])
        return moved.reshape(*truth.shape, moved.shape[-1])

    def _misfit(self, scores: Array, truth: Array) -> BadInputError:
        return BadInputError(
            f"the labels have shape {list(truth.shape)} and output {self.output!r} has shape "
            f"{list(scores.shape)}; {self.name} needs one class number for each row of scores "
            "(of one-hot labels: labels.argmax(axis=1)), or another output: --metric-output NAME"
        )

    def _check_range(self, truth: Array, classes: int) -> None:
        low, high = int(truth.min()), int(truth.max())
        if low < 0 or high >= classes:
            raise BadInputError(
                f"the labels go from {low} to {high}, but output {self.output!r} has {classes} "
                f"classes, numbered 0 to {classes - 1}; mend the labels, or name another output: "
                "--metric-output NAME"
            )
        if classes <= self.count > 1:
            raise BadInputError(
                f"{self.name} of {classes} classes is right whatever the model says; use top1"
            )


@dataclass(frozen=True)
class Distance:
    """Mean absolute error (``mae``) or root of the mean squared error (``rmse``) to the labels."""

    name: str
    output: str
    needs_labels: bool = True
    better: Direction = "lower"
    is_share: bool = False

    @property
    def power(self) -> float:
        """Of the mean over all samples: the root is taken last."""
        return 1.0 if self.name == "mae" else 0.5

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output that is compared."""
        return (self.output,)

    def per_sample(self, outputs: Outputs, reference: Outputs, labels: Array | None) -> Scores:
        """Give each sample's mean absolute or mean squared error; see ``Metric``."""
        del reference
        found = outputs[self.output]
        if labels is None:
            raise BadInputError(f"labels missing: the metric {self.name} compares with them")
        if labels.dtype.kind not in "fiu" or labels.size != found.size:
            raise BadInputError(
                f"the labels are {labels.dtype.name} {list(labels.shape)} and output "
                f"{self.output!r} is {found.dtype.name} {list(found.shape)}; {self.name} needs as "
                "many numbers; another output is named by --metric-output NAME"
            )
        errors = _flat(found) - _flat(labels)
        each = np.abs(errors) if self.name == "mae" else errors**2
        scores: Scores = each.mean(axis=1)
        _check_finite(scores, f"output {self.output!r}")
        return scores


@dataclass(frozen=True)
class Cosine:
    """Cosine of the angle between a sample's output and the float model's; the worst output counts.

    The float model's own score is 1, so a floor is absolute. Two outputs of zeros are equal.
    """

    outputs: tuple[str, ...]
    name: str = "cosine"
    needs_labels: bool = False
    better: Direction = "higher"
    is_share: bool = False
    power: float = 1.0

    def per_sample(self, outputs: Outputs, reference: Outputs, labels: Array | None) -> Scores:
        """Score every sample; see ``Metric``."""
        del labels
        scores = [self._cosine(name, outputs, reference) for name in self.outputs]
        worst: Scores = np.min(scores, axis=0)
        return worst

    def _cosine(self, name: str, outputs: Outputs, reference: Outputs) -> Scores:
        if outputs[name].shape != reference[name].shape:
            raise StepFailedError(
                f"output {name!r} has shape {list(outputs[name].shape)}, the float model's has "
                f"{list(reference[name].shape)}"
            )
        mine, theirs = _unit(_flat(outputs[name])), _unit(_flat(reference[name]))
        if not np.isfinite(theirs).all():
            raise BadInputError(
                f"the float model's output {name!r} holds NaN or infinity, so nothing can be "
                "compared with it; name another output: --metric-output NAME"
            )
        products = (mine * theirs).sum(axis=1)
        equal = (mine == theirs).all(axis=1)
        # NaN of a candidate is as wrong as can be, not a reason to stop.
        return np.where(equal, 1.0, np.nan_to_num(np.minimum(products, 1.0), nan=-1.0))


@dataclass(frozen=True)
class Custom:
    """A user's function of outputs and labels that gives a score for every sample.

    Attributes:
        source_sha256: Digest of the file that it stands in: another one scores otherwise. Empty:
            it is in none.
    """

    name: str
    function: Callable[[dict[str, Array], Array | None], Any]
    outputs: tuple[str, ...]
    source_sha256: str = ""
    needs_labels: bool = False
    better: Direction = "higher"
    is_share: bool = False
    power: float = 1.0

    def per_sample(self, outputs: Outputs, reference: Outputs, labels: Array | None) -> Scores:
        """Score every sample; see ``Metric``."""
        del reference
        given = {name: outputs[name] for name in self.outputs}
        samples = len(next(iter(given.values())))
        try:
            scores = np.asarray(self.function(given, labels), dtype=np.float64)
        except Exception as error:  # it is the user's code
            raise BadInputError(
                f"the metric {self.name} failed: {type(error).__name__}: {error}; it is called "
                "with the outputs by name and the labels (or None), and returns numbers"
            ) from error
        if scores.shape != (samples,):
            raise BadInputError(
                f"the metric {self.name} returned shape {list(scores.shape)} for {samples} "
                f"samples; it must return one score for each: [{samples}], higher is better"
            )
        _check_finite(scores, f"metric {self.name}")
        return scores


def _class_axis(scores: Array, labels: tuple[int, ...]) -> int | None:
    """Find the axis of the classes: the last, or the one after the samples; ``None``: neither."""
    for axis in (scores.ndim - 1, 1):
        if 0 < axis < scores.ndim and scores.shape[axis] > 1:
            rest = [size for place, size in enumerate(scores.shape) if place != axis]
            if (rest[0], *(size for size in rest[1:] if size > 1)) == labels:
                return axis
    return None


def _flat(array: Array) -> Scores:
    return array.reshape(len(array), -1).astype(np.float64)


def _unit(rows: Scores) -> Scores:
    """Scale every row to length 1; rows of zeros stay."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    with np.errstate(invalid="ignore"):
        rows = rows / np.where(largest == 0, 1.0, largest)  # squares of it cannot overflow
        lengths = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return rows / np.where(lengths == 0, 1.0, lengths)


def _check_finite(scores: Scores, what: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        raise StepFailedError(
            f"{what} gives NaN or infinity for {wrong.size} samples, the first is {wrong[0]}"
        )
