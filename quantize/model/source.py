"""What a model file is, and whether it can be used; nothing is changed, no weight is read."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, defs, external_data_helper, helper

from edge_runtime.digest import file_sha256
from edge_runtime.errors import ModelLoadError
from edge_runtime.external_data import external_files
from quantize.errors import BadInputError
from quantize.model import storage
from quantize.model.operators import (
    CONTRIBUTED,
    KNOWN_DOMAINS,
    STANDARD,
    elements,
    graphs,
    is_quantized,
    nodes,
    opset,
    tensors,
)
from quantize.model.shapes import with_shapes

# Old exports name these as ONNX's own before they were; only ONNX Runtime knew them.
EARLY_OPERATORS: Final = frozenset({"LayerNormalization", "SimplifiedLayerNormalization"})

_LISTED: Final = 5
_MAGICS: Final = (
    (0, b"PK\x03\x04", "a zip archive, perhaps a PyTorch checkpoint"),
    (0, b"\x89HDF", "an HDF5 file, perhaps of Keras"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (4, b"ORTM", "a model in ONNX Runtime's own format"),
    (0, b"\x1f\x8b", "compressed with gzip"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A model file and the facts of its graph.

    Attributes:
        path: Of the file.
        sha256: Of the file and of the files it reads: changes when any of them does.
        ir_version: Version of the file format.
        opset: Version of ONNX's own operators; 0: it uses none.
        domains: Version of each domain of operators.
        operators: Nodes by type, ``domain.Type`` outside of ONNX's own; in subgraphs too.
        nodes: Number of all of them.
        parameters: Elements of float tensors that are stored.
        size_bytes: Of the file and of the files it reads.
        external: Names of the files it reads, relative to its folder.
        inputs: Names of what must be fed: inputs that no stored tensor gives a value.
        outputs: Names of what it gives.
        is_quantized: Whether operators of quantised models are in it.
    """

    path: Path
    sha256: str
    ir_version: int
    opset: int
    domains: Mapping[str, int]
    operators: Mapping[str, int]
    nodes: int
    parameters: int
    size_bytes: int
    external: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    is_quantized: bool


def open_model(path: Path, *, quantized_too: bool = False) -> Source:
    """Look at a model file.

    Args:
        path: The ONNX file.
        quantized_too: Whether a quantised model is welcome: to look at it, not to quantise it.

    Raises:
        BadInputError: It is not a complete and valid ONNX model, reads files that are missing,
            too short or outside its folder, uses operators that ONNX Runtime does not have, takes
            or gives nothing or what is not a tensor, or is quantised already.
    """
    external = _external(path)
    model = storage.load_graph(path)
    operators = Counter(_shown(node) for node in nodes(model))
    quantized = [name for name in operators if is_quantized(name.rpartition(".")[2])]
    if quantized and not quantized_too:
        raise BadInputError(
            f"{path.name} is quantised already: it has {_listed(quantized)}; start from the float "
            "model it was made of"
        )
    _refuse_unknown(model, path.name)
    _refuse_short(model, path)
    inputs, outputs = _interface(model, path.name)
    source = Source(
        path=path,
        sha256=_sha256(path, external),
        ir_version=model.ir_version,
        opset=opset(model),
        domains={each.domain: each.version for each in model.opset_import},
        operators=dict(operators.most_common()),
        nodes=operators.total(),
        parameters=_parameters(model),
        size_bytes=storage.stored_bytes(path),
        external=external,
        inputs=inputs,
        outputs=outputs,
        is_quantized=bool(quantized),
    )
    _refuse_invalid(model, path, external)
    return source


def _external(path: Path) -> tuple[str, ...]:
    """Check that there is a readable file, and every file that it names."""
    if path.is_dir():
        raise BadInputError(f"{path} is a folder; name the .onnx file in it")
    if not path.is_file():
        raise BadInputError(f"{path} does not exist or is not a file; check the name")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
        for offset, magic, words in _MAGICS:
            if start[offset:].startswith(magic):
                raise BadInputError(f"{path.name} is not an ONNX model but {words}; export to ONNX")
        if size > storage.MESSAGE_BYTES_MAX:
            raise BadInputError(
                f"{path.name} has {size} bytes, more than the 2 GB that one ONNX file can hold; "
                "export it with its weights as external data"
            )
        names = external_files(path, path.name)
    except ModelLoadError as error:
        raise BadInputError(error.message) from error
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}") from error
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise BadInputError(
            f"{path.name} keeps weights in {_listed(missing)}, which is missing; copy it to "
            "the same folder"
        )
    return names


def _refuse_unknown(model: onnx.ModelProto, name: str) -> None:
    """Refuse operators that nobody here can run."""
    own = {(function.domain, function.name) for function in model.functions}
    strangers = [
        f"{_shown(node)} in node {node.name or node.output[0]!r}"
        for node in nodes(model)
        if (node.domain, node.op_type) not in own and not _is_known(node)
    ]
    if strangers:
        raise BadInputError(
            f"{name} uses operators that ONNX Runtime does not have: {_listed(strangers)}; export "
            "it with ONNX's own operators in their place"
        )


def _is_known(node: onnx.NodeProto) -> bool:
    if node.domain in STANDARD:
        return node.op_type in EARLY_OPERATORS or bool(defs.has(node.op_type))
    return node.domain in KNOWN_DOMAINS


def _refuse_short(model: onnx.ModelProto, path: Path) -> None:
    """Refuse weights that the files they are kept in are too short for."""
    for tensor in tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        try:
            facts = external_data_helper.ExternalDataInfo(tensor)
            size = (path.parent / facts.location).stat().st_size
        except (ValueError, OSError) as error:
            raise BadInputError(f"{path.name}: weight {tensor.name!r}: {error}") from error
        first = facts.offset or 0
        wanted = facts.length or 0
        if first + wanted > size:
            raise BadInputError(
                f"{path.name} expects {first + wanted} bytes in {facts.location!r} for "
                f"{tensor.name!r}, which has {size}; copy it completely"
            )


def _interface(model: onnx.ModelProto, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of inputs and outputs; both must be there, and be tensors."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in stored]
    outputs = list(model.graph.output)
    for what, values in (("input", inputs), ("output", outputs)):
        if not values:
            raise BadInputError(
                f"{name} has no {what}: there is nothing to measure; export it again"
            )
        for value in values:
            kind = value.type.WhichOneof("value")
            if kind != "tensor_type":
                words = (kind or "nothing").removesuffix("_type")
                raise BadInputError(
                    f"{name}: {what} {value.name!r} is of the kind {words}, not a tensor; export "
                    "it with tensors only (scikit-learn models: with zipmap=False)"
                )
    return tuple(each.name for each in inputs), tuple(each.name for each in outputs)


def _refuse_invalid(model: onnx.ModelProto, path: Path, external: tuple[str, ...]) -> None:
    """Refuse what ONNX's own checker finds wrong; may change the model."""
    early = list(early_nodes(model))
    shapeless = not all(each.type.tensor_type.HasField("shape") for each in model.graph.output)
    try:
        if external or early or shapeless:
            with_shapes(model)  # the checker wants a shape for each output, and nobody else does
            for node in early:
                node.domain = CONTRIBUTED
            _take_weights_out(model)
            onnx.checker.check_model(model)
        else:
            onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadInputError(
            f"{path.name} is not a valid ONNX model: {reason}; export it again"
        ) from error


def _take_weights_out(model: onnx.ModelProto) -> None:
    """Make external tensors inputs: the checker would want their files to have one name only.

    Theirs were checked before, and a copy is made before anything reads them.
    """
    for graph in graphs(model):
        fed = {each.name for each in graph.input}
        kept = []
        for tensor in graph.initializer:
            if tensor.data_location != TensorProto.EXTERNAL:
                kept.append(tensor)
            elif tensor.name not in fed:
                graph.input.append(
                    helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                )
        if len(kept) < len(graph.initializer):
            copies = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
            del graph.initializer[:]
            graph.initializer.extend(copies)


def early_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield nodes whose operator is used under ONNX's name before ONNX had it."""
    version = opset(model)
    return (node for node in nodes(model) if _is_early(node, version))


def _is_early(node: onnx.NodeProto, version: int) -> bool:
    """Whether an operator is used under ONNX's name before ONNX had it."""
    if node.domain not in STANDARD or node.op_type not in EARLY_OPERATORS:
        return False
    return not defs.has(node.op_type) or defs.get_schema(node.op_type).since_version > version


def _parameters(model: onnx.ModelProto) -> int:
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
    return sum(elements(tensor) for tensor in tensors(model) if tensor.data_type in floats)


def _sha256(path: Path, external: tuple[str, ...]) -> str:
    """Hash a model's file; with external weights, the digests of all its files."""
    own = file_sha256(path, path.name)
    if not external:
        return own
    digests = [own, *(f"{name}={file_sha256(path.parent / name, name)}" for name in external)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _shown(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"
