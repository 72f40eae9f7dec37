"""What a device needs of a bundle: the variants that its CPU can run, and the goldens. Pure."""

from collections.abc import Callable

from edge_runtime.bundle import with_variants
from edge_runtime.errors import ManifestError
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import File, Manifest
from edge_runtime.protocol.handover_schemas import NeededFile, Needs
from edge_runtime.release.variants import eligible


def needed_variants(manifest: Manifest, cpu: CpuFacts) -> tuple[str, ...]:
    """List the variants that must be installed: all that a self-test would try.

    Args:
        manifest: Of the version.
        cpu: The device's.

    Returns:
        Names. All, where the CPU can run none: then nothing may be missing, and the self-test says
        why it fails.
    """
    try:
        return eligible(manifest, cpu)
    except ManifestError:
        return tuple(variant.name for variant in manifest.variants)


def needs(manifest: Manifest, cpu: CpuFacts, has: Callable[[File], bool]) -> Needs:
    """Say which files of a bundle would have to come.

    Args:
        manifest: Of the version, complete.
        cpu: The device's.
        has: Tells whether the store has a file's content.

    Raises:
        ManifestError: No variant runs on this CPU; says why for each.
    """
    kept = with_variants(manifest, eligible(manifest, cpu), manifest.name)
    present: dict[str, None] = {}
    files: list[NeededFile] = []
    for file in kept.files():
        if file.sha256 in present or has(file):
            present[file.sha256] = None
        else:
            files.append(NeededFile(file=file.path, sha256=file.sha256, size=file.size_bytes))
    models = dict.fromkeys(variant.file for variant in kept.variants)
    return Needs(variants=list(models), files=files, present=list(present))
