"""The probe: joined answers are the single ones, and joining pays, or nothing is joined."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_runtime import batching_probe
from edge_runtime.batching import Verdict
from edge_runtime.batching_probe import cap, probe
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import ModelFailedError
from edge_runtime.samples import synthetic
from edge_runtime.session import Session, SessionSettings
from edge_runtime.settings import Batching
from edge_runtime.tensors import VARIABLE, Array, Signature, TensorSpec
from tests import models
from tests.conftest import DIGITS

MS = 1_000_000
SETTINGS = Batching()


class Clock:
    """Time that passes only while the model runs: a fixed part, and one for each row.

    Attributes:
        fixed_ns: Of each run.
        row_ns: Of each row.
        late_ns: More, of the runs that are still to come; used up from the front.
        sizes: Rows of each run so far.
    """

    def __init__(self) -> None:
        self.now_ns = 0
        self.fixed_ns = MS // 10
        self.row_ns = MS // 100
        self.late_ns: list[int] = []
        self.sizes: list[int] = []

    def __call__(self) -> int:
        """Read it."""
        return self.now_ns

    def ran(self, feeds: Mapping[str, Array]) -> None:
        """Let the time of a run pass."""
        rows = len(next(iter(feeds.values())))
        self.sizes.append(rows)
        self.now_ns += self.fixed_ns + rows * self.row_ns
        if self.late_ns:
            self.now_ns += self.late_ns.pop(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(batching_probe, "perf_counter_ns", made)
    return made


Compute = Callable[[Mapping[str, Array]], list[Array]]


def tried(
    clock: Clock,
    signature: Signature,
    compute: Compute,
    settings: Batching = SETTINGS,
    rows_max: int = 256,
) -> Verdict:
    """Probe a computation."""

    def run(_: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        clock.ran(feeds)
        return compute(feeds)

    return probe(
        run, signature, partial(synthetic, signature), settings=settings, rows_max=rows_max
    )


def tried_model(clock: Clock, path: Path) -> Verdict:
    """Probe a model file."""
    session = Session.load(path, SessionSettings())
    names = list(session.signature.outputs)
    return tried(clock, session.signature, lambda feeds: session.run(names, feeds))


def one(datatype: str = "FP32", shape: tuple[int, ...] = (VARIABLE, 4)) -> Signature:
    specs = [TensorSpec(name, BY_NAME[datatype], shape) for name in ("x", "y")]
    return Signature(specs[:1], specs[1:])


def echo(feeds: Mapping[str, Array]) -> list[Array]:
    return [feeds["x"]]


# -- what may be joined --------------------------------------------------------------------------


def test_model_whose_rows_are_independent_is_joined(clock: Clock) -> None:
    verdict = tried(clock, one(), echo)
    assert verdict.joins
    assert verdict.reason == (
        "the same answers joined or alone; 8 rows joined give 4.89 x the rows per second of "
        "single runs"
    )
    assert verdict.gain == pytest.approx(8 * 110 / 180)


@pytest.mark.parametrize("name", ["digits-int8.onnx", "digits-fp32.onnx"])
def test_examples_are_joined(clock: Clock, name: str) -> None:
    assert tried_model(clock, DIGITS / name).joins


def test_models_of_every_kind_of_input_are_joined(clock: Clock, tmp_path: Path) -> None:
    for number, datatype in enumerate(("FP32", "FP16", "BF16", "INT64", "BOOL", "BYTES")):
        path = models.identity(tmp_path / f"{number}.onnx", datatype)
        assert tried_model(clock, path).joins, datatype
    assert tried_model(clock, models.two_inputs(tmp_path / "two.onnx")).joins


@pytest.mark.parametrize(
    ("settings", "rows_max"), [(Batching(enabled=False), 256), (Batching(), 1)]
)
def test_probe_that_is_switched_off_runs_nothing(
    clock: Clock, settings: Batching, rows_max: int
) -> None:
    verdict = tried(clock, one(), echo, settings, rows_max)
    assert verdict == Verdict(joins=False, reason="switched off by the configuration or the bundle")
    assert clock.sizes == []


@pytest.mark.parametrize(
    ("inputs", "outputs", "what"),
    [
        ((4, 2), (VARIABLE, 2), "input 'x'"),
        ((), (VARIABLE, 2), "input 'x'"),
        ((VARIABLE, 2), (1, 2), "output 'y'"),
        ((VARIABLE, 2), (), "output 'y'"),
    ],
)
def test_model_with_a_fixed_first_axis_is_not_joined(
    clock: Clock, inputs: tuple[int, ...], outputs: tuple[int, ...], what: str
) -> None:
    fp32 = BY_NAME["FP32"]
    signature = Signature([TensorSpec("x", fp32, inputs)], [TensorSpec("y", fp32, outputs)])
    verdict = tried(clock, signature, echo)
    assert verdict == Verdict(joins=False, reason=f"{what} has no varying first axis")
    assert clock.sizes == []


# -- the same answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [False, True])
def test_dynamically_quantized_model_is_found_out(
    clock: Clock, tmp_path: Path, *, tokens: bool
) -> None:
    verdict = tried_model(clock, models.dynamically_quantized(tmp_path / "m.onnx", tokens=tokens))
    assert not verdict.joins
    assert "a neighbour changes the answer: output 'y' differs by" in verdict.reason


def test_model_that_mixes_rows_is_found_out(clock: Clock, tmp_path: Path) -> None:
    verdict = tried_model(clock, models.less_mean(tmp_path / "m.onnx"))
    assert not verdict.joins
    assert "a neighbour changes the answer" in verdict.reason


def test_model_whose_output_has_other_rows_is_found_out(clock: Clock, tmp_path: Path) -> None:
    verdict = tried_model(clock, models.some_rows(tmp_path / "m.onnx"))
    assert verdict == Verdict(
        joins=False, reason="output 'y' does not have a row for each row of input"
    )


def test_output_of_another_shape_when_joined_is_found_out(clock: Clock) -> None:
    def wide(feeds: Mapping[str, Array]) -> list[Array]:
        rows = len(feeds["x"])
        return [np.ones((rows, rows), "<f4")]

    verdict = tried(clock, one(shape=(VARIABLE, VARIABLE)), wide)
    assert verdict.reason == "output 'y' has another shape when runs are joined"


def test_only_the_loudest_neighbour_gives_it_away(clock: Clock) -> None:
    def saturated(feeds: Mapping[str, Array]) -> list[Array]:
        return [feeds["x"] * (1.0 if np.abs(feeds["x"]).max() < 10 else 0.9)]

    assert "differs by 0.1 of" in tried(clock, one(), saturated).reason


def noisy(datatype: str, share: float) -> Compute:
    """Give what came in, but a joined run is wrong by a share of the largest value."""

    def compute(feeds: Mapping[str, Array]) -> list[Array]:
        x = feeds["x"]
        wide = (x.astype("<u4") << 16).view("<f4") if datatype == "BF16" else x.astype("<f8")
        if len(x) >= sum(batching_probe._PARTS):
            wide = wide * (1 + share)
        if datatype == "BF16":
            return [(wide.astype("<f4").view("<u4") >> 16).astype("<u2")]
        return [wide.astype(x.dtype)]

    return compute


@pytest.mark.parametrize(
    ("datatype", "share", "joins"),
    [
        ("FP32", 5e-5, True),
        ("FP32", 2e-4, False),
        ("FP64", 2e-4, False),
        ("FP16", 5e-3, True),
        ("FP16", 2e-2, False),
        ("BF16", 9e-3, True),
        ("BF16", 5e-2, False),
    ],
)
def test_difference_that_counts_is_a_share_of_the_largest_value(
    clock: Clock, datatype: str, share: float, *, joins: bool
) -> None:
    verdict = tried(clock, one(datatype), noisy(datatype, share))
    assert verdict.joins == joins
    strict = msgspec.structs.replace(SETTINGS, tolerance=0.0)
    assert not tried(clock, one(datatype), noisy(datatype, 5e-2), strict).joins


@pytest.mark.parametrize("datatype", ["INT8", "INT64", "UINT32", "BOOL"])
def test_integers_must_be_exactly_the_same(clock: Clock, datatype: str) -> None:
    def compute(feeds: Mapping[str, Array]) -> list[Array]:
        x = feeds["x"].copy()
        if len(x) >= sum(batching_probe._PARTS):
            x[0, 0] = 1 - x[0, 0]
        return [x]

    assert tried(clock, one(datatype), echo).joins
    loose = msgspec.structs.replace(SETTINGS, tolerance=1.0)
    assert tried(clock, one(datatype), compute, loose).reason == (
        "a neighbour changes the answer: output 'y' differs when runs are joined"
    )


def test_text_must_be_exactly_the_same(clock: Clock) -> None:
    def compute(feeds: Mapping[str, Array]) -> list[Array]:
        return [feeds["x"] + str(len(feeds["x"]) > 3)]

    assert tried(clock, one("BYTES"), echo).joins
    assert "differs when runs are joined" in tried(clock, one("BYTES"), compute).reason


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_equal_themselves(clock: Clock, value: float) -> None:
    def always(feeds: Mapping[str, Array]) -> list[Array]:
        return [np.full_like(feeds["x"], value)]

    assert tried(clock, one(), always).joins


def test_model_that_divides_by_zero_is_joined(clock: Clock, tmp_path: Path) -> None:
    assert tried_model(clock, models.divide(tmp_path / "m.onnx")).joins


@pytest.mark.parametrize("alone", [1.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("together", [1.0, np.nan, np.inf, -np.inf])
def test_nan_and_infinity_equal_nothing_else(clock: Clock, alone: float, together: float) -> None:
    def compute(feeds: Mapping[str, Array]) -> list[Array]:
        output = feeds["x"].copy()
        output[:, 0] = together if len(output) >= sum(batching_probe._PARTS) else alone
        return [output]

    assert tried(clock, one(), compute).joins == (repr(alone) == repr(together))


# -- inputs that do not suit ---------------------------------------------------------------------


def test_model_that_refuses_made_up_inputs_is_not_joined(clock: Clock, tmp_path: Path) -> None:
    verdict = tried_model(clock, models.gather(tmp_path / "m.onnx", [10.0]))
    assert not verdict.joins
    assert verdict.reason.startswith("the probe's inputs do not suit it: the model refused")


@pytest.mark.parametrize("run", [0, 1, 3, 6, 8])
def test_failure_of_any_run_is_a_reason_and_no_exception(clock: Clock, run: int) -> None:
    def compute(feeds: Mapping[str, Array]) -> list[Array]:
        if len(clock.sizes) == run + 1:
            raise ModelFailedError("why")
        return echo(feeds)

    verdict = tried(clock, one(), compute)
    assert verdict == Verdict(joins=False, reason="the probe's inputs do not suit it: why")


def test_inputs_too_large_to_make_up_are_a_reason_and_no_exception(clock: Clock) -> None:
    verdict = tried(clock, one(shape=(VARIABLE, 2**25)), echo)
    assert not verdict.joins
    assert "would have shape [1, 33554432]" in verdict.reason


# -- whether it pays -----------------------------------------------------------------------------


def test_slow_model_is_not_joined(clock: Clock) -> None:
    clock.fixed_ns = 21 * MS
    verdict = tried(clock, one(), echo)
    assert verdict == Verdict(
        joins=False,
        reason="one row takes 0.021 s, more than the objective of a joined run (0.02 s)",
    )
    assert clock.sizes == [1, 1]


def test_model_that_was_slow_once_gets_a_second_chance(clock: Clock) -> None:
    clock.late_ns = [10**9]
    assert tried(clock, one(), echo).joins


def test_model_that_gains_nothing_is_not_joined(clock: Clock) -> None:
    clock.fixed_ns = 0
    verdict = tried(clock, one(), echo)
    assert not verdict.joins
    assert verdict.reason == (
        "does not pay: 8 rows joined give 1.00 x the rows per second of single runs"
    )
    assert verdict.gain == 1.0


def test_model_that_costs_more_joined_is_not_joined(clock: Clock) -> None:
    def compute(feeds: Mapping[str, Array]) -> list[Array]:
        clock.now_ns += len(feeds["x"]) ** 2 * MS
        return echo(feeds)

    verdict = tried(clock, one(), compute)
    assert "does not pay" in verdict.reason
    assert verdict.gain < 1


def test_least_gain_is_a_setting(clock: Clock) -> None:
    choosy = msgspec.structs.replace(SETTINGS, min_gain=5.0)
    assert "does not pay" in tried(clock, one(), echo, choosy).reason


def test_runs_that_were_interrupted_do_not_decide(clock: Clock) -> None:
    usual = tried(clock, one(), echo).gain
    before = [0] * 7  # the first run, and those that compare answers
    for late in ([30 * MS, 0, 0, 30 * MS], [0, 300 * MS, 300 * MS, 0], [0, 300 * MS] * 2):
        clock.late_ns = before + late
        assert tried(clock, one(), echo).gain == usual


def test_slow_model_is_tried_with_few_rows_and_few_times(clock: Clock) -> None:
    clock.fixed_ns = 15 * MS
    verdict = tried(clock, one(), echo)
    assert verdict.joins
    assert "2 rows joined" in verdict.reason
    assert max(clock.sizes) == 2
    assert clock.now_ns < 1000 * MS


def test_probe_keeps_to_the_rows_that_are_allowed(clock: Clock) -> None:
    verdict = tried(clock, one(), echo, rows_max=7)
    assert max(clock.sizes) <= 7
    assert verdict.rows <= 7


def test_probe_of_a_fast_model_is_short(clock: Clock) -> None:
    tried(clock, one(), echo)
    assert len(clock.sizes) < 50


# -- how many rows to begin with -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective_s", "rows_max", "rows"),
    [(0.02, 256, 256), (0.001, 256, 80), (0.001, 50, 50), (0.000_12, 256, 1)],
)
def test_rows_to_begin_with_are_those_expected_to_keep_the_objective(
    clock: Clock, objective_s: float, rows_max: int, rows: int
) -> None:
    settings = msgspec.structs.replace(SETTINGS, latency_objective_s=objective_s)
    verdict = tried(clock, one(), echo, settings, rows_max)
    assert verdict.joins
    assert verdict.rows == rows
    limit = cap(verdict, settings, rows_max)
    assert limit.rows == rows
    limit.observe(rows, int(objective_s * 1e9) + 1)
    assert limit.rows == max(1, int(0.9 * rows))


def test_model_as_fast_with_many_rows_begins_with_what_was_tried(clock: Clock) -> None:
    clock.row_ns = 0
    assert tried(clock, one(), echo).rows == 8
