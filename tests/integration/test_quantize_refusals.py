"""What ``edge-quantize`` refuses: in a sentence, with exit code 4, and nothing is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests import quantize_models
from tests.quantize_command import DIGITS, IMAGES, few, quantize

pytestmark = pytest.mark.integration


def _not_onnx(folder: Path) -> list[object]:
    (folder / "m.onnx").write_text("this is no model")
    return ["m.onnx", "--data", few(folder)]


def _custom_operator(folder: Path) -> list[object]:
    quantize_models.custom_operator(folder / "m.onnx")
    return ["m.onnx", "--data", few(folder)]


def _quantised_already(folder: Path) -> list[object]:
    quantize_models.quantized(folder / "m.onnx")
    return ["m.onnx", "--data", few(folder)]


def _with_data(**arrays: Any) -> Callable[[Path], list[object]]:  # noqa: ANN401 - any arrays
    def make(folder: Path) -> list[object]:
        quantize_models.mlp(folder / "m.onnx")
        np.savez(folder / "data.npz", **arrays)
        return ["m.onnx", "--data", "data.npz"]

    return make


def _labels_missing(folder: Path) -> list[object]:
    quantize_models.mlp(folder / "m.onnx")
    return ["m.onnx", "--data", few(folder), "--metric", "top1"]


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
    return ["inner/m.onnx", "--data", few(folder)]


def _with_options(*options: str) -> Callable[[Path], list[object]]:
    def make(folder: Path) -> list[object]:
        quantize_models.mlp(folder / "m.onnx")
        return ["m.onnx", "--data", few(folder), *options]

    return make


def _unknown_field(folder: Path) -> list[object]:
    (folder / "recipe.toml").write_text("flor = 0.9\n")
    return [*_with_options("--recipe", "recipe.toml")(folder)]


def _unknown_node(folder: Path) -> list[object]:
    (folder / "recipe.toml").write_text('exclude = ["nowhere"]\n')
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
    "unknown node": (_unknown_node, "no node 'nowhere'"),
    "negative seed": (_with_options("--seed", "-1"), "seed"),
    "no such metric function": (_with_options("--metric", "nosuch:metric"), "nosuch"),
    "data missing": (_with_options("--evaluate", "nowhere.npz"), "nowhere.npz"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_in_a_sentence_and_nothing_is_written(
    case: str, tmp_path: Path
) -> None:
    make, word = BAD[case]
    arguments = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = quantize(*arguments, "-q", "-o", "out", cwd=tmp_path)
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
    done = quantize("m.onnx", "--data", few(tmp_path), "-q", "-o", "out", cwd=tmp_path)
    assert done.returncode == 4
    assert "did not write" in done.stderr
    assert (tmp_path / "out" / "thesis.txt").read_text() == "the only copy"


@pytest.mark.parametrize("content", [None, "no model"])
def test_what_cannot_be_compared_is_bad_input(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "other.onnx").write_text(content)
    done = quantize("compare", DIGITS, "other.onnx", "--data", IMAGES, cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr.startswith("edge-quantize: cannot load other.onnx: ")
    assert done.stderr.count("\n") == 1


def test_wrong_usage_is_exit_code_4(tmp_path: Path) -> None:
    assert quantize("inspect", cwd=tmp_path).returncode == 4
    assert quantize("m.onnx", "--goal", "speed", cwd=tmp_path).returncode == 4
    assert quantize("m.onnx", "--time-budget", "soon", cwd=tmp_path).returncode == 4
