"""What a search for a smaller model writes down: candidates, trials, and what they are worth.

Everything here is plain data that msgspec turns into JSON and back: the journal of an interrupted
search and ``report.json`` hold it as it is. No file, clock or library is touched.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

Goal = Literal["latency", "size", "memory"]
Kind = Literal["float32", "static", "dynamic", "matmul-nbits", "float16"]
Integer = Literal["", "QInt8", "QUInt8"]
Method = Literal["", "minmax", "percentile", "entropy"]
Status = Literal["failed", "rejected", "screened", "measured"]

BASELINE: Final = "fp32"
"""Name of the candidate that everything is compared with: the optimised float model."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Plain data; made once, never changed."""


class Recipe(Record, frozen=True, kw_only=True):
    """One way to quantise a model, before anything was left out of it.

    Attributes:
        name: Unique among the recipes of a search, for example ``u8s8-minmax``.
        kind: Which of ONNX Runtime's quantisers makes it; ``float32``: none, ``float16``: a cast.
        activation: Integer type of activations; empty where the kind has none.
        weight: Integer type of weights; empty where the kind has none.
        per_channel: Whether every output channel of a weight has its own scale.
        reduce_range: Whether weights keep to 7 bits, [-64, 64]: products of pairs then fit the
            16-bit sums of x86 CPUs without VNNI.
        calibration: How ranges of activations are found.
        percentile: Share of values within the range, in percent, for ``percentile``.
        operators: Operator types that are quantised; empty: the quantiser's default set.
        bits: Bits of a weight for ``matmul-nbits``, else 0.
        block_size: Weights that share a scale for ``matmul-nbits``, else 0.
        why: Why it is worth a try, for the report.
    """

    name: str
    kind: Kind
    activation: Integer = ""
    weight: Integer = ""
    per_channel: bool = False
    reduce_range: bool = False
    calibration: Method = ""
    percentile: Annotated[float, Meta(gt=50, le=100)] = 99.999
    operators: tuple[str, ...] = ()
    bits: Literal[0, 2, 4, 8] = 0
    block_size: Annotated[int, Meta(ge=0)] = 0
    why: str = ""


class Score(Record, frozen=True, kw_only=True):
    """What a model's answers are worth on one set of samples.

    Attributes:
        metric: Which metric.
        value: Of this model, in the metric's own unit.
        reference: Of the float model on the same samples.
        ratio: How much of the reference is kept, 1 is all; the floor is a bound for it.
        low: One-sided lower confidence bound of ``ratio``; ``None``: not computed (search set).
        confidence: Of the bound.
        samples: How many samples there were.
        samples_needed: How many would be needed to tell, where ``low`` misses the floor though
            ``ratio`` meets it; ``None`` where it can be told, or cannot be foreseen.
    """

    metric: str
    value: float
    reference: float
    ratio: float
    low: float | None = None
    confidence: float = 0.95
    samples: int
    samples_needed: int | None = None


class Latency(Record, frozen=True, kw_only=True):
    """Interleaved runs of a candidate and of the float model on this CPU.

    Attributes:
        p50_s: Median time of one run in seconds.
        p90_s: 90th percentile in seconds.
        reference_p50_s: Median of the float model in the same runs.
        reference_p90_s: Its 90th percentile.
        ratio: Candidate's time over the float model's, the median of interleaved pairs: below 1
            is faster.
        ratio_low: Lower end of the bootstrap interval of ``ratio``.
        ratio_high: Upper end.
        runs: Runs of each.
        threads: Threads of one run.
        rows: Rows of one run.
        cpu: The CPU it was measured on, for a person.
    """

    p50_s: float
    p90_s: float
    reference_p50_s: float
    reference_p90_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    runs: int
    threads: int
    rows: int
    cpu: str


class Decision(Record, frozen=True, kw_only=True):
    """What a gate says of a trial.

    Attributes:
        accepted: Whether it may be shipped.
        reasons: Every condition in words, those that failed first.
        floor_met: Whether accuracy alone would pass.
    """

    accepted: bool
    reasons: tuple[str, ...]
    floor_met: bool


class Trial(Record, frozen=True, kw_only=True):
    """One candidate and everything that was found out about it.

    Attributes:
        name: Unique in a search: recipe's name, repairs, and how many nodes were left in float.
        recipe: How it was made.
        excluded: Names of the nodes left in float, sorted.
        status: ``failed``: it cannot be built or loaded; ``rejected``: screened out;
            ``screened``: has a score on the search set; ``measured``: has all numbers.
        reason: Why it failed or was rejected, else empty.
        file: Model file, relative to the workspace; empty when failed.
        size_bytes: Of the model file and its external weights.
        search: Score on the search set.
        held_out: Score with its bound on the held-out set.
        latency: ``None``: not measured.
        memory_bytes: Peak resident memory that loading and running adds; 0: not measured.
        batchable: Whether rows of a batch cannot change each other (dynamic quantisation can).
        portable: Whether integer results are the same on x86 CPUs without VNNI.
        decision: Of the gate.
        seconds: Time it took to build and screen.
    """

    name: str
    recipe: Recipe
    excluded: tuple[str, ...] = ()
    status: Status
    reason: str = ""
    file: str = ""
    size_bytes: int = 0
    search: Score | None = None
    held_out: Score | None = None
    latency: Latency | None = None
    memory_bytes: int = 0
    batchable: bool = True
    portable: bool = False
    decision: Decision | None = None
    seconds: float = 0.0


class PassResult(Record, frozen=True, kw_only=True):
    """What became of one rewriting step.

    Attributes:
        name: Of the step.
        kept: Whether its result is what the next step starts from.
        reason: Why, in one sentence.
        nodes_before: Nodes of the graph before it.
        nodes_after: Nodes after it, kept or not; 0 when it failed.
        max_difference: Largest absolute difference of an output from before the step.
        latency_ratio: Median time after over before; ``None``: not measured.
        seconds: Time it took.
    """

    name: str
    kept: bool
    reason: str
    nodes_before: int
    nodes_after: int = 0
    max_difference: float = 0.0
    latency_ratio: float | None = None
    seconds: float = 0.0


class Sensitivity(Record, frozen=True, kw_only=True):
    """What quantising one group of nodes costs and gains.

    Attributes:
        nodes: The group's nodes, producer first.
        operator: Operator type of the producer.
        signal_to_noise_db: Of the group's output, quantised against float; lower is worse.
        time_share: Share of the float model's run time, 0 to 1.
        excluded: Whether the shipped variant leaves it in float.
    """

    nodes: tuple[str, ...]
    operator: str
    signal_to_noise_db: float
    time_share: float
    excluded: bool = False


class Split(Record, frozen=True, kw_only=True):
    """How the samples were divided; no sample is in two sets.

    Attributes:
        calibration: Samples that ranges are found on.
        search: Samples that candidates are compared on.
        held_out: Samples that the last decision is taken on, and nothing else.
        duplicates: Samples left out because an equal one is in a set already.
        sha256: Digest of each file's samples, by role.
    """

    calibration: int
    search: int
    held_out: int
    duplicates: int
    sha256: dict[str, str]
