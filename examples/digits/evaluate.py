"""Measure the digit models on the held-out images.

Reads ``test.npz``, ``digits-fp32.onnx`` and ``digits-int8.onnx`` from one folder and prints, for
both models, the accuracy, the file size and the median time of a single-image run, and how often
the two models give the same label. Needs only numpy and onnxruntime: no torch, no scikit-learn.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is loaded, so set before it

import onnxruntime as ort

HERE = Path(__file__).resolve().parent
FP32_FILE = "digits-fp32.onnx"
INT8_FILE = "digits-int8.onnx"
TEST_FILE = "test.npz"

WARM_UP_RUNS = 300
TIMING_ROUNDS = 5

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """What was measured of one model.

    Attributes:
        file: file name, without its folder.
        bytes: file size in bytes.
        correct: how many held-out images got the right label.
        accuracy: ``correct`` as a fraction of the images, 0..1.
        us_per_run: median time of a run of one image, in microseconds; None where not timed.
    """

    file: str
    bytes: int
    correct: int
    accuracy: float
    us_per_run: float | None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured of both models on the same images.

    Attributes:
        images: number of held-out images.
        fp32: the float model's result.
        int8: the quantised model's result.
        agreement: fraction of images to which both models give the same label, 0..1.
        onnxruntime: version of onnxruntime that ran them.
    """

    images: int
    fp32: ModelResult
    int8: ModelResult
    agreement: float
    onnxruntime: str


def load_test(path: Path) -> tuple[FloatArray, LabelArray]:
    """Read the held-out images.

    Args:
        path: the ``.npz`` file.

    Returns:
        Images, float32 ``[n, 1, 8, 8]`` scaled 0..1, and their labels, int64 ``[n]``.
    """
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["image"], arrays["labels"]


def open_session(path: Path) -> ort.InferenceSession:
    """Open a model on the CPU with one thread that does not spin.

    Args:
        path: the ``.onnx`` file.

    Returns:
        The session.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def predict(session: ort.InferenceSession, images: FloatArray) -> LabelArray:
    """Label images, all in one batch.

    Args:
        session: a digit model.
        images: float32 ``[n, 1, 8, 8]`` scaled 0..1.

    Returns:
        Labels, int64 ``[n]``.
    """
    (labels,) = session.run(["label"], {"image": images})
    return np.asarray(labels, dtype=np.int64)


def time_runs(session: ort.InferenceSession, images: FloatArray, runs: int) -> list[float]:
    """Time runs of one image each, going round the given images.

    Args:
        session: a digit model.
        images: float32 ``[n, 1, 8, 8]`` scaled 0..1.
        runs: number of timed runs.

    Returns:
        The time of each run in microseconds.
    """
    feeds = [{"image": images[i : i + 1]} for i in range(len(images))]
    for i in range(WARM_UP_RUNS):
        session.run(None, feeds[i % len(feeds)])
    times = []
    for i in range(runs):
        feed = feeds[i % len(feeds)]
        start = time.perf_counter_ns()
        session.run(None, feed)
        times.append((time.perf_counter_ns() - start) / 1e3)
    return times


def measure(folder: Path, runs: int) -> Evaluation:
    """Measure both models of a folder on its held-out images.

    Args:
        folder: where the two models and the held-out images are.
        runs: timed runs of each model; 0 to leave the timing out.

    Returns:
        The measurements.
    """
    images, truth = load_test(folder / TEST_FILE)
    names = (FP32_FILE, INT8_FILE)
    sessions = [open_session(folder / name) for name in names]
    labels = [predict(session, images) for session in sessions]
    times: list[list[float]] = [[], []]
    # The models take turns, so that a slow spell of the machine falls on both.
    for _ in range(TIMING_ROUNDS if runs else 0):
        for session, taken in zip(sessions, times, strict=True):
            taken.extend(time_runs(session, images, max(1, runs // TIMING_ROUNDS)))
    results = [
        ModelResult(
            file=name,
            bytes=(folder / name).stat().st_size,
            correct=int(np.sum(got == truth)),
            accuracy=float(np.mean(got == truth)),
            us_per_run=round(statistics.median(taken), 2) if taken else None,
        )
        for name, got, taken in zip(names, labels, times, strict=True)
    ]
    return Evaluation(
        images=len(truth),
        fp32=results[0],
        int8=results[1],
        agreement=float(np.mean(labels[0] == labels[1])),
        onnxruntime=ort.__version__,
    )


def report(result: Evaluation) -> str:
    """Put the measurements in words.

    Args:
        result: what `measure` returned.

    Returns:
        A few lines, without a final newline.
    """
    lines = [f"{result.images} held-out images, onnxruntime {result.onnxruntime}, 1 thread"]
    for model in (result.fp32, result.int8):
        speed = "" if model.us_per_run is None else f", {model.us_per_run:.1f} us per image"
        lines.append(
            f"{model.file}: {model.accuracy:.2%} right ({model.correct}), "
            f"{model.bytes} bytes{speed}"
        )
    lines.append(f"same label from both: {result.agreement:.2%}")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """Read the command line.

    Returns:
        The arguments: ``folder`` (Path), ``runs`` (int) and ``json`` (bool).
    """
    parser = argparse.ArgumentParser(
        description="Accuracy, size and speed of the digit models on the held-out images."
    )
    parser.add_argument(
        "--folder", type=Path, default=HERE, help="where the models are (default: this folder)"
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=5000,
        help="timed single-image runs of each model, 0 for none (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    result = measure(arguments.folder, arguments.runs)
    print(json.dumps(dataclasses.asdict(result), indent=2) if arguments.json else report(result))


if __name__ == "__main__":
    main()
