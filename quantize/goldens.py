"""Golden files of a bundle, beside a model that runs. Needs the base install only.

What they are, and how answers are compared with them, is ``edge_runtime.goldens``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.goldens import Golden, decode
from quantize.errors import VerificationError
from quantize.execution import Runner
from quantize.signature import Array, Signature


def read(path: Path, signature: Signature, shown: str) -> Golden:
    """Read a golden file whose digest was checked.

    Args:
        path: The ``.npz`` file.
        signature: Of the model: which arrays are inputs and outputs.
        shown: How messages call the file.

    Raises:
        VerificationError: It cannot be read, or has no array for an input.
    """
    inputs = [tensor.name for tensor in signature.inputs]
    outputs = [tensor.name for tensor in signature.outputs]
    try:
        found = decode(path.read_bytes(), inputs, outputs, shown)
    except EdgeRuntimeError as error:
        raise VerificationError(error.message) from error
    except OSError as error:
        raise VerificationError(
            f"cannot read {shown}: {error.strerror or error}; check its permissions"
        ) from error
    return found._replace(name=path.stem)


def answered(runner: Runner, feeds: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """Run a model on each golden's inputs.

    Args:
        runner: The model.
        feeds: Inputs, one mapping a run.

    Raises:
        StepFailedError: A run failed.
    """
    return [runner.run(each) for each in feeds]
