"""What is refused before anything is done, and which facts a model file gives."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantize.errors import BadInputError
from quantize.model import storage
from quantize.model.opset import lifted
from quantize.model.shapes import dimensions
from quantize.model.source import open_model
from tests import quantize_models as models


def _refusal(path: Path) -> str:
    with pytest.raises(BadInputError) as caught:
        open_model(path)
    assert "\n" not in caught.value.message
    return caught.value.message


def _edited(path: Path, edit: Callable[[onnx.ModelProto], object]) -> Path:
    model = storage.load_graph(path)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_float_model_gives_its_facts(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "cnn.onnx")
    source = open_model(path)
    assert (source.opset, source.ir_version) == (models.OPSET, models.IR_VERSION)
    assert source.nodes == len(storage.load_graph(path).graph.node) == 16
    assert source.operators["Conv"] == 4
    assert (source.inputs, source.outputs) == (("image",), ("logits",))
    assert source.size_bytes == path.stat().st_size
    assert not source.is_quantized


def test_stored_tensors_listed_as_inputs_need_not_be_fed(tmp_path: Path) -> None:
    assert open_model(models.opset9(tmp_path / "old.onnx")).inputs == ("image",)


def test_the_digest_changes_with_a_weight_that_is_kept_beside_the_model(tmp_path: Path) -> None:
    path = models.external(tmp_path / "m.onnx")
    before = open_model(path)
    assert before.external == ("m.onnx.data",)
    weights = tmp_path / "m.onnx.data"
    assert before.size_bytes == path.stat().st_size + weights.stat().st_size
    changed = bytearray(weights.read_bytes())
    changed[0] ^= 1
    weights.write_bytes(changed)
    assert open_model(path).sha256 != before.sha256


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"just some text in a file", "is not an ONNX model"),
        (b"PK\x03\x04rest", "PyTorch"),
        (b"\x1c\x00\x00\x00TFL3rest", "TensorFlow Lite"),
    ],
)
def test_what_is_not_an_onnx_model_is_told_apart(
    tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert words in _refusal(path)


def test_a_file_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    assert "copy it completely" in _refusal(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    assert "folder" in _refusal(tmp_path)
    assert "does not exist" in _refusal(tmp_path / "none.onnx")


def test_a_custom_operator_is_named_with_its_node(tmp_path: Path) -> None:
    message = _refusal(models.custom_operator(tmp_path / "m.onnx"))
    assert "acme.layers.Mystery" in message
    assert "'secret'" in message


def test_an_operator_that_onnx_never_had_is_named(tmp_path: Path) -> None:
    def rename(model: onnx.ModelProto) -> None:
        model.graph.node[1].op_type = "Rectify"

    assert "Rectify" in _refusal(_edited(models.mlp(tmp_path / "m.onnx"), rename))


def test_a_quantised_model_is_refused_unless_it_is_only_looked_at(tmp_path: Path) -> None:
    path = models.quantized(tmp_path / "m.onnx")
    assert "quantised already" in _refusal(path)
    assert open_model(path, quantized_too=True).is_quantized


def test_weights_that_are_missing_or_too_short_are_refused(tmp_path: Path) -> None:
    path = models.external(tmp_path / "m.onnx")
    weights = tmp_path / "m.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert "copy it completely" in _refusal(path)
    weights.unlink()
    assert "m.onnx.data" in _refusal(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd"])
def test_weights_outside_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))

    def escape(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location

    path = _edited(models.external(tmp_path / "in" / "m.onnx"), escape)
    assert "not a file name within its folder" in _refusal(path)


def test_weights_behind_a_link_that_leaves_the_folder_are_refused(tmp_path: Path) -> None:
    path = models.external(tmp_path / "in" / "m.onnx")
    weights = path.parent / "m.onnx.data"
    weights.replace(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    assert "leaves the model's folder" in _refusal(path)


def test_weights_with_two_names_are_accepted(tmp_path: Path) -> None:
    path = models.external(tmp_path / "m.onnx")
    os.link(tmp_path / "m.onnx.data", tmp_path / "another name")
    assert open_model(path).external


def test_a_model_without_inputs_or_outputs_is_refused(tmp_path: Path) -> None:
    def cut(model: onnx.ModelProto) -> None:
        del model.graph.output[:]

    assert "has no output" in _refusal(_edited(models.mlp(tmp_path / "m.onnx"), cut))


def test_an_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    def sequence(model: onnx.ModelProto) -> None:
        value = helper.make_tensor_sequence_value_info("z", TensorProto.FLOAT, None)
        model.graph.node.append(helper.make_node("SequenceConstruct", ["x"], ["z"]))
        model.graph.output.append(value)

    assert "sequence, not a tensor" in _refusal(_edited(models.mlp(tmp_path / "m.onnx"), sequence))


def test_a_graph_that_the_checker_refuses_is_refused_in_its_words(tmp_path: Path) -> None:
    def dangle(model: onnx.ModelProto) -> None:
        model.graph.node[0].input[0] = "nowhere"

    message = _refusal(_edited(models.mlp(tmp_path / "m.onnx"), dangle))
    assert "is not a valid ONNX model" in message
    assert "nowhere" in message


def test_an_output_whose_shape_nobody_wrote_down_is_accepted(tmp_path: Path) -> None:
    def forget(model: onnx.ModelProto) -> None:
        model.graph.output[0].type.tensor_type.ClearField("shape")

    path = _edited(models.mlp(tmp_path / "m.onnx"), forget)
    assert open_model(path).outputs == ("y",)
    assert dimensions(lifted(storage.load_graph(path), path.name))["y"] == (None, 4)


def test_saving_puts_large_weights_beside_the_model_and_loading_brings_them_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "ONE_FILE_BYTES_MAX", 4000)
    model = storage.load_graph(models.mlp(tmp_path / "m.onnx"))
    expected = [numpy_helper.to_array(each) for each in model.graph.initializer]
    path = tmp_path / "out" / "large.onnx"
    storage.save(model, path)
    assert (path.parent / "large.onnx.data").stat().st_size > 4000
    assert path.stat().st_size < 4000
    found = [numpy_helper.to_array(each) for each in storage.load_whole(path).graph.initializer]
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
    storage.remove(path)
    assert not list(path.parent.iterdir())


def test_saving_never_appends_to_weights_that_the_model_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.external(tmp_path / "m.onnx")
    before = (tmp_path / "m.onnx.data").read_bytes()
    monkeypatch.setattr(storage, "ONE_FILE_BYTES_MAX", 1000)
    model = storage.load_graph(path)
    tensor = helper.make_tensor("more", TensorProto.FLOAT, [1000], bytes(4000), raw=True)
    model.graph.initializer.append(tensor)
    storage.save(model, path, weights_in=tmp_path)
    assert (tmp_path / "m.onnx.data").read_bytes() == before
    assert open_model(path).external == ("m.onnx.data", "m.onnx.data.data")
