"""``edge-runtime top``: a real daemon, a real terminal, and what remains of it afterwards."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import pytest

from tests.conftest import DIGITS
from tests.daemons import COMMAND, Daemon, daemon, eventually

pytestmark = pytest.mark.integration

MODEL = f"digits={DIGITS / 'digits-int8.onnx'}"
IMAGE = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
END_OF_VIEW = "\x1b[J"
ESCAPE = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


def _control() -> None:
    """Make standard input the terminal whose keys send signals."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """``edge-runtime top`` in a pseudo-terminal.

    Args:
        running: The daemon to look at.
        arguments: More arguments.
        controls: Whether the terminal's keys and size reach the program as signals.

    Attributes:
        process: The command.
        written: Everything it wrote.
    """

    def __init__(self, running: Daemon, *arguments: str, controls: bool = True) -> None:
        self._end, inside = pty.openpty()
        self.resize(120, 20)
        self.process = subprocess.Popen(
            [COMMAND, "top", "--socket", str(running.socket), "-n", "0.1", *arguments],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=controls,
            process_group=None if controls else 0,
            preexec_fn=_control if controls else None,  # noqa: PLW1509 - there are no threads here
        )
        os.close(inside)
        self.written = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._end)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size; the kernel tells the program."""
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._end, keys)

    def read(self) -> str:
        """Read what was written since the last time."""
        new = b""
        while select.select([self._end], [], [], 0)[0]:
            try:
                chunk = os.read(self._end, 65_536)
            except OSError:  # the program has ended
                break
            if not chunk:
                break
            new += chunk
        text = new.decode()
        self.written += text
        return text

    def view(self) -> list[str]:
        """Give the lines of the last whole view."""
        self.read()
        *whole, _ = self.written.split(END_OF_VIEW)
        last = whole[-1].rpartition("\x1b[H")[2] if whole else ""
        return [ESCAPE.sub("", line).rstrip("\r") for line in last.split("\n")]

    def shows(self, text: str) -> None:
        """Wait until the view has a text in it."""
        eventually(lambda: any(text in line for line in self.view()), f"{text!r} in the view")

    def writes(self, text: str, after: int) -> None:
        """Wait until a text is written behind a place."""

        def is_written() -> bool:
            self.read()
            return text in self.written[after:]

        eventually(is_written, f"{text!r} on the terminal")

    def ended(self) -> int:
        """Wait for the end and give the exit code."""
        code = self.process.wait(60.0)
        self.read()
        return code


@contextlib.contextmanager
def load(running: Daemon) -> Iterator[None]:
    """Keep a daemon busy."""
    command = [COMMAND, "bench", "digits", "--socket", str(running.socket), "--duration", "60"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as bench:
        try:
            yield
        finally:
            bench.send_signal(signal.SIGINT)


def top(*arguments: str, at: Daemon, **more: Any) -> "subprocess.CompletedProcess[str]":  # noqa: ANN401
    return subprocess.run(
        [COMMAND, "top", "--socket", str(at.socket), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **more,
    )


def test_one_look_as_json_tells_what_happened_in_it(digits: Daemon) -> None:
    looks: list[dict[str, Any]] = []

    def is_busy() -> bool:
        done = top("--once", "-n", "0.5", "--json", at=digits)
        assert done.returncode == 0
        assert not done.stderr
        (line,) = done.stdout.splitlines()
        looks.append(json.loads(line))
        return bool(looks[-1]["requests_per_s"] > 0 and looks[-1]["cpu_ratio"] > 0)

    with load(digits):  # which may begin later than a look, or pause for the length of one
        eventually(is_busy, "a look at a daemon that answers")
    seen = looks[-1]
    (row,) = seen["versions"]
    assert (row["model"], row["version"], row["state"]) == ("digits", "1", "READY")
    assert row["requests_per_s"] > 0
    assert seen["requests_per_s"] == row["requests_per_s"]
    assert row["failures_per_s"] == 0
    assert 0 < row["p50_ms"] <= row["p99_ms"]
    assert row["rows_per_run"] >= 1
    assert row["size_bytes"] > 0
    assert seen["resident_bytes"] > row["size_bytes"]
    assert seen["connections"] >= 1
    assert seen["interval_s"] >= 0.5
    assert seen["uptime_s"] > 0
    assert seen["error"] == ""


def test_one_look_for_people_has_no_control_codes_without_a_terminal(digits: Daemon) -> None:
    done = top("--once", "-n", "0.1", at=digits)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    first, second, empty, titles, row = done.stdout.splitlines()
    assert first.startswith("edge-runtime ")
    assert str(digits.socket) in first
    assert "connections" in second
    assert not empty
    assert titles.split()[:5] == ["MODEL", "VERSION", "STATE", "REQ/S", "FAIL/S"]
    assert "P99~MS" in titles
    assert row.split()[:3] == ["digits", "1", "READY"]


def test_without_a_terminal_one_object_follows_the_other(digits: Daemon) -> None:
    command = [COMMAND, "top", "--socket", str(digits.socket), "-n", "0.05", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        times = [json.loads(process.stdout.readline())["time"] for _ in range(3)]
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(60.0) == 130
        assert not process.stderr.read()
    assert times == sorted(times)
    assert len(set(times)) == 3


def test_a_reader_that_leaves_ends_it_quietly(digits: Daemon) -> None:
    command = f"{COMMAND} top --socket {digits.socket} -n 0.05 --json | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert not done.stderr


def test_nobody_there_at_the_start_exits_1(digits: Daemon) -> None:
    done = subprocess.run(
        [COMMAND, "top", "--socket", "/nowhere/r.sock"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "/nowhere/r.sock" in done.stderr
    assert top("-n", "0", at=digits).returncode == 4


def test_the_view_is_drawn_over_and_the_cursor_comes_back_after_ctrl_c(digits: Daemon) -> None:
    with Terminal(digits) as terminal:
        terminal.shows("digits")
        terminal.writes("\x1b[Hedge-runtime", len(terminal.written))
        assert terminal.written.startswith(HIDE)
        terminal.type(b"\x03")
        assert terminal.ended() == 130
        assert terminal.written.rindex(SHOW) > terminal.written.rindex(HIDE)
        assert "Traceback" not in terminal.written


def test_load_is_seen_in_the_view(digits: Daemon) -> None:
    def busy(terminal: Terminal) -> bool:
        rows = [line.split() for line in terminal.view() if line.startswith("digits")]
        return bool(rows) and float(rows[0][3]) > 0

    with load(digits), Terminal(digits) as terminal:
        eventually(lambda: busy(terminal), "a rate above 0")


def test_the_cursor_comes_back_after_sigterm_too(digits: Daemon) -> None:
    with Terminal(digits) as terminal:
        terminal.shows("digits")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ended() == -signal.SIGTERM
        assert terminal.written.endswith(SHOW)


def test_a_stopped_view_leaves_the_cursor_and_comes_back(digits: Daemon) -> None:
    with Terminal(digits, controls=False) as terminal:
        terminal.shows("digits")
        terminal.process.send_signal(signal.SIGTSTP)
        os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED)
        terminal.read()
        assert terminal.written.endswith(SHOW)
        stopped = len(terminal.written)
        terminal.process.send_signal(signal.SIGCONT)
        terminal.writes("digits", stopped)
        assert HIDE in terminal.written[stopped:]


def test_nobody_can_stop_it_where_nobody_could_continue_it(digits: Daemon) -> None:
    with Terminal(digits) as terminal:  # the leader of a session of its own
        terminal.shows("digits")
        before = len(terminal.written)
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.writes(HIDE, before)
        assert terminal.process.poll() is None


def test_a_new_size_is_drawn_at_once(digits: Daemon) -> None:
    with Terminal(digits, "-n", "1000") as terminal:
        terminal.shows("digits")
        terminal.resize(30, 4)
        eventually(
            lambda: max(map(len, terminal.view())) <= 30 and "more" in "".join(terminal.view()),
            "a narrow view",
        )
        assert len([line for line in terminal.view() if line]) <= 4


def test_it_survives_a_restart_of_the_daemon() -> None:
    with daemon(MODEL) as running:
        assert running.infer("digits", [IMAGE]).status == 200
        with Terminal(running) as terminal:
            terminal.shows("digits")
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(60.0)
            terminal.shows("not reachable, trying again")
            command = [COMMAND, "serve", MODEL, "--socket", str(running.socket)]
            state = ["--state-dir", str(running.folder / "state")]
            with subprocess.Popen([*command, *state], stderr=subprocess.DEVNULL) as again:
                try:
                    terminal.shows("digits")
                    assert terminal.process.poll() is None
                finally:
                    again.send_signal(signal.SIGTERM)


def test_the_command_loads_no_onnxruntime() -> None:
    code = "import edge_runtime.cli.top, sys; print('\\n'.join(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"onnxruntime", "asyncio", "prometheus_client"} & set(modules)
