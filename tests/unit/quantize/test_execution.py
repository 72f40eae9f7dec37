"""Loading and running model files: what works, and what is said where it does not."""

import json
from pathlib import Path

import numpy as np
import pytest

from quantize.errors import StepFailedError
from quantize.execution import open_runner, optimized_copy
from tests.conftest import DIGITS
from tests.models import add_constant, identity, two_inputs

FLOAT = DIGITS / "digits-fp32.onnx"


def test_says_what_a_model_takes_and_gives() -> None:
    with open_runner(FLOAT) as runner:
        assert [str(each) for each in runner.signature.inputs] == ["image float32 [?, 1, 8, 8]"]
        assert [str(each) for each in runner.signature.outputs] == [
            "scores float32 [?, 10]",
            "label int64 [?]",
        ]


def test_gives_outputs_by_name_in_the_order_asked_for(tmp_path: Path) -> None:
    with open_runner(two_inputs(tmp_path / "m.onnx")) as runner:
        feeds = {name: np.full((1, 2), size, np.float32) for name, size in (("a", 3), ("b", 1))}
        assert list(runner.run(feeds)) == ["sum", "difference"]
        assert {
            name: each.tolist() for name, each in runner.run(feeds, ["difference"]).items()
        } == {"difference": [[2, 2]]}


def test_takes_arrays_that_may_not_be_written_to(tmp_path: Path) -> None:
    array = np.ones((1, 2), np.float32)
    array.flags.writeable = False
    with open_runner(add_constant(tmp_path / "m.onnx", 1)) as runner:
        assert runner.run({"x": array})["y"].tolist() == [[2, 2]]


@pytest.mark.parametrize("level", ["all", "basic", "none"])
def test_every_level_gives_the_same_answers(tmp_path: Path, level: str) -> None:
    with open_runner(add_constant(tmp_path / "m.onnx", 1), optimize=level) as runner:  # type: ignore[arg-type]
        assert runner.run({"x": np.zeros((1, 2), np.float32)})["y"].tolist() == [[1, 1]]


@pytest.mark.parametrize(
    "feeds",
    [{}, {"image": np.zeros((1, 1, 8, 8))}, {"image": np.zeros((1, 1, 8, 4), np.float32)}],
    ids=["missing", "wrong dtype", "wrong shape"],
)
def test_a_run_that_fails_is_one_line_that_names_the_file(feeds: dict[str, object]) -> None:
    with open_runner(FLOAT) as runner, pytest.raises(StepFailedError) as told:
        runner.run(feeds)  # type: ignore[arg-type]
    assert told.value.message.startswith("digits-fp32.onnx: a run failed: ")
    assert "\n" not in told.value.message


@pytest.mark.parametrize("content", [None, b"", b"no model"], ids=["missing", "empty", "noise"])
def test_a_file_that_cannot_be_loaded_is_one_line_that_names_it(
    tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StepFailedError, match=r"^cannot load broken\.onnx: ") as told:
        open_runner(path)
    assert "\n" not in told.value.message
    assert str(tmp_path) not in told.value.message  # reports travel with bundles
    assert capfd.readouterr() == ("", "")


def test_what_numpy_cannot_hold_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = identity(tmp_path / "m.onnx", "BF16")
    with pytest.raises(StepFailedError, match=r"bfloat16.*export"):
        open_runner(path)


def test_leaves_a_profile_of_every_node_where_it_was_asked_for(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    with open_runner(FLOAT, profile=profile) as runner:
        runner.run({"image": np.zeros((1, 1, 8, 8), np.float32)})
        runner.close()  # and once more at the end of the block
    assert any(event["cat"] == "Node" for event in json.loads(profile.read_text("utf-8")))
    assert list(tmp_path.iterdir()) == [profile]


def test_an_optimised_copy_gives_the_same_answers(tmp_path: Path) -> None:
    copy = tmp_path / "copy.onnx"
    optimized_copy(FLOAT, copy)
    image = np.random.default_rng(0).random((4, 1, 8, 8), np.float32)
    with open_runner(FLOAT) as before, open_runner(copy) as after:
        assert before.signature == after.signature
        np.testing.assert_allclose(
            before.run({"image": image})["scores"], after.run({"image": image})["scores"], rtol=1e-5
        )


def test_nothing_is_left_of_an_optimised_copy_that_failed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(StepFailedError, match="cannot optimise broken"):
        optimized_copy(broken, tmp_path / "copy.onnx")
    assert list(tmp_path.iterdir()) == [broken]
