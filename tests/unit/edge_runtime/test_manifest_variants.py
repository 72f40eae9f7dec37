"""The variant a CPU runs, and the reason it gives."""

import msgspec
import pytest

from edge_runtime import manifest
from edge_runtime.errors import ManifestError
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import Manifest, Requires, Variant

FULL = Manifest(
    name="resnet",
    version=7,
    variants=(
        Variant("int8-vnni", "a.onnx", requires=Requires("x86_64", ("avx512_vnni",))),
        Variant("fp32", "b.onnx"),
    ),
)
X86 = CpuFacts("x86_64", frozenset({"avx2"}), vnni=False, description="x86_64, old, without VNNI")
VNNI = CpuFacts("x86_64", frozenset({"avx512_vnni"}), vnni=True, description="new")


def test_the_preferred_variant_is_chosen_where_the_cpu_has_what_it_needs() -> None:
    variant, reason = manifest.choose_variant(FULL, VNNI)
    assert variant.name == "int8-vnni"
    assert reason == "int8-vnni: needs x86_64 and avx512_vnni, which this CPU has"


def test_the_next_variant_is_chosen_with_the_reason_for_passing_over() -> None:
    variant, reason = manifest.choose_variant(FULL, X86)
    assert variant.name == "fp32"
    assert reason == (
        "fp32: the first of 2 variants this CPU can run; "
        "int8-vnni needs avx512_vnni, which it lacks"
    )


def test_the_word_vnni_stands_for_every_encoding_of_it() -> None:
    both = msgspec.structs.replace(
        FULL,
        variants=(Variant("int8", "f", requires=Requires(cpu_flags=("vnni",))), Variant("a", "g")),
    )
    arm = CpuFacts("aarch64", frozenset({"asimddp"}), vnni=True, description="arm")
    assert manifest.choose_variant(both, arm)[0].name == "int8"
    assert manifest.choose_variant(both, X86)[0].name == "a"


def test_a_variant_without_needs_is_chosen_without_ado() -> None:
    only = msgspec.structs.replace(FULL, variants=FULL.variants[1:])
    assert manifest.choose_variant(only, X86)[1] == "fp32: the only variant"
    two = msgspec.structs.replace(FULL, variants=(Variant("a", "f"), Variant("b", "g")))
    assert manifest.choose_variant(two, X86)[1] == "a: the first of 2 variants"


def test_a_cpu_that_runs_no_variant_is_told_why_for_each() -> None:
    arm = CpuFacts("aarch64", frozenset(), vnni=False, description="aarch64, small, without VNNI")
    none = msgspec.structs.replace(FULL, variants=FULL.variants[:1])
    with pytest.raises(ManifestError) as caught:
        manifest.choose_variant(none, arm)
    assert caught.value.message == (
        "no variant of resnet version 7 runs on this CPU (aarch64, small, without VNNI): "
        "int8-vnni needs x86_64 and avx512_vnni, which it lacks"
    )
    with pytest.raises(ManifestError, match="the manifest lists none"):
        manifest.choose_variant(msgspec.structs.replace(FULL, variants=()), arm)
