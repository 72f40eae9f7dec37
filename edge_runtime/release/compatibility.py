"""Whether programs that use one version can use another one without noticing. Pure."""

from collections.abc import Sequence

from edge_runtime.manifest import TensorDescription
from edge_runtime.tensors import VARIABLE, Signature, TensorSpec


def described(signature: Signature) -> tuple[list[TensorDescription], list[TensorDescription]]:
    """Give a signature's inputs and outputs as a manifest lists them.

    Args:
        signature: Of a loaded model.
    """
    return (
        [_described(spec) for spec in signature.inputs],
        [_described(spec) for spec in signature.outputs.values()],
    )


def incompatible(
    active: tuple[Sequence[TensorDescription], Sequence[TensorDescription]],
    candidate: tuple[Sequence[TensorDescription], Sequence[TensorDescription]],
) -> list[str]:
    """Find what programs would notice.

    Names and datatypes must be the same. The candidate must take every shape that the active
    version takes, and where both state the size of an axis of an output, it is the same.

    Args:
        active: Inputs and outputs of the version they use.
        candidate: Of the one that would take its place.

    Returns:
        Sentences; empty: they would notice nothing.
    """
    return [
        *_differences("input", active[0], candidate[0]),
        *_differences("output", active[1], candidate[1]),
    ]


def _described(spec: TensorSpec) -> TensorDescription:
    return TensorDescription(spec.name, spec.datatype.name, spec.shape)


def _differences(
    what: str, active: Sequence[TensorDescription], candidate: Sequence[TensorDescription]
) -> list[str]:
    ours = {tensor.name: tensor for tensor in active}
    theirs = {tensor.name: tensor for tensor in candidate}
    if ours.keys() != theirs.keys():
        return [f"its {what}s are {sorted(theirs)}, those of the active version {sorted(ours)}"]
    found = []
    for name, tensor in ours.items():
        other = theirs[name]
        if other.datatype != tensor.datatype:
            found.append(
                f"its {what} {name!r} is {other.datatype}, that of the active version "
                f"{tensor.datatype}"
            )
        elif not _fits(tuple(tensor.shape), tuple(other.shape), is_input=what == "input"):
            found.append(
                f"its {what} {name!r} has shape {list(other.shape)}, that of the active version "
                f"{list(tensor.shape)}"
            )
    return found


def _fits(active: tuple[int, ...], candidate: tuple[int, ...], *, is_input: bool) -> bool:
    return len(active) == len(candidate) and all(
        theirs in (ours, VARIABLE) or (ours == VARIABLE and not is_input)
        for ours, theirs in zip(active, candidate, strict=True)
    )
