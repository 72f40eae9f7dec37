"""The manifest and the model file must agree on tensors; the manifest may say more."""

from typing import Any

import pytest

from edge_runtime.agreement import agreed
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import ManifestError
from edge_runtime.manifest import Manifest, TensorDescription, Variant
from edge_runtime.tensors import VARIABLE, Signature, TensorSpec

FOUND = Signature(
    [TensorSpec("x", BY_NAME["FP32"], (VARIABLE, VARIABLE, 3), ("batch", "n", None))],
    [TensorSpec("y", BY_NAME["INT64"], (VARIABLE,), ("batch",))],
)


def manifest(inputs: tuple[Any, ...] = (), outputs: tuple[Any, ...] = ()) -> Manifest:
    """Give a manifest of these tensors: name, datatype, shape."""
    return Manifest(
        name="m",
        version=1,
        variants=(Variant("only", "m.onnx"),),
        inputs=tuple(TensorDescription(*each) for each in inputs),
        outputs=tuple(TensorDescription(*each) for each in outputs),
    )


def test_what_the_manifest_does_not_list_is_as_in_the_file() -> None:
    signature = agreed(FOUND, manifest())
    assert signature.inputs == FOUND.inputs
    assert signature.outputs == FOUND.outputs


def test_manifest_may_fix_an_axis_and_names_the_classes() -> None:
    labels = TensorDescription("y", "INT64", (-1,), labels=("a", "b"))
    stated = Manifest(
        name="m",
        version=1,
        variants=(Variant("only", "m.onnx"),),
        inputs=(TensorDescription("x", "FP32", (-1, 5, 3)),),
        outputs=(labels,),
    )
    signature = agreed(FOUND, stated)
    (x,) = signature.inputs
    assert x.shape == (VARIABLE, 5, 3)
    assert x.symbols == ("batch", "n", None)
    assert signature.outputs["y"].labels == ("a", "b")
    assert signature.batchable


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        (manifest(inputs=(("z", "FP32", (-1, -1, 3)),)), r"m: inputs are \['z'\] .* \['x'\]"),
        (manifest(inputs=(("x", "FP64", (-1, -1, 3)),)), r"m: input 'x' is FP64 .* FP32"),
        (manifest(inputs=(("x", "FP32", (-1, -1, 4)),)), r"\[-1, -1, 4\] .* \[-1, -1, 3\]"),
        (manifest(inputs=(("x", "FP32", (-1, -1, -1)),)), r"\[-1, -1, -1\] .* \[-1, -1, 3\]"),
        (manifest(inputs=(("x", "FP32", (-1, 3)),)), r"\[-1, 3\] .* \[-1, -1, 3\]"),
        (manifest(outputs=(("y", "INT32", (-1,)),)), r"m: output 'y' is INT32 .* INT64"),
    ],
)
def test_contradiction_is_refused_with_both_sides(stated: Manifest, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        agreed(FOUND, stated)
