"""The client commands as a person or a script runs them."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import DIGITS
from tests.daemons import COMMAND, Daemon, daemon, eventually
from tests.models import divide, identity, slow, two_inputs
from tests.scripted_server import Caller, answering, scripted_server

pytestmark = pytest.mark.integration

WAIT_S = 60.0
TEST_SET = DIGITS / "test.npz"
BENCH_NUMBERS = ("mean", "std", "min", "p50", "p90", "p99", "max")


def _run(
    *arguments: str, at: Daemon | str | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if at is not None:
        environment["EDGE_RUNTIME_SOCKET"] = str(at.socket) if isinstance(at, Daemon) else at
    return subprocess.run(
        [COMMAND, *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def _json(*arguments: str, at: Daemon, stdin: str | None = None) -> Any:  # noqa: ANN401
    done = _run(*arguments, "--json", at=at, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with small models that do special things."""
    folder = tmp_path_factory.mktemp("models")
    made: Mapping[str, Path] = {
        "two": two_inputs(folder / "two.onnx"),
        "divide": divide(folder / "divide.onnx"),
        "slow": slow(folder / "slow.onnx", 1024, 24),
        "half": identity(folder / "half.onnx", "FP16"),
        "brain": identity(folder / "brain.onnx", "BF16"),
        "text": identity(folder / "text.onnx", "BYTES"),
    }
    with daemon(*(f"{name}={path}" for name, path in made.items())) as running:
        yield running


def test_predict_shows_every_output_with_datatype_and_shape(digits: Daemon, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.load(TEST_SET)["image"][0])
    done = _run("predict", "digits", "--input", f"image=@{tmp_path / 'one.npy'}", at=digits)
    assert done.returncode == 0
    assert not done.stderr
    assert "digits, version 1" in done.stdout
    assert "scores  FP32 [1, 10]" in done.stdout
    assert re.search(r"label  INT64 \[1\]\n  \[\d\]", done.stdout)


def test_predict_summarises_long_outputs(digits: Daemon) -> None:
    done = _run("predict", "digits", "--input", f"image=@{TEST_SET}:image", at=digits)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) < 30
    assert "smallest" in done.stdout


def test_predict_json_is_the_protocol_s_answer(digits: Daemon) -> None:
    pixels = json.dumps(np.load(TEST_SET)["image"][0].reshape(-1).tolist())
    answer = _json("predict", "digits", "--input", f"image={pixels}", at=digits)
    inputs = [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32"}]
    inputs[0]["data"] = json.loads(pixels)
    assert answer == digits.infer("digits", inputs).json()


def test_predict_sends_a_request_as_it_is(digits: Daemon, tmp_path: Path) -> None:
    request = {
        "id": "mine",
        "inputs": [
            {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}
        ],
        "outputs": [{"name": "label"}],
    }
    text = json.dumps(request)
    file = tmp_path / "request.json"
    file.write_text(text, "utf-8")
    from_file = _json("predict", "digits", "--request", str(file), at=digits)
    from_stdin = _json("predict", "digits", "--request", "-", at=digits, stdin=text)
    assert from_file == from_stdin
    assert from_file["id"] == "mine"
    assert [output["name"] for output in from_file["outputs"]] == ["label"]
    shown = _run("predict", "digits", "--request", "-", at=digits, stdin=text)
    assert "label  INT64 [1]" in shown.stdout
    binary = json.dumps({**request, "parameters": {"binary_data_output": True}, "outputs": []})
    assert _json("predict", "digits", "--request", "-", at=digits, stdin=binary)["id"] == "mine"


def test_predict_ranks_classes(digits: Daemon) -> None:
    done = _run(
        "predict", "digits", "--input", f"image=@{TEST_SET}:image", "--class", "2", at=digits
    )
    assert done.returncode == 0
    assert "scores  BYTES [450, 2]" in done.stdout
    assert "label" not in done.stdout
    assert re.search(r"row 0\n +0\.\d+ +\d\n +0\.\d+ +\d\n  row 1\n", done.stdout)


def test_predict_takes_several_inputs_and_one_version(models: Daemon) -> None:
    arguments = (
        "--input",
        "a=[1, 2]",
        "--input",
        "b=[[3, 4]]",
        "--output",
        "sum",
        "--version",
        "1",
    )
    answer = _json("predict", "two", *arguments, at=models)
    assert [output["data"] for output in answer["outputs"]] == [[4, 6]]


@pytest.mark.parametrize("model", ["half", "brain"])
def test_predict_shows_what_json_cannot_carry(models: Daemon, model: str) -> None:
    shown = _run("predict", model, "--input", "x=[1.5, -2]", at=models)
    assert "[[ 1.5, -2. ]]" in shown.stdout
    refused = _run("predict", model, "--input", "x=[1.5, -2]", "--json", at=models)
    assert refused.returncode == 4
    assert not refused.stdout
    assert "leave --json out" in refused.stderr


def test_predict_shows_infinity_and_refuses_it_in_json(models: Daemon) -> None:
    assert "inf" in _run("predict", "divide", "--input", "x=[1, 2]", at=models).stdout
    refused = _run("predict", "divide", "--input", "x=[1, 2]", "--json", at=models)
    assert refused.returncode == 4
    assert "infinity" in refused.stderr


def test_predict_shows_text_without_control_codes(models: Daemon) -> None:
    done = _run("predict", "text", "--input", r'x=["\u001b[31m", "b"]', at=models)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("predict", "digits"), "one of the arguments --input --request is required"),
        (("predict", "digits", "--input", "image=@nowhere.npy"), "cannot read nowhere.npy"),
        (("predict", "digits", "--input", f"image=@{DIGITS / 'README.md'}"), "numpy.save"),
        (("predict", "digits", "--input", "picture=[1]"), "it takes image"),
        (("predict", "digits", "--input", "image=[1]"), "nest the lists"),
        (("predict", "nobody", "--input", "x=[1]"), "no model 'nobody'"),
        (("predict", "digits", "--version", "9", "--input", "x=[1]"), "9"),
        (("predict", "digits", "--version", "new", "--input", "x=[1]"), "not a number"),
        (("predict", "digits", "--request", "nowhere.json"), "cannot read nowhere.json"),
        (("predict", "digits", "--request", "-"), "request"),
        (("predict", "digits", "--request", "-", "--class", "3"), "belong into"),
        (("predict", "digits", "--input", "image=[1]", "--class", "0"), "1 or more"),
        (("models", "--timeout", "0"), "above 0"),
        (("models", "--socket", "https://localhost"), "https"),
        (("bench", "digits", "--requests", "3", "--duration", "3"), "not allowed with"),
        (("bench", "nobody"), "no model 'nobody'"),
        (("bench", "digits", "--input", "image=[1]"), "nest the lists"),
    ],
)
def test_bad_usage_and_bad_input_exit_4_and_say_what_is_wrong(
    digits: Daemon, arguments: tuple[str, ...], said: str
) -> None:
    done = _run(*arguments, at=digits, stdin="not json")
    assert done.returncode == 4
    assert not done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["predict", "models", "status", "bench"])
def test_a_daemon_that_is_not_there_exits_1_and_says_what_to_do(command: str) -> None:
    arguments = {"predict": ("m", "--input", "x=[1]"), "bench": ("m",)}.get(command, ())
    done = _run(command, *arguments, "--socket", "/nowhere/r.sock")
    assert done.returncode == 1
    assert not done.stdout
    assert "/nowhere/r.sock" in done.stderr
    assert "edge-runtime serve" in done.stderr


def test_a_daemon_that_does_not_answer_is_given_up() -> None:
    def silent(caller: Caller) -> None:
        caller.read_request()
        caller.socket.recv(1)

    with scripted_server(silent) as server:
        done = _run("models", "--socket", str(server.path), "--timeout", "0.2")
    assert done.returncode == 1
    assert "0.2 s" in done.stderr


def test_models_lists_what_each_takes_and_gives(digits: Daemon) -> None:
    done = _run("models", at=digits)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == ["NAME", "VERSION", "STATE", "INPUTS", "OUTPUTS"]
    assert "image FP32 [-1, 1, 8, 8]" in done.stdout
    [row] = _json("models", at=digits)
    assert (row["name"], row["version"], row["state"]) == ("digits", "1", "READY")
    assert row["outputs"][1] == {"name": "label", "datatype": "INT64", "shape": [-1]}


def test_models_tells_why_one_is_not_ready() -> None:
    with daemon(f"digits={DIGITS / 'digits-int8.onnx'}") as running:
        running.request("POST", "/v2/repository/models/digits/unload", admin=True)
        done = _run("models", at=running)
        assert done.returncode == 0
        assert "UNAVAILABLE" in done.stdout
        assert "unloaded" in done.stdout
        [row] = _json("models", at=running)
        assert not row["inputs"]


def test_every_command_reaches_a_daemon_over_tcp(digits: Daemon) -> None:
    address = f"http://127.0.0.1:{digits.http_port()}"
    assert _run("models", "--socket", address).returncode == 0
    done = _run("status", "--socket", address)
    assert done.returncode == 0
    assert address in done.stdout


def test_status_counts_requests_and_failures() -> None:
    with daemon(f"digits={DIGITS / 'digits-int8.onnx'}") as running:
        image = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0] * 64}
        running.infer("digits", [image])
        running.infer("digits", [{**image, "name": "other"}])
        status = _json("status", at=running)
        [model] = status.pop("models")
        assert (model["requests"], model["failures"]) == (1, 1)
        assert model["mean_ms"] > 0
        assert (status["live"], status["ready"], status["error"]) == (True, True, "")
        shown = _run("status", at=running).stdout
    assert "live, ready" in shown
    assert str(running.socket) in shown


def test_status_says_in_json_too_that_nobody_is_there() -> None:
    done = _run("status", "--json", "--socket", "/nowhere/r.sock")
    assert done.returncode == 1
    status = json.loads(done.stdout)
    assert status["live"] is status["ready"] is False
    assert "/nowhere/r.sock" in status["error"]


def test_status_of_a_daemon_that_is_not_ready_exits_1() -> None:
    def answer(status: str, body: str) -> bytes:
        return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    script = answering(
        answer("200 OK", '{"live":true}'),
        answer("400 Bad Request", '{"ready":false}'),
        answer("200 OK", '{"name":"edge-runtime","version":"9","extensions":[]}'),
        answer("200 OK", '{"model_stats":[]}'),
        answer("200 OK", "[]"),
    )
    with scripted_server(script) as server:
        done = _run("status", "--socket", str(server.path))
    assert done.returncode == 1
    assert "edge-runtime 9" in done.stdout
    assert "live, not ready" in done.stdout


@pytest.mark.parametrize("body", [(), ("--json-body",), ("--batch", "3")])
def test_bench_measures_latency_and_throughput(digits: Daemon, body: tuple[str, ...]) -> None:
    arguments = ("--requests", "50", "--concurrency", "3", "--warmup", "5")
    report = _json("bench", "digits", *arguments, *body, at=digits)
    latency = report["latency_ms"]
    assert tuple(latency) == BENCH_NUMBERS
    assert 0 < latency["min"] <= latency["p50"] <= latency["p90"] <= latency["p99"]
    assert latency["p99"] <= latency["max"]
    assert (report["requests"], report["errors"], report["interrupted"]) == (50, 0, False)
    assert report["throughput_per_s"] > 0


def test_bench_sends_exactly_what_it_says() -> None:
    with daemon(f"digits={DIGITS / 'digits-int8.onnx'}") as running:
        done = _run("bench", "digits", "--requests", "30", "--warmup", "7", at=running)
        assert done.returncode == 0
        assert not done.stderr  # no progress bar where nobody looks
        for name in (*BENCH_NUMBERS, "throughput", "errors"):
            assert re.search(rf"^ *{name} +[\d.]+", done.stdout, re.MULTILINE), name
        [model] = _json("status", at=running)["models"]
    assert model["requests"] == 30 + 7 + 1  # the first one finds out whether it works at all


def test_bench_takes_inputs_and_a_duration(digits: Daemon) -> None:
    arguments = ("--duration", "0.2", "--input", f"image=@{TEST_SET}:image")
    report = _json("bench", "digits", *arguments, at=digits)
    assert report["requests"] > 0
    assert 0.2 <= report["duration_s"] < WAIT_S
    assert report["bytes_per_request"] > 450 * 64 * 4


def test_bench_counts_errors_and_exits_1() -> None:
    with daemon(f"digits={DIGITS / 'digits-int8.onnx'}") as running:
        arguments = [COMMAND, "bench", "digits", "--duration", "20", "--json"]
        process = subprocess.Popen(
            [*arguments, "--socket", str(running.socket)], stdout=subprocess.PIPE, text=True
        )
        path = "/v2/models/digits/stats"

        def is_measuring() -> bool:
            counts = running.request("GET", path).json()["model_stats"][0]["inference_stats"]
            return bool(counts["success"]["count"] > 100)

        eventually(is_measuring, "the measurement")
    output, _ = process.communicate(timeout=WAIT_S)  # the daemon has stopped meanwhile
    assert process.returncode == 1
    report = json.loads(output)
    assert report["requests"] > 0
    assert report["errors"] > 0
    assert report["error_messages"]


@pytest.mark.parametrize("output", ["--json", ""])
def test_ctrl_c_prints_what_was_measured_and_exits_130(models: Daemon, output: str) -> None:
    arguments = [COMMAND, "bench", "two", "--duration", "60", "--concurrency", "2"]
    process = subprocess.Popen(
        [*arguments, "--socket", str(models.socket), *([output] if output else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def count() -> int:
        statistics = models.request("GET", "/v2/models/two/stats").json()["model_stats"][0]
        return int(statistics["inference_stats"]["success"]["count"])

    before = count()
    eventually(lambda: count() > before + 100, "the measurement")
    process.send_signal(signal.SIGINT)
    text, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    if output:
        report = json.loads(text)
        assert report["interrupted"]
        assert report["requests"] > 0
    else:
        assert "p99" in text


def test_bench_shows_its_progress_on_a_terminal(digits: Daemon) -> None:
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    arguments = [COMMAND, "bench", "digits", "--duration", "0.5", "--socket", str(digits.socket)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    output, _ = process.communicate(timeout=WAIT_S)
    bar = b""
    with contextlib.suppress(OSError):  # how a terminal ends that nobody writes to any more
        while part := os.read(reader, 65_536):
            bar += part
    os.close(reader)
    assert b"bench digits" in bar
    assert process.returncode == 0
    assert "bench digits" not in output


@pytest.mark.parametrize("command", ["predict", "models", "status", "bench", "cache"])
def test_help_has_examples(command: str) -> None:
    done = _run(command, "--help")
    assert done.returncode == 0
    assert f"  edge-runtime {command}" in done.stdout


def test_the_commands_load_no_onnxruntime() -> None:
    commands = ", ".join(
        f"edge_runtime.cli.{name}" for name in ("predict", "models", "status", "bench", "cache")
    )
    code = f"import sys, {commands}; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert done.stdout.strip() == b"False"
