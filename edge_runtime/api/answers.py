"""What the daemon says about itself and its models, from the catalog to the protocol's structs."""

from time import perf_counter_ns, time_ns
from typing import Final

from edge_runtime import __version__
from edge_runtime.cache.counters import Counters
from edge_runtime.catalog import Catalog
from edge_runtime.metrics import VersionStatistics
from edge_runtime.protocol import schemas
from edge_runtime.routing import LoadedVersion
from edge_runtime.session import RUNTIME_VERSION
from edge_runtime.tensors import TensorSpec

SERVER_NAME: Final = "edge-runtime"
PLATFORM: Final = "onnxruntime_onnx"  # Triton's word; clients compare it
#: Only what is there: clients choose their behaviour by these words.
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
_MAX_BATCH_SIZE: Final = 1024  # advertised for models with a varying first axis; not a limit
_NS_PER_MS: Final = 1_000_000
_PERCENT: Final = 100  # in ten-thousandths


def server_metadata() -> schemas.ServerMetadata:
    """Describe the server (``GET /v2``)."""
    return schemas.ServerMetadata(SERVER_NAME, __version__, EXTENSIONS)


def model_metadata(catalog: Catalog, loaded: LoadedVersion) -> schemas.ModelMetadata:
    """Describe one version of a model (``GET /v2/models/NAME``)."""
    signature = loaded.signature
    verdict = loaded.lane.verdict
    return schemas.ModelMetadata(
        name=loaded.name,
        versions=catalog.versions(loaded.name),
        platform=PLATFORM,
        inputs=[_tensor(spec) for spec in signature.inputs],
        outputs=[_tensor(spec) for spec in signature.outputs.values()],
        properties={
            "version": loaded.version,
            "digest": loaded.digest,
            "variant": loaded.variant.name,
            "variant_reason": loaded.variant_reason,
            "execution_providers": ",".join(loaded.session.providers),
            "runtime": f"onnxruntime {RUNTIME_VERSION}",
            **({"swap": loaded.swap} if loaded.swap else {}),
            **_traffic(catalog, loaded.name),
            "batching": f"{'on' if verdict.joins else 'off'}: {verdict.reason}",
            "batching_rows": str(loaded.lane.cap.rows if verdict.joins else 1),
        },
    )


def _traffic(catalog: Catalog, name: str) -> dict[str, str]:
    """Say how the requests that name no version are shared out, if somebody directed them."""
    traffic = catalog.traffic(name)
    if traffic is None:
        return {}
    shares = [f"{version}={share / _PERCENT:g}%" for version, share in traffic.shares.items()]
    return {"traffic": ", ".join(shares)}


def model_config(loaded: LoadedVersion) -> schemas.ModelConfig:
    """Describe one version in the words of Triton's model configuration.

    Triton leaves the batch axis out of ``dims`` where ``max_batch_size`` is above 0; clients then
    expect it in front of every shape.
    """
    signature = loaded.signature
    skip = 1 if signature.batchable else 0

    def tensors(specs: tuple[TensorSpec, ...]) -> list[schemas.ConfigTensor]:
        return [
            schemas.ConfigTensor(spec.name, spec.datatype.triton, list(spec.shape[skip:]))
            for spec in specs
        ]

    return schemas.ModelConfig(
        name=loaded.name,
        platform=PLATFORM,
        backend="onnxruntime",
        version_policy={"specific": {"versions": [int(loaded.version)]}},
        max_batch_size=_MAX_BATCH_SIZE if skip else 0,
        input=tensors(signature.inputs),
        output=tensors(tuple(signature.outputs.values())),
        instance_group=[schemas.InstanceGroup(name=loaded.name, kind="KIND_CPU", count=1)],
        default_model_filename=loaded.variant.file,
        parameters={},
    )


def model_statistics(
    loaded: LoadedVersion, cache: Counters | None = None, *, in_memory: bool = True
) -> schemas.ModelStatistics:
    """Give one version's counters in Triton's shape.

    Args:
        loaded: The version.
        cache: Counters of its cache, if it has one.
        in_memory: Whether it holds memory now.
    """
    counters = loaded.statistics
    runs = counters.compute.count
    size_bytes = loaded.size_bytes if in_memory else 0
    none = schemas.Duration()
    return schemas.ModelStatistics(
        name=loaded.name,
        version=loaded.version,
        last_inference=_wall_clock_ms(counters),
        inference_count=counters.rows,
        execution_count=runs,
        inference_stats=schemas.InferenceStatistics(
            success=schemas.Duration(counters.success.count, counters.success.ns),
            fail=schemas.Duration(counters.fail.count, counters.fail.ns),
            queue=schemas.Duration(counters.queue.count, counters.queue.ns),
            compute_input=schemas.Duration(runs, counters.input_ns),
            compute_infer=schemas.Duration(runs, counters.compute.ns),
            compute_output=schemas.Duration(runs, counters.output_ns),
            cache_hit=schemas.Duration(cache.answered, cache.hit_ns) if cache else none,
            cache_miss=schemas.Duration(cache.misses, cache.miss_ns) if cache else none,
        ),
        response_stats={},
        batch_stats=[
            schemas.BatchStatistics(
                rows,
                schemas.Duration(tally.runs, tally.input_ns),
                schemas.Duration(tally.runs, tally.infer_ns),
                schemas.Duration(tally.runs, tally.output_ns),
            )
            for rows, tally in sorted(counters.by_rows.items())
        ],
        memory_usage=[schemas.MemoryUsage("CPU", 0, size_bytes)] if size_bytes else [],
    )


def index(catalog: Catalog, *, only_ready: bool) -> list[schemas.IndexEntry]:
    """List every version known, for the repository index."""
    return [
        schemas.IndexEntry(name, version, state.state, state.reason)
        for name, version, state in catalog.index()
        if state.state == "READY" or not only_ready
    ]


def _tensor(spec: TensorSpec) -> schemas.TensorMetadata:
    return schemas.TensorMetadata(spec.name, spec.datatype.name, spec.shape)


def _wall_clock_ms(counters: VersionStatistics) -> int:
    """Turn the monotonic time of the last success into milliseconds since the epoch."""
    if not counters.last_success_ns:
        return 0
    return (time_ns() - (perf_counter_ns() - counters.last_success_ns)) // _NS_PER_MS
