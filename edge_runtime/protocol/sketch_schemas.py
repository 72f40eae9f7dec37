"""The JSON body of ``GET /admin/sketches``."""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct


class OutputSketch(Struct, kw_only=True):
    """How the values of one output spread."""

    name: str
    rows: Annotated[int, Meta(description="Rows or values that were counted.")]
    bad: Annotated[int, Meta(description="NaN and infinite ones among them.")] = 0
    counts: Annotated[
        Mapping[str, int],
        Meta(
            description="Counts that add up over time and devices: `class:K` (best class), "
            "`score:B` (its score, in twentieths of 1), or `zero`, `value:B` and `value:~B` "
            "(positive and negative values up to 1.25 to the power of B)."
        ),
    ]


class VersionSketches(Struct, kw_only=True):
    """The outputs of one version."""

    model: str
    version: str
    digest: str
    outputs: list[OutputSketch]


class Sketches(Struct, kw_only=True):
    """``GET /admin/sketches``: counted since the daemon started, a few answers a second."""

    versions: list[VersionSketches]
