"""Which recipes are tried for which target and model."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantize.recipe_file import check
from quantize.recipes import ModelFacts, facts_of, ladder, safe
from quantize.records import Goal
from quantize.targets import TARGETS
from tests import quantize_graphs

facts_strategy = st.builds(
    ModelFacts,
    convolutions=st.integers(0, 2),
    products=st.integers(0, 2),
    attention=st.booleans(),
    largest_product=st.sampled_from([0, 1 << 10, 1 << 24]),
    mostly_products=st.booleans(),
)
CNN = ModelFacts(convolutions=3, products=1, attention=False, largest_product=0)
MLP = ModelFacts(0, 4, attention=False, largest_product=1 << 20, mostly_products=True)
TRANSFORMER = ModelFacts(convolutions=0, products=9, attention=True, largest_product=1 << 20)


def is_safe(name: str) -> bool:
    return "7bit" in name or name.startswith("u8u8")


@given(
    st.sampled_from(sorted(TARGETS)),
    facts_strategy,
    st.sampled_from(["latency", "size", "memory"]),
)
def test_every_ladder_can_be_followed_and_holds_a_portable_recipe(
    target: str, facts: ModelFacts, goal: Goal
) -> None:
    recipes = ladder(TARGETS[target], facts, goal)
    check(recipes)
    if facts.convolutions + facts.products:
        assert any(is_safe(recipe.name) for recipe in recipes)
    if TARGETS[target].saturates:
        assert all(safe(recipe) == recipe for recipe in recipes)


def test_the_first_try_is_what_the_cpu_is_best_at() -> None:
    first = {name: ladder(target, CNN)[0].name for name, target in TARGETS.items()}
    assert first == {
        "x86-64": "u8s8-7bit",
        "x86-64-vnni": "u8s8",
        "arm64": "s8s8",
        "arm64-dotprod": "s8s8",
        "portable": "u8s8-7bit",
    }


def test_transformers_are_quantised_dynamically_first() -> None:
    assert ladder(TARGETS["x86-64-vnni"], TRANSFORMER)[0].kind == "dynamic"


def test_where_matrix_products_are_the_work_one_scale_for_each_is_tried_too() -> None:
    # What plain quantisers do: 1.3 times as fast on products of one row.
    names = [recipe.name for recipe in ladder(TARGETS["x86-64-vnni"], MLP)]
    assert names[:2] == ["u8s8", "u8s8-per-tensor"]
    assert "dynamic-per-tensor" in names
    assert "u8s8-7bit-per-tensor" in {each.name for each in ladder(TARGETS["portable"], MLP)}
    assert not any("per-tensor" in each.name for each in ladder(TARGETS["x86-64-vnni"], CNN))


def test_four_bits_are_for_large_products_and_half_floats_for_size() -> None:
    target = TARGETS["x86-64-vnni"]
    assert "matmul-4bit" not in {recipe.name for recipe in ladder(target, CNN)}
    assert ladder(target, TRANSFORMER, "size")[0].name == "matmul-4bit"
    assert ladder(target, TRANSFORMER)[-1].name == "matmul-4bit"
    assert "float16" not in {recipe.name for recipe in ladder(target, TRANSFORMER)}
    assert ladder(target, CNN, "size")[-1].name == "float16"


def test_the_safe_form_has_unsigned_activations_and_seven_bits() -> None:
    signed = ladder(TARGETS["arm64"], CNN)[0]
    changed = safe(signed)
    assert (changed.activation, changed.weight, changed.reduce_range) == ("QUInt8", "QInt8", True)
    assert changed.name == f"{signed.name}-7bit"
    assert safe(changed) is changed


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (quantize_graphs.cnn, ModelFacts(3, 1, attention=False, largest_product=0)),
        (
            quantize_graphs.mlp,
            ModelFacts(0, 3, attention=False, largest_product=32 * 32, mostly_products=True),
        ),
    ],
)
def test_facts_are_read_from_the_graph(tmp_path: Path, made: object, expected: ModelFacts) -> None:
    assert callable(made)
    assert facts_of(made(tmp_path / "m.onnx")) == expected


def test_a_softmax_that_is_multiplied_is_attention(tmp_path: Path) -> None:
    net = quantize_graphs.Network()
    net.node("Transpose", ["x"], "turned", perm=[0, 2, 1])
    net.node("MatMul", ["x", "turned"], "scores")
    net.node("Softmax", ["scores"], "shares")
    net.node("MatMul", ["shares", "x"], "y")
    path = net.save(tmp_path / "m.onnx", {"x": ["batch", 5, 8]}, ["y"])
    assert facts_of(path).attention
