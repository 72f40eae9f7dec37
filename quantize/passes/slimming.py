"""onnxslim: folds constants, removes what has no effect, fuses normalisation into weights."""

import contextlib
import io
import logging
from pathlib import Path
from typing import Final

from quantize.errors import StepFailedError
from quantize.model import storage
from quantize.passes.step import Pass, fits_in_memory


def call(source: Path, destination: Path) -> None:
    """Rewrite a model with onnxslim.

    Raises:
        StepFailedError: onnxslim failed.
    """
    import onnxslim  # noqa: PLC0415 - slow to load, and only the search needs it

    logging.getLogger("onnxslim").setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            model = onnxslim.slim(storage.load_whole(source))
    except Exception as error:  # the library's errors share no base
        raise StepFailedError(f"onnxslim failed: {' '.join(str(error).split())}") from error
    storage.save(model, destination)


SLIMMING: Final = Pass("onnxslim", requires=fits_in_memory, call=call)
