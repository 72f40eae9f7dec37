"""Which recipes are worth a try for a target and a model, in the order of first try. Pure."""

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import msgspec

from quantize.matmul_nbits import LARGE
from quantize.model import storage
from quantize.records import Goal, Integer, Recipe
from quantize.targets import Target

PERCENTILES: Final = (99.99, 99.999)

_CONVOLUTIONS: Final = ("Conv", "ConvTranspose", "FusedConv")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What decides which recipes make sense.

    Attributes:
        convolutions: Nodes that convolve.
        products: Matrix products (``MatMul``, ``Gemm``) with a constant factor.
        attention: Whether it looks like a transformer: attention, or softmax of a product.
        largest_product: Elements of the largest constant factor of a ``MatMul``.
        mostly_products: Whether matrix products hold more weights than convolutions.
    """

    convolutions: int
    products: int
    attention: bool
    largest_product: int
    mostly_products: bool = False


def facts_of(model: Path) -> ModelFacts:
    """Read from a model's graph what decides about recipes; its weights are not read.

    Args:
        model: ONNX file.

    Raises:
        BadInputError: The file cannot be read.
    """
    graph = storage.load_graph(model).graph
    sizes = {tensor.name: prod(tensor.dims) for tensor in graph.initializer}
    makers = {tensor: node.op_type for node in graph.node for tensor in node.output}
    counts = Counter(node.op_type for node in graph.node)
    matrices = [
        sizes[node.input[1]]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in sizes
    ]
    dense = [
        sizes[node.input[1]]
        for node in graph.node
        if node.op_type == "Gemm" and node.input[1] in sizes
    ]
    filters = sum(
        sizes.get(node.input[1], 0) for node in graph.node if node.op_type in _CONVOLUTIONS
    )
    # Attention multiplies two activations, one of them the softmax of such a product.
    attends = any(
        node.op_type == "MatMul" and node.input[1] not in sizes
        for node in graph.node
        if any(makers.get(tensor) == "Softmax" for tensor in node.input)
    )
    return ModelFacts(
        convolutions=sum(counts[operator] for operator in _CONVOLUTIONS),
        products=len(matrices) + len(dense),
        attention=attends or bool(counts["Attention"] + counts["MultiHeadAttention"]),
        largest_product=max(matrices, default=0),
        mostly_products=sum(matrices) + sum(dense) > filters,
    )


def ladder(target: Target, facts: ModelFacts, goal: Goal = "latency") -> tuple[Recipe, ...]:
    """List the recipes to try.

    Args:
        target: CPU class the bundle is for.
        facts: About the float model.
        goal: What candidates compete in.

    Returns:
        Most promising first, names unique; empty if nothing of the model can be quantised.
        Otherwise one or more are safe on x86 CPUs without VNNI.
    """
    static = _static(target) if facts.convolutions + facts.products else []
    dynamic = _dynamic(target) if facts.products else []
    if static and dynamic and facts.mostly_products:
        static = [static[0], _per_tensor(static[0]), *static[1:]]
        dynamic = [dynamic[0], _per_tensor(dynamic[0]), *dynamic[1:]]
    # Transformers have activations with outliers, which ranges of each run's own follow.
    recipes = [*dynamic, *static] if facts.attention else [*static, *dynamic]
    if facts.largest_product >= LARGE:
        nbits = _nbits()
        recipes = [nbits, *recipes] if goal in {"size", "memory"} else [*recipes, nbits]
    if goal == "size" and recipes:
        recipes.append(_float16())
    return tuple(recipes)


def safe(recipe: Recipe) -> Recipe:
    """Give the form of an int8 recipe that is safe on x86 CPUs without VNNI.

    Args:
        recipe: Any; one that is safe already stays as it is.
    """
    if recipe.weight != "QInt8" or recipe.reduce_range:
        return recipe
    return _changed(
        recipe,
        name=f"{recipe.name}-7bit",
        activation="QUInt8" if recipe.kind == "static" else recipe.activation,
        reduce_range=True,
        why="weights of 7 bits: no sum is cut off on x86 CPUs without VNNI",
    )


def _static(target: Target) -> list[Recipe]:
    full = [
        _quantised("u8s8", "QUInt8", "QInt8", why="the kernels that VNNI was made for"),
        _quantised("s8s8", "QInt8", "QInt8", why="what ARM's dot product takes as it is"),
    ]
    unsigned = _quantised(
        "u8u8", "QUInt8", "QUInt8", why="full 8 bits without 16-bit sums; slower on x86"
    )
    arm = target.arch == "aarch64"
    if target.saturates:
        first = safe(full[0])
        return [*_methods(first), unsigned]
    first = full[1] if arm else full[0]
    second = [full[0]] if arm else []
    return [*_methods(first), *second, safe(full[0]), unsigned]


def _methods(recipe: Recipe) -> list[Recipe]:
    """Give a recipe with every way to find ranges."""
    percentile = [
        _changed(
            recipe,
            name=f"{recipe.name}-p{share}",
            calibration="percentile",
            percentile=share,
            why=f"{recipe.why}; rare outliers do not widen the steps",
        )
        for share in PERCENTILES
    ]
    entropy = _changed(
        recipe,
        name=f"{recipe.name}-entropy",
        calibration="entropy",
        why=f"{recipe.why}; ranges that lose the least information",
    )
    return [recipe, *percentile, entropy]


def _dynamic(target: Target) -> list[Recipe]:
    full = Recipe(
        name="dynamic",
        kind="dynamic",
        activation="QUInt8",
        weight="QInt8",
        per_channel=True,
        # Convolutions stay out: unfused, ConvInteger is slower than float.
        operators=("MatMul", "Attention", "LSTM", "Gather"),
        why="ranges of every run's own; no calibration can be wrong",
    )
    return [safe(full)] if target.saturates else [full, safe(full)]


def _per_tensor(recipe: Recipe) -> Recipe:
    return _changed(
        recipe,
        name=f"{recipe.name}-per-tensor",
        per_channel=False,
        why=f"{recipe.why}; one scale for a whole matrix, which its kernels are faster with",
    )


def _nbits() -> Recipe:
    return Recipe(
        name="matmul-4bit",
        kind="matmul-nbits",
        bits=4,
        block_size=32,
        why="large matrices are read from memory in an eighth of the bytes",
    )


def _float16() -> Recipe:
    return Recipe(name="float16", kind="float16", why="half the size; seldom faster on a CPU")


def _quantised(name: str, activation: Integer, weight: Integer, *, why: str) -> Recipe:
    return Recipe(
        name=name,
        kind="static",
        activation=activation,
        weight=weight,
        per_channel=True,
        calibration="minmax",
        why=why,
    )


def _changed(recipe: Recipe, **fields: object) -> Recipe:
    changed: Recipe = msgspec.structs.replace(recipe, **fields)
    return changed
