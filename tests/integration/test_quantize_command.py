"""``edge-quantize`` from outside: endings, exit codes, what is written, and what never is."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests import quantize_models
from tests.daemons import eventually

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
COMMAND = Path(sys.executable).with_name("edge-quantize")
DIGITS = ROOT / "examples" / "digits" / "digits-fp32.onnx"
IMAGES = ROOT / "examples" / "digits" / "test.npz"


def _quantize(
    *arguments: object, cwd: Path, timeout_s: float = 50
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout_s,
        env=_environment(cwd),
    )


def _environment(home: Path) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(home / "cache")}


def _few(tmp_path: Path, **more: Any) -> Path:  # noqa: ANN401 - any arrays
    """Samples for ``quantize_models.mlp``."""
    path = tmp_path / "few.npz"
    arrays = {"x": np.random.default_rng(1).normal(size=(60, 16)).astype(np.float32)}
    np.savez(path, **(arrays | more))
    return path


def _report(bundle: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((bundle / "report.json").read_text())
    return report


@pytest.fixture(scope="module")
def small_digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle of the digits made for size, and what the command printed."""
    folder = tmp_path_factory.mktemp("digits")
    done = _quantize(
        DIGITS, "--data", IMAGES, "--goal", "size", "--name", "digits",
        "--floor", "0.98", "-o", "bundle", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "bundle", done.stdout


def test_a_smaller_model_that_keeps_the_floor_is_shipped(small_digits: tuple[Path, str]) -> None:
    bundle, printed = small_digits
    report = _report(bundle)
    chosen = next(trial for trial in report["trials"] if trial["name"] == report["chosen"])
    assert report["ending"] == "met"
    assert chosen["size_bytes"] < 0.6 * report["baseline"]["size_bytes"]
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
    done = _quantize("verify", bundle, "--json", cwd=bundle.parent)
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
    done = _quantize("verify", "bundle", cwd=tmp_path)
    assert done.returncode == 2
    assert "SHA-256" in done.stderr


def test_the_report_is_printed_again(small_digits: tuple[Path, str]) -> None:
    bundle, _ = small_digits
    done = _quantize("report", bundle, cwd=bundle.parent)
    assert done.returncode == 0
    assert done.stdout.strip() == (bundle / "report.md").read_text().split("![")[0].strip() or (
        "## What was tried" in done.stdout
    )


def test_a_bundle_is_compared_with_its_float_model(small_digits: tuple[Path, str]) -> None:
    bundle, _ = small_digits
    done = _quantize("compare", DIGITS, bundle, "--data", IMAGES, "--json", cwd=bundle.parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["score"]["ratio"] > 0.98


def test_a_model_that_int8_makes_slower_keeps_its_float_form(tmp_path: Path) -> None:
    done = _quantize(
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
    done = _quantize(
        "m.onnx", "--data", _few(tmp_path), "--floor", "1", "--goal", "size",
        "--time-budget", "10s", "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert (tmp_path / "out" / "report.md").is_file()
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not [*(tmp_path / "out").rglob("*.onnx")]
    report = _report(tmp_path / "out")
    assert report["trials"]
    assert report["next_steps"]


def test_too_few_held_out_samples_are_told_with_how_many_are_needed(tmp_path: Path) -> None:
    with np.load(IMAGES) as arrays:
        np.savez(tmp_path / "few.npz", **{name: arrays[name][:60] for name in arrays.files})
    done = _quantize(
        DIGITS, "--data", "few.npz", "--goal", "size", "--time-budget", "10s", "-o", "out",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    needed = [
        trial["held_out"]["samples_needed"]
        for trial in _report(tmp_path / "out")["trials"]
        if trial.get("held_out")
    ]
    assert any(number and number > 100 for number in needed)
    assert "would tell" in (tmp_path / "out" / "report.md").read_text()


def test_latency_of_another_cpu_is_never_guessed(tmp_path: Path) -> None:
    quantize_models.mlp(tmp_path / "m.onnx")
    done = _quantize(
        "m.onnx", "--data", _few(tmp_path), "--floor", "0.5", "--target", "arm64-dotprod",
        "--time-budget", "10s", "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert all(not trial.get("latency") for trial in _report(tmp_path / "out")["trials"])
    assert "not measured" in (tmp_path / "out" / "report.md").read_text()


def test_an_interrupted_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    quantize_models.cnn(tmp_path / "m.onnx")
    images = np.random.default_rng(2).normal(size=(400, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    arguments = ["m.onnx", "--data", "data.npz", "--goal", "size", "--floor", "0.9",
                 "-o", "out"]  # fmt: skip
    journal = tmp_path / ".out.work" / "journal.jsonl"
    with subprocess.Popen(
        [COMMAND, *arguments],
        cwd=tmp_path,
        env=_environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        eventually(
            lambda: journal.exists() and journal.read_text().count('"trial"') > 3,
            "some candidates were tried",
        )
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert not (tmp_path / "out").exists()
    done = _quantize(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "results of an interrupted search" in done.stderr
    assert not (tmp_path / ".out.work").exists()


def _not_onnx(folder: Path) -> list[object]:
    (folder / "m.onnx").write_text("this is no model")
    return ["m.onnx", "--data", _few(folder)]


def _custom_operator(folder: Path) -> list[object]:
    quantize_models.custom_operator(folder / "m.onnx")
    return ["m.onnx", "--data", _few(folder)]


def _quantised_already(folder: Path) -> list[object]:
    quantize_models.quantized(folder / "m.onnx")
    return ["m.onnx", "--data", _few(folder)]


def _with_data(**arrays: Any) -> Callable[[Path], list[object]]:  # noqa: ANN401 - any arrays
    def make(folder: Path) -> list[object]:
        quantize_models.mlp(folder / "m.onnx")
        np.savez(folder / "data.npz", **arrays)
        return ["m.onnx", "--data", "data.npz"]

    return make


def _labels_missing(folder: Path) -> list[object]:
    quantize_models.mlp(folder / "m.onnx")
    return ["m.onnx", "--data", _few(folder), "--metric", "top1"]


def _too_old(folder: Path) -> list[object]:
    node = helper.make_node("Upsample", ["x"], ["y"], width_scale=2.0, height_scale=2.0)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "old",
        [value("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [value("y", TensorProto.FLOAT, [1, 1, 8, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 1)], ir_version=3)
    onnx.save(model, folder / "m.onnx")
    np.savez(folder / "data.npz", x=np.zeros((9, 1, 4, 4), np.float32))
    return ["m.onnx", "--data", "data.npz"]


def _escaping(folder: Path) -> list[object]:
    (folder / "inner").mkdir()
    quantize_models.external(folder / "inner" / "m.onnx")
    model = onnx.load(folder / "inner" / "m.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../m.onnx.data"
    (folder / "inner" / "m.onnx.data").rename(folder / "m.onnx.data")
    onnx.save(model, folder / "inner" / "m.onnx")
    return ["inner/m.onnx", "--data", _few(folder)]


def _with_options(*options: str) -> Callable[[Path], list[object]]:
    def make(folder: Path) -> list[object]:
        quantize_models.mlp(folder / "m.onnx")
        return ["m.onnx", "--data", _few(folder), *options]

    return make


def _unknown_field(folder: Path) -> list[object]:
    (folder / "recipe.toml").write_text("flor = 0.9\n")
    return [*_with_options("--recipe", "recipe.toml")(folder)]


NORMAL = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
BAD: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "not ONNX": (_not_onnx, "not an ONNX"),
    "custom operator": (_custom_operator, "Mystery"),
    "quantised already": (_quantised_already, "quantised already"),
    "no samples": (_with_data(x=np.zeros((0, 16), np.float32)), "sample"),
    "one sample": (_with_data(x=NORMAL[:1]), "sample"),
    "wrong name": (_with_data(y=NORMAL), "'x'"),
    "wrong shape": (_with_data(x=NORMAL[:, :7]), "16"),
    "wrong dtype": (_with_data(x=NORMAL.astype(np.float64)), "float64"),
    "NaN": (_with_data(x=np.where(NORMAL > 2, np.float32("nan"), NORMAL)), "NaN"),
    "labels missing": (_labels_missing, "labels missing"),
    "labels too few": (_with_data(x=NORMAL, labels=np.zeros(5, np.int64)), "labels"),
    "opset too old": (_too_old, "opset"),
    "external data outside": (_escaping, "within its folder"),
    "floor out of range": (_with_options("--floor", "1.5"), "floor"),
    "no such metric": (_with_options("--metric", "best"), "no metric"),
    "no such output": (_with_options("--metric-output", "z"), "no output"),
    "unstructured pruning": (_with_options("--prune", "unstructured"), "make nothing faster"),
    "bad model name": (_with_options("--name", "bad/name"), "model name"),
    "unknown field in a recipe": (_unknown_field, "did you mean floor"),
    "data missing": (_with_options("--evaluate", "nowhere.npz"), "nowhere.npz"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_in_a_sentence_and_nothing_is_written(
    case: str, tmp_path: Path
) -> None:
    make, word = BAD[case]
    arguments = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = _quantize(*arguments, "-q", "-o", "out", cwd=tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert word in done.stderr
    assert done.stderr.startswith(("edge-quantize: ", "usage: "))
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    quantize_models.mlp(tmp_path / "m.onnx")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("the only copy")
    done = _quantize("m.onnx", "--data", _few(tmp_path), "-q", "-o", "out", cwd=tmp_path)
    assert done.returncode == 4
    assert "did not write" in done.stderr
    assert (tmp_path / "out" / "thesis.txt").read_text() == "the only copy"


def test_inspect_tells_what_a_model_is(tmp_path: Path) -> None:
    done = _quantize("inspect", DIGITS, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["opset"] == 17
    assert "Conv" in _quantize("inspect", DIGITS, cwd=tmp_path).stdout


@pytest.mark.parametrize("command", ["", "quantize", "inspect", "compare", "verify", "report"])
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    done = _quantize(*([command] if command else []), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "edge-quantize" in done.stdout
    assert "example" in done.stdout


def test_wrong_usage_is_exit_code_4(tmp_path: Path) -> None:
    assert _quantize("inspect", cwd=tmp_path).returncode == 4
    assert _quantize("m.onnx", "--goal", "speed", cwd=tmp_path).returncode == 4
    assert _quantize("m.onnx", "--time-budget", "soon", cwd=tmp_path).returncode == 4
