"""Which variant is taken: one that this CPU runs, that passes, and that is clearly the fastest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ManifestError
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import Manifest, Requires, Variant, choose_variant
from edge_runtime.release.variants import Candidate, eligible, fastest, only

CPU = CpuFacts("x86_64", frozenset({"avx2"}), vnni=False, description="a CPU")
MANIFEST = Manifest(
    name="m",
    version=1,
    variants=(
        Variant("vnni", "a.onnx", requires=Requires(cpu_flags=("vnni",))),
        Variant("avx", "b.onnx", requires=Requires(cpu_flags=("avx2",))),
        Variant("any", "c.onnx"),
    ),
)
candidates = st.lists(
    st.builds(Candidate, st.text(min_size=1), st.floats(1e-9, 10)),
    min_size=1,
    unique_by=lambda each: each.name,
)


def test_only_variants_that_the_cpu_runs_are_eligible() -> None:
    assert eligible(MANIFEST, CPU) == ("avx", "any")


def test_no_eligible_variant_is_refused_with_the_reasons() -> None:
    with pytest.raises(ManifestError, match="vnni needs vnni"):
        eligible(only(MANIFEST, "vnni"), CPU)


def test_what_is_left_of_a_manifest_is_what_is_chosen() -> None:
    assert choose_variant(only(MANIFEST, "any"), CPU)[0].name == "any"
    assert only(MANIFEST, "") is MANIFEST
    with pytest.raises(ManifestError, match="has no variant 'other', only"):
        only(MANIFEST, "other")


def test_reason_names_the_time_and_how_many_passed() -> None:
    passed = [Candidate("float", 0.0021), Candidate("int8", 0.00041)]
    assert fastest(passed) == ("int8", "0.41 ms, fastest of 2 that pass")
    assert fastest(passed[:1]) == ("float", "2.1 ms")


def test_publishers_order_decides_where_times_are_close() -> None:
    name, why = fastest([Candidate("first", 0.00100), Candidate("second", 0.00098)])
    assert name == "first"
    assert "preferred by the manifest" in why


def test_first_is_taken_where_times_are_not_known() -> None:
    assert fastest([Candidate("first", 0.0), Candidate("second", 0.001)])[0] == "first"
    assert fastest([Candidate("first", 0.0)]) == ("first", "not measured")


@given(candidates)
def test_nothing_that_passed_is_much_faster_than_what_is_taken(passed: list[Candidate]) -> None:
    name, why = fastest(passed)
    taken = next(each for each in passed if each.name == name)
    assert taken.latency_s * 0.95 <= min(each.latency_s for each in passed)
    assert "ms" in why
