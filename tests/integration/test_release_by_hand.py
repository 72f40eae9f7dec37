"""A person at a terminal with a real daemon: stage, wait, decide, take back, split."""

import json
import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests import bad_models
from tests.daemons import COMMAND, eventually
from tests.models import add_constant
from tests.release_device import MODEL, Device, bundle, seeded_device

pytestmark = pytest.mark.integration

WAIT_S = 150.0
ME = os.getuid()
CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v2/repository/models/m/load", {}),
    ("/v2/repository/models/m/unload", {}),
    ("/v2/cache/clear", {}),
    ("/admin/releases", {"path": "/nowhere"}),
    ("/admin/releases/m/rollback", {}),
    ("/admin/models/m/traffic", {"weights": {"1": 100}}),
)


def begun(device: Device, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [COMMAND, *arguments, "--socket", str(device.daemon.admin)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(device: Device, *arguments: str) -> tuple[int, str, str]:
    """Give exit code, output and what was said beside it."""
    process = begun(device, *arguments)
    out, said = process.communicate(timeout=WAIT_S)
    return process.returncode, out, said


def said_until(process: "subprocess.Popen[str]", words: str) -> str:
    """Read what it says beside its output, up to the line with these words."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return "".join(lines)
    message = f"it never said {words!r}:\n{''.join(lines)}"
    raise AssertionError(message)


device = pytest.fixture(seeded_device)


def test_a_good_version_is_staged_waited_for_and_committed(device: Device, tmp_path: Path) -> None:
    code, _, said = run(device, "release", "stage", str(bundle(tmp_path / "v2")), "--wait")
    assert code == 0, said
    steps = [line.partition("  ")[2] for line in said.splitlines() if line.startswith("2")]
    assert [step.split(":")[0].split(" (")[0] for step in steps] == [
        "installed",
        "self-testing",
        "staged",
        "shadowing",
        "canary 50 %",
        "canary 100 %",
        "probation",
        "committed",
    ]
    code, out, _ = run(device, "release", "status", MODEL, "--json")
    status = json.loads(out)
    newest = status["releases"][0]
    assert (status["active"], newest["state"]) == (2, "committed")
    assert status["running_digest"] == newest["digest"]
    assert newest["source"] == f"operator uid={ME}"
    assert f"is committed; running: {newest['digest'][:12]}" in said
    code, out, _ = run(device, "release", "explain", MODEL)
    assert code == 0
    assert "Version 2 of m is active" in out


def test_a_bad_version_ends_the_wait_with_1_and_the_reason(device: Device, tmp_path: Path) -> None:
    bad = bundle(tmp_path / "v2", make=bad_models.wrong_output_name)
    code, _, said = run(device, "release", "stage", str(bad), "--wait")
    assert code == 1
    assert "m version 2 is failed: " in said
    assert "outputs are ['y'] in the manifest and ['z'] in the model file" in said
    assert device.ask().version == "1"


def test_blue_green_by_hand_and_back(device: Device, tmp_path: Path) -> None:
    tar = tmp_path / "v2.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(bundle(tmp_path / "v2"), ".")
    code, _, said = run(device, "release", "stage", str(tar), "--send", "--manual", "--wait")
    assert code == 0, said
    assert "release promote m" in said
    assert device.ask().version == "1"
    code, _, said = run(device, "release", "promote", MODEL, "--wait")
    assert code == 0, said
    assert device.ask().version == "2"
    code, out, said = run(device, "release", "rollback", MODEL, "--reason", "labels flicker")
    assert code == 0, said
    assert device.ask().version == "1"
    assert "labels flicker" in out
    code, out, _ = run(device, "release", "history", MODEL, "--json")
    newest = json.loads(out)[0]
    assert (newest["to_state"], newest["cause"]) == ("rolled-back", "operator")
    assert newest["reason"] == "labels flicker"
    status = device.status()
    assert status.override is not None
    assert newest["digest"] == status.running_digest
    code, _, _ = run(device, "release", "clear", MODEL)
    assert code == 0
    assert device.status().override is None


def test_what_cannot_be_promoted_or_taken_back_is_told(device: Device) -> None:
    for verb in ("promote", "rollback", "abort"):
        code, _, said = run(device, "release", verb, MODEL)
        assert code == 1, said
        assert said.startswith("edge-runtime release: ")


def test_a_split_stays_is_counted_by_version_and_ends(device: Device, tmp_path: Path) -> None:
    for version in (2, 3):
        path = bundle(tmp_path / f"v{version}", version)
        code, _, said = run(device, "release", "stage", str(path), "--wait")
        assert code == 0, said
    code, out, said = run(device, "traffic", MODEL, "2=40", "3=60")
    assert code == 0, said
    assert "the traffic is split: 2=40 %, 3=60 %" in out
    since_s = time.monotonic()
    eventually(
        lambda: {"2", "3"} == device.traffic.by_version(since_s).keys(), "answers of both versions"
    )
    for version in (2, 3):
        asked = f"/v2/models/{MODEL}/versions/{version}/stats"
        (counted,) = device.daemon.request("GET", asked).json()["model_stats"]
        assert counted["inference_stats"]["success"]["count"] > 0
    code, out, _ = run(device, "traffic", MODEL, "--clear")
    assert code == 0
    assert "split" not in out
    cleared_s = time.monotonic()
    eventually(lambda: device.traffic.by_version(cleared_s).get("3", 0) > 20, "more answers")
    assert device.traffic.by_version(cleared_s).keys() == {"3"}


def test_the_wait_outlives_a_daemon_that_is_killed_and_started_again(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    with Device(tmp_path, seed=seed, probation_s=30.0) as device:
        path = bundle(tmp_path / "v2")
        process = begun(device, "release", "stage", str(path), "--wait")
        device.reach(2, "shadowing", "canary", "probation")
        assert device.order("promote").status == 200
        # Stored is not yet done: a version that was never in memory is not blamed for the death.
        eventually(lambda: device.ask().version == "2", "an answer of version 2")
        device.daemon.process.kill()
        device.died()
        # A daemon that is back at once was never missed.
        before = said_until(process, "no answer, trying again")
        device.restart()
        _, after = process.communicate(timeout=WAIT_S)
        said = before + after
        assert process.returncode == 1, said
        assert "m version 2 is rolled-back: crashed: " in said
        assert device.ask().version == "1"


def test_only_admins_may_change_anything_and_hup_takes_a_new_list(tmp_path: Path) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    with Device(tmp_path, seed=seed, admins=[f"uid:{ME + 1}"]) as device:
        for path, body in CHANGES:
            answer = device.post(path, body)
            assert answer.status == 403, path
            assert f"uid {ME}" in answer.json()["error"]
        code, _, said = run(device, "release", "stage", str(bundle(tmp_path / "v2")), "--manual")
        assert code == 1
        assert "release.admins" in said
        assert device.ask().is_right
        assert device.get("/admin/releases").status == 200
        text = device.config.read_text("utf-8").replace(f"uid:{ME + 1}", f"uid:{ME}")
        device.config.write_text(text, "utf-8")
        device.daemon.process.send_signal(signal.SIGHUP)
        load = CHANGES[0][0]
        eventually(lambda: device.post(load).status == 200, "the new list's being taken")


def test_a_list_of_admins_that_names_nobody_is_a_wrong_configuration(tmp_path: Path) -> None:
    text = "[release]\nadmins = ['ann']\n"
    config = tmp_path / "c.toml"
    config.write_text(text, "utf-8")
    model = add_constant(tmp_path / "m.onnx", 1.0)
    done = subprocess.run(
        [COMMAND, "serve", f"m={model}", "--config", str(config), "--socket", f"{tmp_path}/r"],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 4
    assert "release.admins: 'ann' is no rule" in done.stderr
