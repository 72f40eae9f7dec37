"""What TensorFlow Serving's REST interface says of models: their versions and signatures."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.datatypes import ALL, Datatype
from tests.daemons import Daemon, daemon
from tests.tensorflow_models import half_plus_three, write_configuration

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    config = write_configuration(tmp_path_factory.mktemp("served"))
    with daemon("--config", str(config)) as running:
        yield running


def test_status_of_a_model_is_what_the_documents_show(served: Daemon) -> None:
    only = {
        "version": "123",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    for path in ("half_plus_three", "half_plus_three/versions/123"):
        answer = served.request("GET", f"/v1/models/{path}")
        assert answer.json() == {"model_version_status": [only]}


def test_status_has_every_version_the_highest_first_and_why_one_failed(served: Daemon) -> None:
    status = served.request("GET", "/v1/models/three").json()["model_version_status"]
    states = [(each["version"], each["state"]) for each in status]
    assert states == [("11", "END"), ("10", "AVAILABLE"), ("2", "AVAILABLE"), ("1", "AVAILABLE")]
    assert status[0]["status"]["error_code"] == "UNKNOWN"
    assert "model.onnx" in status[0]["status"]["error_message"]
    (only,) = served.request("GET", "/v1/models/three/versions/11").json()["model_version_status"]
    assert only == status[0]


def test_an_unloaded_version_has_ended_without_an_error(tmp_path: Path) -> None:
    with daemon(f"m={half_plus_three(tmp_path / 'm.onnx')}") as running:
        assert running.request("POST", "/v2/repository/models/m/unload", admin=True).status == 200
        (only,) = running.request("GET", "/v1/models/m").json()["model_version_status"]
        assert only == {
            "version": "1",
            "state": "END",
            "status": {"error_code": "OK", "error_message": ""},
        }
        body = {"instances": [1.0]}
        assert running.request("POST", "/v1/models/m:predict", body).status == 503


def test_the_status_of_a_label_loads_nothing_and_names_what_is_served(tmp_path: Path) -> None:
    for number in (1, 2):
        half_plus_three(tmp_path / "models" / "m" / str(number) / "model.onnx")
    config = tmp_path / "c.toml"
    config.write_text(
        f"repositories = ['{tmp_path / 'models'}']\n[models.m]\nload = 'request'\n"
        "version_policy.all = true\naliases = { stable = 7, first = 1 }\n",
        "utf-8",
    )
    with daemon("--config", str(config)) as running:
        for label, version in {"first": "1", "latest": "2"}.items():
            answer = running.request("GET", f"/v1/models/m/labels/{label}")
            (only,) = answer.json()["model_version_status"]
            assert (only["version"], only["state"]) == (version, "AVAILABLE")
        index = running.request("POST", "/v2/repository/index").json()
        assert all("not in memory" in each["reason"] for each in index)
        for method, verb in (("GET", ""), ("POST", ":predict")):
            answer = running.request(
                method, f"/v1/models/m/labels/stable{verb}", {"instances": [1]}
            )
            assert answer.status == 400
            assert "version 7, to which the alias 'stable' leads" in answer.json()["error"]
            assert "served: 1, 2" in answer.json()["error"]


def test_metadata_has_the_signature_in_tensorflows_words(served: Daemon) -> None:
    answer = served.request("GET", "/v1/models/sensors/metadata").json()
    assert answer["model_spec"] == {"name": "sensors", "signature_name": "", "version": "1"}
    ((name, signature),) = answer["metadata"]["signature_def"]["signature_def"].items()
    assert name == "serving_default"
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["sensor"] == {
        "dtype": "DT_INT64",
        "tensor_shape": {
            "dim": [
                {"size": "-1", "name": "n"},
                {"size": "2", "name": ""},
                {"size": "2", "name": ""},
            ],
            "unknown_rank": False,
        },
        "name": "sensor",
    }
    assert {each: end["dtype"] for each, end in signature["outputs"].items()} == {
        "tag_out": "DT_STRING",
        "signal_out": "DT_FLOAT",
        "sensor_out": "DT_INT64",
    }


@pytest.mark.parametrize("datatype", ALL, ids=lambda each: each.name)
def test_metadata_knows_every_datatype(served: Daemon, datatype: Datatype) -> None:
    path = f"/v1/models/{datatype.name}/versions/1/metadata"
    metadata = served.request("GET", path).json()["metadata"]["signature_def"]
    signature = metadata["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"].startswith("DT_")
    assert signature["inputs"]["x"]["dtype"] == signature["outputs"]["y"]["dtype"]
