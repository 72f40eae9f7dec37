"""Runs that are joined: each gets exactly what it would have got alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter_ns

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge_runtime.batching import Batch, Lane, RowCap, Run, Verdict
from edge_runtime.datatypes import BF16, BY_NAME, BYTES, Datatype
from edge_runtime.errors import InvalidTensorError, ModelFailedError
from edge_runtime.metrics import VersionStatistics
from edge_runtime.session import Session, SessionSettings
from edge_runtime.tensors import VARIABLE, Array, Signature, Tensor, TensorSpec
from tests import models
from tests.conftest import DIGITS
from tests.fakes import TWO_INPUTS, FakeSession, lane
from tests.scheduler_bench import Request, feeds
from tests.strategies import arrays, datatypes, same

FP32 = BY_NAME["FP32"]
ROWS = st.lists(st.integers(1, 4), min_size=1, max_size=6)
TRAILING = st.lists(st.integers(0, 3), max_size=2).map(tuple)
ONE_ROW_AXIS = ("batch", None, None)
JOINS = Verdict(joins=True, reason="the test says so")


def make(lane: Lane, inputs: Mapping[str, Array], names: Sequence[str] = ("sum",)) -> Run:
    """Make a run whose rows are counted as the request path counts them."""
    rows = len(next(iter(inputs.values())))
    return Run(
        lane=lane,
        names=names,
        feeds=inputs,
        rows=rows,
        size=lane.size(rows, inputs),
        request=Request(),
        done=lambda _: None,
        received=perf_counter_ns(),
    )


def joined(runs: Sequence[Run]) -> Batch:
    """Execute runs as one; all of them must say that they may."""
    batch = Batch(runs[0])
    for run in runs[1:]:
        assert run.may_join
        assert run.joins(runs[0])
        batch.add(run)
    assert batch.rows == sum(run.rows for run in runs)
    assert batch.size == sum(run.size for run in runs)
    batch.execute()
    return batch


class Echo:
    """A session that gives each input back under the name of its output, as new memory."""

    def run(self, names: Sequence[str], feeds: Mapping[str, Array], /) -> list[Array]:
        """Copy the inputs."""
        return [feeds[f"x{name[1:]}"].copy() for name in names]


@dataclass
class Split:
    """Several requests.

    Attributes:
        inputs: Datatype and trailing shape of each input.
        requests: The inputs of each.
        names: Outputs wanted.
    """

    inputs: list[tuple[Datatype, tuple[int, ...]]]
    requests: list[dict[str, Array]]
    names: tuple[str, ...]

    @property
    def signature(self) -> Signature:
        """What a model of these takes and gives."""
        specs = {
            letter: [
                TensorSpec(f"{letter}{place}", datatype, (VARIABLE, *shape), ONE_ROW_AXIS)
                for place, (datatype, shape) in enumerate(self.inputs)
            ]
            for letter in "xy"
        }
        return Signature(specs["x"], specs["y"])


@st.composite
def splits(draw: st.DrawFn) -> Split:
    """Split rows into requests: of one to three inputs, wanting outputs in any order."""
    inputs = draw(st.lists(st.tuples(datatypes, TRAILING), min_size=1, max_size=3))
    requests = [
        {
            f"x{place}": draw(arrays(datatype, (rows, *shape)))
            for place, (datatype, shape) in enumerate(inputs)
        }
        for rows in draw(ROWS)
    ]
    outputs = draw(st.permutations([f"y{place}" for place in range(len(inputs))]))
    return Split(inputs, requests, tuple(outputs[: draw(st.integers(1, len(outputs)))]))


def check_rows(split: Split, lane: Lane) -> None:
    """Check that every request gets what it gets alone."""
    runs = [make(lane, inputs, split.names) for inputs in split.requests]
    batch = joined(runs)
    assert batch.error is None
    for run, inputs in zip(runs, split.requests, strict=True):
        alone = make(lane, inputs, split.names)
        Batch(alone).execute()
        assert len(run.outputs) == len(split.names)
        for name, got, expected in zip(split.names, run.outputs, alone.outputs, strict=True):
            datatype = split.inputs[int(name[1:])][0]
            assert same(Tensor(datatype, got), Tensor(datatype, expected))


@settings(deadline=None)
@given(splits())
def test_every_split_gives_each_request_what_it_gets_alone(split: Split) -> None:
    check_rows(split, Lane(Echo(), split.signature, verdict=JOINS))


@settings(max_examples=40, deadline=None)
@given(splits())
def test_every_split_gives_each_request_what_a_real_model_gives_it_alone(split: Split) -> None:
    used = {datatype for datatype, _ in split.inputs}
    assume(not {BF16, BYTES} <= used)  # ONNX Runtime cannot be fed both
    with TemporaryDirectory() as folder:
        shapes: list[tuple[str, models.Shape]] = [
            (datatype.name, ("batch", *shape)) for datatype, shape in split.inputs
        ]
        path = models.identities(Path(folder) / "m.onnx", shapes)
        session = Session.load(path, SessionSettings())
    check_rows(split, Lane(session, session.signature, verdict=JOINS))


@settings(max_examples=20, deadline=None)
@given(ROWS, st.integers(0, 2**32 - 1))
def test_every_split_of_digits_gives_the_same_scores(counts: list[int], seed: int) -> None:
    session = digits()
    lane = Lane(session, session.signature, verdict=JOINS)
    (spec,) = session.signature.inputs
    random = np.random.default_rng(seed)
    parts = [{spec.name: random.random((rows, *spec.shape[1:]), "<f4") * 16} for rows in counts]
    names = tuple(session.signature.outputs)
    runs = [make(lane, part, names) for part in parts]
    assert joined(runs).error is None
    for run, part in zip(runs, parts, strict=True):
        for got, expected in zip(run.outputs, session.run(names, part), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


_sessions: list[Session] = []


def digits() -> Session:
    """Load the example's quantized model, once."""
    if not _sessions:
        _sessions.append(Session.load(DIGITS / "digits-int8.onnx", SessionSettings()))
    return _sessions[0]


def test_outputs_are_views_of_one_result() -> None:
    runs = [make(lane(rows_max=9), feeds(rows, rows)) for rows in (1, 2, 3)]
    joined(runs)
    bases = {id(run.outputs[0].base) for run in runs}
    assert len(bases) == 1
    assert runs[0].outputs[0].base is not None
    assert all(run.outputs[0].flags.c_contiguous for run in runs)


# -- who may join --------------------------------------------------------------------------------


def test_only_what_was_proved_may_join() -> None:
    assert make(lane(rows_max=2), feeds(1)).may_join
    assert not make(lane(), feeds(1)).may_join


def test_request_without_rows_never_joins() -> None:
    assert not make(lane(rows_max=2), feeds(0)).may_join


def test_run_that_was_taken_out_of_a_failed_one_never_joins_again() -> None:
    batch = Batch(make(lane(rows_max=2), feeds(1)))
    batch.add(make(batch.lane, feeds(1)))
    assert [run.may_join for run in batch.apart()] == [False, False]


@pytest.mark.parametrize(
    "other", [("difference",), ("difference", "sum"), ("sum", "difference", "sum"), ()]
)
def test_runs_that_want_other_outputs_are_not_joined(other: tuple[str, ...]) -> None:
    shared = lane(rows_max=9)
    first = make(shared, feeds(1), ("sum", "difference"))
    assert not make(shared, feeds(1), other).joins(first)
    assert make(shared, feeds(1), ("sum", "difference")).joins(first)


@st.composite
def free_feeds(draw: st.DrawFn) -> dict[str, Array]:
    """Give inputs whose axes all vary, each by itself."""
    return {
        name: np.full(draw(st.tuples(st.integers(1, 3), st.integers(1, 3))), value, "<f4")
        for name, value in (("a", draw(st.integers(0, 9))), ("b", draw(st.integers(0, 9))))
    }


class Broadcast:
    """A session that adds whatever can be broadcast, as ONNX's ``Add`` does."""

    def run(self, _: Sequence[str], feeds: Mapping[str, Array], /) -> list[Array]:
        """Add."""
        try:
            return [feeds["a"] + feeds["b"]]
        except ValueError as error:
            raise InvalidTensorError(str(error)) from error


@pytest.mark.parametrize("symbols", [(), (None, None), ("n", "m")])
@given(st.lists(free_feeds(), min_size=2, max_size=2))
def test_runs_that_say_they_join_get_what_they_get_alone_whatever_their_shapes(
    symbols: tuple[str | None, ...], inputs: list[dict[str, Array]]
) -> None:
    varying = (VARIABLE, VARIABLE)
    own = [symbols, tuple(symbol and symbol * 2 for symbol in symbols)]
    specs = [TensorSpec(name, FP32, varying, each) for name, each in zip("ab", own, strict=True)]
    shared = Lane(Broadcast(), Signature(specs, [TensorSpec("sum", FP32, varying)]), verdict=JOINS)
    assert not shared.uniform
    runs = [make(shared, each) for each in inputs]
    if not runs[1].joins(runs[0]):
        return
    batch = joined(runs)
    alone = []
    for each in inputs:
        run = make(shared, each)
        single = Batch(run)
        single.execute()
        alone.append((single.error, run.outputs))
    if batch.error is None:
        for run, (error, outputs) in zip(runs, alone, strict=True):
            assert error is None
            assert np.array_equal(run.outputs[0], outputs[0])
    else:
        assert any(error is not None for error, _ in alone)


def test_runs_of_other_shapes_behind_the_first_axis_are_not_joined() -> None:
    spec = TensorSpec("a", FP32, (VARIABLE, VARIABLE), ("batch", "length"))
    shared = Lane(Echo(), Signature([spec], [spec]), verdict=JOINS)
    first, longer, more = (
        make(shared, {"a": np.ones(shape, "<f4")}) for shape in ((1, 2), (1, 3), (3, 2))
    )
    assert not longer.joins(first)
    assert more.joins(first)


# -- the lane ------------------------------------------------------------------------------------


def two(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    symbols: tuple[tuple[str | None, ...], tuple[str | None, ...]],
) -> Signature:
    specs = [
        TensorSpec(name, FP32, shape, each)
        for name, shape, each in zip("ab", shapes, symbols, strict=True)
    ]
    return Signature(specs, [TensorSpec("y", FP32, (VARIABLE, 2))])


@pytest.mark.parametrize(
    ("signature", "uniform"),
    [
        (TWO_INPUTS, True),
        (two(((VARIABLE, 2), (VARIABLE, 3)), (("n", None), ("n", None))), True),
        (two(((VARIABLE, 2), (VARIABLE, 3)), (("n", None), ("m", None))), False),
        (two(((VARIABLE, 2), (VARIABLE, 3)), ((None, None), (None, None))), False),
        (two(((VARIABLE, 2), (VARIABLE, 3)), ((), ())), False),
        (two(((VARIABLE, VARIABLE), (VARIABLE, 3)), (("n", "l"), ("n", None))), False),
        (two(((VARIABLE, 2), (4, 3)), (("n", None), ())), True),
        (two(((4, 2), (VARIABLE, 3)), ((), ("n", None))), False),
        (two(((4, 2), (4, 3)), ((), ())), True),
        (two(((), (VARIABLE,)), ((), ("n",))), False),
    ],
)
def test_rows_alone_tell_the_size_only_where_they_say_everything(
    signature: Signature, *, uniform: bool
) -> None:
    assert Lane(Echo(), signature).uniform == uniform


def test_size_is_rows_or_elements() -> None:
    assert lane().size(3, feeds(3)) == 3
    spec = TensorSpec("a", FP32, (VARIABLE, VARIABLE))
    free = Lane(Echo(), Signature([spec], [spec]))
    assert free.size(3, {"a": np.ones((3, 5), "<f4"), "b": np.ones((2, 2), "<f4")}) == 19


# -- the run itself ------------------------------------------------------------------------------


class Odd:
    """A session with another number of output rows than of input rows."""

    def __init__(self, answer: Callable[[int], Array]) -> None:
        self._answer = answer

    def run(self, _: Sequence[str], feeds: Mapping[str, Array], /) -> list[Array]:
        """Give what the test wants."""
        return [feeds["a"], self._answer(len(feeds["a"]))]


@pytest.mark.parametrize(
    "answer",
    [
        lambda rows: np.ones((rows - 1, 2), "<f4"),
        lambda rows: np.ones((rows + 1,), "<f4"),
        np.array,
        lambda _: np.ones((0, 2), "<f4"),
    ],
    ids=["fewer", "more", "scalar", "none"],
)
def test_joined_run_whose_outputs_have_other_rows_is_a_failure(
    answer: Callable[[int], Array],
) -> None:
    shared = lane(Odd(answer), rows_max=9)
    batch = joined([make(shared, feeds(1)), make(shared, feeds(2))])
    assert isinstance(batch.error, ModelFailedError)
    assert "3 rows went in" in batch.error.message
    assert all(run.outputs == [] for run in batch.runs)


def test_single_run_may_have_any_number_of_output_rows() -> None:
    run = make(lane(Odd(lambda _: np.ones((7,), "<f4"))), feeds(1))
    batch = Batch(run)
    batch.execute()
    assert batch.error is None
    assert run.outputs[1].shape == (7,)


def test_failure_that_nobody_foresaw_is_the_models_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def act() -> None:
        raise ZeroDivisionError

    batch = Batch(make(lane(FakeSession(act)), feeds(1)))
    batch.execute()
    assert isinstance(batch.error, ModelFailedError)
    assert "ZeroDivisionError" in caplog.text
    assert batch.started <= batch.ended


def test_batch_teaches_and_counts_rows_and_requests() -> None:
    shared = lane(rows_max=9)
    shared.cap = RowCap(1e12, 6, 100)
    runs = [make(shared, feeds(rows)) for rows in (1, 2, 3)]
    for run in runs:
        run.queued = run.received + 10
    batch = joined(runs)
    batch.learn()
    batch.count()
    assert shared.cost.seen == 1
    assert shared.cap.rows == 8
    counted = shared.statistics
    assert (counted.rows, counted.joined, counted.compute.count, counted.input_ns) == (6, 3, 1, 30)
    assert list(counted.by_rows) == [6]


def test_version_that_joins_nothing_has_no_cap_to_learn() -> None:
    shared = lane()
    batch = Batch(make(shared, feeds(1)))
    batch.execute()
    batch.learn()
    assert shared.cost.seen == 1
    assert shared.cap.rows == 1


def test_lanes_count_by_themselves_unless_told_where() -> None:
    counters = VersionStatistics()
    assert Lane(Echo(), TWO_INPUTS, counters).statistics is counters
    assert Lane(Echo(), TWO_INPUTS).statistics is not Lane(Echo(), TWO_INPUTS).statistics
