"""The structs of the bundle manifest: every field, its limits and what it means.

Programs import them from ``edge_runtime.manifest``, which reads, writes and publishes them.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge_runtime import datatypes

SCHEMA_VERSION: Final = 1
FEATURES: Final[frozenset[str]] = frozenset()
"""Words this program understands in ``required_features``."""
MAX_BYTES: Final = 1_048_576
MAX_VERSION: Final = 2**63 - 1
MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"

SESSION_OPTIONS: Final = frozenset(
    {
        "mlas.disable_kleidiai",
        "mlas.enable_gemm_fastmath_arm64_bfloat16",
        "mlas.qnbit.force_fp32",
        "mlas.use_lut_gemm",
        "optimization.disable_specified_optimizers",
        "optimization.enable_cast_chain_elimination",
        "optimization.enable_gelu_approximation",
        "session.disable_aot_function_inlining",
        "session.disable_double_qdq_remover",
        "session.disable_prepacking",
        "session.disable_qdq_constant_folding",
        "session.disable_quant_qdq",
        "session.dynamic_block_base",
        "session.enable_dq_matmulnbits_fusion",
        "session.enable_quant_qdq_cleanup",
        "session.graph_optimizations_loop_level",
        "session.qdq_matmulnbits_accuracy_level",
        "session.qdq_matmulnbits_block_size",
        "session.qdqisint8allowed",
        "session.set_denormal_as_zero",
        "session.x64quantprecision",
    }
)
"""ONNX Runtime keys a manifest may set: numbers and kernels. Never files, threads or providers."""

# Python's `$` also matches before a last newline; JSON Schema's does not. `(?!\n)` makes them one.
_END: Final = r"$(?!\n)"
MODEL_NAME: Final = rf"^[A-Za-z0-9_@+:][A-Za-z0-9._@+:-]{{0,127}}{_END}"
VERSION: Final = rf"^[1-9][0-9]{{0,18}}{_END}"
FILE_NAME: Final = (
    rf"^(?!\.{{0,2}}(/|$))(?!.*/\.{{0,2}}(/|$))[^\\\u0000-\u001f\u007f]{{1,512}}{_END}"
)
SHA256: Final = rf"^([0-9a-f]{{64}})?{_END}"
DATATYPE: Final = rf"^({'|'.join(datatypes.BY_NAME)}){_END}"
CREATED: Final = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    rf"(Z|[+-][0-9]{{2}}:[0-9]{{2}}))?{_END}"
)
RELEASE: Final = rf"^([0-9]+\.[0-9]+(\.[0-9]+)?)?{_END}"
# What a person reads in place of the expression.
WORDS: Final = {
    MODEL_NAME: "1 to 128 of letters, digits and . _ - @ + :, not starting with . or -",
    FILE_NAME: "a relative path without empty, `.` or `..` parts, backslashes or control signs",
    SHA256: "64 lower-case hexadecimal digits",
    DATATYPE: f"one of {', '.join(datatypes.BY_NAME)}",
    CREATED: "an RFC 3339 time such as 2025-01-31T12:00:00Z",
    RELEASE: "a version such as 1.29 or 1.29.0",
}

Sha256 = Annotated[str, Meta(pattern=SHA256)]
FileName = Annotated[str, Meta(pattern=FILE_NAME)]
Name = Annotated[str, Meta(pattern=MODEL_NAME)]
Count = Annotated[int, Meta(ge=0, le=MAX_VERSION)]
Amount = Annotated[float, Meta(ge=0)]


class Part(msgspec.Struct, frozen=True):
    """A part of the manifest; fields it does not know are ignored."""


class File(Part, frozen=True):
    """One file of the bundle and what it must be."""

    path: Annotated[FileName, Meta(description="Path in the bundle, with `/` between its parts.")]
    sha256: Annotated[Sha256, Meta(description="SHA-256 of the content, in hexadecimal.")] = ""
    size_bytes: Annotated[Count, Meta(description="Size in bytes.")] = 0


class TensorDescription(Part, frozen=True):
    """One input or output of the model."""

    name: Annotated[str, Meta(min_length=1, description="Name in the model file.")]
    datatype: Annotated[
        str, Meta(pattern=DATATYPE, description="Datatype of the Open Inference Protocol.")
    ]
    shape: Annotated[
        tuple[Annotated[int, Meta(ge=-1, le=MAX_VERSION)], ...],
        Meta(description="Elements per dimension; -1: varies."),
    ]
    meaning: Annotated[str, Meta(description="What the values are, for a person.")] = ""
    units: Annotated[str, Meta(description="Unit of the values, for example `m/s`.")] = ""
    labels: Annotated[
        tuple[str, ...], Meta(description="Names of the classes, in the order of the last axis.")
    ] = ()


class Requires(Part, frozen=True):
    """What a CPU must have to run a variant; everything listed is needed."""

    arch: Annotated[
        str, Meta(description="`x86_64`, `aarch64` or another `uname -m`; empty: any.")
    ] = ""
    cpu_flags: Annotated[
        tuple[str, ...],
        Meta(
            description="Instruction sets as Linux spells them; `vnni` stands for any of "
            "avx512_vnni, avx_vnni and asimddp."
        ),
    ] = ()


class Variant(Part, frozen=True):
    """One model file of this version, for the CPUs that meet what it requires."""

    name: Annotated[Name, Meta(description="Name of the variant, for example `int8-vnni`.")]
    file: Annotated[FileName, Meta(description="The model file's path in the bundle.")]
    sha256: Annotated[Sha256, Meta(description="SHA-256 of the model file, in hexadecimal.")] = ""
    size_bytes: Annotated[Count, Meta(description="Size of the model file in bytes.")] = 0
    files: Annotated[
        tuple[File, ...], Meta(description="Other files the model reads: external weights.")
    ] = ()
    requires: Annotated[Requires, Meta(description="What the CPU must have.")] = Requires()
    session_options: Annotated[
        dict[str, str],
        Meta(description="ONNX Runtime session configuration; only keys that cannot name files."),
    ] = {}

    def reads(self) -> tuple[File, ...]:
        """List every file a session of this variant reads, the model file first."""
        return (File(self.file, self.sha256, self.size_bytes), *self.files)


class Runtime(Part, frozen=True):
    """What the model needs of ONNX Runtime."""

    onnxruntime_min: Annotated[
        str, Meta(pattern=RELEASE, description="Oldest version that runs it; empty: any.")
    ] = ""
    opset: Annotated[
        Count, Meta(description="Version of the default operator set; 0: not stated.")
    ] = 0


class Batching(Part, frozen=True):
    """How requests may be joined into one run."""

    max_rows: Annotated[
        Count,
        Meta(description="Rows of one joined run; 1: never joined; 0: the daemon decides."),
    ] = 0


class Defaults(Part, frozen=True):
    """Settings the publisher suggests; the device's configuration wins."""

    intra_op_threads: Annotated[
        Count, Meta(description="Threads of one run; 0: the daemon decides.")
    ] = 0
    batching: Annotated[Batching, Meta(description="Joining of requests.")] = Batching()
    cache_ttl_s: Annotated[
        Amount,
        Meta(
            description="Most seconds an answer may be reused on a device that keeps answers; "
            "0: not stated."
        ),
    ] = 0.0
    cache_max_bytes: Annotated[
        Count, Meta(description="Most bytes of kept answers; 0: not stated.")
    ] = 0


class Tolerance(Part, frozen=True):
    """How far an output may be from the golden: `|a - b| <= atol + rtol * |b|`."""

    output: Annotated[str, Meta(description="Output's name; empty: all that have no own.")] = ""
    atol: Annotated[Amount, Meta(description="Absolute part, in the output's unit.")] = 0.0
    rtol: Annotated[Amount, Meta(description="Relative part, a ratio.")] = 0.0


class Metric(Part, frozen=True):
    """A score over the goldens, for models whose numbers may differ between CPUs."""

    name: Annotated[str, Meta(min_length=1, description="Which score, for example `top1`.")]
    floor: Annotated[float, Meta(description="Least score that is accepted.")]


class Comparison(Part, frozen=True):
    """How a new version must compare with the active one on real inputs of a device."""

    agreement_floor: Annotated[
        float,
        Meta(ge=0, le=1, description="Least share of inputs on which the outputs agree."),
    ] = 0.98
    cosine_floor: Annotated[
        float,
        Meta(
            ge=-1,
            le=1,
            description="Rows of other floats agree if their cosine reaches this; numbers of one "
            "column, if `1 - (a - b)^2 / (2 + a^2 + b^2)` does.",
        ),
    ] = 0.98
    compare_top: Annotated[
        bool | None,
        Meta(
            description="Whether float outputs are scores of classes along the last axis, which "
            "agree if the highest one is at the same place; null: they are where the output has "
            "labels, or two axes and several columns."
        ),
    ] = None
    latency_ratio_max: Annotated[
        float,
        Meta(gt=0, description="Most time of a run, over the active version's on the same input."),
    ] = 1.5


class Acceptance(Part, frozen=True):
    """What a device checks before it serves this version."""

    goldens: Annotated[
        tuple[File, ...],
        Meta(description="`test_data_set_K/{input,output}_I.pb` files, or `.npz` files."),
    ] = ()
    tolerances: Annotated[
        tuple[Tolerance, ...], Meta(description="Allowed distance from the golden outputs.")
    ] = ()
    metric: Annotated[
        Metric | None, Meta(description="Score that replaces the tolerances; null: none.")
    ] = None
    latency_budget_s: Annotated[
        Amount, Meta(description="Longest median time of one run in seconds; 0: not checked.")
    ] = 0.0
    memory_budget_bytes: Annotated[
        Count,
        Meta(description="Most memory that loading and running adds, in bytes; 0: not checked."),
    ] = 0
    comparison: Annotated[Comparison, Meta(description="Checks beside the active version.")] = (
        Comparison()
    )


class Accuracy(Part, frozen=True):
    """A measured score with its confidence interval."""

    metric: Annotated[str, Meta(min_length=1, description="Which score, for example `top1`.")]
    value: Annotated[float, Meta(description="The score.")]
    low: Annotated[float, Meta(description="Lower end of the confidence interval.")]
    high: Annotated[float, Meta(description="Upper end of the confidence interval.")]
    samples: Annotated[Count, Meta(description="Samples the score was measured on.")]
    confidence: Annotated[
        float, Meta(gt=0, lt=1, description="Share of such intervals that hold the true score.")
    ] = 0.95


class Provenance(Part, frozen=True):
    """Where the model comes from and what it was worth there."""

    recipe: Annotated[str, Meta(description="Recipe it was built with, name or text.")] = ""
    source_digest: Annotated[
        Sha256, Meta(description="Digest of the model it was built from; empty: none.")
    ] = ""
    accuracy: Annotated[
        Accuracy | None, Meta(description="Score of this version; null: not measured.")
    ] = None
    data_sha256: Annotated[
        dict[str, Sha256], Meta(description="SHA-256 of the data used, by the data's name.")
    ] = {}


class Manifest(Part, frozen=True, kw_only=True):
    """One version of one model: its files, what it needs, and how to check it."""

    schema_version: Annotated[
        int, Meta(ge=1, le=MAX_VERSION, description="Version of this format.")
    ] = SCHEMA_VERSION
    name: Annotated[Name, Meta(description="The model's name.")]
    version: Annotated[int, Meta(ge=1, le=MAX_VERSION, description="The model's version.")]
    required_features: Annotated[
        tuple[str, ...], Meta(description="Features whose meaning a reader must know.")
    ] = ()
    created: Annotated[
        str, Meta(pattern=CREATED, description="When it was built, RFC 3339; empty: not stated.")
    ] = ""
    inputs: Annotated[
        tuple[TensorDescription, ...],
        Meta(description="What the model takes; empty: as the model file declares."),
    ] = ()
    outputs: Annotated[
        tuple[TensorDescription, ...],
        Meta(description="What the model gives; empty: as the model file declares."),
    ] = ()
    variants: Annotated[
        tuple[Variant, ...], Meta(description="Model files, the preferred one first.")
    ]
    runtime: Annotated[Runtime, Meta(description="Needs of ONNX Runtime.")] = Runtime()
    defaults: Annotated[Defaults, Meta(description="Suggested settings.")] = Defaults()
    acceptance: Annotated[Acceptance, Meta(description="Checks on the device.")] = Acceptance()
    provenance: Annotated[Provenance, Meta(description="Origin and worth.")] = Provenance()

    def files(self) -> tuple[File, ...]:
        """List every file the manifest names, each path once, in its order."""
        named = [file for variant in self.variants for file in variant.reads()]
        return tuple({file.path: file for file in [*named, *self.acceptance.goldens]}.values())
