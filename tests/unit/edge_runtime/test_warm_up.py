"""The first runs of a version."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from edge_runtime import warm_up as subject
from edge_runtime.errors import EdgeRuntimeError, ModelFailedError, ModelLoadError
from edge_runtime.samples import Sample
from edge_runtime.tensors import Array
from edge_runtime.warm_up import warm_up
from tests.fakes import TWO_INPUTS

FEEDS = {"a": np.zeros((1, 2), "<f4"), "b": np.zeros((1, 2), "<f4")}
MADE_UP = Sample(FEEDS)
GOLDEN = Sample(dict(FEEDS), "g.npz")


class Model:
    """Counts its runs, and fails if it should."""

    def __init__(self, *, fails_on: Sample | None = None) -> None:
        self.runs: list[Mapping[str, Array]] = []
        self._fails_on = fails_on

    def run(self, names: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """Run."""
        assert [*names] == ["sum", "difference"]
        self.runs.append(feeds)
        if self._fails_on is not None and feeds is self._fails_on.feeds:
            raise ModelFailedError("the model failed while running: no")
        return [FEEDS["a"], FEEDS["b"]]


def test_every_sample_runs_as_often_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "ENOUGH_S", float("inf"))  # a busy machine makes any model slow
    model = Model()
    assert warm_up(model.run, TWO_INPUTS, [GOLDEN, MADE_UP], 3, "m version 1") > 0
    assert [feeds is GOLDEN.feeds for feeds in model.runs] == [True] * 3 + [False] * 3


def test_slow_model_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "ENOUGH_S", 0.0)  # every run is slow now
    model = Model()
    warm_up(model.run, TWO_INPUTS, [MADE_UP], 5, "m version 1")
    assert len(model.runs) == 1


@pytest.mark.parametrize("samples", [(), (MADE_UP,)])
def test_without_runs_or_samples_nothing_happens(samples: tuple[Sample, ...]) -> None:
    model = Model()
    assert warm_up(model.run, TWO_INPUTS, samples, 0 if samples else 2, "m version 1") == 0
    assert not model.runs


def test_model_that_fails_on_made_up_inputs_is_none_the_worse(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Model(fails_on=MADE_UP)
    with caplog.at_level(logging.DEBUG):
        assert warm_up(model.run, TWO_INPUTS, [MADE_UP], 2, "m version 1") == 0
    assert len(model.runs) == 1
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG


def test_model_that_fails_on_golden_inputs_is_a_failed_load() -> None:
    model = Model(fails_on=GOLDEN)
    with pytest.raises(
        EdgeRuntimeError, match=r"m version 1 fails on its golden inputs, g\.npz: "
    ) as raised:
        warm_up(model.run, TWO_INPUTS, [MADE_UP, GOLDEN], 2, "m version 1")
    assert isinstance(raised.value, ModelLoadError)
