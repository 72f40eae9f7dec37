"""CPU classes: names, this CPU, and what may be measured where."""

import pytest

from edge_runtime.hardware import CpuFacts
from quantize.errors import BadInputError
from quantize.targets import TARGETS, matches_this_cpu, resolve


def cpu(arch: str, *, vnni: bool) -> CpuFacts:
    return CpuFacts(arch=arch, flags=frozenset(), vnni=vnni, description="test")


@pytest.mark.parametrize(
    ("arch", "vnni", "name"),
    [
        ("x86_64", True, "x86-64-vnni"),
        ("x86_64", False, "x86-64"),
        ("aarch64", True, "arm64-dotprod"),
        ("aarch64", False, "arm64"),
        ("riscv64", False, "portable"),
    ],
)
def test_auto_is_the_class_of_this_cpu(arch: str, vnni: bool, name: str) -> None:  # noqa: FBT001
    here = cpu(arch, vnni=vnni)
    assert resolve("auto", here).name == name
    assert matches_this_cpu(resolve("auto", here), here)


def test_unknown_target_is_refused_with_those_there_are() -> None:
    with pytest.raises(BadInputError, match=r"no target 'x86'.*x86-64-vnni"):
        resolve("x86", cpu("x86_64", vnni=True))


def test_latency_on_a_better_cpu_tells_nothing_about_a_lesser_target() -> None:
    vnni = cpu("x86_64", vnni=True)
    assert not matches_this_cpu(TARGETS["x86-64"], vnni)
    assert not matches_this_cpu(TARGETS["arm64-dotprod"], vnni)
    assert matches_this_cpu(TARGETS["portable"], vnni)


def test_only_vnni_and_arm_targets_never_saturate() -> None:
    assert {name for name, each in TARGETS.items() if each.saturates} == {"x86-64", "portable"}
