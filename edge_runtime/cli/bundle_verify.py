"""``edge-runtime bundle verify``: what a device would find, found here."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import msgspec

from edge_runtime.agreement import agreed
from edge_runtime.bundle import Bundle, verify
from edge_runtime.cli.bundle_create import session_settings
from edge_runtime.cli.bundle_files import Head, unpacked
from edge_runtime.cli.signing import read_file
from edge_runtime.digest import variant_digest
from edge_runtime.errors import (
    ArtifactError,
    ConfigError,
    EdgeRuntimeError,
    ModelLoadError,
    SignatureError,
)
from edge_runtime.goldens import OutputCheck, check_outputs, read_goldens
from edge_runtime.hardware import CpuFacts, cpu_facts
from edge_runtime.manifest import Variant, choose_variant
from edge_runtime.session import RUNTIME_VERSION, Session
from edge_runtime.trust.keyring import KEYRING_BYTES_MAX, Keyring, check_release

RUNS: Final = 50
TIME_BOUND_S: Final = 1.0


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        name: The model's name; empty: the manifest cannot be read.
        version: Its version.
        good: Whether a device like this machine would take it.
        problems: What is wrong, a sentence each.
        warnings: What somebody should know.
        signed_by: Names of the keys of the keyring that signed it; ``None``: none was given.
        files: Files whose digests are right.
        variant: The variant that was run.
        variant_reason: Why that one.
        digest: Of the variant as a daemon here would run it.
        outputs: Every comparison with a golden.
        run_s: Median time of a run on the first golden, in seconds, one thread; 0: none was run.
        cpu: This CPU, for a person.
        onnxruntime: Version that ran it.
    """

    name: str = ""
    version: int = 0
    good: bool = False
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    signed_by: tuple[str, ...] | None = None
    files: int = 0
    variant: str = ""
    variant_reason: str = ""
    digest: str = ""
    outputs: tuple[OutputCheck, ...] = ()
    run_s: float = 0.0
    cpu: str = ""
    onnxruntime: str = RUNTIME_VERSION


def verify_bundle(path: Path, keyring: str | None) -> Verification:
    """Check a bundle on this machine.

    Args:
        path: A folder, or a tar file.
        keyring: File of the keyring whose keys must have signed it; ``None``: any or none.

    Raises:
        ConfigError: There is no bundle at that place, or the keyring cannot be read.
    """
    ring = None
    if keyring is not None:
        try:
            ring = Keyring.read(read_file(Path(keyring), KEYRING_BYTES_MAX), keyring)
        except SignatureError as error:
            raise ConfigError(error.message) from error
    cpu = cpu_facts()
    found = Verification(cpu=cpu.description)
    try:
        with unpacked(path) as (bundle, head):
            manifest = head.manifest
            found = _with(found, name=manifest.name, version=manifest.version)
            found = _signed(found, head, ring)
            found = _with(found, files=len(verify(bundle)))
            found = _run(found, bundle, cpu)
    except ArtifactError as error:
        found = _with(found, problems=(*found.problems, error.message))
    return _with(found, good=not found.problems)


def report(found: Verification) -> str:
    """Say what was found, for a person: the verdict first, then each problem."""
    what = f"{found.name} version {found.version}" if found.name else "the bundle"
    lines = [f"{what}: {'good here' if found.good else 'NOT GOOD HERE'}"]
    lines += [f"  problem  {problem}" for problem in found.problems]
    lines += [f"  warning  {warning}" for warning in found.warnings]
    if found.signed_by is not None:
        lines.append(f"  signed   by {', '.join(found.signed_by) or 'nobody in the keyring'}")
    if found.files:
        lines.append(f"  files    {found.files} are as the manifest says")
    if found.variant:
        lines.append(f"  variant  {found.variant_reason}")
    if found.outputs:
        passed = sum(each.passed for each in found.outputs)
        count = len({each.golden for each in found.outputs})
        lines.append(f"  goldens  {passed} of {len(found.outputs)} outputs of {count} are close")
    if found.run_s:
        lines.append(f"  time     {found.run_s * 1e3:.3f} ms median, on one thread here")
    return "\n".join(lines)


def _with(found: Verification, **changes: object) -> Verification:
    return msgspec.structs.replace(found, **changes)


def _signed(found: Verification, head: Head, ring: Keyring | None) -> Verification:
    if ring is None:
        words = "was not checked: give --keyring" if head.signature else "is missing"
        return _with(found, warnings=(*found.warnings, f"its signature {words}"))
    try:
        ids = check_release(ring, head.data, head.signature)
    except ArtifactError as error:
        return _with(found, problems=(*found.problems, error.message), signed_by=())
    names = [key.name or key.key_id[:12] for key in ring.document.keys if key.key_id in ids]
    return _with(found, signed_by=tuple(names))


def _run(found: Verification, bundle: Bundle, cpu: CpuFacts) -> Verification:
    """Load the variant for this CPU, and compare its answers with the goldens."""
    manifest = bundle.manifest
    variant, reason = choose_variant(manifest, cpu)
    settings = session_settings(variant, cpu)
    found = _with(
        found,
        variant=variant.name,
        variant_reason=reason,
        digest=variant_digest(_named(variant), settings.result_options),
    )
    session = Session.load(bundle.directory / variant.file, settings)
    try:
        signature = agreed(session.signature, manifest)
        names = [*signature.outputs]
        checks: list[OutputCheck] = []
        times: list[float] = []
        count = 0
        for golden in read_goldens(bundle.directory, manifest, signature):
            count += 1
            try:
                answers = dict(zip(names, session.run(names, golden.feeds), strict=True))
            except EdgeRuntimeError as error:
                raise ModelLoadError(
                    f"{variant.name} fails on its golden {golden.name}: {error.message}"
                ) from error
            checks += check_outputs(golden, answers, manifest)
            began = perf_counter()
            while not times or (
                count == 1 and len(times) < RUNS and perf_counter() - began < TIME_BOUND_S
            ):
                start = perf_counter()
                session.run(names, golden.feeds)
                times.append(perf_counter() - start)
    finally:
        session.close()
    run_s = median(times) if times else 0.0
    return _with(
        found,
        outputs=tuple(checks),
        run_s=run_s,
        problems=(*found.problems, *(each.sentence for each in checks if not each.passed)),
        warnings=(*found.warnings, *_warnings(bundle, count, run_s)),
    )


def _named(variant: Variant) -> Sequence[tuple[str, int, str]]:
    return [(file.path, file.size_bytes, file.sha256) for file in variant.reads()]


def _warnings(bundle: Bundle, goldens: int, run_s: float) -> list[str]:
    acceptance = bundle.manifest.acceptance
    warnings = []
    if not goldens:
        warnings.append("it has no goldens: nothing was compared")
    elif not acceptance.tolerances:
        warnings.append("its manifest has no tolerances: nothing was compared")
    if acceptance.metric is not None:
        warnings.append(
            f"the score {acceptance.metric.name!r} was not computed: `edge-quantize verify` does"
        )
    if 0 < acceptance.latency_budget_s < run_s:
        warnings.append(
            f"a run takes {run_s * 1e3:.3f} ms here; its budget is "
            f"{acceptance.latency_budget_s * 1e3:.3f} ms"
        )
    return warnings
