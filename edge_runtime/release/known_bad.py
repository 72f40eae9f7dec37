"""Telling a version that was bad here before, whatever number it has now. Pure."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from edge_runtime.release.records import BadDigest

if TYPE_CHECKING:
    from edge_runtime.store.installed import Installed


def matching(
    remembered: Sequence[BadDigest], manifest_sha256: str, digests: Collection[str]
) -> list[BadDigest]:
    """Find what is remembered of a bundle, or of the files that its variants read.

    Args:
        remembered: What is remembered of the model.
        manifest_sha256: Of the bundle's manifest.
        digests: Of the bundle's variants that may run here.

    Returns:
        In the order of ``remembered``.
    """
    return [
        each
        for each in remembered
        if each.manifest_sha256 == manifest_sha256 or (each.digest and each.digest in digests)
    ]


def known_bad(
    remembered: Sequence[BadDigest], manifest_sha256: str, digests: Collection[str]
) -> BadDigest | None:
    """Say whether a bundle is known as bad before it is tried: it is the same, or all of it is.

    A bundle with one variant that is not known is tried: which one runs is decided by the
    self-test, and looked at after it.

    Args:
        remembered: What is remembered of the model, the newest first.
        manifest_sha256: Of the bundle's manifest.
        digests: Of the bundle's variants that may run here; empty: not known.

    Returns:
        What is remembered of it, the same bundle before others; ``None``: nothing speaks against.
    """
    found = matching(remembered, manifest_sha256, digests)
    for each in found:
        if each.manifest_sha256 == manifest_sha256:
            return each
    if set(digests) <= {each.digest for each in found}:
        return found[0] if found else None
    return None


def refusal(installed: "Installed", bad: BadDigest) -> str:
    """Say why a bundle is not released.

    Args:
        installed: The bundle.
        bad: What is remembered of it.
    """
    shown = f"{installed.name} version {installed.version}"
    if bad.manifest_sha256 == installed.manifest_sha256:
        what = f"{shown} was rolled back here before"
    else:
        what = f"{shown} runs the same files as version {bad.version}, which was rolled back here"
    return (
        f"{what} ({bad.cause}: {bad.reason}); release a mended one under a new version, or say "
        "`again`"
    )


def chosen_bad(bad: BadDigest, variant: str) -> str:
    """Say why a release does not go on with the variant that its self-test chose.

    Args:
        bad: What is remembered of the variant's digest.
        variant: Its name.
    """
    return (
        f"its variant {variant} reads the same files as version {bad.version}, which was rolled "
        f"back here ({bad.cause}: {bad.reason}); stage it with `again` to insist"
    )
