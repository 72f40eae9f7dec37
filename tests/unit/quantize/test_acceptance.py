"""What devices are asked to check: as strict as what was seen here allows, and never stricter."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.goldens import Golden, distance
from quantize.acceptance import Accepted, acceptance, metric_for, scored
from quantize.errors import StepFailedError
from quantize.measures import TopK
from quantize.metrics import Metric, metric
from quantize.signature import Array, Signature, TensorInfo
from quantize.variants import ShippedVariant
from tests import models
from tests.quantize_bundles import VNNI_CPU
from tests.quantize_reports import latency, trial

FLOAT = np.dtype(np.float32)
SIGNATURE = Signature((TensorInfo("x", FLOAT, (None, 2)),), (TensorInfo("y", FLOAT, (None, 2)),))
ROWS = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 0.0]], np.float32)


def _golden(name: str = "samples-00", by: float = 0.0, labels: Array | None = None) -> Golden:
    """What a model answers that adds nothing, or so much."""
    return Golden(name, {"x": ROWS}, {"y": ROWS + np.float32(by)}, labels)


def _adds(folder: Path, constant: float, name: str = "m") -> ShippedVariant:
    path = models.add_constant(folder / f"{name}.onnx", constant)
    known = trial(name, latency=latency(0.5), memory_bytes=1_000_000)
    return ShippedVariant(name, path, known)


def _asked(
    goldens: list[Golden],
    *variants: ShippedVariant,
    measure: Metric | None = None,
    floor: float = 0.99,
    rows: int = 1,
) -> Accepted:
    return acceptance(
        goldens, variants, metric=measure, metric_output="", floor=floor, rows=rows, cpu=VNNI_CPU
    )


def test_the_variant_that_is_farthest_off_decides_the_tolerance(tmp_path: Path) -> None:
    found = _asked([_golden()], _adds(tmp_path, 0.1, "near"), _adds(tmp_path, 0.5, "far"))
    (tolerance,) = found.acceptance.tolerances
    assert tolerance.output == "y"
    assert tolerance.atol == pytest.approx(0.75)
    assert tolerance.rtol == 0


def test_equal_answers_leave_room_for_rounding(tmp_path: Path) -> None:
    (tolerance,) = _asked([_golden()], _adds(tmp_path, 0.0)).acceptance.tolerances
    assert tolerance.atol == pytest.approx(4e-4)


def test_edges_that_are_near_enough_are_shipped_and_count(tmp_path: Path) -> None:
    found = _asked([_golden(by=0.1), _golden("edge-largest", by=0.3)], _adds(tmp_path, 0.0))
    assert [golden.name for golden in found.goldens] == ["samples-00", "edge-largest"]
    assert found.acceptance.tolerances[0].atol == pytest.approx(0.45)
    assert not any("left out" in note for note in found.notes)


def test_edges_that_would_make_the_tolerance_meaningless_are_left_out(tmp_path: Path) -> None:
    found = _asked([_golden(by=0.1), _golden("edge-largest", by=9.0)], _adds(tmp_path, 0.0))
    assert [golden.name for golden in found.goldens] == ["samples-00"]
    assert found.acceptance.tolerances[0].atol == pytest.approx(0.15)
    assert found.notes[0].startswith("Goldens left out: edge-largest.")


def test_an_edge_that_a_variant_fails_on_is_left_out(tmp_path: Path) -> None:
    broken = Golden("edge-smallest", {"x": np.zeros((1, 3), np.float32)}, {"y": ROWS})
    found = _asked([_golden(), broken], _adds(tmp_path, 0.0))
    assert [golden.name for golden in found.goldens] == ["samples-00"]


def test_a_variant_that_fails_on_real_samples_is_an_error(tmp_path: Path) -> None:
    broken = Golden("samples-00", {"x": np.zeros((1, 3), np.float32)}, {"y": ROWS})
    with pytest.raises(StepFailedError, match=r"m\.onnx: a run failed"):
        _asked([broken], _adds(tmp_path, 0.0))


def test_outputs_of_another_shape_have_no_tolerance(tmp_path: Path) -> None:
    other = Golden("samples-00", {"x": ROWS}, {"y": ROWS[:1]})
    found = _asked([other], _adds(tmp_path, 0.0))
    assert found.acceptance.tolerances == ()
    assert "Output y has no tolerance" in found.notes[0]


def test_integer_outputs_have_no_tolerance(tmp_path: Path) -> None:
    counts = np.array([[1, 2]], np.int64)
    variant = ShippedVariant("m", models.identity(tmp_path / "m.onnx", "INT64"), trial("m"))
    found = _asked([Golden("samples-00", {"x": counts}, {"y": counts + 1})], variant)
    assert found.acceptance.tolerances == ()


# -- the floor ----------------------------------------------------------------------------------

LABELS = np.array([1, 0, 0])


def _top1() -> TopK:
    found = metric("top1", has_labels=True, signature=SIGNATURE)
    assert isinstance(found, TopK)
    return found


def test_the_floor_on_the_goldens_is_one_that_every_variant_reaches(tmp_path: Path) -> None:
    golden = _golden(labels=LABELS)
    found = _asked([golden], _adds(tmp_path, 0.0), measure=_top1()).acceptance.metric
    assert found is not None
    assert found.name == "top1"
    # All are right; one of three may fall to the other side elsewhere.
    assert found.floor == pytest.approx(2 / 3)
    assert found.floor < 2 / 3


def test_the_floor_asks_no_more_than_the_search_did(tmp_path: Path) -> None:
    golden = _golden(labels=LABELS)
    found = _asked([golden], _adds(tmp_path, 0.0), measure=_top1(), floor=0.1).acceptance.metric
    assert found is not None
    assert found.floor == pytest.approx(0.1)


def test_errors_are_negated_so_that_more_is_better(tmp_path: Path) -> None:
    golden = _golden(by=0.5, labels=ROWS)
    measure = metric("mae", has_labels=True, signature=SIGNATURE)
    found = _asked([golden], _adds(tmp_path, 0.75), measure=measure).acceptance.metric
    assert found is not None
    assert found.name == "-mae"
    assert found.floor == pytest.approx(-0.875)  # half as much again as was lost


def test_without_labels_the_edges_count_too(tmp_path: Path) -> None:
    measure = metric("cosine", has_labels=False, signature=SIGNATURE)
    found = _asked([_golden(), _golden("edge-a")], _adds(tmp_path, 0.0), measure=measure)
    assert found.acceptance.metric is not None
    assert found.acceptance.metric.floor == pytest.approx(0.99)


def test_a_users_function_is_never_written_into_a_bundle(tmp_path: Path) -> None:
    measure = metric("math:fsum", has_labels=False, signature=SIGNATURE)
    found = _asked([_golden()], _adds(tmp_path, 0.0), measure=measure)
    assert found.acceptance.metric is None
    assert "cannot compute this metric" in found.notes[0]


def test_no_labels_in_the_goldens_give_no_floor(tmp_path: Path) -> None:
    found = _asked([_golden()], _adds(tmp_path, 0.0), measure=_top1())
    assert found.acceptance.metric is None
    assert "no labels" in found.notes[0]


def test_nothing_is_imported_on_a_manifests_word(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    for name in ("trap:f", "-trap:f", "os:system", "", "top1(nobody)", "top1("):
        assert metric_for(name, SIGNATURE, has_labels=True) is None or name == "top1("


def test_the_output_of_a_metric_is_part_of_its_name() -> None:
    two = Signature(SIGNATURE.inputs, (*SIGNATURE.outputs, TensorInfo("z", FLOAT, (None, 3))))
    for name, output in (("top1", "z"), ("top1(y)", "y")):
        found = metric_for(name, two, has_labels=True)
        assert found is not None
        assert found[0].outputs == (output,)
        assert found[1] == 1
    negated = metric_for("-rmse", two, has_labels=True)
    assert negated is not None
    assert negated[1] == -1


def test_only_as_many_rows_count_as_have_labels() -> None:
    golden = _golden(labels=LABELS[:2])
    wrong_last = {"y": np.array([[0, 1], [1, 0], [0, 9]], np.float32)}
    assert scored(_top1(), [golden], [wrong_last]) == 1.0


def test_a_model_without_an_axis_for_samples_is_scored_as_a_whole() -> None:
    golden = Golden("samples-00", {"x": ROWS}, {"y": np.array([0, 1], np.float32)}, np.array([1]))
    assert scored(_top1(), [golden], [golden.outputs]) == 1.0


# -- budgets ------------------------------------------------------------------------------------


def test_budgets_are_three_times_what_was_measured(tmp_path: Path) -> None:
    found = _asked([_golden()], _adds(tmp_path, 0.0)).acceptance
    assert found.latency_budget_s == pytest.approx(3 * 0.002)
    assert found.memory_budget_bytes == 3_000_000


def test_what_was_not_measured_is_not_checked(tmp_path: Path) -> None:
    silent = ShippedVariant("m", _adds(tmp_path, 0.0).file, trial("m"))
    for asked in (
        _asked([_golden()], _adds(tmp_path, 0.0), silent),
        _asked([_golden()], silent),
    ):
        assert asked.acceptance.latency_budget_s == 0
        assert asked.acceptance.memory_budget_bytes == 0
    other_rows = _asked([_golden()], _adds(tmp_path, 0.0), rows=4)
    assert other_rows.acceptance.latency_budget_s == 0


def test_every_shipped_variant_passes_its_own_check(tmp_path: Path) -> None:
    golden = _golden(by=0.01)
    variant = _adds(tmp_path, 0.2)
    (tolerance,) = _asked([golden], variant).acceptance.tolerances
    assert distance(ROWS + np.float32(0.2), golden.outputs["y"]).beyond <= tolerance.atol
