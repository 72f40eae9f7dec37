"""Everything a search can be told: one struct, echoed in the report and hashed for resuming.

The command line and a recipe file (TOML) fill it; the command line wins. Defaults are here only.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from quantize.records import Goal, Recipe

Target = Literal["auto", "x86-64", "x86-64-vnni", "arm64", "arm64-dotprod", "portable"]

MARGIN: Final = 0.05
"""How much faster, smaller or leaner a candidate must be: less is not worth a second model."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to make of which model, and how good it must be.

    Attributes:
        model: Path of the float model.
        data: Path of the calibration data.
        evaluate: Path of the data that decides; empty: a part of ``data``.
        output: Path of the bundle directory to write.
        name: The model's name in the manifest; empty: the file's stem.
        version: The model's version in the manifest.
        metric: ``auto`` is ``top1`` with labels, else ``cosine``.
        metric_output: Output that the metric reads; empty: chosen by the metric.
        floor: Share of the float model's score that must be kept, with confidence.
        confidence: Of the lower bound that is compared with the floor.
        target: CPU class the bundle is for; ``auto``: this one.
        goal: What the variants compete in once they are good enough.
        margin: Share by which a candidate must be faster, smaller or leaner.
        prune: Whether channels and heads may be removed.
        prune_ratios: Shares of channels removed, the ladder.
        time_budget_s: Seconds after which no new trial is begun.
        threads: Threads of one run while latency is measured.
        runs: Least runs of each model while latency is measured.
        calibration_samples: Most samples that ranges are found on.
        search_samples: Most samples that candidates are compared on.
        seed: Of everything that is drawn.
        exclude: Names of nodes that stay in float in every candidate.
        recipes: Tried instead of the target's own; empty: the target's own.
    """

    model: str
    data: str
    output: str
    evaluate: str = ""
    name: str = ""
    version: Annotated[int, Meta(ge=1)] = 1
    metric: str = "auto"
    metric_output: str = ""
    floor: Annotated[float, Meta(gt=0, le=1)] = 0.99
    confidence: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95
    target: Target = "auto"
    goal: Goal = "latency"
    margin: Annotated[float, Meta(ge=0, lt=1)] = MARGIN
    prune: bool = False
    prune_ratios: tuple[Annotated[float, Meta(gt=0, lt=1)], ...] = (0.1, 0.2, 0.3)
    time_budget_s: Annotated[float, Meta(gt=0)] = 600.0
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    runs: Annotated[int, Meta(ge=10)] = 40
    calibration_samples: Annotated[int, Meta(ge=1)] = 128
    search_samples: Annotated[int, Meta(ge=1)] = 256
    seed: Annotated[int, Meta(ge=0)] = 0
    exclude: tuple[str, ...] = ()
    recipes: tuple[Recipe, ...] = ()
