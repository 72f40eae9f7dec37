"""``edge-quantize`` from outside: endings, exit codes, what is written, and what never is."""

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests import quantize_models
from tests.daemons import eventually
from tests.quantize_command import COMMAND, DIGITS, IMAGES, environment, few, quantize, report

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def small_digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle of the digits made for size, and what the command printed."""
    folder = tmp_path_factory.mktemp("digits")
    done = quantize(
        DIGITS, "--data", IMAGES, "--goal", "size", "--name", "digits",
        "--floor", "0.98", "-o", "bundle", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "bundle", done.stdout


def test_a_smaller_model_that_keeps_the_floor_is_shipped(small_digits: tuple[Path, str]) -> None:
    bundle, printed = small_digits
    found = report(bundle)
    chosen = next(trial for trial in found["trials"] if trial["name"] == found["chosen"])
    assert found["ending"] == "met"
    assert chosen["size_bytes"] < 0.6 * found["baseline"]["size_bytes"]
    assert chosen["held_out"]["low"] >= 0.98
    assert chosen["held_out"]["metric"] == "top1"
    assert "held-out samples" in printed


def test_the_bundle_holds_a_variant_for_every_cpu(small_digits: tuple[Path, str]) -> None:
    bundle, _ = small_digits
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["name"] == "digits"
    assert not manifest["variants"][-1].get("requires", {}).get("cpu_flags")
    assert manifest["provenance"]["accuracy"]["low"] > 0.9
    assert manifest["acceptance"]["goldens"]


def test_nothing_is_left_beside_the_bundle(small_digits: tuple[Path, str]) -> None:
    bundle, _ = small_digits
    assert {path.name for path in bundle.parent.iterdir()} == {"bundle", "cache"}


def test_the_bundle_verifies_where_it_was_made(small_digits: tuple[Path, str]) -> None:
    bundle, _ = small_digits
    done = quantize("verify", bundle, "--json", cwd=bundle.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["verdict"] == "good"


def test_a_bundle_that_was_changed_does_not_verify(
    small_digits: tuple[Path, str], tmp_path: Path
) -> None:
    bundle, _ = small_digits
    subprocess.run(["cp", "-r", bundle, tmp_path / "bundle"], check=True)
    model = next((tmp_path / "bundle").glob("*/model.onnx"))
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    model.write_bytes(data)
    done = quantize("verify", "bundle", cwd=tmp_path)
    assert done.returncode == 2
    assert "SHA-256" in done.stderr


def test_the_report_is_printed_again(small_digits: tuple[Path, str]) -> None:
    bundle, _ = small_digits
    done = quantize("report", bundle, cwd=bundle.parent)
    assert done.returncode == 0
    assert done.stdout.strip() == (bundle / "report.md").read_text().split("![")[0].strip() or (
        "## What was tried" in done.stdout
    )


def test_a_bundle_is_compared_with_its_float_model(small_digits: tuple[Path, str]) -> None:
    bundle, _ = small_digits
    done = quantize("compare", DIGITS, bundle, "--data", IMAGES, "--json", cwd=bundle.parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["score"]["ratio"] > 0.98


def test_a_model_that_int8_makes_slower_keeps_its_float_form(tmp_path: Path) -> None:
    done = quantize(
        DIGITS, "--data", IMAGES, "--floor", "0.97", "--json", "-q", "--time-budget", "15s",
        "-o", "bundle", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["ending"] == "not-faster"
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert [variant["name"] for variant in manifest["variants"]] == ["fp32"]
    assert done.stderr == ""


def test_a_floor_out_of_reach_ships_a_report_and_no_model(tmp_path: Path) -> None:
    quantize_models.mlp(tmp_path / "m.onnx")
    done = quantize(
        "m.onnx", "--data", few(tmp_path), "--floor", "1", "--goal", "size",
        "--time-budget", "10s", "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert (tmp_path / "out" / "report.md").is_file()
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not [*(tmp_path / "out").rglob("*.onnx")]
    found = report(tmp_path / "out")
    assert found["trials"]
    assert found["next_steps"]


def test_too_few_held_out_samples_are_told_with_how_many_are_needed(tmp_path: Path) -> None:
    with np.load(IMAGES) as arrays:
        np.savez(tmp_path / "few.npz", **{name: arrays[name][:60] for name in arrays.files})
    done = quantize(
        DIGITS, "--data", "few.npz", "--goal", "size", "--time-budget", "10s", "-o", "out",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    needed = [
        trial["held_out"]["samples_needed"]
        for trial in report(tmp_path / "out")["trials"]
        if trial.get("held_out")
    ]
    assert any(number and number > 100 for number in needed)
    assert "would tell" in (tmp_path / "out" / "report.md").read_text()


def test_latency_of_another_cpu_is_never_guessed(tmp_path: Path) -> None:
    quantize_models.mlp(tmp_path / "m.onnx")
    done = quantize(
        "m.onnx", "--data", few(tmp_path), "--floor", "0.5", "--target", "arm64-dotprod",
        "--time-budget", "10s", "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(not trial.get("latency") for trial in report(tmp_path / "out")["trials"])
    assert "not measured" in (tmp_path / "out" / "report.md").read_text()


#: A score that is not given once four candidates are known: a signal always comes in time.
HELD = """\
import time
from pathlib import Path

import numpy as np

JOURNAL = Path(".out.work/journal.jsonl")

def spread(outputs, labels):
    while not Path("go").exists() and JOURNAL.read_text().count('"trial"') > 3:
        time.sleep(0.01)
    return np.abs(outputs["logits"]).mean(axis=1)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_search_goes_on_where_it_stopped(
    tmp_path: Path, end: signal.Signals
) -> None:
    quantize_models.cnn(tmp_path / "m.onnx")
    images = np.random.default_rng(2).normal(size=(400, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    (tmp_path / "held.py").write_text(HELD)
    arguments = ["m.onnx", "--data", "data.npz", "--goal", "size", "--floor", "0.9",
                 "--metric", "held:spread", "-o", "out"]  # fmt: skip
    journal = tmp_path / ".out.work" / "journal.jsonl"
    with subprocess.Popen(
        [COMMAND, *arguments],
        cwd=tmp_path,
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            eventually(
                lambda: journal.exists() and journal.read_text().count('"trial"') > 3,
                "some candidates were tried",
            )
            process.send_signal(end)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()  # it is held: nobody else would end it
    if end is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert "the same command goes on" in said
    assert not (tmp_path / "out").exists()
    (tmp_path / "go").touch()
    done = quantize(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "results of an interrupted search" in done.stderr
    assert not (tmp_path / ".out.work").exists()


def test_a_model_within_the_output_is_never_replaced(
    small_digits: tuple[Path, str], tmp_path: Path
) -> None:
    subprocess.run(["cp", "-r", small_digits[0], tmp_path / "out"], check=True)
    model = next((tmp_path / "out").glob("*/model.onnx"))
    done = quantize(model, "--data", IMAGES, "-q", "-o", "out", cwd=tmp_path)
    assert done.returncode == 4
    assert "lies in out" in done.stderr
    assert model.is_file()


def test_inspect_tells_what_a_model_is(tmp_path: Path) -> None:
    done = quantize("inspect", DIGITS, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["opset"] == 17
    assert "Conv" in quantize("inspect", DIGITS, cwd=tmp_path).stdout


@pytest.mark.parametrize("command", ["", "quantize", "inspect", "compare", "verify", "report"])
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    done = quantize(*([command] if command else []), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "edge-quantize" in done.stdout
    assert "example" in done.stdout
