"""How models run, share runs, and are remembered."""

from typing import Annotated

from msgspec import Meta

from edge_runtime.settings.group import SECONDS_MAX, Settings


class Engine(Settings, frozen=True):
    """How models run, in ``[engine]``."""

    providers: Annotated[
        tuple[str, ...],
        Meta(
            description="Execution providers in order of preference; those that are not "
            "installed are left out and reported. The CPU provider always ends the list."
        ),
    ] = ("CPUExecutionProvider",)
    intra_op_threads: Annotated[
        int,
        Meta(
            ge=0,
            description="Threads of one run; 0: the CPUs this process may use "
            "(affinity mask and cgroup quota).",
        ),
    ] = 0
    pool_threads: Annotated[
        int,
        Meta(
            ge=0,
            description="Runs that may go on at once beside the event loop; 0: as many as CPUs.",
        ),
    ] = 0
    inline_limit_s: Annotated[
        float,
        Meta(
            ge=0,
            le=SECONDS_MAX,
            description="Runs expected to be shorter than this many seconds execute on the "
            "event loop's own thread; handing over to the pool costs about 0.1 ms.",
        ),
    ] = 0.0005
    queue_depth: Annotated[
        int, Meta(ge=1, description="Runs that may wait for the pool; more are answered 503.")
    ] = 256
    memory_arena: Annotated[
        bool,
        Meta(
            description="ONNX Runtime's CPU arena. With several clients it needs less memory than "
            "the system's allocator at the same speed (docs/performance.md), but it keeps what "
            "the largest request took until the model is unloaded: switch it off where the sizes "
            "of requests vary much."
        ),
    ] = True
    warm_up_runs: Annotated[
        int,
        Meta(
            ge=0,
            le=1000,
            description="Runs of a version with sample inputs before it answers; slow models run "
            "once. 0: none, and its golden inputs are not tried.",
        ),
    ] = 2
    graph_cache_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Most that optimised graphs of models over 8 MiB take on disk (in the "
            "state directory, `optimized`), in bytes. Later loads read them in place of the "
            "model, and their weights need no memory that the system could not take back. "
            "0: none are kept.",
        ),
    ] = 1_073_741_824
    memory_budget_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Resident memory that the whole daemon may hold, in bytes; 0: no budget. "
            "Models leave memory for others to come, and come back when a request asks for them. "
            "A model that is too large for it alone is refused.",
        ),
    ] = 0


class Batching(Settings, frozen=True):
    """Requests that share a run, in ``[batching]``. Each version is probed when it is loaded."""

    enabled: Annotated[
        bool,
        Meta(
            description="Let requests share runs, for versions whose probe shows that answers "
            "stay the same and that it pays. Nothing ever waits for company."
        ),
    ] = True
    latency_objective_s: Annotated[
        float,
        Meta(
            gt=0,
            le=SECONDS_MAX,
            description="Time that a shared run should stay below; the number of its rows adapts. "
            "Where one row takes longer, nothing is shared.",
        ),
    ] = 0.02
    max_rows: Annotated[int, Meta(ge=1, description="Most rows of a shared run.")] = 256
    min_gain: Annotated[
        float,
        Meta(
            ge=1,
            description="Least gain in rows per second that the probe must find; below it, runs "
            "are not shared.",
        ),
    ] = 1.1
    tolerance: Annotated[
        float,
        Meta(
            ge=0,
            description="Largest difference between a shared and a single run that still counts "
            "as the same, as a share of the output's largest value (FP16 and BF16: 100 times as "
            "much; other than floating point: none).",
        ),
    ] = 1e-4
    probe_budget_s: Annotated[
        float,
        Meta(gt=0, le=SECONDS_MAX, description="Time for the probe of one version, roughly."),
    ] = 0.2


class Cache(Settings, frozen=True):
    """The prediction cache, in ``[cache]``. Models opt in with ``cache_ttl_s``."""

    ram_bytes: Annotated[
        int, Meta(ge=0, description="Most that answers kept in memory take, in bytes.")
    ] = 16_777_216
    disk_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Most that answers kept on disk take, in bytes; 0: memory only. The file "
            "is `cache/cache.db` in the state directory.",
        ),
    ] = 268_435_456
    disk_answers: Annotated[
        int,
        Meta(
            ge=1,
            le=16_777_216,
            description="Most answers kept on disk. Knowing which are there takes 16 to 32 bytes "
            "of memory for each.",
        ),
    ] = 65_536
    queue_bytes: Annotated[
        int,
        Meta(ge=0, description="Answers that wait to be written, in bytes; more are not written."),
    ] = 8_388_608
    flush_interval_s: Annotated[
        float,
        Meta(
            gt=0,
            le=SECONDS_MAX,
            description="Answers are gathered for this many seconds and written together; a crash "
            "loses as much.",
        ),
    ] = 5.0
    written_bytes_per_hour: Annotated[
        int,
        Meta(
            ge=0,
            description="Most that is written to the disk in an hour, in bytes, for the life of "
            "flash memory; nothing more is written until the hour is over.",
        ),
    ] = 67_108_864
