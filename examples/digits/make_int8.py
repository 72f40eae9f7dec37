"""Make ``digits-int8.onnx`` of ``digits-fp32.onnx`` with ``edge-quantize``, as a user would.

The goal is size: the model is so small that int8 is not faster, which the goal permits and the
command says. Calibrates on ``train.npz``; ``test.npz`` decides.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from examples.digits import evaluate
else:  # the file beside this one, found there when this one is run as a script
    try:
        import evaluate
    except ModuleNotFoundError:
        from examples.digits import evaluate

TRAIN_FILE = "train.npz"


def make_int8(folder: Path, destination: Path) -> None:
    """Quantise the float model.

    Args:
        folder: where the float model, ``train.npz`` and ``test.npz`` are.
        destination: file to write; it is replaced as a whole.

    Raises:
        subprocess.CalledProcessError: no candidate is good enough; the command has said why.
    """
    command = Path(sys.executable).with_name("edge-quantize")
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".int8-") as scratch:
        bundle = Path(scratch) / "bundle"
        subprocess.run(
            [
                command,
                folder / evaluate.FP32_FILE,
                "--data",
                folder / TRAIN_FILE,
                "--evaluate",
                folder / evaluate.TEST_FILE,
                "--goal",
                "size",
                "--name",
                "digits",
                "--quiet",
                "-o",
                bundle,
            ],
            check=True,
        )
        manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
        # The last variant is the one for every CPU.
        model = bundle / manifest["variants"][-1]["file"]
        copied = Path(scratch) / destination.name
        shutil.copyfile(model, copied)
        copied.replace(destination)


def main() -> int:
    """Run the command line.

    Returns:
        The exit code of ``edge-quantize``.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--folder",
        type=Path,
        default=evaluate.HERE,
        help="where the models and images are (default: this folder)",
    )
    folder: Path = parser.parse_args().folder
    try:
        make_int8(folder, folder / evaluate.INT8_FILE)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
