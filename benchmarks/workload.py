"""The requests of one model in one format, and the check that a server answers them right."""

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.wire import Address, Answer, connect, head, receive

Format = Literal["json", "binary"]
Outputs = Mapping[str, Sequence[float]]

_TYPECODES: Final[Mapping[str, str]] = {"FP32": "f", "INT64": "q"}


class WrongAnswerError(Exception):
    """A server under test refused a request or answered something else than the model does."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Distinct requests to one model, to be sent in turn."""

    model: str
    format: Format
    headers: Mapping[str, str]
    bodies: tuple[Path, ...]
    expected: tuple[Outputs, ...]

    @property
    def target(self) -> str:
        """The path to post to."""
        return f"/v2/models/{self.model}/infer"


def read_workload(folder: Path, model: str, form: Format) -> Workload:
    """Read what ``benchmarks.cases`` wrote.

    Args:
        folder: The cache folder.
        model: The model's name.
        form: JSON tensors or the binary extension.
    """
    case = folder / "cases" / model
    facts = json.loads((case / "case.json").read_text("utf-8"))
    expected = tuple(facts["expected"])
    headers = {"Content-Type": "application/json"}
    if form == "binary":
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(facts["header_bytes"]),
        }
    bodies = tuple(case / f"{form}-{index}.body" for index in range(len(expected)))
    return Workload(model, form, headers, bodies, expected)


def verify(address: Address, workload: Workload) -> None:
    """Send every request at once, each on its own connection, and check every answer.

    Args:
        address: The server.
        workload: What to send.

    Raises:
        WrongAnswerError: An answer is refused or differs from the model's own.
        OSError: The server cannot be reached.
    """
    with ExitStack() as stack:
        streams = []
        for path in workload.bodies:
            stream = stack.enter_context(connect(address))
            body = path.read_bytes()
            stream.sendall(head("POST", workload.target, workload.headers, len(body)) + body)
            streams.append(stream)
        for stream, expected in zip(streams, workload.expected, strict=True):
            check(receive(stream), expected, workload.model)


def check(answer: Answer, expected: Outputs, model: str) -> None:
    """Compare one answer with the model's own.

    Args:
        answer: What the server sent.
        expected: Flat outputs by name.
        model: For the message.

    Raises:
        WrongAnswerError: They differ by more than float32 rounding.
    """
    if answer.status != 200:
        raise WrongAnswerError(f"{model}: status {answer.status}: {answer.body[:300]!r}")
    outputs = decode(answer)
    for name, values in expected.items():
        got = outputs.get(name, ())
        same = len(got) == len(values) and all(
            math.isclose(left, right, rel_tol=1e-4, abs_tol=1e-7)
            for left, right in zip(got, values, strict=True)
        )
        if not same:
            raise WrongAnswerError(f"{model}: output {name!r} is not what the model answers")


def decode(answer: Answer) -> dict[str, Sequence[float]]:
    """Read the outputs of an answer, JSON or binary, as flat sequences by name."""
    size = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    raw = answer.body[size:]
    outputs: dict[str, Sequence[float]] = {}
    for output in json.loads(answer.body[:size])["outputs"]:
        if "data" in output:
            outputs[output["name"]] = output["data"]
        else:
            length = output["parameters"]["binary_data_size"]
            values = array(_TYPECODES[output["datatype"]], raw[:length])
            outputs[output["name"]] = values.tolist()
            raw = raw[length:]
    return outputs
