"""Golden files: written the same every time, read with care."""

import io
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from edge_runtime.datatypes import BYTES
from edge_runtime.errors import (
    DigestMismatchError,
    InvalidTensorError,
    ManifestError,
    ModelLoadError,
)
from edge_runtime.manifest import File, Manifest
from edge_runtime.tensors import Array, Signature, Tensor

ENDING: Final = ".npz"
LABELS: Final = "labels"
UNPACKED_BYTES_MAX: Final = 2**30
"""Bytes of one golden file in memory; useful ones hold a hundredth of it."""


class Golden(NamedTuple):
    """Inputs of one run, and the answers they must get.

    Attributes:
        name: How messages call it: a path in the bundle, or a file name without its ending.
        feeds: Arrays by input name.
        outputs: Arrays by output name; outputs that are not there are not compared.
        labels: What is right for each row, from the first one on; ``None``: not known.
    """

    name: str
    feeds: dict[str, Array]
    outputs: dict[str, Array]
    labels: Array | None = None


def encode(golden: Golden) -> bytes:
    """Write a golden as a compressed ``.npz`` file, the same bytes for the same arrays."""
    from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo  # noqa: PLC0415 - readers of none pay nothing

    arrays = {**golden.outputs, **golden.feeds}
    if golden.labels is not None and LABELS not in arrays:
        arrays[LABELS] = golden.labels
    file = io.BytesIO()
    with ZipFile(file, "w") as archive:
        # Not numpy.savez: it takes a tensor called `file` for its own argument.
        for name, array in arrays.items():
            plain = array.astype("U") if array.dtype == object else array
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(plain), allow_pickle=False)
            entry = ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue())
    return file.getvalue()


def unpack(
    data: bytes, shown: str, limit_bytes: int = UNPACKED_BYTES_MAX
) -> dict[str, Array] | None:
    """Unpack the arrays of an ``.npz`` file.

    Args:
        data: The file's bytes.
        shown: How messages call the file.
        limit_bytes: Most bytes the arrays may take in memory.

    Returns:
        Arrays by name, of any dtype but ``object``, except that text is ``object`` arrays of
        ``str``; ``None``: they would take more than the limit.

    Raises:
        ManifestError: It is no such file, or holds what only pickle could read.
    """
    from zipfile import ZipFile  # noqa: PLC0415 - only bundles with goldens pay for it

    try:
        with ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > limit_bytes:
                return None
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: _plain(arrays[name]) for name in arrays.files}
    except Exception as error:  # zipfile and numpy have no base for what they say of bad files
        raise ManifestError(
            f"{shown} is not an .npz file of plain arrays: {error}; build the bundle again"
        ) from error


def decode(
    data: bytes,
    inputs: Collection[str],
    outputs: Collection[str],
    shown: str,
    limit_bytes: int = UNPACKED_BYTES_MAX,
) -> Golden:
    """Read a golden file whose digest was checked.

    Args:
        data: The ``.npz`` file's bytes.
        inputs: Names of the model's inputs.
        outputs: Names of its outputs.
        shown: How messages call the file; becomes the golden's name.
        limit_bytes: Most bytes its arrays may take in memory.

    Raises:
        ManifestError: It is no such file, is too large, or has no array for an input.
    """
    arrays = unpack(data, shown, limit_bytes)
    if arrays is None:
        raise ManifestError(
            f"{shown} unpacks to more than {limit_bytes} bytes; build the bundle again"
        )
    for name in inputs:
        if name not in arrays:
            raise ManifestError(
                f"{shown} has no array for input {name!r}, only {sorted(arrays)}; build the "
                "bundle again"
            )
    return Golden(
        shown,
        {name: arrays[name] for name in inputs},
        {name: arrays[name] for name in outputs if name in arrays},
        None if LABELS in {*inputs, *outputs} else arrays.get(LABELS),
    )


def read_file(directory: Path, file: File, shown: str) -> bytes:
    """Read a bundle's golden file and compare it with the manifest.

    What is hashed is what is given: the file could change between two readings.

    Args:
        directory: The bundle's.
        file: As the manifest names it; an empty digest is not compared.
        shown: How messages call the file.

    Raises:
        DigestMismatchError: It is not the file the manifest names.
        ModelLoadError: It cannot be read.
    """
    try:
        data = (directory / file.path).read_bytes()
    except OSError as error:
        raise ModelLoadError(
            f"cannot read {shown}: {error.strerror or error}; check the path and its permissions"
        ) from error
    found = sha256(data).hexdigest()
    if file.sha256 not in {"", found}:
        raise DigestMismatchError(
            f"{shown} has SHA-256 {found}, the manifest says {file.sha256}; install the bundle "
            "again"
        )
    return data


def read_goldens(
    directory: Path,
    manifest: Manifest,
    signature: Signature,
    limit_bytes: int = UNPACKED_BYTES_MAX,
) -> Iterator[Golden]:
    """Read a bundle's goldens, one at a time.

    Args:
        directory: The bundle's.
        manifest: Which files they are.
        signature: What the model takes and gives.
        limit_bytes: Most bytes the arrays of one golden may take in memory.

    Yields:
        Goldens named by their path in the bundle. Their feeds fit the signature, C-contiguous,
        as ``Session.run`` takes them.

    Raises:
        DigestMismatchError: A golden is not the file the manifest names.
        ManifestError: A golden is of a kind that is not read here (``.pb``), is no ``.npz`` file,
            is too large, or does not hold what the model takes.
        ModelLoadError: A golden cannot be read.
    """
    for file in manifest.acceptance.goldens:
        shown = f"{manifest.name} version {manifest.version}: {file.path}"
        if not file.path.endswith(ENDING):
            raise ManifestError(
                f"{shown}: only {ENDING} goldens are read here, .pb ones need the onnx package; "
                f"publish the bundle with {ENDING} goldens"
            )
        data = read_file(directory, file, shown)
        golden = decode(data, signature.input_names, signature.outputs, shown, limit_bytes)
        feeds = checked_feeds(golden.feeds, signature, shown)
        yield golden._replace(name=file.path, feeds=feeds)


def checked_feeds(
    arrays: Mapping[str, Array], signature: Signature, shown: str
) -> dict[str, Array]:
    """Take a golden's inputs, in the form that a session is fed.

    Args:
        arrays: Arrays by name; those that are no inputs are left out.
        signature: What the model takes.
        shown: How messages call the golden.

    Returns:
        C-contiguous arrays by input name.

    Raises:
        ManifestError: An input is missing, or has another datatype or shape.
    """
    tensors = {}
    for spec in signature.inputs:
        array = arrays.get(spec.name)
        if array is None:
            raise ManifestError(
                f"{shown} has no array for input {spec.name!r}, only {sorted(arrays)}; build the "
                "bundle again"
            )
        is_text = spec.datatype is BYTES and array.dtype == object
        if not is_text and array.dtype != np.dtype(spec.datatype.numpy):
            raise ManifestError(
                f"{shown}: {spec.name!r} is {array.dtype}; the model takes {spec.datatype.name}; "
                "build the bundle again"
            )
        tensors[spec.name] = Tensor(spec.datatype, np.asarray(array, order="C"))
    try:
        return signature.check(tensors)
    except InvalidTensorError as error:
        raise ManifestError(f"{shown}: {error.message}; build the bundle again") from error


def _plain(array: Array) -> Array:
    """Give text as a session takes and gives it; everything else as it is."""
    if array.dtype.kind not in "US":
        return array
    texts = np.empty(array.size, object)
    texts[:] = [
        each.decode("utf-8", "replace") if isinstance(each, bytes) else each
        for each in array.reshape(-1).tolist()
    ]
    return texts.reshape(array.shape)
