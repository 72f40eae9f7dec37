"""Failpoints: off unless asked for, and then exactly what was asked for."""

import ast
import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import edge_runtime
from edge_runtime import failpoints
from edge_runtime.errors import ConfigError
from edge_runtime.failpoints import NAMES, VARIABLE, Failpoints, parse
from tests.daemons import eventually

SOURCES = Path(edge_runtime.__file__).parent
CODE = """
from edge_runtime import failpoints
import time
for _ in range(3):
    try:
        failpoints.failpoint("store.linked")
        print("passed", flush=True)
    except OSError as error:
        print(error.errno, flush=True)
time.time = lambda: 10**9  # two looks at a clock that goes on tell two times
print(round(failpoints.wall_time() - time.time()), failpoints.are_set())
"""


def run(points: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, VARIABLE: points}
    return subprocess.run(
        [sys.executable, "-c", CODE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nothing_is_set_unless_asked_for() -> None:
    assert not failpoints.are_set()
    for name in NAMES:
        failpoints.failpoint(name)
    assert abs(failpoints.wall_time() - time.time()) < 60
    done = run("")
    assert done.stdout.split("\n")[:4] == ["passed", "passed", "passed", "0 False"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ("store.linked=error", [f"{errno.EIO}"] * 3 + ["0 True"]),
        ("store.linked=full", [f"{errno.ENOSPC}"] * 3 + ["0 True"]),
        ("store.linked=full@2", ["passed", f"{errno.ENOSPC}", "passed", "0 True"]),
        ("store.linked=error@1,store.linked=full@3", ["5", "passed", "28", "0 True"]),
        ("store.linked=jump:+86400", ["passed"] * 3 + ["86400 True"]),
        ("store.linked=jump:-3600@3", ["passed"] * 3 + ["-3600 True"]),
        ("store.linked=jump:-3600@4", ["passed"] * 3 + ["0 True"]),
        ("store.linked=jump:5@1, store.linked=jump:6@2", ["passed"] * 3 + ["11 True"]),
        ("store.renamed=kill", ["passed"] * 3 + ["0 True"]),
    ],
)
def test_it_does_what_was_asked_for_and_says_so(points: str, said: list[str]) -> None:
    done = run(points)
    assert done.stdout.split("\n")[:-1] == said
    assert done.returncode == 0
    assert "failpoints are set in $EDGE_RUNTIME_FAILPOINTS" in done.stderr


@pytest.mark.parametrize("time_", [1, 3])
def test_the_process_dies_at_once_the_time_it_was_asked_to(time_: int) -> None:
    done = run(f"store.linked=kill@{time_}")
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.count("passed") == time_ - 1


def test_a_thread_that_hangs_holds_up_no_other() -> None:
    points = parse("store.linked=hang@1")
    hanging = threading.Thread(target=points.passed, args=("store.linked",), daemon=True)
    hanging.start()
    eventually(lambda: bool(points._passed), "the thread came to the failpoint")
    points.passed("store.linked")  # the second time, and it is not waited for
    points.passed("store.renamed")
    assert hanging.is_alive()


def test_an_event_loop_goes_on_while_a_failpoint_that_it_came_to_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = parse("swap.before=hang,swap.after=error,trial.self_test.started=jump:5")
    monkeypatch.setattr(failpoints, "_set", points)

    async def come_by() -> None:
        hanging = asyncio.ensure_future(failpoints.reached("swap.before"))
        with pytest.raises(OSError, match=r"swap\.after"):
            await failpoints.reached("swap.after")
        await failpoints.reached("trial.self_test.started")
        await failpoints.reached("trial.self_test.answered")
        assert not hanging.done()
        hanging.cancel()

    asyncio.run(come_by())
    assert points.shift_s == 5


def test_a_boot_can_be_pretended() -> None:
    assert parse("boot_id=another").boot_id == "another"
    assert parse("store.linked=kill").boot_id == ""
    assert failpoints.boot_id() == ""


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ("store.nowhere=kill", "there is no failpoint 'store.nowhere'; there are store.received"),
        ("store.linked", "'store.linked' is not NAME=ACTION"),
        ("store.linked=burn", "is not NAME=ACTION"),
        ("store.linked=kill@0", "is not NAME=ACTION"),
        ("store.linked=kill@x", "is not NAME=ACTION"),
        ("store.linked=kill:5", "jump, and only jump, takes seconds"),
        ("store.linked=jump", "jump, and only jump, takes seconds"),
        ("store.linked=jump:soon", "'soon' is not a number of seconds"),
        ("store.linked=jump:inf", "'inf' is not a number of seconds"),
        ("store.linked=error,,store.synced", "'store.synced' is not NAME=ACTION"),
    ],
)
def test_what_cannot_be_meant_is_refused(points: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(points)
    assert why in caught.value.message
    assert caught.value.message.startswith(f"${VARIABLE}: ")


def test_a_wrong_name_ends_the_start() -> None:
    done = run("store.nowhere=kill")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "there is no failpoint 'store.nowhere'" in done.stderr


def test_nothing_set_is_nothing() -> None:
    assert parse("") == parse(" , ") == Failpoints()


def _passed(path: Path) -> set[str]:
    """Collect the names of the failpoints in a file, as far as they are written out."""
    return {
        str(node.args[0].value)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "failpoint"
        and isinstance(node.args[0], ast.Constant)
    }


def test_every_failpoint_of_the_program_is_listed_and_every_listed_one_of_the_store_exists() -> (
    None
):
    found = {name for path in SOURCES.rglob("*.py") for name in _passed(path)}
    assert found <= NAMES.keys()
    store = {name for path in (SOURCES / "store").glob("*.py") for name in _passed(path)}
    assert store == {name for name in NAMES if name.startswith("store.")}
