"""The prediction journal of a real daemon: off unless the owner says so, bounded, numbered."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.observation.journal_record import decode
from tests.conftest import DIGITS
from tests.daemons import COMMAND, Daemon, daemon, eventually

pytestmark = pytest.mark.integration

MODEL = DIGITS / "digits-int8.onnx"
PIXELS = [0.25] * 64
IMAGE = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": PIXELS}
ALL = "share = 1.0\ninputs_share = 1.0\nper_s_max = 1000.0\n"


def configured(folder: Path, journal: str, more: str = "") -> Path:
    path = folder / "c.toml"
    text = f'{more}\n[models.digits]\npath = "{MODEL}"\n[models.digits.journal]\n{journal}'
    path.write_text(text)
    return path


def rows(running: Daemon, after: int = 0) -> dict[str, Any]:
    answer = running.request("GET", f"/admin/journal?after={after}", admin=True)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json()
    return found


def ask(running: Daemon, times: int = 1) -> None:
    for _ in range(times):
        assert running.infer("digits", [IMAGE]).status == 200


def keep(running: Daemon, count: int) -> None:
    """Ask until so many answers are kept: two within a millisecond count as one."""
    for number in range(1, count + 1):
        ask(running)
        eventually(lambda: len(rows(running)["rows"]) == number, f"{number} kept predictions")  # noqa: B023


def command(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, "journal", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == expect, done.stderr
    return done


def test_nothing_is_kept_unless_the_configuration_says_so() -> None:
    with daemon(f"digits={MODEL}") as running:
        ask(running)
        assert rows(running) == {"journal": "", "rows": [], "has_more": False}
        assert not (running.folder / "state" / "journal.db").exists()


def test_what_was_asked_and_answered_can_be_collected_once(tmp_path: Path) -> None:
    with daemon("--config", str(configured(tmp_path, ALL))) as running:
        keep(running, 3)
        found = rows(running)
        first = found["rows"][0]
        inputs, outputs = decode(base64.b64decode(first["record"]))
        assert inputs["image"].reshape(-1).tolist() == PIXELS
        assert outputs
        assert (first["model"], first["version"], first["reason"]) == ("digits", "1", "inputs")
        body = json.dumps({"journal": found["journal"], "through": 2}).encode()
        gone = running.request("POST", "/admin/journal/collected", body, admin=True)
        assert gone.json() == {"rows": 2}
        assert [row["number"] for row in rows(running)["rows"]] == [3]
        again = running.request("POST", "/admin/journal/collected", body, admin=True)
        assert again.json() == {"rows": 0}
        stranger = json.dumps({"journal": "0" * 32, "through": 3}).encode()
        assert (
            running.request("POST", "/admin/journal/collected", stranger, admin=True).status == 400
        )
        assert len(rows(running)["rows"]) == 1


def test_numbers_go_on_after_everything_was_collected_and_the_daemon_was_killed(
    tmp_path: Path,
) -> None:
    with daemon("--config", str(configured(tmp_path, ALL))) as running:
        keep(running, 2)
        body = json.dumps({"journal": rows(running)["journal"], "through": 2}).encode()
        assert running.request("POST", "/admin/journal/collected", body, admin=True).status == 200
        running.process.kill()
        running.process.wait()
        running.restart()
        ask(running)
        eventually(lambda: bool(rows(running)["rows"]), "a kept prediction")
        assert [row["number"] for row in rows(running)["rows"]] == [3]


def test_unsure_answers_are_kept_with_their_inputs_and_sure_ones_are_not(tmp_path: Path) -> None:
    settings = "inputs_below = 0.999999\nper_s_max = 1000.0\n"
    with daemon("--config", str(configured(tmp_path, settings))) as running:
        ask(running)
        eventually(lambda: bool(rows(running)["rows"]), "a kept prediction")
        (row,) = rows(running)["rows"]
        assert row["reason"] == "low-confidence"
        assert decode(base64.b64decode(row["record"]))[0]


def test_the_oldest_make_way_when_the_budget_is_used_up(tmp_path: Path) -> None:
    settings = ALL + "max_bytes = 3000\n"
    with daemon("--config", str(configured(tmp_path, settings))) as running:

        def is_beyond_the_budget() -> bool:
            ask(running, 10)
            found = rows(running)["rows"]
            return bool(found) and found[-1]["number"] > 30

        eventually(is_beyond_the_budget, "thirty kept predictions")
        kept = rows(running)["rows"]
    assert 1 <= len(kept) < 10
    numbers = [row["number"] for row in kept]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_records_are_encrypted_with_the_owners_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(os.urandom(32).hex())
    path = configured(tmp_path, ALL, f'[journal]\nkey_file = "{key}"\n')
    with daemon("--config", str(path)) as running:
        ask(running)
        eventually(lambda: bool(rows(running)["rows"]), "a kept prediction")
        (row,) = rows(running)["rows"]
        assert row["is_encrypted"]
        pixels = np.array(PIXELS, np.float32).tobytes()
        state = str(running.folder / "state")
        assert pixels not in (running.folder / "state" / "journal.db").read_bytes()
        assert "encrypted" in command("show", "--state-dir", state).stdout
        shown = command("show", "--state-dir", state, "--json", "--tensors", "--key-file", str(key))
        assert json.loads(shown.stdout)["inputs"][0]["data"] == PIXELS


def test_the_owners_function_decides_what_is_stored(tmp_path: Path) -> None:
    (tmp_path / "redacting.py").write_text(
        "def without_inputs(inputs, outputs):\n    return {}, outputs\n"
        "def nothing(inputs, outputs):\n    return None\n"
        "def broken(inputs, outputs):\n    raise ValueError('no')\n"
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    path = configured(tmp_path, ALL + 'redact = "redacting:without_inputs"\n')
    with daemon("--config", str(path), environment=environment) as running:
        ask(running)
        eventually(lambda: bool(rows(running)["rows"]), "a kept prediction")
        (row,) = rows(running)["rows"]
        inputs, outputs = decode(base64.b64decode(row["record"]))
        assert not inputs
        assert outputs
    path = configured(tmp_path, ALL + 'redact = "redacting:broken"\n')
    with daemon("--config", str(path), environment=environment) as running:
        ask(running)
        eventually(lambda: "redact failed" in running.log(), "the function's failure in the log")
        counted = b'edge_runtime_journal_left_out_total{reason="redacted"} 1.0'
        eventually(lambda: counted in running.request("GET", "/metrics").body, "its count")
        assert rows(running)["rows"] == []
    path = configured(tmp_path, ALL + 'redact = "redacting:missing"\n')
    done = subprocess.run(
        [COMMAND, "serve", "--config", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 4
    assert "models.digits.journal.redact" in done.stderr


def test_people_look_at_the_journal_and_remove_it(tmp_path: Path) -> None:
    with daemon("--config", str(configured(tmp_path, ALL))) as running:
        state = str(running.folder / "state")
        assert "there is no journal" in command("show", "--state-dir", state, expect=1).stderr
        keep(running, 2)
        shown = command("show", "--state-dir", state, "--limit", "1").stdout
        assert "digits: 2 predictions" in shown
        assert "image[1, 1, 8, 8] -> " in shown
        assert "give --yes" in command("purge", "--state-dir", state, expect=4).stderr
        assert len(rows(running)["rows"]) == 2
        assert "removed 2" in command("purge", "--state-dir", state, "--yes").stderr
        assert rows(running)["rows"] == []
        ask(running)
        eventually(lambda: bool(rows(running)["rows"]), "the daemon goes on")


def test_a_damaged_journal_is_set_aside_and_predictions_go_on(tmp_path: Path) -> None:
    with daemon("--config", str(configured(tmp_path, ALL))) as running:
        path = running.folder / "state" / "journal.db"
        path.write_bytes(b"this is no database, and long enough to be told from an empty one" * 9)
        ask(running)
        eventually(lambda: "set aside" in running.log(), "the damaged journal set aside")
        eventually(lambda: bool(rows(running)["rows"]), "a kept prediction")
        assert path.with_name("journal.db.damaged").exists()


def test_the_journal_is_not_for_readers_of_the_admin_door(tmp_path: Path) -> None:
    path = configured(tmp_path, ALL, '[release]\nadmins = ["uid:4242"]\n')
    with daemon("--config", str(path)) as running:
        ask(running)
        body = json.dumps({"journal": "x", "through": 1}).encode()
        assert running.request("GET", "/admin/journal", admin=True).status == 403
        collected = running.request("POST", "/admin/journal/collected", body, admin=True)
        assert collected.status == 403
        assert running.request("GET", "/admin/releases", admin=True).status == 200
