"""Facts of model files, for a program and for a person."""

from pathlib import Path

import msgspec
import pytest

from quantize.errors import BadInputError
from quantize.inspection import Inspection, as_text, inspect
from quantize.passes.lifting import LIFTING
from tests import quantize_models as models


def test_the_work_of_a_convolution_network_is_counted_by_operator(tmp_path: Path) -> None:
    facts = inspect(models.cnn(tmp_path / "m.onnx"))
    work = {each.operator: each for each in facts.operators}
    stem = 16 * 16 * 16 * (3 * 9)
    block = 2 * 16 * 16 * 16 * (16 * 9)
    down = 32 * 8 * 8 * (16 * 9)
    assert work["Conv"].products == stem + block + down
    assert work["Gemm"].products == 10 * 32
    assert work["Relu"].products == 0
    assert facts.products == stem + block + down + 320
    assert facts.quantizable_share == 1
    assert facts.operators[0].operator == "Conv"
    assert work["Conv"].nodes == 4
    assert work["Conv"].parameters == 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32)


def test_products_of_two_activations_are_not_counted_as_quantisable(tmp_path: Path) -> None:
    facts = inspect(models.transformer(tmp_path / "m.onnx"))
    assert facts.transformer == "bert"
    weighted = 4 * 32 * 32 + 2 * 32 * 128
    between = 2 * 32  # one token: 4 heads, 1x8 times 8x1 and 1x1 times 1x8
    assert facts.products == weighted + between
    assert facts.quantizable_share == weighted / (weighted + between)


def test_weights_that_nodes_make_count_as_weights(tmp_path: Path) -> None:
    old = inspect(models.opset9(tmp_path / "old.onnx"))
    new = inspect(models.cnn(tmp_path / "new.onnx"))
    assert old.opset == 9
    assert old.quantizable_share == 1
    assert old.products == new.products


def test_signature_storage_and_digest_are_stated(tmp_path: Path) -> None:
    facts = inspect(models.external(tmp_path / "m.onnx"))
    assert facts.external == ("m.onnx.data",)
    assert facts.inputs[0].shape == ("batch", 16)
    assert facts.inputs[0].datatype == "float"
    assert facts.parameters == {"float": 16 * 64 + 64 + 64 * 32 + 32 + 32 * 4 + 4}
    assert len(facts.sha256) == 64
    assert facts.size_bytes > 4 * facts.parameters["float"]


def test_a_quantised_model_says_whether_it_is_portable(tmp_path: Path) -> None:
    facts = inspect(models.quantized(tmp_path / "m.onnx"))
    assert facts.is_quantized
    assert facts.portable
    assert "portable" in as_text(facts)


def test_a_float_model_is_neither_portable_nor_not(tmp_path: Path) -> None:
    facts = inspect(models.mlp(tmp_path / "m.onnx"))
    assert facts.portable is None
    assert "quantised  no; 100.0 % of it could be" in as_text(facts)


def test_an_inspection_goes_through_json(tmp_path: Path) -> None:
    facts = inspect(models.transformer(tmp_path / "m.onnx"))
    data = msgspec.json.encode(facts)
    assert msgspec.json.decode(data, type=Inspection) == facts


def test_the_text_names_every_input_output_and_operator(tmp_path: Path) -> None:
    facts = inspect(models.cnn(tmp_path / "m.onnx"))
    text = as_text(facts)
    for words in ("image float [batch, 3, 16, 16]", "logits float [batch, 10]", facts.sha256):
        assert words in text
    for each in facts.operators:
        assert each.operator in text


def test_the_file_is_only_read(tmp_path: Path) -> None:
    path = models.external(tmp_path / "m.onnx")
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    inspect(path)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_lifting_leaves_the_work_as_it_is(tmp_path: Path) -> None:
    path = models.opset9(tmp_path / "m.onnx")
    LIFTING.call(path, tmp_path / "new" / "m.onnx")
    assert inspect(tmp_path / "new" / "m.onnx").products == inspect(path).products


def test_what_cannot_be_used_is_refused_here_too(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="Mystery"):
        inspect(models.custom_operator(tmp_path / "m.onnx"))
