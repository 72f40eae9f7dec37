"""``edge-quantize`` with its options: recipes, goals, metrics, pruning, forms of samples."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests import quantize_models
from tests.quantize_command import quantize, report

pytestmark = pytest.mark.integration


def test_a_recipe_file_says_what_is_tried(tmp_path: Path) -> None:
    quantize_models.cnn(tmp_path / "m.onnx")
    images = np.random.default_rng(2).normal(size=(200, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    (tmp_path / "recipe.toml").write_text(
        'goal = "size"\nfloor = 0.9\nexclude = ["head"]\n'
        '[[recipes]]\nname = "mine"\nkind = "static"\nactivation = "QUInt8"\n'
        'weight = "QInt8"\nreduce_range = true\nper_channel = true\ncalibration = "minmax"\n'
        '[[recipes]]\nname = "impossible"\nkind = "matmul-nbits"\nbits = 4\nblock_size = 32\n'
    )
    done = quantize(
        "m.onnx", "--data", "data.npz", "--recipe", "recipe.toml", "-q", "-o", "out", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    trials = {trial["name"]: trial for trial in report(tmp_path / "out")["trials"]}
    assert set(trials) == {"mine", "impossible"}
    assert trials["mine"]["excluded"] == ["head"]
    assert trials["impossible"]["status"] == "failed"
    assert "finds no MatMul" in trials["impossible"]["reason"]


def test_the_goal_memory_and_a_metric_of_the_users_own(tmp_path: Path) -> None:
    quantize_models.mlp(tmp_path / "m.onnx", sizes=(64, 1024, 1024, 16))
    samples = np.random.default_rng(2).normal(size=(200, 64)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=samples)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def spread(outputs, labels):\n"
        "    return np.abs(outputs['y']).mean(axis=1)\n"
    )
    done = quantize(
        "m.onnx", "--data", "data.npz", "--goal", "memory", "--metric", "mine:spread",
        "--floor", "0.9", "--time-budget", "15s", "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = report(tmp_path / "out")
    chosen = next(trial for trial in found["trials"] if trial["name"] == found["chosen"])
    assert 0 < chosen["memory_bytes"] < found["baseline"]["memory_bytes"]
    # What devices cannot compute is told where it is read.
    assert "Note: The goldens carry no score" in done.stdout
    assert quantize("verify", "out", cwd=tmp_path).returncode == 0


def test_channels_are_removed_under_the_same_floor(tmp_path: Path) -> None:
    quantize_models.cnn(tmp_path / "m.onnx", width=32)
    images = np.random.default_rng(2).normal(size=(200, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", image=images)
    done = quantize(
        "m.onnx", "--data", "data.npz", "--prune", "--goal", "size", "--floor", "0.5",
        "-q", "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = {trial["name"]: trial for trial in report(tmp_path / "out")["trials"]}
    assert trials["pruned-10"]["size_bytes"] > trials["pruned-20"]["size_bytes"]
    assert any(name.startswith("pruned-") and trial["recipe"]["kind"] != "float32"
               for name, trial in trials.items())  # fmt: skip


def test_folders_of_onnx_test_data_are_samples(tmp_path: Path) -> None:
    quantize_models.mlp(tmp_path / "m.onnx")
    random = np.random.default_rng(3)
    for number in range(30):
        folder = tmp_path / "sets" / f"test_data_set_{number}"
        folder.mkdir(parents=True)
        rows = random.normal(size=(4, 16)).astype(np.float32)
        tensor = onnx.numpy_helper.from_array(rows, "x")
        (folder / "input_0.pb").write_bytes(tensor.SerializeToString())
    done = quantize(
        "m.onnx", "--data", "sets", "--goal", "size", "--floor", "0.9", "--time-budget", "10s",
        "-q", "-o", "out", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    split = report(tmp_path / "out")["split"]
    assert split["calibration"] + split["search"] + split["held_out"] == 120
