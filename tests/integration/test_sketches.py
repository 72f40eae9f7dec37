"""Sketches of a real daemon's outputs: nothing before somebody asks, then what was answered."""

from typing import Any

import pytest

from tests.conftest import DIGITS
from tests.daemons import Daemon, daemon, eventually

pytestmark = pytest.mark.integration

MODEL = f"digits={DIGITS / 'digits-int8.onnx'}"
IMAGE = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}


def sketches(running: Daemon) -> list[dict[str, Any]]:
    answer = running.request("GET", "/admin/sketches", admin=True)
    assert answer.status == 200
    versions: list[dict[str, Any]] = answer.json()["versions"]
    return versions


def test_outputs_are_counted_from_the_moment_that_somebody_asks() -> None:
    with daemon(MODEL) as running:
        assert running.infer("digits", [IMAGE]).status == 200
        assert sketches(running) == []

        def is_counted() -> bool:
            assert running.infer("digits", [IMAGE]).status == 200
            return bool(sketches(running))

        eventually(is_counted, "an answer's sketch")
        (version,) = sketches(running)
    assert (version["model"], version["version"]) == ("digits", "1")
    assert len(version["digest"]) == 64
    for output in version["outputs"]:
        assert output["rows"] >= 1
        classes = [count for key, count in output["counts"].items() if key.startswith("class:")]
        assert sum(classes) == output["rows"]


def test_the_data_door_tells_no_sketches() -> None:
    with daemon(MODEL) as running:
        assert running.request("GET", "/admin/sketches").status == 404
