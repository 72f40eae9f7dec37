"""The oldest ONNX Runtime that can be expected to run a bundle's models. Pure.

What a model is written in decides, not what it was made with: a bundle of a newer machine then runs
on a device that was not updated. That it loads is no proof that it is right there: the daemon
compares goldens before it serves.
"""

from collections.abc import Iterable
from typing import Final

from quantize.model.operators import CONTRIBUTED
from quantize.model.source import Source

LEAST: Final = "1.29"
"""Oldest release that this project is installed with."""
OPSET_MOST: Final = 26
"""Newest version of ONNX's operators that ``LEAST`` loads; found out with that release."""
FORMAT_MOST: Final = 13
"""Newest version of the file format that ``LEAST`` loads; found out with that release."""

_CONTRIBUTED: Final = frozenset(
    {
        "Attention",
        "BiasGelu",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "EmbedLayerNormalization",
        "FastGelu",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "GatherBlockQuantized",
        "Gelu",
        "GroupNorm",
        "GroupQueryAttention",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MultiHeadAttention",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QuantizeLinear",
        "QuickGelu",
        "RotaryEmbedding",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)
"""ONNX Runtime's own operators that fusions and quantisers write, and that ``LEAST`` has."""


def oldest_release(models: Iterable[Source], this: str) -> str:
    """Name the oldest release that has what some models are written in.

    Args:
        models: All of a bundle.
        this: Version of ONNX Runtime that they were tried with.

    Returns:
        ``major.minor``: ``LEAST``, or the release of ``this`` where a model has something that
        is not known to be older.
    """
    if all(_is_old(model) for model in models):
        return LEAST
    return ".".join(this.split(".")[:2])


def _is_old(model: Source) -> bool:
    own = (name.rpartition(".") for name in model.operators)
    newer = {name for domain, _, name in own if domain == CONTRIBUTED and name not in _CONTRIBUTED}
    return model.opset <= OPSET_MOST and model.ir_version <= FORMAT_MOST and not newer
