"""What is tried, timed and taken: real candidates of a small network, only times are scripted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path

import numpy as np

from edge_runtime.hardware import cpu_facts
from quantize.preparing import Prepared, check_inputs, prepare
from quantize.progress import Silent
from quantize.records import Latency, Recipe
from quantize.search import TIMED_LATE, Found, Search
from quantize.settings import Settings
from quantize.trials import Trials
from quantize.workspace import workspace
from tests import quantize_models

RECIPES = tuple(
    Recipe(
        name=f"r{place}",
        kind="static",
        activation="QUInt8",
        weight="QInt8",
        reduce_range=True,
        calibration="percentile",
        percentile=99.0 + place / 10,
    )
    for place in range(6)
)


@dataclass(frozen=True)
class Scripted(Prepared):
    """A search's start whose measurements are written down beforehand.

    Attributes:
        script: By candidate: its time over the float model's, the first time and the second.
        asked: File stems that were measured, with the number of the measurement.
    """

    script: dict[str, tuple[float, float]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def compare(self, candidate: Path, reference: Path, *, time: int = 0) -> Latency:
        """Give what is written; 1 for whom nothing is written of."""
        del reference
        self.asked.append((candidate.stem, time))
        ratio = {_stem(name): pair for name, pair in self.script.items()}.get(
            candidate.stem, (1.0, 1.0)
        )[time]
        return Latency(
            p50_s=ratio, p90_s=ratio, reference_p50_s=1, reference_p90_s=1, ratio=ratio,
            ratio_low=ratio, ratio_high=ratio, runs=40, threads=1, rows=1, cpu="scripted",
        )  # fmt: skip


@contextmanager
def _search(
    folder: Path, script: dict[str, tuple[float, float]], budget_s: float = 600
) -> Iterator[tuple[Trials, Scripted]]:
    quantize_models.mlp(folder / "m.onnx")
    samples = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    np.savez(folder / "data.npz", x=samples)
    settings = Settings(
        model=str(folder / "m.onnx"),
        data=str(folder / "data.npz"),
        output=str(folder / "out"),
        floor=0.5,
        target="portable",
        recipes=RECIPES,
        time_budget_s=budget_s,
    )
    with workspace(folder / "out", "test") as work:
        made = prepare(settings, check_inputs(settings), cpu_facts(), work, Silent())
        given = {each.name: getattr(made, each.name) for each in fields(Prepared)}
        prepared = Scripted(**given, script=script)
        yield Trials(prepared, work, folder / "cache", Silent()), prepared


def _stem(name: str) -> str:
    return sha256(name.encode()).hexdigest()[:16]


def _chosen(found: Found) -> str:
    return found.chosen.name if found.chosen else ""


def test_the_fastest_is_taken_and_says_what_it_took_the_second_time(tmp_path: Path) -> None:
    with _search(tmp_path, {"r3": (0.5, 0.6), "r1": (0.7, 0.7)}) as (trials, _):
        found = Search(trials).run()
    assert _chosen(found) == "r3"
    assert found.chosen is not None
    assert found.chosen.latency is not None
    assert found.chosen.latency.ratio == 0.6


def test_who_was_lucky_once_is_not_taken(tmp_path: Path) -> None:
    with _search(tmp_path, {"r3": (0.3, 0.9), "r1": (0.5, 0.5)}) as (trials, _):
        assert _chosen(Search(trials).run()) == "r1"


def test_when_time_is_up_there_is_an_answer_all_the_same(tmp_path: Path) -> None:
    with _search(tmp_path, {"r0": (0.5, 0.5)}, budget_s=1e-6) as (trials, _):
        found = Search(trials).run()
        assert [trial.name for trial in trials.tried] == ["r0"]
    assert trials.was_short
    assert _chosen(found) == "r0"


def test_when_time_is_up_only_few_are_timed(tmp_path: Path) -> None:
    with _search(tmp_path, {"r2": (0.5, 0.5), "r5": (0.1, 0.1)}) as (trials, prepared):
        search = Search(trials)
        for recipe in RECIPES:
            trials.screen(recipe)
        trials.was_short = True
        found = search.run()
    candidates = {_stem(recipe.name) for recipe in RECIPES}
    timed = [stem for stem, _ in prepared.asked if stem in candidates]
    assert len(timed) == TIMED_LATE
    assert _chosen(found) == "r2"
