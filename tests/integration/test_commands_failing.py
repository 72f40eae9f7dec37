"""How the commands end when the world around them does not play along."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_runtime import cli
from tests.daemons import COMMAND, Daemon, daemon
from tests.models import identity

pytestmark = pytest.mark.integration

WAIT_S = 60.0


def _run(
    *arguments: str, environment: Mapping[str, str] | None = None, output: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def test_models_on_the_admin_socket_keeps_the_index_s_state(digits: Daemon) -> None:
    done = _run("models", "--socket", str(digits.admin))
    assert done.returncode == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["NAME", "VERSION", "STATE"],
        ["digits", "1", "READY"],
    ]


def test_the_environment_names_any_kind_of_address(digits: Daemon) -> None:
    for address in (f"unix:{digits.socket}", f"http://127.0.0.1:{digits.http_port()}"):
        done = _run("models", environment={"EDGE_RUNTIME_SOCKET": address})
        assert "READY" in done.stdout, done.stderr


@pytest.mark.parametrize("command", [("models",), ("models", "--json"), ("config",)])
def test_output_that_cannot_be_written_exits_1_with_one_line(
    digits: Daemon, command: tuple[str, ...]
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = _run(*command, environment={"EDGE_RUNTIME_SOCKET": str(digits.socket)}, output=full)
    finally:
        os.close(full)
    assert done.returncode == 1
    said = f"edge-runtime {command[0]}: cannot write the output: No space left on device"
    assert done.stderr.splitlines() == [said]


def test_a_reader_that_has_gone_is_not_told(digits: Daemon) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = _run("models", "--socket", str(digits.socket), output=writer)
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert not done.stderr


def test_ctrl_c_before_the_command_has_begun_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parser", interrupted)
    assert cli.main(["models"]) == 130


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "--socket", ""),
        ("serve", "--socket", ""),
        ("serve", "--admin-socket", ""),
        ("serve", "--config", ""),
        ("serve", "--http", ""),
    ],
)
def test_an_empty_option_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = _run(*arguments)
    assert done.returncode == 4
    assert "it is empty" in done.stderr


def test_an_unknown_model_is_told_with_a_command_not_a_path(digits: Daemon) -> None:
    done = _run("predict", "nobody", "--input", "x=[1]", "--socket", str(digits.socket))
    assert done.returncode == 4
    assert "`edge-runtime models`" in done.stderr
    assert "/v2/" not in done.stderr


@pytest.mark.parametrize("command", ["predict", "bench"])
def test_half_a_surrogate_pair_is_bad_input(command: str, tmp_path: Path) -> None:
    with daemon(f"text={identity(tmp_path / 'text.onnx', 'BYTES')}") as running:
        texts = r'x=["\ud800", "b"]'
        done = _run(command, "text", "--input", texts, "--socket", str(running.socket))
    assert done.returncode == 4
    assert "UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_configuration_that_is_not_there_exits_4(tmp_path: Path) -> None:
    done = _run("config", "--config", str(tmp_path / "nowhere.toml"))
    assert done.returncode == 4
    assert "there is no configuration file" in done.stderr
