"""How the daemon starts, refuses to start, and stops: sockets, signals, exit codes."""

import contextlib
import json
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_runtime.exit_codes import ExitCode
from tests.daemons import COMMAND, START_S, STOP_S, Daemon, daemon, eventually
from tests.models import identity, slow
from tests.wire import Wire, infer, infer_zeros, numbers, request

pytestmark = pytest.mark.integration

LIVE = request("GET", "/v2/health/live")
INFER = infer("m", [[1.0, 2.0]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity(tmp_path_factory.mktemp("models") / "m.onnx")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    folder = Path(tempfile.mkdtemp(prefix="er-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def refused(*arguments: str, folder: Path, code: ExitCode) -> str:
    """Run a daemon that must not start; what it said."""
    socket_path = ["--socket", str(folder / "r.sock")]
    done = subprocess.run(
        [COMMAND, "serve", *arguments, *([] if "--socket" in arguments else socket_path)],
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(folder.glob("*.sock")), "a socket was left behind"
    return done.stderr


# -- refusing to start ---------------------------------------------------------------------------


def test_nothing_to_serve_is_wrong_usage(short: Path) -> None:
    assert "nothing to serve" in refused(folder=short, code=ExitCode.USAGE)


def test_a_wrong_argument_is_wrong_usage(short: Path) -> None:
    assert "--colour" in refused("--colour", "red", folder=short, code=ExitCode.USAGE)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[limits]\nbody_size = 3\n", "body_size"),
        ("[limits]\nchunks = 'many'\n", "limits.chunks"),
        ("[limits]\nchunks = 0\n", "limits.chunks"),
        ("limits = ", "TOML"),
        ("[models.m.version_policy]\nall = true\nlatest = 1\n", "models.m.version_policy"),
    ],
)
def test_a_wrong_configuration_is_wrong_usage_and_names_the_key(
    short: Path, text: str, word: str
) -> None:
    config = short / "wrong.toml"
    config.write_text(text, "utf-8")
    assert word in refused("--config", str(config), folder=short, code=ExitCode.USAGE)


def test_a_configuration_that_is_not_there_is_wrong_usage(short: Path) -> None:
    said = refused("--config", str(short / "none.toml"), folder=short, code=ExitCode.USAGE)
    assert "none.toml" in said


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:8000", "[::]:0"])
def test_an_address_beyond_loopback_is_refused(short: Path, model: Path, address: str) -> None:
    said = refused(f"m={model}", "--http", address, folder=short, code=ExitCode.FAILED)
    assert "loopback" in said


def test_an_address_that_is_none_is_wrong_usage(short: Path, model: Path) -> None:
    refused(f"m={model}", "--http", "8000", folder=short, code=ExitCode.USAGE)


def test_a_taken_port_is_a_failure(short: Path, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in refused(
            f"m={model}", "--http", address, folder=short, code=ExitCode.FAILED
        )


def test_a_socket_in_use_is_a_failure_and_its_owner_goes_on(short: Path, model: Path) -> None:
    with daemon(f"m={model}") as running:
        said = refused(
            f"m={model}", "--socket", str(running.socket), folder=short, code=ExitCode.FAILED
        )
        assert "another process is serving" in said
        assert running.request("GET", "/v2/health/ready").status == 200


def broken(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "m.onnx").write_bytes(b"this is not a model")
    return folder / "m.onnx"


def cut_off(folder: Path) -> Path:
    whole = identity(folder / "m.onnx").read_bytes()
    (folder / "m.onnx").write_bytes(whole[: len(whole) // 2])
    return folder / "m.onnx"


def missing(folder: Path) -> Path:
    return folder / "m.onnx"


def empty(folder: Path) -> Path:
    (folder / "m.onnx").touch()
    return folder / "m.onnx"


def a_loop_of_links(folder: Path) -> Path:
    """Unreadable for root too."""
    (folder / "m.onnx").symlink_to(folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize("make", [broken, cut_off, missing, empty, a_loop_of_links])
def test_only_broken_models_is_a_failure_with_the_reason(
    short: Path, make: Callable[[Path], Path]
) -> None:
    said = refused(f"m={make(short)}", folder=short, code=ExitCode.FAILED)
    assert "no model could be loaded" in said
    assert "m.onnx" in said or "model 'm'" in said


def test_one_broken_model_does_not_keep_the_others_from_being_served(
    short: Path, model: Path
) -> None:
    with daemon(f"bad={broken(short)}", f"m={model}") as running:
        answer = running.request("POST", "/v2/models/bad/infer", {"inputs": []})
        assert answer.status == 503
        assert "m.onnx" in answer.json()["error"]
        assert running.request("GET", "/v2/models/bad/ready").status == 503
        with Wire.of(running) as wire:
            wire.send(INFER)
            assert numbers(wire.answer()) == [1.0, 2.0]


# -- doors ---------------------------------------------------------------------------------------


def test_there_is_no_tcp_unless_it_was_asked_for(model: Path) -> None:
    with daemon(f"m={model}") as running:
        inodes = set()
        for link in Path(f"/proc/{running.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a connection that just closed
                if found := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                    inodes.add(found[1])
        for table in ("tcp", "tcp6"):
            rows = Path(f"/proc/net/{table}").read_text("ascii").splitlines()[1:]
            assert not inodes & {row.split()[9] for row in rows}


def test_the_sockets_are_for_owner_and_group_only(model: Path) -> None:
    with daemon(f"m={model}") as running:
        for path in (running.socket, running.admin):
            mode = path.stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert not stat.S_IMODE(mode) & ~0o660


def test_loopback_tcp_answers_what_the_data_socket_answers(model: Path) -> None:
    with daemon(f"m={model}", "--http", "127.0.0.1:0") as running:
        wire = Wire(socket.create_connection(("127.0.0.1", running.http_port()), 10))
        wire.send(INFER + request("POST", "/v2/repository/models/m/unload"))
        assert numbers(wire.answer()) == [1.0, 2.0]
        assert wire.answer().status == 403
        wire.close()


def test_a_killed_daemon_leaves_sockets_that_the_next_one_replaces(model: Path) -> None:
    with daemon(f"m={model}") as first:
        first.process.kill()
        first.process.wait()
        assert first.socket.is_socket()
        assert first.admin.is_socket()
        command = [COMMAND, "serve", f"m={model}", "--socket", str(first.socket)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as second:
            try:
                eventually(lambda: answers(first), "the second daemon's being ready", START_S)
                assert first.request("POST", "/v2/repository/index", admin=True).status == 200
            finally:
                second.terminate()
                second.communicate(timeout=STOP_S)
        assert second.returncode == ExitCode.DONE
        assert not first.socket.exists()
        assert not first.admin.exists()


def answers(running: Daemon) -> bool:
    try:
        return running.request("GET", "/v2/health/ready").status == 200
    except OSError:
        return False


# -- stopping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_ends_it_with_0_and_removes_the_sockets(
    model: Path, number: signal.Signals
) -> None:
    with daemon(f"m={model}") as running, Wire.of(running) as idle:
        idle.send(LIVE)
        assert idle.answer().status == 200
        running.process.send_signal(number)
        assert idle.ends()
        assert running.process.wait(STOP_S) == ExitCode.DONE
        assert not running.socket.exists()
        assert not running.admin.exists()
        assert "Traceback" not in running.log()


def test_stopping_answers_everything_that_is_in_flight(tmp_path: Path, model: Path) -> None:
    long = slow(tmp_path / "slow.onnx", layers=64)
    with daemon(f"slow={long}", f"m={model}") as running:
        with Wire.of(running) as several, Wire.of(running) as half:
            half.send(INFER[:-5])
            several.send(infer_zeros("slow", [200, 512]) * 2 + INFER)
            while b'"slow"' not in in_flight(running):
                if several.has_more():  # they were over before anybody looked
                    assert [several.answer().status for _ in range(3)] == [200] * 3
                    several.send(infer_zeros("slow", [200, 512]) * 2 + INFER)
            running.process.send_signal(signal.SIGTERM)
            eventually(lambda: not running.socket.exists(), "the doors' closing")
            half.send(INFER[-5:])
            assert [several.answer().status for _ in range(2)] == [200, 200]
            assert numbers(several.answer()) == [1.0, 2.0]
            answer = half.answer()
            assert numbers(answer) == [1.0, 2.0]
            assert answer.headers["Connection"] == "close"
            assert several.ends()
            assert half.ends()
        assert running.process.wait(STOP_S) == ExitCode.DONE


def in_flight(running: Daemon) -> bytes:
    lines = running.request("GET", "/metrics").body.splitlines()
    used = [line for line in lines if line.startswith(b"edge_runtime_requests_in_flight{")]
    return b"".join(line for line in used if not line.endswith(b" 0.0"))


def test_a_client_that_never_finishes_is_cut_after_the_stated_time(model: Path) -> None:
    limit = {"EDGE_RUNTIME__LIMITS__DRAIN_TIMEOUT_S": "0.2"}
    with daemon(f"m={model}", environment=limit) as running, Wire.of(running) as stuck:
        stuck.send(LIVE + INFER[:-5])
        assert stuck.answer().status == 200
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(STOP_S) == ExitCode.DONE
        assert stuck.ends()
        assert "cut after 0.2 s" in running.log()


def test_who_does_not_read_its_answers_does_not_keep_it_from_stopping(model: Path) -> None:
    limit = {"EDGE_RUNTIME__LIMITS__DRAIN_TIMEOUT_S": "0.2"}
    with daemon(f"m={model}", environment=limit) as running, Wire.of(running) as deaf:
        deaf.sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
        deaf.sock.send(request("GET", "/openapi.json") * 500)
        eventually(lambda: running.request("GET", "/v2").status == 200, "an answer to another")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(STOP_S) == ExitCode.DONE


def test_the_log_is_json_when_asked_for(model: Path) -> None:
    with daemon(f"m={model}", "--log-format", "json") as running:
        records = [json.loads(line) for line in running.log().splitlines()]
        assert records


def test_a_run_that_outlasts_the_drain_is_told_to_end(tmp_path: Path) -> None:
    model = slow(tmp_path / "m.onnx", layers=4000)
    limits = {"EDGE_RUNTIME__LIMITS__DRAIN_TIMEOUT_S": "0.2"}
    with daemon(f"m={model}", environment=limits) as running, running.connect() as sock:
        sock.sendall(infer_zeros("m", [640, 512]))  # half a minute, if nobody ended it
        eventually(
            lambda: (
                b'requests_in_flight{model="m",version="1"} 1.0'
                in running.request("GET", "/metrics").body
            ),
            "the run's start",
        )
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert "connections are cut" in running.log()
        assert running.log().rstrip().endswith("stopped")


def test_a_stop_while_models_load_never_says_ready(tmp_path: Path) -> None:
    for number in range(6):
        slow(tmp_path / "models" / f"m{number}" / "1" / "model.onnx", size=1024, layers=3000)
    with Daemon([str(tmp_path / "models")], wait=False) as running:
        eventually(lambda: "onnxruntime" in running.log(), "the start")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert "listening on" not in running.log()
        assert "Traceback" not in running.log()
