"""First step: opset 17 or newer, a current file format, no defaults for inputs, no functions."""

from pathlib import Path
from typing import Final

from quantize.model import storage
from quantize.model.opset import lifted
from quantize.passes.step import Pass, always


def call(source: Path, destination: Path) -> None:
    """Lift a model and bring its weights; the only step whose folders may differ.

    Raises:
        BadInputError: It cannot be lifted, or its weights are missing.
    """
    model = lifted(storage.load_graph(source), source.name)
    storage.save(model, destination, weights_in=source.parent)


LIFTING: Final = Pass("opset", requires=always, call=call, is_needed=True)
