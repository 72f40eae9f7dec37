"""Makes a bundle runnable: check its files, choose the variant, load it, compare signatures.

Slow and blocking: the catalog calls it on its loader thread.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

from edge_runtime.bundle import Bundle, verify
from edge_runtime.digest import variant_digest
from edge_runtime.errors import ManifestError, ModelLoadError
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import Manifest, TensorDescription, choose_variant
from edge_runtime.routing import LoadedVersion
from edge_runtime.session import RUNTIME_VERSION, Session, SessionSettings
from edge_runtime.settings import Engine, Model
from edge_runtime.tensors import Signature, TensorSpec, fits


def load_bundle(
    bundle: Bundle,
    serving: LoadedVersion | None = None,
    *,
    engine: Engine,
    settings: Model,
    providers: Sequence[str],
    cpu: CpuFacts,
    cpus: int,
) -> LoadedVersion:
    """Load one version of a model.

    Args:
        bundle: What to load.
        serving: What answers for this version now; given back if nothing would change.
        engine: How models run.
        settings: What the configuration says of this model.
        providers: Execution providers that are installed, in order.
        cpu: Decides the variant.
        cpus: CPUs this process may use.

    Raises:
        ManifestError: The manifest contradicts the model file, or asks for a newer runtime.
        DigestMismatchError: A file is not the one the manifest names.
        ModelLoadError: A file is missing, or ONNX Runtime cannot load it.
    """
    started = perf_counter()
    manifest = bundle.manifest
    _check_runtime(manifest)
    variant, reason = choose_variant(manifest, cpu)
    files = verify(bundle, variant)
    session_settings = SessionSettings(
        providers=tuple(providers),
        intra_op_threads=(
            settings.intra_op_threads
            or manifest.defaults.intra_op_threads
            or engine.intra_op_threads
            or cpus
        ),
        memory_arena=engine.memory_arena,
        precise_int8=cpu.arch == "x86_64" and not cpu.vnni,
        options=variant.session_options,
    )
    digest = variant_digest(files, session_settings.result_options)
    if (
        serving is not None
        and serving.digest == digest
        and serving.settings == session_settings
        and serving.manifest == manifest
    ):
        return serving
    session = Session.load(bundle.directory / variant.file, session_settings)
    try:
        signature = _described(session.signature, manifest)
    except ManifestError:
        session.close()
        raise
    return LoadedVersion(
        name=manifest.name,
        version=str(manifest.version),
        digest=digest,
        manifest=manifest,
        variant=variant,
        variant_reason=reason,
        session=session,
        settings=session_settings,
        signature=signature,
        load_s=perf_counter() - started,
    )


def _check_runtime(manifest: Manifest) -> None:
    needed = manifest.runtime.onnxruntime_min
    if needed and _numbers(needed) > _numbers(RUNTIME_VERSION):
        raise ModelLoadError(
            f"{manifest.name} version {manifest.version} needs onnxruntime {needed} or newer; "
            f"this is {RUNTIME_VERSION}"
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _described(found: Signature, manifest: Manifest) -> Signature:
    """Add the manifest's labels to the file's signature, after checking that both agree."""
    inputs = _merged(found.inputs, manifest.inputs, f"{manifest.name}: input")
    outputs = _merged(tuple(found.outputs.values()), manifest.outputs, f"{manifest.name}: output")
    return Signature(inputs, outputs)


def _merged(
    found: Sequence[TensorSpec], stated: Sequence[TensorDescription], what: str
) -> list[TensorSpec]:
    if not stated:
        return list(found)
    described = {description.name: description for description in stated}
    if described.keys() != {spec.name for spec in found}:
        raise ManifestError(
            f"{what}s are {sorted(described)} in the manifest and "
            f"{sorted(spec.name for spec in found)} in the model file"
        )
    merged = []
    for spec in found:
        description = described[spec.name]
        # The manifest may fix an axis that the file leaves open, never the other way round.
        if description.datatype != spec.datatype.name or not fits(
            tuple(description.shape), spec.shape
        ):
            raise ManifestError(
                f"{what} {spec.name!r} is {description.datatype} {list(description.shape)} in the "
                f"manifest and {spec.datatype.name} {list(spec.shape)} in the model file"
            )
        merged.append(replace(spec, shape=tuple(description.shape), labels=description.labels))
    return merged
