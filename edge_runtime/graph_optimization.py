"""Makes an optimised graph in a process of its own, and proves that its answers are the same.

In the daemon this work would be felt by every request: it fills hundreds of megabytes page by page
and holds Python's lock in between, at whatever priority. A process of its own can be as a whole
what runs only while nobody else wants to, gives all its memory back, and takes nobody with it when
a model crashes ONNX Runtime. Where others want to run all the time, it is given up.
"""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Final, Literal

import msgspec

from edge_runtime import idle_process
from edge_runtime.agreement import agreed
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ArtifactError, EdgeRuntimeError, ModelLoadError
from edge_runtime.external_data import external_files
from edge_runtime.manifest import Manifest, Variant
from edge_runtime.optimized_graphs import MODEL, WEIGHTS, seal
from edge_runtime.samples import samples
from edge_runtime.session import Session, SessionSettings, release_memory
from edge_runtime.tensors import Array, Signature

PATIENCE_S: Final = 10.0
"""Time to make a graph, in seconds, and for each of its bytes:"""
PATIENCE_S_PER_BYTE: Final = 1 / (4 * 2**20)

_ORIGINAL_RAN: Final = b"original ran\n"
_ROWS: Final = 2


class Task(msgspec.Struct):
    """What is to be made; ``variant`` is a name, folders are paths."""

    manifest: Manifest
    directory: str
    variant: str
    settings: SessionSettings
    folder: str


class _Result(msgspec.Struct):
    outcome: Literal["made", "refused", "model", "disk"]
    why: str = ""


def optimize(bundle: Bundle, variant: Variant, settings: SessionSettings, folder: Path) -> str:
    """Make the optimised graph of a variant, at low priority.

    Args:
        bundle: Where the variant lies; its files were verified.
        variant: One of its variants.
        settings: How it will be loaded.
        folder: An empty folder, for the graph with its checksums.

    Returns:
        Why the graph of this variant must not be used; empty: it is there, and proven.

    Raises:
        ArtifactError: The model itself is at fault.
        OSError: It could not be made this time.
        TimeoutError: The CPUs had no time for it.
    """
    task = Task(bundle.manifest, str(bundle.directory), variant.name, settings, str(folder))
    size_bytes = sum(file.size_bytes for file in variant.reads())
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            idle_process.command(__name__),
            input=msgspec.json.encode(task),
            capture_output=True,
            check=False,
            timeout=PATIENCE_S + PATIENCE_S_PER_BYTE * size_bytes,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"not done within {error.timeout:.0f} s") from error
    said = done.stdout.removeprefix(_ORIGINAL_RAN)
    if done.returncode < 0:
        crash = f"ONNX Runtime crashed ({signal.Signals(-done.returncode).name})"
        if done.stdout.startswith(_ORIGINAL_RAN):
            return f"{crash} while it tried its optimised graph"
        raise ModelLoadError(
            f"{crash} while {variant.file} was tried out in a process of its own; check its "
            "operators and its sample inputs, and the memory that is left"
        )
    try:
        result = msgspec.json.decode(said, type=_Result)
    except msgspec.MsgspecError as error:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise OSError(f"the process that makes it failed: {''.join(last)}") from error
    if result.outcome == "model":
        raise ModelLoadError(result.why)
    if result.outcome == "disk":
        raise OSError(result.why)
    return result.why


def main() -> None:
    """Do what standard input says; the result goes to standard output."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    try:
        why = made_and_proven(task)
        result = _Result("refused" if why else "made", why)
    except ArtifactError as error:
        result = _Result("model", error.message)
    except OSError as error:
        result = _Result("disk", str(error))
    sys.stdout.buffer.write(msgspec.json.encode(result))


def made_and_proven(task: Task) -> str:
    """Make a graph and try it out, in this process.

    Returns:
        Why the graph must not be used; empty: it is there, and proven.

    Raises:
        ArtifactError: The model itself is at fault.
        OSError: The graph could not be written.
    """
    bundle = Bundle(task.manifest, Path(task.directory))
    variant = next(each for each in task.manifest.variants if each.name == task.variant)
    path, made = bundle.directory / variant.file, Path(task.folder) / MODEL
    original = _saving(path, task.settings, made)
    signature = agreed(original.signature, task.manifest)
    feeds = [sample.feeds for sample in samples(bundle, signature, _ROWS)]
    try:
        expected = _answers(original, signature, feeds)
    except EdgeRuntimeError as error:
        return f"it cannot be proven, the model fails on sample inputs: {error.message}"
    declared = original.signature
    original.close()
    release_memory()
    sys.stdout.buffer.write(_ORIGINAL_RAN)
    sys.stdout.buffer.flush()
    if not expected:
        return "it cannot be proven, there are no sample inputs"
    seal(made.parent)
    try:
        if not set(external_files(made)) <= {WEIGHTS}:
            return "it still reads weights of the original model"
        optimized = Session.load(made, task.settings, is_optimized=True)
        if _declaration(optimized.signature) != _declaration(declared):
            return "it takes or gives other tensors than the original model"
        found = _answers(optimized, signature, feeds)
    except EdgeRuntimeError as error:
        return f"it does not run: {error.message}"
    same = all(starmap(_same, zip(found, expected, strict=True)))
    return "" if same else "it gives other answers than the original model"


def _saving(path: Path, settings: SessionSettings, made: Path) -> Session:
    try:
        return Session.load(path, settings, save_to=made, weights_name=WEIGHTS)
    except ModelLoadError as error:
        Session.load(path, settings)  # a model that is at fault fails here as well
        raise OSError("ONNX Runtime could not write it; look at the space on the disk") from error


def _answers(
    session: Session, signature: Signature, feeds: Sequence[Mapping[str, Array]]
) -> list[Array]:
    names = [*signature.outputs]
    return [output for each in feeds for output in session.run(names, each)]


def _declaration(signature: Signature) -> list[tuple[object, ...]]:
    specs = (*signature.inputs, *signature.outputs.values())
    return [(spec.name, spec.datatype.name, spec.shape, spec.symbols) for spec in specs]


def _same(found: Array, expected: Array) -> bool:
    """Compare to the last bit; strings have none, and are compared as they are."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if found.dtype == object:
        return bool(found.tolist() == expected.tolist())
    return found.tobytes() == expected.tobytes()
