"""The JSON bodies of these doors, as structs; ``openapi.json`` is generated from them too.

TensorFlow Serving's are its protobuf messages in JSON: 64-bit integers are strings there.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from edge_runtime.protocol.schemas import TensorMetadata

RoutingKey = Annotated[
    str | int,
    Meta(
        description="Requests of one key get one version while the model's traffic is split; wins "
        "over the header Edge-Routing-Key. At most 256 bytes."
    ),
]


class TensorFlowPredictRequest(msgspec.Struct, gc=False):
    """``POST /v1/models/NAME:predict``; one of ``instances`` and ``inputs``."""

    signature_name: str = ""
    instances: (
        Annotated[
            msgspec.Raw,
            Meta(description="Row format: a list of values, or of objects by input name."),
        ]
        | UnsetType
    ) = UNSET
    inputs: (
        Annotated[
            msgspec.Raw,
            Meta(description="Column format: a tensor, or an object of tensors by input name."),
        ]
        | UnsetType
    ) = UNSET
    routing_key: RoutingKey = ""


class TensorFlowPredictAnswer(msgspec.Struct, omit_defaults=True):
    """A prediction: ``predictions`` in row format, ``outputs`` in column format."""

    predictions: list[Any] | UnsetType = UNSET
    outputs: Any | UnsetType = UNSET


class TensorFlowStatus(msgspec.Struct):
    """TensorFlow's error code and its reason."""

    error_code: str = "OK"
    error_message: str = ""


class TensorFlowVersionStatus(msgspec.Struct):
    """The state of one version."""

    version: str
    state: Annotated[str, Meta(description="START, LOADING, AVAILABLE, UNLOADING or END.")]
    status: TensorFlowStatus


class TensorFlowModelStatus(msgspec.Struct):
    """``GET /v1/models/NAME``; the highest version first."""

    model_version_status: list[TensorFlowVersionStatus]


class TensorFlowDimension(msgspec.Struct):
    """One axis."""

    size: Annotated[str, Meta(description="-1 where it varies.")]
    name: str


class TensorFlowShape(msgspec.Struct):
    """The axes of a tensor."""

    dim: list[TensorFlowDimension]
    unknown_rank: bool = False


class TensorFlowTensor(msgspec.Struct):
    """One tensor of a signature."""

    dtype: str
    tensor_shape: TensorFlowShape
    name: str


class TensorFlowSignature(msgspec.Struct):
    """What a model takes and gives."""

    inputs: dict[str, TensorFlowTensor]
    outputs: dict[str, TensorFlowTensor]
    method_name: str


class TensorFlowSignatures(msgspec.Struct):
    """The signatures of a model by name: always one, ``serving_default``."""

    signature_def: dict[str, TensorFlowSignature]


class TensorFlowMetadata(msgspec.Struct):
    """The only kind of metadata there is."""

    signature_def: TensorFlowSignatures


class TensorFlowModelSpec(msgspec.Struct):
    """Which version the metadata is of."""

    name: str
    signature_name: str
    version: str


class TensorFlowModelMetadata(msgspec.Struct):
    """``GET /v1/models/NAME/metadata``."""

    model_spec: TensorFlowModelSpec
    metadata: TensorFlowMetadata


class PlainRequest(msgspec.Struct, gc=False):
    """``POST /predict``."""

    features: Annotated[
        msgspec.Raw,
        Meta(description="One row: a list of numbers or strings. Several rows: a list of lists."),
    ]
    model_version: Annotated[
        str | int, Meta(description="A version or an alias; without it the runtime chooses.")
    ] = ""
    model: Annotated[str, Meta(description="Needed where several models are known.")] = ""
    routing_key: RoutingKey = ""


class PlainAnswer(msgspec.Struct):
    """A prediction; with several rows ``prediction`` and ``confidence`` are lists."""

    prediction: Any
    confidence: Annotated[
        Any, Meta(description="The highest score, or null where the model gives none.")
    ]
    model_version: Annotated[str, Meta(description="The version that answered.")]
    inference_time: Annotated[float, Meta(description="Seconds from the request to the answer.")]
    timestamp: Annotated[str, Meta(description="When it was answered: RFC 3339, UTC.")]


class PlainHealth(msgspec.Struct):
    """``GET /health``."""

    status: Annotated[str, Meta(description="`ok`, or `unavailable` with status 503.")]
    version: Annotated[str, Meta(description="The daemon's version.")]


class PlainModelInfo(msgspec.Struct):
    """``GET /model-info``."""

    name: str
    version: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    digest: str
    variant: str
