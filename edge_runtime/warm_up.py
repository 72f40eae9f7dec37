"""The first runs of a version, before it answers: they are slow, and they show that it works."""

import logging
from collections.abc import Sequence
from time import perf_counter
from typing import Final

from edge_runtime.errors import EdgeRuntimeError, ModelLoadError
from edge_runtime.samples import Sample
from edge_runtime.session import Run
from edge_runtime.tensors import Signature

_log = logging.getLogger(__name__)

ENOUGH_S: Final = 0.1
"""After this long a model is warm, whatever the number of runs wanted."""


def warm_up(
    run: Run, signature: Signature, samples: Sequence[Sample], runs: int, shown: str
) -> float:
    """Run a version that was just loaded.

    Args:
        run: Of its session.
        signature: What it takes and gives.
        samples: Inputs.
        runs: How often, for each sample; the first time counts most, so slow models run once.
        shown: How messages call the version.

    Returns:
        Seconds of the quickest run; 0 if there was none.

    Raises:
        ModelLoadError: The model fails on golden inputs, which its publisher says it takes.
    """
    names = [*signature.outputs]
    quickest_s = float("inf")
    for sample in samples:
        began = perf_counter()
        for _ in range(runs):
            start = perf_counter()
            try:
                run(names, sample.feeds)
            except EdgeRuntimeError as error:
                if sample.golden:
                    raise ModelLoadError(
                        f"{shown} fails on its golden inputs, {sample.golden}: {error.message}; "
                        "publish it again"
                    ) from error
                _log.debug("%s was not warmed up with made-up inputs: %s", shown, error.message)
                break
            end = perf_counter()
            quickest_s = min(quickest_s, end - start)
            if end - began > ENOUGH_S:
                break
    return quickest_s if quickest_s < float("inf") else 0.0
