"""Which models a bundle holds: every CPU finds one that is right for it."""

from pathlib import Path

import pytest

from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import Requires
from quantize.errors import StepFailedError
from quantize.variants import as_served, common_signature, in_order_of_preference
from tests import models
from tests.quantize_bundles import PLAIN_CPU, VNNI, VNNI_CPU
from tests.quantize_reports import BASE, GOOD, PORTABLE, trial

WORK = Path("work")
ANY = Requires()


def _names(*arguments: object) -> list[tuple[str, Requires]]:
    chosen, portable, requires = arguments
    found = in_order_of_preference(chosen, portable, BASE, requires, WORK)  # type: ignore[arg-type]
    return [(each.name, each.requires) for each in found]


def test_nothing_accepted_leaves_the_float_model() -> None:
    assert _names(None, None, VNNI) == [("fp32", ANY)]
    assert _names(BASE, PORTABLE, VNNI) == [("fp32", ANY)]


def test_a_portable_choice_is_all_there_is() -> None:
    assert _names(PORTABLE, PORTABLE, VNNI) == [("int8-portable", ANY)]


def test_behind_a_choice_for_vnni_stands_the_portable_one() -> None:
    assert _names(GOOD, PORTABLE, VNNI) == [("int8-vnni", VNNI), ("int8-portable", ANY)]


def test_behind_a_choice_for_vnni_stands_the_float_model_where_no_portable_one_is_good() -> None:
    assert _names(GOOD, None, VNNI) == [("int8-vnni", VNNI), ("fp32", ANY)]


def test_the_last_variant_runs_on_every_cpu() -> None:
    for chosen in (None, GOOD, PORTABLE):
        for portable in (None, PORTABLE):
            for requires in (VNNI, Requires("aarch64"), ANY):
                assert _names(chosen, portable, requires)[-1][1] == ANY


def test_what_is_not_portable_never_meets_an_x86_cpu_without_vnni() -> None:
    for requires in (VNNI, ANY, Requires("x86_64"), Requires("x86_64", ("avx2",))):
        (name, needed), *_ = _names(GOOD, PORTABLE, requires)
        assert "vnni" in needed.cpu_flags
        assert name.endswith("vnni")


def test_names_say_what_the_models_are_made_of() -> None:
    arm = Requires("aarch64")
    assert _names(GOOD, None, arm)[0] == ("int8-arm64", arm)
    dot = Requires("aarch64", ("vnni",))
    assert _names(GOOD, None, dot)[0] == ("int8-arm64-dotprod", dot)
    for kind, name in (("float16", "fp16-portable"), ("float32", "fp32-pruned-portable")):
        one = trial("one", kind=kind, portable=True)  # type: ignore[arg-type]
        assert _names(one, None, VNNI) == [(name, ANY)]


def test_files_are_those_of_the_workspace() -> None:
    first, last = in_order_of_preference(GOOD, PORTABLE, BASE, VNNI, WORK)
    assert first.file == WORK / "u8s8-minmax.onnx"
    assert last.trial is PORTABLE


def test_only_x86_without_vnni_is_told_not_to_saturate() -> None:
    arm = CpuFacts("aarch64", frozenset(), vnni=False, description="arm")
    assert as_served({"a": "1"}, PLAIN_CPU) == {"a": "1", "session.x64quantprecision": "1"}
    assert as_served({"a": "1"}, VNNI_CPU) == as_served({"a": "1"}, arm) == {"a": "1"}


def test_an_axis_is_fixed_where_one_model_fixes_it(tmp_path: Path) -> None:
    paths = [
        models.add_constant(tmp_path / "a.onnx", 1.0, ("batch", 2)),
        models.add_constant(tmp_path / "b.onnx", 1.0, (4, "width")),
    ]
    signature = common_signature(paths)
    assert signature.inputs[0].shape == signature.outputs[0].shape == (4, 2)


@pytest.mark.parametrize("shape", [(3, 2), ("batch", 2, 1)])
def test_models_that_contradict_each_other_make_no_bundle(
    tmp_path: Path, shape: tuple[int | str, ...]
) -> None:
    paths = [
        models.add_constant(tmp_path / "a.onnx", 1.0, (4, 2)),
        models.add_constant(tmp_path / "b.onnx", 1.0, shape),
    ]
    with pytest.raises(StepFailedError, match="contradict"):
        common_signature(paths)


def test_models_with_other_tensors_make_no_bundle(tmp_path: Path) -> None:
    paths = [models.identity(tmp_path / "a.onnx"), models.two_inputs(tmp_path / "b.onnx")]
    with pytest.raises(StepFailedError, match="same tensors"):
        common_signature(paths)
