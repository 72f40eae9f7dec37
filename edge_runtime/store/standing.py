"""What stands at a version's place: nothing, this very version or another one; how whole it is.

Reads only.
"""

import hashlib
from collections.abc import Callable, Collection

from edge_runtime.bundle import Bundle, verify
from edge_runtime.errors import ArtifactError, ManifestError, ModelNotFoundError
from edge_runtime.manifest import Manifest
from edge_runtime.store.installed import Installed, manifest_bytes, says
from edge_runtime.store.layout import Layout
from edge_runtime.store.partial import complete, names
from edge_runtime.store.reading import BundleSource


def is_there(installed: Installed) -> bool:
    """Tell whether a version is there, and refuse one that is another bundle.

    Raises:
        ManifestError: It is another one.
        OSError: The disk does not say.
    """
    try:
        present = manifest_bytes(installed.directory)
    except FileNotFoundError:
        return installed.directory.is_dir()  # and damaged
    if hashlib.sha256(present).hexdigest() == installed.manifest_sha256:
        return True
    if says(present, installed.name, installed.version):
        raise ManifestError(
            f"{installed.name} version {installed.version} is installed with another manifest, "
            "and a version never changes; publish it as a new version"
        )
    return True  # what is there is damaged


def undamaged(installed: Installed, present: Callable[[], Bundle]) -> Manifest | None:
    """Hash what is there of a version.

    Args:
        installed: What is to be there.
        present: Reads it.

    Returns:
        Its manifest, without the variants that were left out; ``None``: it is damaged.
    """
    try:
        bundle = present()
        verify(bundle)
    except (ArtifactError, ModelNotFoundError):  # its manifest may be gone
        return None
    return bundle.manifest if bundle.manifest_sha256 == installed.manifest_sha256 else None


def adds(
    layout: Layout,
    source: BundleSource,
    manifest: Manifest,
    present: Manifest,
    needed: Collection[str],
) -> bool:
    """Tell whether a bundle may bring variants that were left out of an installed version.

    Args:
        layout: Of the store, which may have their files.
        source: The bundle.
        manifest: Its manifest.
        present: The same without the variants that were left out.
        needed: Names of the variants that must be there, or the bundle is refused.

    Raises:
        ArtifactError: The bundle cannot be looked at.
    """
    there = names(present.variants)
    left_out = [variant for variant in manifest.variants if variant.name not in there]
    if any(variant.name in needed for variant in left_out):
        return True
    files = {file.path: file for variant in left_out for file in variant.reads()}
    lacks = source.lacks(files) - {file.path for file in present.files()}
    absent = {path for path in lacks if not layout.blob(files[path].sha256).is_file()}
    return any(variant in left_out for variant in complete(manifest, absent))
