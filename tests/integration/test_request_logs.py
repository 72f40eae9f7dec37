"""Records of requests in the log of a real daemon: who asked what, and never a tensor's value."""

import contextlib
import json
import os
import re
import select
import signal
import struct
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.client import Client
from edge_runtime.errors import UnavailableError
from tests.conftest import ROOT
from tests.customized import at_start
from tests.daemons import COMMAND, START_S, Daemon, UnixConnection, daemon, eventually
from tests.models import gather, identity

pytestmark = pytest.mark.integration

TEXT_MARK = "MARKED-TEXT"
NUMBER_MARK = 987654321
FLOAT_MARK = 7654321.5
LOGGER = "edge_runtime.requests"
ALL = {"EDGE_RUNTIME__LOG__REQUESTS": "all"}
JSON = {"EDGE_RUNTIME__LOG__FORMAT": "json"}
#: A busy machine may need longer than a daemon waits at its end for who reads slowly.
PATIENCE = """
    from edge_runtime import logs
    assert logs.RecordQueue.finish.__defaults__ == (logs.CLOSE_S,)
    logs.RecordQueue.finish.__defaults__ = (60.0,)
"""
FLOATS = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, FLOAT_MARK]}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [
        f"same={identity(folder / 'same.onnx')}",
        f"text={identity(folder / 'text.onnx', 'BYTES')}",
        f"table={gather(folder / 'table.onnx')}",
    ]


def records(running: Daemon) -> list[dict[str, Any]]:
    """Give the records of requests in a log of JSON; every line of it must be an object."""
    whole = running.log().rpartition("\n")[0]  # the last line may be on its way
    lines = [json.loads(line) for line in whole.splitlines()]
    return [line for line in lines if line["logger"] == LOGGER]


def predictions(running: Daemon, count: int) -> list[dict[str, Any]]:
    """Wait for the records of so many predictions."""

    def found() -> list[dict[str, Any]]:
        return [each for each in records(running) if each.get("path", "").endswith("/infer")]

    eventually(lambda: len(found()) >= count, f"{count} records")
    return found()


def ended(running: Daemon) -> str:
    """Stop a daemon, and give its whole log."""
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(60.0)
    return running.log()


def test_a_failure_is_told_with_who_what_and_why(models: list[str]) -> None:
    with daemon(*models, environment=JSON) as running:
        assert running.infer("same", [FLOATS]).status == 200
        wrong = {**FLOATS, "name": "z"}
        assert running.infer("same", [wrong], id="mine").status == 400
        (told,) = predictions(running, 1)
    assert told["request_id"] == "mine"
    assert (told["level"], told["message"], told["status"]) == ("warning", "request failed", 400)
    assert (told["method"], told["path"]) == ("POST", "/v2/models/same/infer")
    assert (told["model"], told["version"]) == ("same", "1")
    assert (told["caller"], told["uid"], told["gid"]) == ("unix", os.getuid(), os.getgid())
    assert told["pid"] == os.getpid()
    assert "missing 'x'" in told["error"]


def test_every_request_is_told_where_that_is_asked_for(models: list[str]) -> None:
    with daemon(*models, environment={**ALL, **JSON}) as running:
        answer = running.infer("same", [FLOATS])
        (told,) = predictions(running, 1)
    assert (told["level"], told["message"], told["status"]) == ("info", "request answered", 200)
    assert told["rows"] == 1
    assert told["bytes_out"] == len(answer.body)
    assert 0 <= told["queue_ms"] <= told["duration_ms"]
    assert 0 <= told["compute_ms"] <= told["duration_ms"]
    assert re.fullmatch(r"[0-9a-f]{4}-\d+", told["request_id"])


def test_nothing_is_told_where_that_is_asked_for(models: list[str]) -> None:
    with daemon(*models, environment={"EDGE_RUNTIME__LOG__REQUESTS": "off"}) as running:
        assert running.infer("nobody", [FLOATS]).status == 404
        assert LOGGER not in ended(running)


def ask_everything(running: Daemon) -> Iterator[int]:
    """Send marked tensors through every door, rightly and wrongly; give the statuses."""
    index = {"name": "x", "shape": [1], "datatype": "INT64", "data": [NUMBER_MARK]}
    texts = {"name": "x", "shape": [1, 2], "datatype": "BYTES", "data": [TEXT_MARK, TEXT_MARK]}
    bodies = [
        ("same", [FLOATS]),
        ("same", [{**FLOATS, "shape": [1, 3]}]),
        ("same", [{**FLOATS, "data": [TEXT_MARK, 1]}]),
        ("same", [{**FLOATS, "datatype": "INT64", "data": [NUMBER_MARK, TEXT_MARK]}]),
        ("same", [{**FLOATS, "datatype": "UINT8", "data": [NUMBER_MARK, 1]}]),
        ("table", [index]),
        ("text", [texts]),
        ("text", [{**texts, "data": [[TEXT_MARK], [TEXT_MARK, TEXT_MARK]]}]),
        ("nobody", [texts]),
    ]
    for model, inputs in bodies:
        yield running.infer(model, inputs).status
    raw = struct.pack("<ff", 1.0, FLOAT_MARK) + TEXT_MARK.encode()
    headers = {"Inference-Header-Content-Length": "0", "Authorization": TEXT_MARK}
    for model in ("same", "text"):
        path = f"/v2/models/{model}/infer?key={TEXT_MARK}"
        yield running.request("POST", path, raw, headers).status
    for body in (
        {"features": [FLOAT_MARK, TEXT_MARK], "model": "same"},
        {"features": [FLOAT_MARK], "model": "same"},
        {"features": TEXT_MARK, "model": "text"},
    ):
        yield running.request("POST", "/predict", body).status
    for instances in ([[TEXT_MARK]], [{"x": [FLOAT_MARK, 1.0]}], TEXT_MARK, [{"b64": TEXT_MARK}]):
        rows = {"instances": instances}
        yield running.request("POST", "/v1/models/same:predict", rows).status
        yield running.request("POST", "/v1/models/text:predict", rows).status
    broken = b'{"inputs":[{"name":"x","data":["' + TEXT_MARK.encode()
    yield running.request("POST", "/v2/models/same/infer", broken).status


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_tensor_no_header_and_no_query_is_ever_in_the_log(models: list[str], form: str) -> None:
    environment = {**ALL, "EDGE_RUNTIME__LOG__FORMAT": form, "EDGE_RUNTIME__LOG__LEVEL": "debug"}
    with daemon(*models, environment=environment) as running:
        statuses = list(ask_everything(running))
        index = {"name": "x", "shape": [1], "datatype": "INT64", "data": [NUMBER_MARK]}
        answer = running.infer("table", [index])
        assert answer.status == 400
        assert str(NUMBER_MARK) in answer.json()["error"]  # ONNX Runtime quotes it: see below
        log = ended(running)
    assert {200, 400, 404} <= set(statuses)
    assert log.count(LOGGER) > len(statuses)
    assert "the model refused the input: Non-zero status code returned while running Gather" in log
    for mark in (TEXT_MARK, str(NUMBER_MARK), "7654321"):
        assert mark not in log


@pytest.mark.parametrize("form", ["text", "json"])
def test_names_that_a_caller_makes_up_are_cut_and_escaped(models: list[str], form: str) -> None:
    environment = {**ALL, "EDGE_RUNTIME__LOG__FORMAT": form}
    name = "\u2028\x9b2Jforged" + "n" * 5000
    with daemon(*models, environment=environment) as running:
        answer = running.infer("same", [{**FLOATS, "name": name}])
        assert answer.status == 400
        assert "forged" in answer.json()["error"]
        log = ended(running)
    (line,) = [each for each in log.split("\n") if "forged" in each]
    assert line.isprintable()
    assert line.count("n" * 100) <= 4
    assert "n" * 500 not in line


def test_every_key_is_documented(models: list[str]) -> None:
    page = (ROOT / "docs" / "operate.md").read_text("utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    documented = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    with daemon(*models, environment={**ALL, **JSON}) as running:
        for _ in ask_everything(running):
            pass
        seen = {key for record in predictions(running, 10) for key in record}
    assert seen <= documented
    assert {"rows", "queue_ms", "compute_ms", "duration_ms", "error", "uid"} <= seen


def test_a_client_in_a_loop_gets_a_few_lines_and_a_count(models: list[str]) -> None:
    environment = {**JSON, "EDGE_RUNTIME__LOG__FAILURES_PER_MINUTE": "3"}
    with daemon(*models, environment=environment) as running:
        for _ in range(50):
            assert running.infer("nobody", [FLOATS]).status == 404
        ended(running)
        told = records(running)
    assert [each["status"] for each in told if "status" in each] == [404, 404, 404]
    assert told[-1]["left_out"] == 47
    assert told[-1]["left_out_by"] == {"404": 47}


def test_the_settings_can_be_changed_while_it_runs(models: list[str], tmp_path: Path) -> None:
    settings = tmp_path / "c.toml"
    settings.write_text('[log]\nrequests = "off"\nformat = "json"\n', "utf-8")
    with daemon(*models, "--config", str(settings)) as running:
        assert running.infer("same", [FLOATS]).status == 200
        settings.write_text('[log]\nrequests = "all"\nformat = "json"\n', "utf-8")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "configuration read again" in running.log(), "the reload")
        assert not records(running)
        assert running.infer("same", [FLOATS]).status == 200
        (told,) = predictions(running, 1)
    assert told["rows"] == 1


def _left_out(client: Client) -> float:
    for family in text_string_to_metric_families(client.metrics()):
        for sample in family.samples:
            if sample.labels == {"reason": "queue"}:
                return sample.value
    raise AssertionError("the metric is not there")


def _is_ready(client: Client) -> bool:
    with contextlib.suppress(UnavailableError):
        return client.ready()
    return False


def _is_ready_at(socket: Path) -> bool:
    with Client(socket) as client:
        return _is_ready(client)


def _has_default_model(socket: Path) -> bool:
    connection = UnixConnection(socket)
    try:
        connection.request("GET", "/model-info")
        return connection.getresponse().status == 200
    finally:
        connection.close()


@contextlib.contextmanager
def unread(
    models: list[str], folder: Path, *arguments: str, environment: Mapping[str, str] = ALL
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a daemon whose standard error is a FIFO; give the end that nobody reads, too."""
    fifo = folder / "stderr"
    os.mkfifo(fifo)
    # For both ways: to open it for one waits until somebody opens the other.
    held = os.open(fifo, os.O_RDWR)
    socket = folder / "r.sock"
    command = [COMMAND, "serve", *models, *arguments, "--socket", str(socket)]
    command += ["--state-dir", str(folder)]
    with subprocess.Popen(command, env={**os.environ, **environment}, stderr=held) as process:
        try:
            eventually(lambda: _is_ready_at(socket), "the daemon's being ready", START_S)
            yield process, held
        finally:
            process.kill()
            os.close(held)


def test_a_log_that_nobody_reads_holds_nothing_up(
    models: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("s")
    settings = folder / "c.toml"
    settings.write_text("", "utf-8")
    arguments = ("--config", str(settings))
    with unread(models, folder, *arguments) as (process, _), Client(folder / "r.sock") as client:
        for _ in range(4000):  # more than a pipe and the queue hold
            assert client.live()
        assert _left_out(client) > 0
        settings.write_text('default_model = "same"\n', "utf-8")
        process.send_signal(signal.SIGHUP)  # which logs, as does a load
        eventually(lambda: _has_default_model(folder / "r.sock"), "the reload")
        assert client.infer("same", {"x": np.zeros((1, 2), np.float32)})["y"].shape == (1, 2)
        assert client.ready()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60.0) == 0


def test_what_waits_is_written_at_the_end_where_somebody_reads_again(
    models: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("s")
    environment = {**ALL, **at_start(tmp_path_factory.mktemp("python"), PATIENCE)}
    with (
        unread(models, folder, environment=environment) as (process, held),
        Client(folder / "r.sock") as client,
    ):
        for _ in range(4000):
            assert client.live()
        with ThreadPoolExecutor(1) as threads:
            text = threads.submit(_until, held, b"edge_runtime.daemon: stopped\n")
            process.send_signal(signal.SIGTERM)
            lines = text.result(60).decode().splitlines()
        assert process.wait(60.0) == 0
    assert all(" edge_runtime." in line for line in lines)
    assert any("records left out" in line and "queue" in line for line in lines)


def _until(descriptor: int, end: bytes) -> bytes:
    """Read a descriptor until the end is seen."""
    text = b""
    while not text.endswith(end):
        assert select.select([descriptor], [], [], 60.0)[0], text[-1000:]
        text += os.read(descriptor, 2**16)
    return text
