"""Writes a bundle: in a folder beside its place first, then moved there as a whole."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from edge_runtime.bundle import bundle_from_directory, verify
from edge_runtime.datatypes import BY_NUMPY, BYTES
from edge_runtime.digest import file_sha256
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.external_data import external_files
from edge_runtime.goldens import Golden, encode
from edge_runtime.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    Acceptance,
    Batching,
    Defaults,
    File,
    Manifest,
    Provenance,
    Runtime,
    TensorDescription,
    Variant,
    check_model_name,
    write,
)
from quantize.errors import BadInputError, StepFailedError
from quantize.reports.document import REPORT_FILE, Shipped, read_report
from quantize.reports.markdown import MARKDOWN_FILE
from quantize.reports.pictures import SENSITIVITY_FILE, TRADE_OFF_FILE
from quantize.signature import TensorInfo
from quantize.variants import ShippedVariant, common_signature

MODEL_FILE: Final = "model.onnx"
GOLDENS_FOLDER: Final = "goldens"

_WRITTEN: Final = frozenset(
    {
        GOLDENS_FOLDER,
        MANIFEST_FILE,
        MARKDOWN_FILE,
        REPORT_FILE,
        SENSITIVITY_FILE,
        SIGNATURE_FILE,  # of what is replaced: worth nothing for what comes
        TRADE_OFF_FILE,
    }
)


class Contents(NamedTuple):
    """What a bundle is made of.

    Attributes:
        name: The model's name.
        version: Its version.
        created: RFC 3339 time; empty: not stated.
        variants: Models, the preferred one first.
        goldens: What devices check themselves with.
        acceptance: Tolerances, floor and budgets; its list of goldens is filled here.
        runtime: Needs of ONNX Runtime.
        provenance: Where the model comes from.
    """

    name: str
    version: int
    created: str
    variants: Sequence[ShippedVariant]
    goldens: Sequence[Golden]
    acceptance: Acceptance
    runtime: Runtime
    provenance: Provenance


def check_output(output: Path) -> None:
    """Refuse a place that a bundle may not take: to be asked before a long search.

    Args:
        output: The bundle directory to be written.

    Raises:
        BadInputError: Something stands there that this program did not write, or the folder above
            is missing.
    """
    if not output.name or output.name == "..":
        raise BadInputError(f"{output} cannot be a bundle directory; name a folder to be made")
    if not output.absolute().parent.is_dir():
        raise BadInputError(f"{output.parent} is not a folder; make it, or choose another --output")
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise BadInputError(f"{output} exists and is not a folder; choose another --output")
    if output.is_dir() and (stranger := _stranger(output)):
        raise BadInputError(
            f"{output} holds files that edge-quantize did not write ({stranger}); choose another "
            "--output"
        )


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Fill a folder that takes its place as a whole, or leaves no trace.

    What a killed writer left beside the place is taken away; so one at a time may write there
    (see ``workspace``).

    Args:
        output: Its place. What this program wrote there before is replaced.

    Raises:
        BadInputError: The place is taken, or cannot be written to.
    """
    check_output(output)
    output = output.absolute()
    staging, old = (output.with_name(f".{output.name}.work.{word}") for word in ("new", "old"))
    try:
        _clear(staging)
        if old.is_dir() and not output.exists():
            old.rename(output)  # killed between the two moves of ``_put``
        staging.mkdir()
        try:
            yield staging
            _put(staging, output, old)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    except OSError as error:
        raise BadInputError(
            f"cannot write {output}: {error.strerror or error}; choose another --output"
        ) from error


def write_bundle(
    folder: Path, contents: Contents, write_reports: Callable[[Manifest], object]
) -> Manifest:
    """Write models, goldens, reports and manifest, and check that a device can read them.

    Args:
        folder: An empty folder, as ``new_folder`` gives it.
        contents: What it is made of.
        write_reports: Writes what else belongs into the folder, once it is known what is shipped
            (see ``shipped``).

    Returns:
        The manifest as it was written.

    Raises:
        BadInputError: The model's name cannot be one.
        StepFailedError: A variant cannot be loaded, or the variants do not fit each other, or a
            daemon would refuse the bundle.
        OSError: A file cannot be written.
    """
    try:
        check_model_name(contents.name)
    except EdgeRuntimeError as error:
        raise BadInputError(f"{error.message}; choose another --name") from error
    try:
        variants = tuple(_copied(each, folder) for each in contents.variants)
        signature = common_signature([each.file for each in contents.variants])
        goldens = tuple(_golden(golden, folder) for golden in contents.goldens)
        acceptance = contents.acceptance
        batchable = all(each.trial.batchable for each in contents.variants)
        manifest = Manifest(
            name=contents.name,
            version=contents.version,
            created=contents.created,
            inputs=tuple(_description(tensor) for tensor in signature.inputs),
            outputs=tuple(_description(tensor) for tensor in signature.outputs),
            variants=variants,
            runtime=contents.runtime,
            defaults=Defaults(batching=Batching(0 if batchable else 1)),
            acceptance=Acceptance(
                goldens,
                acceptance.tolerances,
                acceptance.metric,
                acceptance.latency_budget_s,
                acceptance.memory_budget_bytes,
            ),
            provenance=contents.provenance,
        )
        data = write(manifest)
        write_reports(manifest)
        (folder / MANIFEST_FILE).write_bytes(data)
        verify(bundle_from_directory(folder, contents.name))
    except EdgeRuntimeError as error:
        raise StepFailedError(f"the bundle cannot be written: {error.message}") from error
    return manifest


def shipped(manifest: Manifest, variants: Sequence[ShippedVariant]) -> tuple[Shipped, ...]:
    """List a bundle's variants for the report.

    Args:
        manifest: As ``write_bundle`` made it.
        variants: What it was made of, in the same order.
    """
    return tuple(
        Shipped(
            name=written.name,
            trial=given.trial.name,
            file=written.file,
            size_bytes=sum(file.size_bytes for file in written.reads()),
            requires=written.requires,
        )
        for written, given in zip(manifest.variants, variants, strict=True)
    )


def _copied(variant: ShippedVariant, folder: Path) -> Variant:
    """Copy a model and its external weights into a folder of their own."""
    target = folder / variant.name
    target.mkdir()
    shutil.copyfile(variant.file, target / MODEL_FILE)
    weights = []
    for name in external_files(variant.file, variant.file.name):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(variant.file.parent / name, target / name)
        weights.append(_described(target / name, folder))
    model = _described(target / MODEL_FILE, folder)
    return Variant(
        variant.name,
        model.path,
        model.sha256,
        model.size_bytes,
        tuple(weights),
        variant.requires,
        dict(variant.session_options),
    )


def _golden(golden: Golden, folder: Path) -> File:
    path = folder / GOLDENS_FOLDER / f"{golden.name}.npz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode(golden))
    return _described(path, folder)


def _described(path: Path, folder: Path) -> File:
    return File(path.relative_to(folder).as_posix(), file_sha256(path), path.stat().st_size)


def _description(tensor: TensorInfo) -> TensorDescription:
    datatype = BYTES if tensor.dtype == object else BY_NUMPY[tensor.dtype.str]
    shape = tuple(-1 if size is None else size for size in tensor.shape)
    return TensorDescription(tensor.name, datatype.name, shape)


def _put(staging: Path, output: Path, old: Path) -> None:
    """Move a folder into its place. What stood there is kept until the new one stands."""
    if output.exists():
        _clear(old)
        output.rename(old)
        try:
            staging.rename(output)
        except BaseException:
            old.rename(output)
            raise
    else:
        staging.rename(output)
    with suppress(OSError):
        _clear(old)


def _clear(folder: Path) -> None:
    """Remove a folder of this program's own naming, if it is there."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)


def _stranger(folder: Path) -> str:
    """Name something in a folder that this program did not write; empty: all may be replaced."""
    entries = sorted(entry.name for entry in folder.iterdir())
    try:
        written = {each.name for each in read_report(folder).shipped} | _WRITTEN
    except BadInputError:
        written = set()
    return next((name for name in entries if name not in written), "")
