"""Measuring in turns: what is run how often, and what the numbers are; time itself is simulated."""

from pathlib import Path

import numpy as np
import pytest

from quantize.errors import BadInputError, StepFailedError
from quantize.latency import PAIRS_MIN, SECONDS_MAX, SECONDS_MIN, Times, compare, in_turns, summary
from tests.conftest import DIGITS


class World:
    """A clock that only runs of models move, and a note of which model ran."""

    def __init__(self, candidate_s: float, reference_s: float) -> None:
        self.now = 0.0
        self.ran: list[str] = []
        self._seconds = {"candidate": candidate_s, "reference": reference_s}

    def clock(self) -> float:
        """Give seconds."""
        return self.now

    def run(self, model: str) -> None:
        """Let time pass."""
        self.ran.append(model)
        self.now += self._seconds[model]

    def measure(self, runs: int = 40, seed: int = 0) -> Times:
        """Measure both models."""
        return in_turns(
            lambda _: self.run("candidate"),
            lambda _: self.run("reference"),
            runs=runs,
            seed=seed,
            clock=self.clock,
        )


def test_measures_what_the_models_take() -> None:
    times = World(0.02, 0.04).measure()
    assert times.candidate == pytest.approx(0.02)
    assert times.reference == pytest.approx(0.04)
    result = summary(times, threads=1, rows=1, seed=0, cpu="simulated")
    assert result.p50_s == pytest.approx(0.02)
    assert result.reference_p90_s == pytest.approx(0.04)
    assert [result.ratio, result.ratio_low, result.ratio_high] == pytest.approx([0.5] * 3)
    assert (result.runs, result.cpu) == (40, "simulated")


def test_models_take_turns_and_each_is_sometimes_first() -> None:
    world = World(0.02, 0.02)
    turns = len(world.measure().candidate)
    measured = world.ran[-2 * turns :]
    pairs = [tuple(measured[place : place + 2]) for place in range(0, 2 * turns, 2)]
    assert set(pairs) == {("candidate", "reference"), ("reference", "candidate")}


def test_the_order_is_drawn_by_the_seed() -> None:
    worlds = [World(0.02, 0.02) for _ in range(3)]
    for world, seed in zip(worlds, (1, 1, 2), strict=True):
        world.measure(seed=seed)
    assert worlds[0].ran == worlds[1].ran != worlds[2].ran


def test_fast_models_run_several_times_in_a_turn_and_long_enough() -> None:
    world = World(0.00001, 0.00002)
    times = world.measure()
    assert times.candidate.shape == times.reference.shape
    assert times.candidate.shape[1] > 1
    assert times.candidate.sum() + times.reference.sum() >= SECONDS_MIN - 0.01
    turn = times.candidate.shape[1]
    measured = world.ran[-2 * times.candidate.size :]
    turns = [set(measured[place : place + turn]) for place in range(0, len(measured), turn)]
    assert all(len(models) == 1 for models in turns)


def test_slow_models_end_in_time_but_not_before_enough_pairs() -> None:
    assert len(World(3.0, 4.0).measure(runs=1000).candidate) == PAIRS_MIN
    times = World(0.5, 0.7).measure(runs=1000)
    assert PAIRS_MIN < len(times.candidate) < 1000
    assert times.candidate.sum() + times.reference.sum() < SECONDS_MAX + 2


def test_both_models_are_warm_before_they_are_measured() -> None:
    world = World(0.02, 0.04)
    first = {"candidate": 5.0, "reference": 5.0}

    def run(model: str) -> None:
        world.run(model)
        world.now += first.pop(model, 0)

    times = in_turns(
        lambda _: run("candidate"), lambda _: run("reference"), runs=40, seed=0, clock=world.clock
    )
    assert times.candidate.max() < 0.03
    assert times.reference.max() < 0.05


def test_a_busy_spell_that_falls_on_both_models_does_not_change_the_ratio() -> None:
    busy = np.repeat([1.0, 3.0, 1.0], 20)[:, None]
    result = summary(Times(0.01 * busy, 0.02 * busy), threads=1, rows=1, seed=0, cpu="")
    assert [result.ratio, result.ratio_low, result.ratio_high] == pytest.approx([0.5] * 3)
    assert result.p90_s == pytest.approx(0.03)


def test_spells_as_long_as_half_of_a_measurement_do_not_change_the_ratio() -> None:
    # The medians of the two models lie in different spells: their ratio would be 2.5.
    busy = np.repeat([1.0, 5.0], 20)
    jitter = np.random.default_rng(0).lognormal(0, 0.02, (2, 40))
    mine, theirs = (busy * jitter)[:, :, None]
    mine[19], theirs[20] = 5 * mine[19], theirs[20] / 5
    result = summary(Times(0.01 * mine, 0.02 * theirs), threads=1, rows=1, seed=0, cpu="")
    assert 0.48 < result.ratio_low < 0.5 < result.ratio_high < 0.52
    assert result.ratio == pytest.approx(0.5, rel=0.02)


def test_compares_two_model_files() -> None:
    feeds = [{"image": np.zeros((1, 1, 8, 8), np.float32)}] * 3
    paths = (DIGITS / "digits-int8.onnx", DIGITS / "digits-fp32.onnx")
    result = compare(*paths, feeds, threads=1, runs=20, seed=0)
    assert result.runs >= 20
    assert 0 < result.p50_s <= result.p90_s
    assert 0 < result.ratio_low <= result.ratio <= result.ratio_high
    assert result.cpu


def test_a_model_that_cannot_be_loaded_fails(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    feeds = [{"image": np.zeros((1, 1, 8, 8), np.float32)}]
    with pytest.raises(StepFailedError, match="cannot load broken"):
        compare(path, DIGITS / "digits-fp32.onnx", feeds, threads=1, runs=20, seed=0)
    with pytest.raises(BadInputError, match="no sample"):
        compare(path, path, [], threads=1, runs=20, seed=0)
