"""The plain door: features in, a prediction with its confidence out."""

import json
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests import models
from tests.conftest import DIGITS
from tests.daemons import Answer, Daemon, daemon, eventually
from tests.protocol_models import LABELS, write_repository

pytestmark = pytest.mark.integration

TEST = np.load(DIGITS / "test.npz")


def classifier(path: Path) -> Path:
    """A scikit-learn export: ``output_label`` in words, ``output_probability`` beside it."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["output_probability"], axis=1),
        helper.make_node("ArgMax", ["x"], ["index"], axis=1, keepdims=0),
        helper.make_node("Gather", ["names", "index"], ["output_label"]),
    ]
    names = helper.make_tensor("names", TensorProto.STRING, [3], [b"cat", b"dog", b"owl"])
    outputs = [
        models.value("output_label", "BYTES", ("n",)),
        models.value("output_probability", "FP32", ("n", 3)),
    ]
    return models.save(path, nodes, [models.value("x", "FP32", ("n", 3))], outputs, [names])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("repository")
    write_repository(root)
    for number in (1, 2):
        models.add_constant(root / "adder" / str(number) / "model.onnx", number, ("batch", 1))
    classifier(root / "animals" / "7" / "model.onnx")
    config = root.parent / "c.toml"
    config.write_text(
        f"repositories = ['{root}']\ndefault_model = 'animals'\n"
        "[models.adder.version_policy]\nall = true\n"
    )
    with daemon("--config", str(config)) as running:
        yield running


def predict(served: Daemon, features: Any, **more: object) -> Answer:  # noqa: ANN401
    return served.request("POST", "/predict", {"features": features, **more})


def answer(served: Daemon, features: Any, **more: object) -> dict[str, Any]:  # noqa: ANN401
    said = predict(served, features, **more)
    assert said.status == 200, said.body
    fields: dict[str, Any] = said.json()
    wanted = {"prediction", "confidence", "model_version", "inference_time", "timestamp"}
    assert fields.keys() == wanted
    return fields


def refusal(said: Answer, status: int = 400) -> str:
    assert said.status == status, said.body
    ((key, text),) = said.json().items()
    assert key == "error"
    return str(text)


# -- predictions --------------------------------------------------------------------------------


def test_the_only_model_needs_no_name(digits: Daemon) -> None:
    image = TEST["image"][0].reshape(-1).tolist()
    said = answer(digits, image)
    assert said["prediction"] == int(TEST["labels"][0])
    assert 0 < said["confidence"] <= 1
    assert said["model_version"] == "1"


def test_a_list_of_rows_is_answered_with_lists(digits: Daemon) -> None:
    images = TEST["image"][:20].reshape(20, -1).tolist()
    said = answer(digits, images)
    one_by_one = [answer(digits, image) for image in images]
    assert said["prediction"] == [each["prediction"] for each in one_by_one]
    singles = [each["confidence"] for each in one_by_one]
    assert said["confidence"] == pytest.approx(singles, rel=1e-4)
    assert answer(digits, images[:1])["prediction"] == [one_by_one[0]["prediction"]]


def test_label_and_highest_probability_of_a_classifier(served: Daemon) -> None:
    scores = np.array([0.5, 2.5, 1.0], "<f4")
    said = answer(served, scores.tolist())
    assert said["prediction"] == "dog"
    softmax = np.exp(scores) / np.exp(scores).sum()
    assert said["confidence"] == pytest.approx(float(softmax.max()), rel=1e-5)
    assert said["model_version"] == "7"


def test_labels_of_the_manifest_name_the_prediction(served: Daemon) -> None:
    said = answer(served, [[0.25, 0.75], [3, 2]], model="labelled")
    assert said["prediction"] == [LABELS[1], LABELS[0]]
    assert said["confidence"] == [0.75, 3.0]


def test_confidence_and_value_are_written_as_short_as_they_read_back(served: Daemon) -> None:
    assert b'"confidence":0.7,' in predict(served, [0.1, 0.7], model="labelled").body
    assert b'"prediction":2.7,' in predict(served, [0.7], model="adder").body


def test_a_regression_has_a_value_and_no_confidence(served: Daemon) -> None:
    said = answer(served, [0.5], model="adder")
    assert (said["prediction"], said["confidence"]) == (2.5, None)
    said = answer(served, [[0.5], [1.5]], model="adder", model_version="1")
    assert (said["prediction"], said["confidence"]) == ([1.5, 2.5], [None, None])


@pytest.mark.parametrize("version", ["1", 1], ids=["text", "number"])
def test_a_version_may_be_a_number_or_its_text(served: Daemon, version: str | int) -> None:
    said = answer(served, [1], model="adder", model_version=version)
    assert (said["prediction"], said["model_version"]) == (2.0, "1")


@pytest.mark.parametrize("version", ["latest", "stable", "", None])
def test_latest_is_the_highest_version_and_the_answer_says_which(
    served: Daemon, version: str | None
) -> None:
    more = {} if version is None else {"model_version": version}
    said = answer(served, [1], model="adder", **more)
    assert (said["prediction"], said["model_version"]) == (3.0, "2")


def test_time_is_in_seconds_and_the_timestamp_in_utc(served: Daemon) -> None:
    before = datetime.now(tz=UTC)
    said = answer(served, [1, 2, 3])
    after = datetime.now(tz=UTC)
    assert isinstance(said["inference_time"], float)
    assert 0 < said["inference_time"] <= (after - before).total_seconds()
    assert said["timestamp"].endswith("Z")
    millisecond = timedelta(milliseconds=1)
    assert before - millisecond <= datetime.fromisoformat(said["timestamp"]) <= after


def test_strings_are_features_too(served: Daemon) -> None:
    assert answer(served, ["smörgås", "b"], model="BYTES")["prediction"] == ["smörgås", "b"]


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "more", "message"),
    [
        ([1, 2], {}, "model 'animals' takes 3 features, 2 given"),
        ([1, 2, 3, 4], {}, "takes 3 features, 4 given"),
        ([], {}, "takes 3 features, 0 given"),
        ([[1, 2, 3], [1]], {}, "row 1: model 'animals' takes 3 features, 1 given"),
        ([1, 2, "3"], {}, "Expected `float`, got `str`"),
        ([1, 2, None], {}, "got `null`"),
        ("123", {}, "Expected `array`, got `str`"),
        ([1, 2, 3], {"model_version": 1.5}, "model_version"),
        ([1, 2], {"model": "two"}, "one input; this one takes ['a', 'b']"),
        ([1, 2], {"model": "divide"}, "NaN or infinity"),
        ([1, 2], {"model": "FP16"}, "'y'"),
    ],
)
def test_a_wrong_request_is_refused_and_the_model_goes_on(
    served: Daemon, features: object, more: dict[str, object], message: str
) -> None:
    assert message in refusal(predict(served, features, **more))
    assert answer(served, [0, 0, 9])["prediction"] == "owl"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1, 2]", b'{"feature": [1]}', b'{"features": [NaN, 1, 2]}']
)
def test_what_is_no_request_is_refused(served: Daemon, body: bytes) -> None:
    refusal(served.request("POST", "/predict", body))


def test_what_is_not_there_is_not_found(served: Daemon) -> None:
    assert "nobody" in refusal(predict(served, [1], model="nobody"), 404)
    assert "99" in refusal(predict(served, [1, 2, 3], model_version="99"), 404)
    assert "some" in refusal(predict(served, [1, 2, 3], model_version="some"), 404)


def test_limits_of_json_are_those_of_v2(tmp_path: Path) -> None:
    limit = {"EDGE_RUNTIME__LIMITS__JSON_BYTES": "1024"}
    with daemon(f"m={models.identity(tmp_path / 'm.onnx')}", environment=limit) as running:
        assert answer(running, [1, 2])["prediction"] == 1
        assert "limits.json_bytes" in refusal(predict(running, [[1, 2]] * 300), 413)


def test_a_client_that_gave_up_harms_nobody(served: Daemon) -> None:
    body = json.dumps({"features": [1, 2, 3]}).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    for _ in range(20):
        with served.connect() as sock:
            sock.sendall(head + body)
    assert answer(served, [0, 0, 9])["prediction"] == "owl"


def test_many_clients_at_a_time_each_get_their_own_answer(served: Daemon) -> None:
    wrong: list[object] = []

    def client(number: int) -> None:
        for step in range(25):
            value = float(number * 100 + step)
            said = predict(served, [value], model="adder").json()
            if said.get("prediction") != value + 2:
                wrong.append(said)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- which model --------------------------------------------------------------------------------


def test_several_models_without_a_default_are_listed(tmp_path: Path) -> None:
    first, second = (models.identity(tmp_path / f"{name}.onnx") for name in "ab")
    with daemon(f"a={first}", f"b={second}") as running:
        for said in (predict(running, [1, 2]), running.request("GET", "/model-info")):
            text = refusal(said)
            assert 'name one as "model" (a, b)' in text
            assert "default_model" in text
        assert answer(running, [1, 2], model="b")["prediction"] == 1
        info = running.request("GET", "/model-info?model=b").json()
        assert info["name"] == "b"
        # What is out of memory is still one of several: nothing else takes its place.
        unload = running.request("POST", "/v2/repository/models/a/unload", admin=True)
        assert unload.status == 200
        assert "(a, b)" in refusal(predict(running, [1, 2]))


def test_the_default_model_can_be_changed_by_a_reload(tmp_path: Path) -> None:
    first = models.add_constant(tmp_path / "a.onnx", 1, ("n", 1))
    second = models.add_constant(tmp_path / "b.onnx", 2, ("n", 1))
    name = {"EDGE_RUNTIME__DEFAULT_MODEL": "b"}
    with daemon(f"a={first}", f"b={second}", environment=name) as running:
        assert answer(running, [0])["prediction"] == 2
        assert running.request("GET", "/model-info").json()["name"] == "b"
    config = tmp_path / "c.toml"
    table = f"[models.a]\npath = '{first}'\n[models.b]\npath = '{second}'\n"
    config.write_text(f"default_model = 'a'\n{table}")
    with daemon("--config", str(config)) as running:
        assert answer(running, [0])["prediction"] == 1
        config.write_text(f"default_model = 'b'\n{table}")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: answer(running, [0])["prediction"] == 2, "the other default")


# -- health and model-info ----------------------------------------------------------------------


def test_health_is_ok_once_models_are_in_place(served: Daemon) -> None:
    said = served.request("GET", "/health")
    assert said.status == 200
    assert said.json()["status"] == "ok"
    assert served.request("HEAD", "/health").status == 200


def test_model_info_describes_the_default_model(served: Daemon) -> None:
    info = served.request("GET", "/model-info").json()
    metadata = served.request("GET", "/v2/models/animals").json()
    assert info == {
        "name": "animals",
        "version": "7",
        "inputs": metadata["inputs"],
        "outputs": metadata["outputs"],
        "digest": metadata["properties"]["digest"],
        "variant": metadata["properties"]["variant"],
    }


def test_these_doors_are_not_on_the_admin_socket(served: Daemon) -> None:
    for path in ("/health", "/model-info", "/v1/models/animals"):
        assert served.request("GET", path, admin=True).status == 404
    assert served.request("POST", "/predict", {"features": [1]}, admin=True).status == 404
