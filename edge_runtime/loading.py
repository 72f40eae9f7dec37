"""Makes a bundle runnable: verify its files, load the right variant, warm up, probe, measure.

Slow and blocking: the catalog calls it on its loader thread.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

from edge_runtime.agreement import agreed
from edge_runtime.batching_probe import cap, probe
from edge_runtime.bundle import Bundle, verify
from edge_runtime.digest import variant_digest
from edge_runtime.errors import ModelLoadError
from edge_runtime.external_data import operators
from edge_runtime.facts import Facts, file_states, known
from edge_runtime.graph_optimization import optimize
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import Manifest, Variant, choose_variant
from edge_runtime.operators import TIMED_BY_VALUES
from edge_runtime.optimized_graphs import WEIGHTS, OptimizedGraphs, graph_key
from edge_runtime.priority import at_usual_priority
from edge_runtime.process_memory import resident_bytes
from edge_runtime.routing import LoadedVersion
from edge_runtime.samples import samples, synthetic
from edge_runtime.session import (
    CPU_PROVIDER,
    RUNTIME_VERSION,
    Session,
    SessionSettings,
    release_memory,
)
from edge_runtime.settings import Batching, Engine, Model
from edge_runtime.warm_up import warm_up

_log = logging.getLogger(__name__)

_SIZE: Final = "size_bytes"
_SAME_SHARE: Final = 8
_SAME_BYTES: Final = 2**20  # what others allocate meanwhile


def load_bundle(
    bundle: Bundle,
    serving: LoadedVersion | None = None,
    *,
    engine: Engine,
    batching: Batching,
    settings: Model,
    providers: Sequence[str],
    cpu: CpuFacts,
    cpus: int,
    graphs: OptimizedGraphs | None = None,
) -> LoadedVersion:
    """Load one version of a model.

    Args:
        bundle: What to load.
        serving: What answers for this version now; given back if nothing would change.
        engine: How models run.
        batching: Which requests may share runs.
        settings: What the configuration says of this model.
        providers: Execution providers that are installed, in order.
        cpu: Decides the variant.
        cpus: CPUs this process may use.
        graphs: The cache of optimised graphs, and what was measured before; ``None``: none.

    Raises:
        ManifestError: The manifest contradicts the model file, or asks for a newer runtime; or a
            golden does not hold what the model takes.
        DigestMismatchError: A file is not the one the manifest names.
        ModelLoadError: A file is missing, ONNX Runtime cannot load it, or the model fails on its
            golden inputs.
    """
    started = perf_counter()
    graphs = graphs or OptimizedGraphs(None)
    manifest = bundle.manifest
    _check_runtime(manifest)
    variant, reason = choose_variant(manifest, cpu)
    chosen = _session_settings(variant, manifest, engine, settings, (providers, cpu, cpus))
    paths = _paths(bundle, variant)
    before = file_states(paths)
    files = verify(bundle, variant)
    digest = variant_digest(files, chosen.result_options)
    rows_max = settings.max_rows or manifest.defaults.batching.max_rows or batching.max_rows
    if serving is not None and (
        (serving.digest, serving.settings, serving.manifest, serving.joining)
        == (digest, chosen, manifest, (batching, rows_max))
    ):
        return serving
    file_bytes = sum(size for _, size, _ in files)
    made_of = operators(bundle.directory / variant.file)
    wanted = _Wanted(bundle, variant, chosen, graph_key(digest, RUNTIME_VERSION, cpu), file_bytes)
    before_bytes = _grown_by(0)
    session = _session(wanted, graphs)
    try:
        _check_unchanged(before, wanted, graphs)
        signature = agreed(session.signature, manifest)
        tried = samples(bundle, signature) if engine.warm_up_runs else ()
        run_s = warm_up(session.run, signature, tried, engine.warm_up_runs, _shown(manifest))
        verdict = probe(
            session.run,
            signature,
            partial(synthetic, signature),
            settings=batching,
            rows_max=rows_max,
            operators=made_of,
        )
    except BaseException:
        session.close()
        raise
    size_bytes = max(_grown_by(before_bytes), file_bytes, 1)
    load_s = perf_counter() - started
    _remember(graphs.facts, wanted, digest, size_bytes, load_s, run_s)
    return LoadedVersion(
        name=manifest.name,
        version=str(manifest.version),
        digest=digest,
        manifest=manifest,
        variant=variant,
        variant_reason=reason,
        session=session,
        settings=chosen,
        signature=signature,
        verdict=verdict,
        cap=cap(verdict, batching, rows_max),
        joining=(batching, rows_max),
        inline=TIMED_BY_VALUES.isdisjoint(made_of),
        load_s=load_s,
        size_bytes=size_bytes,
    )


def _grown_by(before_bytes: int) -> int:
    """Measure memory after everything that makes it grow: arenas stay as large as they became."""
    release_memory()
    return resident_bytes() - before_bytes


def _shown(manifest: Manifest) -> str:
    return f"{manifest.name} version {manifest.version}"


def expected_bytes(
    bundle: Bundle,
    *,
    engine: Engine,
    settings: Model,
    providers: Sequence[str],
    cpu: CpuFacts,
    cpus: int,
    graphs: OptimizedGraphs,
) -> int:
    """Say what a bundle will hold in memory, without reading its files.

    Args:
        bundle: What would be loaded.
        engine: As for ``load_bundle``, like everything else.
        settings: Of this model.
        providers: Installed.
        cpu: This one.
        cpus: Usable.
        graphs: Knows what was measured.

    Returns:
        Bytes: as measured when the same variant was loaded the same way on this device, else the
        size of its files, which is less than it will need.

    Raises:
        ManifestError: No variant runs on this CPU.
    """
    variant, _ = choose_variant(bundle.manifest, cpu)
    chosen = _session_settings(variant, bundle.manifest, engine, settings, (providers, cpu, cpus))
    files = variant.reads()
    if all(file.sha256 for file in files):
        digest = stated_digest(variant, cpu)
    else:
        digest = graphs.facts.digest(_paths(bundle, variant))
    facts = graphs.facts.of(graph_key(digest, RUNTIME_VERSION, cpu), run_name(chosen))
    return known(facts, _SIZE) or max(1, sum(file.size_bytes for file in files))


def stated_digest(variant: Variant, cpu: CpuFacts) -> str:
    """Name what a variant computes with by what its manifest states, without reading a file.

    Args:
        variant: Of a manifest with digests.
        cpu: The device's; some result options depend on it.

    Returns:
        What ``load_bundle`` gives the version, if the files are those that the manifest names.
    """
    stated = [(file.path, file.size_bytes, file.sha256) for file in variant.reads()]
    settings = SessionSettings(precise_int8=_precise_int8(cpu), options=variant.session_options)
    return variant_digest(stated, settings.result_options)


def run_name(settings: SessionSettings) -> str:
    """Name what facts depend on besides the variant: threads and the memory arena."""
    arena = "arena" if settings.memory_arena else "no-arena"
    return f"{settings.intra_op_threads}-threads-{arena}"


class _Wanted(NamedTuple):
    """What is to be loaded, and the key of its optimised graph."""

    bundle: Bundle
    variant: Variant
    settings: SessionSettings
    key: str
    file_bytes: int


def _session_settings(
    variant: Variant,
    manifest: Manifest,
    engine: Engine,
    settings: Model,
    device: tuple[Sequence[str], CpuFacts, int],
) -> SessionSettings:
    providers, cpu, cpus = device
    return SessionSettings(
        providers=tuple(providers),
        intra_op_threads=(
            settings.intra_op_threads
            or manifest.defaults.intra_op_threads
            or engine.intra_op_threads
            or cpus
        ),
        memory_arena=engine.memory_arena,
        precise_int8=_precise_int8(cpu),
        options=variant.session_options,
    )


def _precise_int8(cpu: CpuFacts) -> bool:
    return cpu.arch == "x86_64" and not cpu.vnni


def _session(wanted: _Wanted, graphs: OptimizedGraphs) -> Session:
    """Load the optimised graph if there is or can be one, else the model file itself."""
    settings = wanted.settings
    if settings.providers == (CPU_PROVIDER,):  # others compile what only they can load
        graph = graphs.find(wanted.key) or _made(wanted, graphs)
        if graph is not None:
            try:
                session = _loaded(graph, settings, is_optimized=True)
            except ModelLoadError as error:
                graphs.drop(wanted.key, error.message)
            else:
                manifest = wanted.bundle.manifest
                _log.info(
                    "model %s version %s runs from its optimised graph",
                    manifest.name,
                    manifest.version,
                )
                return session
    return _loaded(wanted.bundle.directory / wanted.variant.file, settings)


def _loaded(path: Path, settings: SessionSettings, *, is_optimized: bool = False) -> Session:
    load = partial(Session.load, path, settings, is_optimized=is_optimized, weights_name=WEIGHTS)
    if settings.intra_op_threads == 1 and settings.providers == (CPU_PROVIDER,):
        return load()
    return at_usual_priority(load)  # its threads will serve requests


def _made(wanted: _Wanted, graphs: OptimizedGraphs) -> Path | None:
    """Make and keep an optimised graph, if this variant is worth it."""
    bundle, variant, settings, key, file_bytes = wanted
    if not graphs.wants(key, file_bytes):
        return None
    try:
        with graphs.workshop() as folder:
            refused = optimize(bundle, variant, settings, folder)
            if not refused:
                return graphs.keep(key, folder)
    except TimeoutError as error:
        _log.info("no optimised graph this time, the CPUs are busy: %s", error)
    except OSError as error:
        graphs.failed(error)
    else:
        graphs.refuse(key, refused)
    return None


def _remember(  # noqa: PLR0917 - what was measured
    facts: Facts, wanted: _Wanted, digest: str, size_bytes: int, load_s: float, run_s: float
) -> None:
    """Keep what was measured; what differs little from the last time is not worth a write."""
    facts.remember_digest(_paths(wanted.bundle, wanted.variant), digest)
    run = run_name(wanted.settings)
    before = known(facts.of(wanted.key, run), _SIZE)
    if not before or abs(size_bytes - before) > max(before // _SAME_SHARE, _SAME_BYTES):
        facts.remember(wanted.key, run, size_bytes=size_bytes, load_s=load_s, run_s=run_s)


def _paths(bundle: Bundle, variant: Variant) -> list[Path]:
    return [bundle.directory / file.path for file in variant.reads()]


def _check_unchanged(before: str, wanted: _Wanted, graphs: OptimizedGraphs) -> None:
    """Refuse what may not be what was hashed: nothing of it may be believed or kept."""
    if file_states(_paths(wanted.bundle, wanted.variant)) == before:
        return
    graphs.drop(wanted.key, "the model's files changed while they were loaded")
    raise ModelLoadError(
        f"the files of {_shown(wanted.bundle.manifest)} changed while they were loaded; load it "
        "again"
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
