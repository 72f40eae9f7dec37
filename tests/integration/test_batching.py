"""Requests share runs where a probe showed that nothing changes by it, and only there."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.tensors import Array
from tests import models
from tests.conftest import DIGITS
from tests.daemons import Answer, Daemon, daemon, eventually
from tests.wire import Wire, infer_zeros, numbers, request

pytestmark = pytest.mark.integration

CONNECTIONS = 8
PIPELINED = 8
LONG = [5000, 512]  # rows of a run that takes seconds
OFF = "off: switched off by the configuration or the bundle"
#: As little gain as there can be is enough, and a row may take any time: whether it pays here is
#: not what is asked. A thread of its own that is not running makes a joined run look slow.
PATIENT = {
    "EDGE_RUNTIME__BATCHING__MIN_GAIN": "1.0",
    "EDGE_RUNTIME__BATCHING__LATENCY_OBJECTIVE_S": "10",
    "EDGE_RUNTIME__BATCHING__PROBE_BUDGET_S": "10",
    "EDGE_RUNTIME__ENGINE__INTRA_OP_THREADS": "1",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "digits": DIGITS / "digits-int8.onnx",
        "dynamic": models.dynamically_quantized(folder / "dynamic.onnx"),
        "fixed": models.identity(folder / "fixed.onnx", shape=(1, 2)),
        "free": models.identity(folder / "free.onnx", shape=("batch", "length")),
        "gather": models.gather(folder / "gather.onnx"),
        "long": models.slow(folder / "long.onnx", layers=96),
        "mean": models.less_mean(folder / "mean.onnx"),
        "two": models.two_inputs(folder / "two.onnx"),
    }


@pytest.fixture(scope="module")
def served(files: dict[str, Path]) -> Iterator[Daemon]:
    with daemon(
        *(f"{name}={path}" for name, path in files.items()), environment=PATIENT
    ) as running:
        yield running


def tensor(name: str, array: Array, datatype: str = "FP32") -> dict[str, Any]:
    data = array.reshape(-1).tolist()
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": data}


def asking(model: str, *inputs: dict[str, Any], **more: object) -> bytes:
    return request("POST", f"/v2/models/{model}/infer", {"inputs": inputs, **more})


def alone(running: Daemon, requests: Sequence[bytes]) -> list[Answer]:
    """Send each request when the one before it was answered."""
    answers = []
    with Wire.of(running) as wire:
        for each in requests:
            wire.send(each)
            answers.append(wire.answer())
    return answers


def together(running: Daemon, requests: Sequence[bytes]) -> list[Answer]:
    """Send all requests, over a few connections, before the first answer is read."""
    wires = [Wire.of(running) for _ in range(CONNECTIONS)]
    for number, wire in enumerate(wires):
        wire.send(b"".join(requests[number::CONNECTIONS]))
    answers = [wires[number % CONNECTIONS].answer() for number in range(len(requests))]
    for wire in wires:
        wire.close()
    return answers


def batching(running: Daemon, model: str) -> str:
    properties = running.request("GET", f"/v2/models/{model}").json()["properties"]
    said: str = properties["batching"]
    if said.startswith("off: "):
        assert properties["batching_rows"] == "1"
    else:
        assert int(properties["batching_rows"]) >= 1
    return said


def statistics(running: Daemon, model: str) -> dict[str, Any]:
    told: dict[str, Any] = running.request("GET", f"/v2/models/{model}/stats").json()
    (only,) = told["model_stats"]
    found: dict[str, Any] = only
    return found


def counts(running: Daemon, model: str) -> tuple[int, int, int]:
    """Give requests answered, rows and runs so far."""
    told = statistics(running, model)
    answered: int = told["inference_stats"]["success"]["count"]
    return answered, told["inference_count"], told["execution_count"]


def digits(count: int) -> tuple[list[bytes], list[int]]:
    """Make requests of one to three images each, and say how many each has."""
    images = np.load(DIGITS / "test.npz")["image"]
    sizes = [1 + number % 3 for number in range(count)]
    starts = np.cumsum([0, *sizes[:-1]])
    return [
        asking("digits", tensor("image", images[start : start + size]), id=f"number {number}")
        for number, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ], sizes


# -- digits --------------------------------------------------------------------------------------


def test_digits_are_joined_and_the_metadata_says_why(served: Daemon) -> None:
    said = batching(served, "digits")
    assert said.startswith("on: the same answers joined or alone; ")
    assert "x the rows per second of single runs" in said


def test_answers_under_load_are_those_that_each_request_gets_alone(served: Daemon) -> None:
    requests, sizes = digits(CONNECTIONS * PIPELINED)
    before = counts(served, "digits")
    single = alone(served, requests)
    between = counts(served, "digits")
    assert between[2] - before[2] == len(requests), "requests that came alone were joined"
    joined = together(served, requests)
    answered, rows, runs = (
        late - early for late, early in zip(counts(served, "digits"), between, strict=True)
    )
    assert (answered, rows) == (len(requests), sum(sizes))
    assert runs < len(requests)
    for number, (expected, got, size) in enumerate(zip(single, joined, sizes, strict=True)):
        assert got.status == 200
        assert got.json()["id"] == f"number {number}"
        for one, other in zip(expected.json()["outputs"], got.json()["outputs"], strict=True):
            assert one["shape"] == other["shape"]
            assert one["shape"][0] == size
            np.testing.assert_allclose(other["data"], one["data"], rtol=1e-5, atol=1e-6)


def test_statistics_tell_the_sizes_of_runs(served: Daemon) -> None:
    requests, _ = digits(CONNECTIONS * PIPELINED)
    together(served, requests)
    told = statistics(served, "digits")
    batches = told["batch_stats"]
    runs = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in batches}
    assert sum(size * count for size, count in runs.items()) == told["inference_count"]
    assert sum(runs.values()) == told["execution_count"]
    assert max(runs) > 3


# -- what is joined with what --------------------------------------------------------------------


def test_bad_request_does_not_fail_those_it_was_joined_with(served: Daemon) -> None:
    assert batching(served, "gather").startswith("on: ")
    indices = [0, 9, 1, 2] * (CONNECTIONS * PIPELINED // 4)
    requests = [asking("gather", tensor("x", np.array([i]), "INT64")) for i in indices]
    before = counts(served, "gather")
    for index, answer in zip(indices, together(served, requests), strict=True):
        if index == 9:
            assert answer.status == 400
            assert "refused the input" in answer.json()["error"]
        else:
            assert numbers(answer) == [10.0 * (index + 1)]
    good = sum(index != 9 for index in indices)
    assert counts(served, "gather")[:2] == (before[0] + good, before[1] + good)


def test_requests_for_other_outputs_get_what_they_asked_for(served: Daemon) -> None:
    assert batching(served, "two").startswith("on: ")
    orders = [["sum", "difference"], ["difference", "sum"], ["difference"], None]
    requests = []
    for number in range(CONNECTIONS * PIPELINED):
        inputs = [tensor(name, np.full((1, 2), number + off)) for name, off in (("a", 1), ("b", 0))]
        wanted = orders[number % len(orders)]
        more = {"outputs": [{"name": name} for name in wanted]} if wanted else {}
        requests.append(asking("two", *inputs, **more))
    for number, answer in enumerate(together(served, requests)):
        outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
        assert list(outputs) == (orders[number % len(orders)] or ["sum", "difference"])
        assert outputs.get("sum", [2 * number + 1] * 2) == [2 * number + 1] * 2
        assert outputs.get("difference", [1] * 2) == [1] * 2


def test_requests_of_other_shapes_get_their_own_shape_back(served: Daemon) -> None:
    assert batching(served, "free").startswith("on: ")
    shapes = [(1, 2), (1, 3), (2, 2), (0, 2), (1, 1)]
    arrays = [
        np.full(shapes[number % len(shapes)], number) for number in range(CONNECTIONS * PIPELINED)
    ]
    answers = together(served, [asking("free", tensor("x", array)) for array in arrays])
    for array, answer in zip(arrays, answers, strict=True):
        (output,) = answer.json()["outputs"]
        assert tuple(output["shape"]) == array.shape
        assert output["data"] == array.reshape(-1).tolist()


# -- what is not joined --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("fixed", "off: input 'x' has no varying first axis"),
        ("dynamic", "off: a neighbour changes the answer: DynamicQuantizeLinear scales "),
        ("mean", "off: a neighbour changes the answer: output 'y' differs by "),
    ],
)
def test_metadata_says_why_a_model_is_not_joined(served: Daemon, model: str, reason: str) -> None:
    assert batching(served, model).startswith(reason)


def test_loud_neighbours_change_nothing_where_they_would(served: Daemon) -> None:
    quiet = [asking("dynamic", tensor("x", np.full((1, 8), 0.1 * n))) for n in range(1, 9)]
    loud = [asking("dynamic", tensor("x", np.full((1, 8), 1000.0)))] * len(quiet)
    mixed = [each for pair in zip(quiet, loud, strict=True) for each in pair]
    before = counts(served, "dynamic")
    expected = [answer.body for answer in alone(served, mixed)]
    assert [answer.body for answer in together(served, mixed)] == expected
    assert counts(served, "dynamic")[2] - before[2] == 2 * len(mixed)


@pytest.mark.parametrize("text", ["[batching]\nenabled = false", "[models.digits]\nmax_rows = 1"])
def test_batching_can_be_switched_off(tmp_path: Path, text: str) -> None:
    path = f"path = '{DIGITS / 'digits-int8.onnx'}'"
    more = path if "models" in text else f"[models.digits]\n{path}"
    config = tmp_path / "c.toml"
    config.write_text(f"{text}\n{more}\n", "utf-8")
    requests, sizes = digits(CONNECTIONS * PIPELINED)
    with daemon("--config", str(config)) as running:
        assert batching(running, "digits") == OFF
        assert all(answer.status == 200 for answer in together(running, requests))
        assert counts(running, "digits") == (len(requests), sum(sizes), len(requests))


def test_batching_is_switched_with_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"

    def write(*, enabled: bool) -> None:
        switch = f"[batching]\nenabled = {str(enabled).lower()}\n"
        model = f"[models.digits]\npath = '{DIGITS / 'digits-int8.onnx'}'\n"
        config.write_text(switch + model, "utf-8")

    write(enabled=False)
    with daemon("--config", str(config), environment=PATIENT) as running:
        assert batching(running, "digits") == OFF
        write(enabled=True)
        os.kill(running.process.pid, signal.SIGHUP)
        eventually(lambda: batching(running, "digits").startswith("on: "), "batching")


# -- long beside short ---------------------------------------------------------------------------


def test_short_model_answers_many_while_a_long_one_runs(served: Daemon) -> None:
    requests, _ = digits(20)
    alone(served, requests)  # how long it takes is known

    def is_beside() -> bool:
        """Ask during a run, unless it was over too soon to tell anything."""
        eventually(lambda: served_now(served, "long") == 0, "the end of what came before")
        before = counts(served, "long")[2]
        with Wire.of(served) as long:
            long.send(infer_zeros("long", LONG))
            while served_now(served, "long") != 1:
                if long.has_more():
                    return False
            assert all(answer.status == 200 for answer in alone(served, requests))
            was_over = counts(served, "long")[2] != before
            assert long.answer().status == 200
        return not was_over

    eventually(is_beside, "short answers during a long run")


def served_now(running: Daemon, model: str) -> float:
    """Give the requests of a model that are under way."""
    text = running.request("GET", "/metrics").body.decode()
    for line in text.splitlines():
        if line.startswith(f'edge_runtime_requests_in_flight{{model="{model}"'):
            return float(line.rpartition(" ")[2])
    return 0
