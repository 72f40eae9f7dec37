"""The JSON bodies of the Open Inference Protocol and its extensions, as structs.

The codec decodes into them, the answers are built from them, and ``openapi.json`` is generated
from them. Fields and their order are the protocol's (reference: inference_rest.md and Triton's
extension documents); unknown fields of a request are ignored, as every server does.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

ParameterValue = str | int | float | bool


class InferInput(msgspec.Struct, gc=False):
    """One input tensor of a request."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, ParameterValue] | None = None
    data: msgspec.Raw | UnsetType = UNSET


class InferRequestedOutput(msgspec.Struct, gc=False):
    """One output that the caller wants."""

    name: str
    parameters: dict[str, ParameterValue] | None = None


class InferRequestBody(msgspec.Struct, gc=False):
    """The JSON part of a request."""

    inputs: list[InferInput]
    id: str | None = None
    parameters: dict[str, ParameterValue] | None = None
    outputs: list[InferRequestedOutput] | None = None


class InferOutput(msgspec.Struct, omit_defaults=True, gc=False):
    """One output tensor of an answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, ParameterValue] | UnsetType = UNSET
    data: Annotated[list[Any], Meta(description="Elements in row-major order.")] | UnsetType = UNSET


class InferResponseBody(msgspec.Struct, omit_defaults=True, gc=False):
    """The JSON part of an answer."""

    model_name: str
    model_version: str
    outputs: list[InferOutput]
    id: str = ""
    parameters: dict[str, ParameterValue] | UnsetType = UNSET


class ErrorBody(msgspec.Struct):
    """Every error, whatever its status."""

    error: Annotated[str, Meta(description="What went wrong, where, and what to do.")]


class Live(msgspec.Struct):
    """``GET /v2/health/live``."""

    live: bool


class Ready(msgspec.Struct):
    """``GET /v2/health/ready``."""

    ready: bool


class ModelReady(msgspec.Struct):
    """``GET /v2/models/NAME/ready``."""

    name: str
    ready: bool


class ServerMetadata(msgspec.Struct):
    """``GET /v2``."""

    name: str
    version: str
    extensions: tuple[str, ...]


class TensorMetadata(msgspec.Struct):
    """One tensor in a model's metadata; -1 is a varying axis."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct):
    """``GET /v2/models/NAME``."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str]


class Duration(msgspec.Struct):
    """How often, and how long together in nanoseconds."""

    count: int = 0
    ns: int = 0


class InferenceStatistics(msgspec.Struct):
    """Triton's eight durations; C++ clients insist on every one."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStatistics(msgspec.Struct):
    """Durations of the runs of one size, in rows."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class MemoryUsage(msgspec.Struct):
    """Memory of one kind."""

    type: str
    id: int
    byte_size: int


class ModelStatistics(msgspec.Struct):
    """Statistics of one version."""

    name: str
    version: str
    last_inference: Annotated[int, Meta(description="Milliseconds since the epoch; 0: never.")]
    inference_count: Annotated[int, Meta(description="Rows inferred, cache hits left out.")]
    execution_count: Annotated[int, Meta(description="Runs of the model.")]
    inference_stats: InferenceStatistics
    response_stats: dict[str, Any]
    batch_stats: list[BatchStatistics]
    memory_usage: list[MemoryUsage]


class Statistics(msgspec.Struct):
    """``GET /v2/models/stats`` and its narrower forms."""

    model_stats: list[ModelStatistics]


#: How the reason of a version begins that is READY and not in memory: asking for it loads it.
LOADS_WHEN_ASKED: Final = "not in memory; loads when asked"


class IndexEntry(msgspec.Struct, omit_defaults=True):
    """One version in the repository index."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


class IndexRequest(msgspec.Struct):
    """``POST /v2/repository/index``."""

    ready: bool = False


class LoadRequest(msgspec.Struct):
    """``POST /v2/repository/models/NAME/load`` and ``/unload``."""

    parameters: dict[str, ParameterValue] = {}


class ConfigTensor(msgspec.Struct):
    """One tensor in a model's configuration; without the batch axis where there is one."""

    name: str
    data_type: str
    dims: list[int]


class InstanceGroup(msgspec.Struct):
    """Where a model runs."""

    name: str
    kind: str
    count: int


class ModelConfig(msgspec.Struct):
    """``GET /v2/models/NAME/config``."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    instance_group: list[InstanceGroup]
    default_model_filename: str
    parameters: dict[str, dict[str, str]]
