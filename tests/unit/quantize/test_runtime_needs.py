"""Which ONNX Runtime a bundle asks of a device."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from quantize import runtime_needs
from quantize.execution import RUNTIME_VERSION
from quantize.model.source import Source, open_model
from quantize.runtime_needs import FORMAT_MOST, LEAST, OPSET_MOST, oldest_release
from tests.conftest import DIGITS

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def source() -> Source:
    return open_model(DIGITS / "digits-int8.onnx", quantized_too=True)


def test_what_a_model_is_written_in_decides_not_what_it_was_made_with(source: Source) -> None:
    assert oldest_release([source], "1.32.0") == "1.29"
    assert oldest_release([source], "1.99.3") == "1.29"


@pytest.mark.parametrize(
    "changes",
    [
        {"opset": OPSET_MOST + 1},
        {"ir_version": FORMAT_MOST + 1},
        {"operators": {"com.microsoft.RMSNormRotary": 1}},
        {"operators": {"com.microsoft.OfTomorrow": 1}},
    ],
    ids=["operators' version", "file format", "operator of a newer release", "unknown operator"],
)
def test_what_is_not_known_to_be_older_needs_the_release_it_was_tried_with(
    source: Source, changes: dict[str, object]
) -> None:
    newer = replace(source, **changes)  # type: ignore[arg-type]
    assert oldest_release([source, newer], "1.32.0") == "1.32"


def test_operators_that_quantisers_write_are_in_the_oldest_release(source: Source) -> None:
    small = replace(source, operators={"com.microsoft.MatMulNBits": 3, "Conv": 1})
    assert oldest_release([small], RUNTIME_VERSION) == LEAST


def test_the_oldest_release_is_the_one_that_the_base_install_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (asked,) = [each for each in project["dependencies"] if each.startswith("onnxruntime>")]
    assert asked == f"onnxruntime>={runtime_needs.LEAST}"
    assert re.fullmatch(r"\d+\.\d+", LEAST)
