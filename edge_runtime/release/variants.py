"""Which variants of a version a CPU can run, and which of those that pass is taken. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import msgspec

from edge_runtime.bundle import Bundle
from edge_runtime.errors import ManifestError
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import Manifest, choose_variant

_MUCH_FASTER: Final = 0.95
_MS: Final = 1e3


class Candidate(NamedTuple):
    """A variant that passed its test.

    Attributes:
        name: The variant's.
        latency_s: Median time of a run in seconds; 0: not measured.
    """

    name: str
    latency_s: float


def eligible(manifest: Manifest, cpu: CpuFacts) -> tuple[str, ...]:
    """List the variants whose requirements a CPU meets, in the manifest's order.

    Args:
        manifest: Of the version.
        cpu: The device's.

    Returns:
        Names, at least one.

    Raises:
        ManifestError: No variant runs on this CPU; says why for each.
    """
    choose_variant(manifest, cpu)
    return tuple(
        variant.name for variant in manifest.variants if _runs(only(manifest, variant.name), cpu)
    )


def only(manifest: Manifest, name: str) -> Manifest:
    """Leave one variant in a manifest: whoever chooses from it takes that one.

    Args:
        manifest: Of the version.
        name: The variant's name; empty: all stay.

    Raises:
        ManifestError: It has no such variant.
    """
    if not name:
        return manifest
    kept = tuple(variant for variant in manifest.variants if variant.name == name)
    if not kept:
        raise ManifestError(
            f"{manifest.name} version {manifest.version} has no variant {name!r}, only "
            f"{[variant.name for variant in manifest.variants]}"
        )
    return msgspec.structs.replace(manifest, variants=kept)


def only_variant(bundle: Bundle, name: str) -> Bundle:
    """Leave one variant in a bundle, as ``only`` does: the one that a self-test chose.

    Args:
        bundle: Of the version.
        name: The variant's name; empty: all stay.

    Raises:
        ManifestError: It has no such variant.
    """
    return replace(bundle, manifest=only(bundle.manifest, name))


def fastest(passed: Sequence[Candidate]) -> tuple[str, str]:
    """Choose among variants that passed.

    A variant must be clearly faster to be taken before one that the manifest prefers: times that
    are close say nothing.

    Args:
        passed: At least one, in the manifest's order.

    Returns:
        Its name, and why that one in a few words that follow the name.
    """
    first = passed[0]
    shown = f"{first.latency_s * _MS:.3g} ms"
    if len(passed) == 1:
        return first.name, shown if first.latency_s else "not measured"
    timed = [each for each in passed if each.latency_s]
    if len(timed) < len(passed):
        return first.name, f"the first of {len(passed)} that pass, which could not all be measured"
    best = min(timed, key=lambda each: each.latency_s)
    count = f"{len(passed)} that pass"
    if best.latency_s < _MUCH_FASTER * first.latency_s:
        return best.name, f"{best.latency_s * _MS:.3g} ms, fastest of {count}"
    if best.name == first.name:
        return first.name, f"{shown}, fastest of {count}"
    return first.name, f"{shown}, as fast as any of {count} and preferred by the manifest"


def _runs(manifest: Manifest, cpu: CpuFacts) -> bool:
    try:
        choose_variant(manifest, cpu)
    except ManifestError:
        return False
    return True
