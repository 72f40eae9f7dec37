"""Copies a bundle's files into a folder, without checking what is in them."""

from collections.abc import Callable
from pathlib import Path

from edge_runtime.errors import ManifestError
from edge_runtime.manifest import Manifest
from edge_runtime.store.reading import BundleSource


def unpack(
    source: BundleSource,
    manifest: Manifest,
    folder: Path,
    progress: Callable[[int], None] = lambda _count: None,
) -> None:
    """Copy what a manifest names, and not a byte more than it says.

    Args:
        source: The bundle, whose manifest was read.
        manifest: That one.
        folder: Where to; nothing of it is there yet.
        progress: Told how many bytes were copied, again and again.

    Raises:
        ArtifactError: A file is missing, or has more bytes.
        OSError: The disk refused.
    """
    sizes = {file.path: file.size_bytes for file in manifest.files()}
    for name, chunks in source.contents(sizes):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        left = sizes[name]
        with target.open("xb") as file:
            for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    raise ManifestError(
                        f"{source.shown}: {name} has more than the {sizes[name]} bytes that the "
                        "manifest says; build the bundle again"
                    )
                file.write(chunk)
                progress(len(chunk))
