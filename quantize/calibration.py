"""Ranges of a float model's tensors on calibration samples: looked at once, for all recipes.

A first pass takes every tensor's smallest and largest value, computed inside the graph. Recipes
that cut off outliers need a second one: histograms between those ends, so that no bin ever has to
be added or merged. Percentile and entropy are two readings of the same histograms. Both passes
are kept in files named by everything they depend on: model, samples and versions.
"""

import hashlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from edge_runtime.digest import file_sha256
from edge_runtime.errors import ModelLoadError
from edge_runtime.external_data import external_files
from quantize.errors import StepFailedError
from quantize.execution import RUNTIME_VERSION, Runner, open_runner
from quantize.probing import chunks, float_tensors, with_outputs
from quantize.progress import Progress, Silent
from quantize.records import Recipe
from quantize.signature import Array

BINS: Final = 4096
"""Bins of a histogram, half of them for negative numbers: 16 for each step of a uint8."""

LEVELS: Final = 128
"""Levels that the entropy method keeps of the positive half, as int8 does."""

_FORMAT: Final = "edge-quantize calibration 1"  # raise it when passes count differently
_SMALLEST_EDGE: Final = 1e-30  # the reciprocal of anything smaller is no float32
_STRIDE: Final = 16  # bins between two thresholds that the entropy method compares

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value by tensor."""


class Samples(Protocol):
    """What is calibrated on; ``data.Dataset`` is one."""

    @property
    def samples(self) -> int:
        """How many there are."""

    @property
    def sha256(self) -> str:
        """Digest of all of them."""

    def feeds(self, rows: int) -> Iterator[dict[str, Array]]:
        """Give the arrays of one run after the other."""


class Calibrator:
    """Finds ranges for one model on one set of samples.

    Args:
        model: Float model with the types of its inner tensors; its folder must be writable.
        data: Calibration samples.
        cache: Folder for results; made when missing.
        threads: Threads of a run.
        progress: Is told of every run.

    Raises:
        StepFailedError: The model's files cannot be read.
    """

    def __init__(
        self,
        model: Path,
        data: Samples,
        cache: Path,
        *,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self._model = model
        self._data = data
        self._cache = cache
        self._threads = threads
        self._progress = progress or Silent()
        self.fingerprint = fingerprint(model, data)
        self._limits: dict[str, Array] | None = None
        self._histograms: dict[str, Array] | None = None

    def ranges(self, recipe: Recipe) -> Ranges:
        """Find the ranges that a recipe asks for; runs the model only if no other recipe has.

        Args:
            recipe: One with a calibration method.

        Raises:
            StepFailedError: The model cannot be run, or gives infinite numbers or NaN on the way.
        """
        limits = self._measured_limits()
        ends = {name: (float(pair[0]), float(pair[1])) for name, pair in limits.items()}
        if recipe.calibration in {"", "minmax"}:
            return ends
        histograms = self._measured_histograms(limits)
        ranges: Ranges = {}
        for name, (low, high) in ends.items():
            if recipe.calibration == "percentile":
                ranges[name] = percentile_range(histograms[name], low, high, recipe.percentile)
            else:
                ranges[name] = entropy_range(histograms[name], low, high)
        return ranges

    def _measured_limits(self) -> dict[str, Array]:
        if self._limits is None:
            self._limits = self._load("limits")
        if self._limits is None:
            self._limits = self._run_limits()
            self._store("limits", self._limits)
        return self._limits

    def _measured_histograms(self, limits: Mapping[str, Array]) -> dict[str, Array]:
        if self._histograms is None:
            self._histograms = self._load("histograms")
        if self._histograms is None:
            self._histograms = self._run_histograms(limits)
            self._store("histograms", self._histograms)
        return self._histograms

    def _run_limits(self) -> dict[str, Array]:
        tensors = float_tensors(self._model)
        found = {name: np.array([np.inf, -np.inf, 0.0]) for name in tensors}
        with with_outputs(self._model, tensors, reduced=True) as copy, self._open(copy) as runner:
            parts = [f"{name}:{part}" for name in tensors for part in ("low", "high", "count")]
            for feeds in self._feeds("calibrate"):
                values = runner.run(feeds, parts)
                for name, limits in found.items():
                    low, high = float(values[f"{name}:low"]), float(values[f"{name}:high"])
                    count = int(values[f"{name}:count"])
                    if not count:
                        continue
                    if not (np.isfinite(low) and np.isfinite(high)):
                        raise StepFailedError(
                            f"tensor {name!r} of the float model becomes NaN or infinite on "
                            "calibration samples; check the model and the samples"
                        )
                    limits[:] = min(limits[0], low), max(limits[1], high), max(limits[2], count)
        return {name: limits for name, limits in found.items() if limits[2]}

    def _run_histograms(self, limits: Mapping[str, Array]) -> dict[str, Array]:
        found = {name: np.zeros(BINS, np.int64) for name in limits}
        # Float32, and half as much again for the numbers of the bins.
        sizes = {name: 10 * int(each[2]) for name, each in limits.items()}
        with with_outputs(self._model, limits) as copy, self._open(copy) as runner:
            inputs = {each.name for each in runner.signature.inputs}
            for names in chunks({name: sizes[name] for name in limits}):
                for feeds in self._feeds("histograms"):
                    inner = [name for name in names if name not in inputs]
                    values = runner.run(feeds, inner) if inner else {}
                    for name in names:
                        array = feeds[name] if name in inputs else values[name]
                        found[name] += histogram(array, *limits[name][:2])
        return found

    def _open(self, model: Path) -> Runner:
        return open_runner(model, threads=self._threads, optimize="none")

    def _feeds(self, text: str) -> Iterator[dict[str, Array]]:
        with self._progress.step(text, self._data.samples) as step:
            for feeds in self._data.feeds(1):
                yield feeds
                step.advance()

    def _file(self, what: str) -> Path:
        return self._cache / f"{self.fingerprint}-{what}.npz"

    def _load(self, what: str) -> dict[str, Array] | None:
        """Read an earlier result; one that is cut off counts as none."""
        try:
            # Opened here: numpy forgets to close a file that is cut off.
            with self._file(what).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                names = [str(name) for name in stored["names"]]
                return dict(zip(names, stored["values"], strict=True))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def _store(self, what: str, found: Mapping[str, Array]) -> None:
        """Keep a result; a folder that cannot be written costs time later, and nothing now."""
        with suppress(OSError):
            self._cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._cache) as folder:
                file = Path(folder) / "found.npz"
                np.savez(
                    file,
                    names=np.array(list(found), dtype=np.str_),
                    values=np.array(list(found.values())),
                )
                file.replace(self._file(what))


def fingerprint(model: Path, data: Samples) -> str:
    """Name everything that ranges depend on.

    Args:
        model: ONNX file; its external weights count too.
        data: Calibration samples.

    Returns:
        64 lower-case hexadecimal digits.

    Raises:
        StepFailedError: A file is missing or cannot be read.
    """
    digest = hashlib.sha256(f"{_FORMAT} {RUNTIME_VERSION} {BINS} {data.sha256}".encode())
    try:
        for file in (model, *(model.parent / name for name in external_files(model))):
            digest.update(file_sha256(file).encode())
    except ModelLoadError as error:
        raise StepFailedError(str(error)) from error
    return digest.hexdigest()


def histogram(array: Array, low: float, high: float) -> Array:
    """Count values in ``BINS`` equal bins between minus and plus the largest magnitude.

    Args:
        array: Finite floats of any shape.
        low: Smallest value of the tensor on all samples.
        high: Largest.

    Returns:
        Counts, int64.
    """
    edge = max(abs(low), abs(high))
    if edge < _SMALLEST_EDGE:
        counts = np.zeros(BINS, np.int64)
        counts[BINS // 2] = array.size
        return counts
    places = (array.reshape(-1).astype(np.float32) * np.float32(BINS / 2 / edge)) + BINS // 2
    np.clip(places, 0, BINS - 1, out=places)
    return np.bincount(places.astype(np.int32), minlength=BINS)


def percentile_range(
    counts: Array, low: float, high: float, percentile: float
) -> tuple[float, float]:
    """Cut off the same share of values at both ends.

    Args:
        counts: Of ``histogram``.
        low: Smallest value.
        high: Largest.
        percentile: Share of the values that stays inside, in percent.

    Returns:
        The smaller range; all of it where the share keeps every value.
    """
    edge = max(abs(low), abs(high))
    if edge < _SMALLEST_EDGE:
        return low, high
    outside = (100.0 - percentile) / 200.0 * float(counts.sum())
    upward = np.cumsum(counts)
    downward = np.cumsum(counts[::-1])
    first = int(np.searchsorted(upward, outside, side="right"))
    last = BINS - int(np.searchsorted(downward, outside, side="right"))
    width = 2 * edge / BINS
    return max(low, first * width - edge), min(high, last * width - edge)


def entropy_range(counts: Array, low: float, high: float) -> tuple[float, float]:
    """Cut off as much as loses the least information (Kullback-Leibler) in ``LEVELS`` steps.

    Args:
        counts: Of ``histogram``.
        low: Smallest value.
        high: Largest.

    Returns:
        The smaller range; all of it where there is too little to compare.
    """
    edge = max(abs(low), abs(high))
    if edge < _SMALLEST_EDGE:
        return low, high
    half = BINS // 2
    magnitudes = (counts[half:] + counts[half - 1 :: -1]).astype(np.float64)
    best, least = half, np.inf
    for bins in range(LEVELS, half + 1, _STRIDE):
        loss = _divergence(magnitudes, bins)
        if loss < least:
            best, least = bins, loss
    threshold = edge * best / half
    return max(low, -threshold), min(high, threshold)


def _divergence(magnitudes: Array, bins: int) -> float:
    """Measure what is lost if the first bins are kept, in steps, and the rest goes to the end."""
    kept = magnitudes[:bins].copy()
    kept[-1] += magnitudes[bins:].sum()
    inside = magnitudes[:bins]
    steps = np.arange(bins) * LEVELS // bins
    filled = inside > 0
    sums = np.bincount(steps, weights=inside, minlength=LEVELS)
    sizes = np.bincount(steps, weights=filled, minlength=LEVELS)
    coarse = np.where(filled, sums[steps] / np.maximum(sizes[steps], 1), 0.0)
    total = coarse.sum()
    if total == 0:
        return float("inf")
    share = kept / kept.sum()
    # What falls on an empty bin is infinitely surprising; a trace keeps it comparable.
    guess = np.maximum(coarse / total, 1e-9)
    used = share > 0
    return float(np.sum(share[used] * np.log(share[used] / guess[used])))
