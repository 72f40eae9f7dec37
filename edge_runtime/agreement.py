"""What a model takes and gives: its file and its manifest must agree on it."""

from collections.abc import Sequence
from dataclasses import replace

from edge_runtime.errors import ManifestError
from edge_runtime.manifest import Manifest, TensorDescription
from edge_runtime.tensors import Signature, TensorSpec, fits


def agreed(found: Signature, manifest: Manifest) -> Signature:
    """Add what the manifest says to the file's signature.

    Args:
        found: As the model file declares it.
        manifest: May fix axes that the file leaves open, and names the classes; what it does not
            list is as in the file.

    Raises:
        ManifestError: They contradict each other.
    """
    inputs = _merged(found.inputs, manifest.inputs, f"{manifest.name}: input")
    outputs = _merged(tuple(found.outputs.values()), manifest.outputs, f"{manifest.name}: output")
    return Signature(inputs, outputs)


def _merged(
    found: Sequence[TensorSpec], stated: Sequence[TensorDescription], what: str
) -> list[TensorSpec]:
    if not stated:
        return list(found)
    described = {description.name: description for description in stated}
    if described.keys() != {spec.name for spec in found}:
        raise ManifestError(
            f"{what}s are {sorted(described)} in the manifest and "
            f"{sorted(spec.name for spec in found)} in the model file"
        )
    merged = []
    for spec in found:
        description = described[spec.name]
        # The manifest may fix an axis that the file leaves open, never the other way round.
        if description.datatype != spec.datatype.name or not fits(
            tuple(description.shape), spec.shape
        ):
            raise ManifestError(
                f"{what} {spec.name!r} is {description.datatype} {list(description.shape)} in the "
                f"manifest and {spec.datatype.name} {list(spec.shape)} in the model file"
            )
        merged.append(replace(spec, shape=tuple(description.shape), labels=description.labels))
    return merged
