"""ONNX Runtime's fusions for transformers: normalisation, Gelu and their biases.

Attention is left in parts and embeddings stay Gather: the fused operators hide their weights from
the static quantiser.
"""

import contextlib
import io
import logging
from pathlib import Path
from typing import Final

from onnx import helper

from quantize.errors import StepFailedError
from quantize.model import storage
from quantize.model.architecture import transformer_type
from quantize.model.operators import CONTRIBUTED
from quantize.passes.step import Pass, Subject, fits_in_memory


def requires(subject: Subject) -> str:
    """Require attention with layer normalisation."""
    if not transformer_type(subject.model):
        return "it is not a transformer"
    return fits_in_memory(subject)


def call(source: Path, destination: Path) -> None:
    """Rewrite a model by the optimiser for its type.

    Raises:
        StepFailedError: The optimiser failed.
    """
    model = storage.load_whole(source)
    kind = transformer_type(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from onnxruntime.transformers import (  # noqa: PLC0415 - slow, seldom needed
                fusion_options,
                optimizer,
            )

            logging.getLogger("onnxruntime.transformers").setLevel(logging.CRITICAL)
            logging.getLogger("fusion_base").setLevel(logging.CRITICAL)
            options = fusion_options.FusionOptions(kind)
            options.enable_attention = False
            options.enable_embed_layer_norm = False
            optimized = optimizer.optimize_model(
                model, model_type=kind, opt_level=0, optimization_options=options
            )
    except Exception as error:  # the library's errors share no base
        reason = " ".join(str(error).split())
        raise StepFailedError(f"the optimiser for {kind} failed: {reason}") from error
    if CONTRIBUTED not in {each.domain for each in optimized.model.opset_import}:
        optimized.model.opset_import.append(helper.make_opsetid(CONTRIBUTED, 1))
    storage.save(optimized.model, destination)


TRANSFORMERS: Final = Pass("onnxruntime.transformers", requires=requires, call=call)
