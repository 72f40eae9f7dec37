"""``edge-runtime predict``: one prediction, for people or as the protocol's JSON."""

import argparse
import sys
from pathlib import Path
from typing import Final

import numpy as np

from edge_runtime.cli.inputs import read_inputs
from edge_runtime.cli.terminal import connect, print_json, printable
from edge_runtime.client import Client, Prediction
from edge_runtime.client.calls import prediction
from edge_runtime.datatypes import BF16, BY_NAME, Datatype
from edge_runtime.errors import InvalidRequestError, UnsupportedError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.protocol.codec import decode_response, encode_response
from edge_runtime.protocol.messages import InferResponse, OutputTensor
from edge_runtime.protocol.schemas import ModelMetadata
from edge_runtime.tensors import Array

WHOLE_ELEMENTS_MAX: Final = 64  # longer outputs are shown by their edges, minimum and maximum
FLOATS: Final = ("FP16", "FP32", "FP64")


def run(options: argparse.Namespace) -> int:
    """Ask for a prediction and print it.

    Raises:
        EdgeRuntimeError: The input is wrong, or the daemon did not answer.
    """
    if options.request is not None:
        return _send_request(options)
    with connect(options) as client:
        model = client.model_metadata(options.name, options.version)
        inputs = read_inputs(options.input, model)
        answer = client.predict(
            options.name,
            inputs,
            version=options.version,
            outputs=_outputs(options, model),
            classes=options.classes,
        )
    if options.json:
        _print_protocol_json(answer)
    else:
        _print_for_people(answer, ranked=bool(options.classes))
    return ExitCode.DONE


def _outputs(options: argparse.Namespace, model: ModelMetadata) -> list[str] | None:
    if options.output or not options.classes:
        names: list[str] | None = options.output
        return names
    names = [spec.name for spec in model.outputs if spec.datatype in FLOATS]
    if not names:
        raise InvalidRequestError(
            f"no output of {model.name!r} has float values to rank; name one with --output"
        )
    return names


def _send_request(options: argparse.Namespace) -> int:
    if options.output or options.classes:
        raise InvalidRequestError("--output and --class belong into the --request itself")
    body = _read_request(options.request)
    with connect(options) as client:
        _print_answer(client, options, body)
    return ExitCode.DONE


def _read_request(place: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if place == "-" else Path(place).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"--request: cannot read {place}: {error.strerror}") from error


def _print_answer(client: Client, options: argparse.Namespace, body: bytes) -> None:
    answer = client.infer_raw(options.name, body, version=options.version)
    if not options.json:
        _print_for_people(prediction(answer), ranked=False)
    elif answer.json_length is None:
        print(str(answer.body, "utf-8", "replace"))
    else:
        _print_protocol_json(prediction(answer))  # it asked for binary, which is not for terminals


def _print_protocol_json(answer: Prediction) -> None:
    outputs = []
    for name, array in answer.outputs.items():
        datatype = BY_NAME[answer.datatypes[name]]
        if datatype.json == "none":
            raise UnsupportedError(
                f"output {name!r} is {datatype.name}, which JSON cannot carry; leave --json out, "
                "or name other outputs with --output"
            )
        if datatype.json == "float" and not np.isfinite(array).all():
            raise UnsupportedError(
                f"output {name!r} holds NaN or infinity, which JSON cannot carry; leave --json out"
            )
        outputs.append(OutputTensor(name, datatype, array, binary=False))
    response = InferResponse(
        answer.model_name, answer.model_version, answer.id, outputs, answer.parameters
    )
    message, _ = decode_response(encode_response(response).parts[0], None)
    print_json(message)


def _print_for_people(answer: Prediction, *, ranked: bool) -> None:
    print(f"{printable(answer.model_name)}, version {printable(answer.model_version)}")
    for name, array in answer.outputs.items():
        print(f"\n{printable(name)}  {answer.datatypes[name]} {list(array.shape)}")
        if ranked:
            _print_classes(array)
        else:
            _print_values(array, BY_NAME[answer.datatypes[name]])


def _print_values(array: Array, datatype: Datatype) -> None:
    if datatype is BF16:  # its bits, or a dtype whose numbers numpy does not print
        wide = array.view(np.uint16).astype(np.uint32) << 16
        array = wide.view(np.float32)
    text = np.array2string(
        array,
        threshold=WHOLE_ELEMENTS_MAX,
        edgeitems=3,
        max_line_width=100,
        precision=6,
        suppress_small=True,
        separator=", ",
    )
    print("\n".join(f"  {line}" for line in text.splitlines()))
    if array.size > WHOLE_ELEMENTS_MAX and array.dtype.kind in "fiu":
        print(f"  smallest {array.min():.6g}, mean {array.mean():.6g}, largest {array.max():.6g}")


def _print_classes(array: Array) -> None:
    rows = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
    for number, row in enumerate(rows.tolist()):
        if len(rows) > 1:
            print(f"  row {number}")
        for entry in row:
            value, _, rest = str(entry).partition(":")
            index, _, label = rest.partition(":")
            print(f"  {value:>14}  {index:>6}  {printable(label)}".rstrip())
