"""What a model's operators say about how it may be run, whatever a probe finds."""

from typing import Final

#: They scale a run by its largest value: a neighbour in the same run changes the answers.
COUPLE_ROWS: Final = frozenset(
    {"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"}
)
#: The time they take follows from values, not from shapes alone: no estimate can be trusted.
TIMED_BY_VALUES: Final = frozenset(
    {
        "BeamSearch",
        "ConstantOfShape",
        "Expand",
        "GreedySearch",
        "If",
        "Loop",
        "NonMaxSuppression",
        "OneHot",
        "Pad",
        "Range",
        "Resize",
        "Sampling",
        "Scan",
        "Tile",
        "Upsample",
    }
)
