"""Train the digit classifier and write the files that this folder ships.

Trains a small CNN on the handwritten digits that scikit-learn ships and writes
``digits-fp32.onnx``, ``train.npz``, ``test.npz`` (the held-out images) and, by ``make_int8.py``,
``digits-int8.onnx``. Seeded: two runs on one machine give the same float model and images. Refuses
to write anything, with exit code 1, where a model is less accurate than its floor.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from examples.digits import evaluate, graph, make_int8
else:  # the files beside this one, found there when this one is run as a script
    import evaluate
    import graph
    import make_int8

SEED = 2024
HELD_OUT = 450  # images, about a quarter of the 1797
PIXEL_MAX = 16.0  # the data set's pixels are 0..16

CHANNELS = (16, 32)  # whole blocks for onnxruntime's blocked float kernels: no reordering nodes
EPOCHS = 300
BATCH = 64
PEAK_LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-2
LABEL_SMOOTHING = 0.05

# Augmentation, each drawn evenly from -x..x: small, since 8x8 images have little to spare.
MAX_TURN = 0.15  # radians
MAX_ZOOM = 0.10  # fraction
MAX_SHIFT = 0.20  # half image widths: 0.8 pixel

FP32_FLOOR = 0.97  # held-out accuracy
INT8_MAX_LOSS = 0.01  # of held-out accuracy, against the float model

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int64]
Split = tuple[FloatArray, FloatArray, LabelArray, LabelArray]


class FloorError(Exception):
    """A model is not good enough to be written."""


def load_split() -> Split:
    """Load the digits and split them, each class in proportion.

    Returns:
        Training images, held-out images (float32 ``[n, 1, 8, 8]`` scaled 0..1), training labels
        and held-out labels (int64 ``[n]``, 0..9).
    """
    data = load_digits()
    images = (data.images[:, np.newaxis] / PIXEL_MAX).astype(np.float32)
    labels = data.target.astype(np.int64)
    train, held_out, train_labels, held_out_labels = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    return train, held_out, train_labels, held_out_labels


def build_network() -> nn.Sequential:
    """Make the untrained network.

    Returns:
        A network from float32 ``[n, 1, 8, 8]`` to logits, float32 ``[n, 10]``.
    """
    first, second = CHANNELS
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, first, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(first, second, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc=nn.Linear(second * 2 * 2, 10),
        )
    )


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turn, zoom and shift every image a little.

    Args:
        images: float32 ``[n, 1, 8, 8]`` scaled 0..1.
        generator: where the random numbers come from.

    Returns:
        The changed images, of the same shape and scale; what comes in from outside is 0.
    """
    count = len(images)
    draws = torch.rand(count, 4, generator=generator) * 2 - 1
    turn = draws[:, 0] * MAX_TURN
    zoom = draws[:, 1] * MAX_ZOOM + 1
    maps = torch.zeros(count, 2, 3)
    maps[:, 0, 0] = maps[:, 1, 1] = zoom * turn.cos()
    maps[:, 1, 0] = zoom * turn.sin()
    maps[:, 0, 1] = -maps[:, 1, 0]
    maps[:, :, 2] = draws[:, 2:] * MAX_SHIFT
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train_network(images: FloatArray, labels: LabelArray, epochs: int) -> nn.Sequential:
    """Train the network from scratch.

    Args:
        images: training images, float32 ``[n, 1, 8, 8]`` scaled 0..1.
        labels: their labels, int64 ``[n]``, 0..9.
        epochs: passes over the images.

    Returns:
        The trained network.
    """
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    network = build_network()
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    steps = -(-len(inputs) // BATCH) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_LEARNING_RATE, total_steps=steps
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    for epoch in range(1, epochs + 1):
        total = 0.0
        order = torch.randperm(len(inputs), generator=generator)
        for rows in torch.split(order, BATCH):
            loss = loss_of(network(augment(inputs[rows], generator)), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        if epoch % 50 == 0 or epoch == epochs:
            print(f"epoch {epoch}/{epochs}: loss {total / len(inputs):.4f}", file=sys.stderr)
    return network


def check_floors(result: evaluate.Evaluation) -> None:
    """Refuse models that are not accurate enough.

    Args:
        result: both models on the held-out images.

    Raises:
        FloorError: a model is under its floor.
    """
    if result.fp32.accuracy < FP32_FLOOR:
        raise FloorError(
            f"fp32 accuracy {result.fp32.accuracy:.2%} is under the floor of {FP32_FLOOR:.0%}"
        )
    floor = result.fp32.accuracy - INT8_MAX_LOSS
    if result.int8.accuracy < floor:
        raise FloorError(
            f"int8 accuracy {result.int8.accuracy:.2%} is under {floor:.2%}, "
            f"the fp32 model's less {INT8_MAX_LOSS:.0%}"
        )


def build_files(output: Path, epochs: int) -> evaluate.Evaluation:
    """Train, export, quantise, check, and only then put the files in place.

    Args:
        output: the folder to write to.
        epochs: passes over the training images.

    Returns:
        The accuracies on the held-out images; no times.

    Raises:
        FloorError: a model is under its floor; nothing was written.
        subprocess.CalledProcessError: edge-quantize found no int8 model; nothing was written.
    """
    train, held_out, train_labels, held_out_labels = load_split()
    network = train_network(train, train_labels, epochs)
    output.mkdir(parents=True, exist_ok=True)
    # Beside the final files, so that each rename stays within one file system.
    with tempfile.TemporaryDirectory(dir=output, prefix=".train-") as staging_name:
        staging = Path(staging_name)
        onnx.save(graph.build_float_model(network), staging / evaluate.FP32_FILE)
        np.savez_compressed(staging / make_int8.TRAIN_FILE, image=train, labels=train_labels)
        np.savez_compressed(staging / evaluate.TEST_FILE, image=held_out, labels=held_out_labels)
        make_int8.make_int8(staging, staging / evaluate.INT8_FILE)
        result = evaluate.measure(staging, runs=0)
        check_floors(result)
        for name in (
            evaluate.FP32_FILE,
            evaluate.INT8_FILE,
            make_int8.TRAIN_FILE,
            evaluate.TEST_FILE,
        ):
            (staging / name).replace(output / name)
    return result


def parse_arguments() -> argparse.Namespace:
    """Read the command line.

    Returns:
        The arguments: ``output`` (Path) and ``epochs`` (int).
    """
    parser = argparse.ArgumentParser(
        description="Train the digit classifier; write its fp32 and int8 models and test images."
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=evaluate.HERE,
        help="folder to write to (default: this folder)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=EPOCHS,
        help="passes over the training images (default: %(default)s)",
    )
    return parser.parse_args()


def main() -> int:
    """Run the command line.

    Returns:
        The exit code: 0, or 1 where a model was refused.
    """
    arguments = parse_arguments()
    # One thread and fixed algorithms: sums are then added up in the same order in every run.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    try:
        result = build_files(arguments.output, arguments.epochs)
    except (FloorError, subprocess.CalledProcessError) as error:
        print(f"train.py: nothing written: {error}", file=sys.stderr)
        return 1
    print(evaluate.report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
