"""TensorFlow Serving's REST interface as its documents show it, and what we refuse of it."""

import base64
import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.datatypes import ALL, BOOL, BYTES, Datatype
from edge_runtime.protocol.schemas import LOADS_WHEN_ASKED
from tests import models, strategies
from tests.daemons import Answer, Daemon, UnixConnection, daemon, eventually
from tests.tensorflow_models import half_plus_three, write_configuration

pytestmark = pytest.mark.integration

JSON_TYPES = [each for each in ALL if each.json != "none"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    config = write_configuration(tmp_path_factory.mktemp("served"))
    with daemon("--config", str(config), "--http", "127.0.0.1:0") as running:
        yield running


def predict(served: Daemon, target: str, body: bytes | dict[str, Any]) -> Answer:
    return served.request("POST", f"/v1/models/{target}:predict", body)


def answers(served: Daemon, target: str, **body: object) -> Any:  # noqa: ANN401
    answer = predict(served, target, body)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    ((key, value),) = answer.json().items()
    assert key == ("predictions" if "instances" in body else "outputs")
    return value


def error(answer: Answer, status: int = 400) -> str:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    ((key, text),) = answer.json().items()
    assert key == "error"
    assert isinstance(text, str)
    return text


# -- predict ------------------------------------------------------------------------------------


def test_example_of_the_documents_works_with_curl(served: Daemon) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl here")
    url = f"http://127.0.0.1:{served.http_port()}/v1/models/half_plus_three"
    command = [curl, "-sS", "-d", '{"instances": [1.0,2.0,5.0]}', "-X", "POST", f"{url}:predict"]
    said = subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert json.loads(said.stdout) == {"predictions": [3.5, 4.0, 5.5]}
    said = subprocess.run([curl, "-sS", url], check=True, capture_output=True, timeout=60)
    assert json.loads(said.stdout)["model_version_status"][0]["version"] == "123"


def test_one_input_in_rows_and_in_columns(served: Daemon) -> None:
    assert answers(served, "half_plus_three", instances=[1.0, 2.0, 5.0]) == [3.5, 4.0, 5.5]
    assert answers(served, "half_plus_three", inputs=[1.0, 2.0, 5.0]) == [3.5, 4.0, 5.5]
    assert answers(served, "half_plus_three", instances=[{"x": 1.0}, {"x": 2}]) == [3.5, 4.0]
    assert answers(served, "half_plus_three", inputs={"x": [1.0]}) == [3.5]
    assert answers(served, "FP32", instances=[[1, 2], [3, 4]]) == [[1.0, 2.0], [3.0, 4.0]]
    assert answers(served, "FP32-scalar", inputs=1.5) == 1.5


TAGS, SIGNALS = ["foo", "bar"], [[1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 4.0, 1.0, 2.0, 5.0]]
SENSORS = [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]


def test_several_inputs_in_rows_are_answered_as_a_list_of_objects(served: Daemon) -> None:
    rows = [
        {"tag": tag, "signal": signal, "sensor": sensor}
        for tag, signal, sensor in zip(TAGS, SIGNALS, SENSORS, strict=True)
    ]
    out = [{f"{name}_out": value for name, value in row.items()} for row in rows]
    assert answers(served, "sensors", instances=rows) == out


def test_several_inputs_in_columns_are_answered_as_an_object(served: Daemon) -> None:
    columns = {"tag": TAGS, "signal": SIGNALS, "sensor": SENSORS}
    out = {f"{name}_out": value for name, value in columns.items()}
    assert answers(served, "sensors", inputs=columns) == out


def test_strings_may_come_in_base64_and_names_with_bytes_are_answered_so(served: Daemon) -> None:
    coded = {"b64": base64.b64encode("smörgås".encode()).decode()}
    row = {"text": "smörgås", "text_bytes": coded}
    column = {"text": ["smörgås"], "text_bytes": [coded]}
    for value in ("smörgås", coded):
        assert answers(served, "strings", instances=[value]) == [row]
        assert answers(served, "strings", instances=[{"x": value}]) == [row]
        assert answers(served, "strings", inputs=[value]) == column
        assert answers(served, "strings", inputs={"x": [value]}) == column
    assert answers(served, "BYTES-scalar", inputs=coded) == "smörgås"


@pytest.mark.parametrize("signature", ["serving_default", ""])
def test_the_default_signature_may_be_named(served: Daemon, signature: str) -> None:
    body: dict[str, Any] = {"instances": [1.0], "signature_name": signature, "context": {}}
    assert predict(served, "half_plus_three", body).json() == {"predictions": [3.5]}


def test_a_version_may_be_named_and_the_highest_is_the_default(served: Daemon) -> None:
    for number in (1, 2, 10):
        assert answers(served, f"three/versions/{number}", instances=[0]) == [number]
    assert answers(served, "three", instances=[0]) == [10]


@pytest.mark.parametrize(("label", "number"), [("latest", 10), ("stable", 10), ("first", 1)])
def test_a_label_is_an_alias_of_a_version(served: Daemon, label: str, number: int) -> None:
    assert answers(served, f"three/labels/{label}", instances=[0]) == [number]
    status = served.request("GET", f"/v1/models/three/labels/{label}").json()
    assert [each["version"] for each in status["model_version_status"]] == [str(number)]
    metadata = served.request("GET", f"/v1/models/three/labels/{label}/metadata").json()
    assert metadata["model_spec"]["version"] == str(number)


def test_outputs_of_different_rows_can_be_had_as_columns(served: Daemon) -> None:
    rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    text = error(predict(served, "uneven", {"instances": rows}))
    assert "'y' [3, 2], 't' [2, 3]" in text
    out = {"y": rows, "t": [list(each) for each in zip(*rows, strict=True)]}
    assert answers(served, "uneven", inputs=rows) == out


def numbers(value: Any, datatype: Datatype, shape: tuple[int, ...]) -> list[Any]:  # noqa: ANN401
    """Give nested JSON numbers as the tensor's elements, to the last bit."""
    kind = object if datatype is BYTES else datatype.numpy
    array = np.array(value, kind)
    assert array.shape == shape
    return array.reshape(-1).tolist()


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(JSON_TYPES), st.integers(1, 5))
def test_rows_columns_and_v2_give_the_same_numbers(
    served: Daemon, data: st.DataObject, datatype: Datatype, rows: int
) -> None:
    array = data.draw(strategies.finite_arrays(datatype, (rows, 2)))
    values = array.tolist()
    tensor = {"name": "x", "shape": [rows, 2], "datatype": datatype.name, "data": values}
    answer = served.infer(datatype.name, [tensor])
    assert answer.status == 200, answer.body
    v2 = answer.json()["outputs"][0]["data"]
    name = datatype.name
    for got in (
        answers(served, name, instances=values),
        answers(served, name, instances=[{"x": row} for row in values]),
        answers(served, name, inputs=values),
        answers(served, name, inputs={"x": values}),
    ):
        assert numbers(got, datatype, (rows, 2)) == numbers(v2, datatype, (2 * rows,))
        if datatype is not BOOL and datatype.name != "FP32":  # which v2 widens, as Triton does
            assert repr(got) == repr(np.array(v2, object).reshape(rows, 2).tolist())


def test_a_32_bit_float_is_written_as_short_as_it_reads_back(served: Daemon) -> None:
    rows = predict(served, "FP32", {"instances": [[0.1, 1e-7], [0.3333333333, 100]]})
    assert rows.body == b'{"predictions":[[0.1,1e-7],[0.33333334,100.0]]}'
    columns = predict(served, "FP32", {"inputs": [[0.1, 0.7]]})
    assert columns.body == b'{"outputs":[[0.1,0.7]]}'


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.integers(1, 4))
def test_rows_columns_and_v2_compute_the_same_from_two_inputs(
    served: Daemon, data: st.DataObject, rows: int
) -> None:
    floats = st.floats(-1e6, 1e6, width=32)
    pairs = st.lists(st.lists(floats, min_size=2, max_size=2), min_size=rows, max_size=rows)
    a, b = data.draw(pairs), data.draw(pairs)
    tensor = {"shape": [rows, 2], "datatype": "FP32"}
    v2 = served.infer(
        "two", [{**tensor, "name": "a", "data": a}, {**tensor, "name": "b", "data": b}]
    ).json()["outputs"]

    def as_floats(data: Any) -> list[Any]:  # noqa: ANN401
        return np.array(data, np.float32).reshape(rows, 2).tolist()

    wanted = {each["name"]: as_floats(each["data"]) for each in v2}
    columns = answers(served, "two", inputs={"a": a, "b": b})
    assert {name: as_floats(column) for name, column in columns.items()} == wanted
    got = answers(served, "two", instances=[{"a": x, "b": y} for x, y in zip(a, b, strict=True)])
    assert {name: as_floats([row[name] for row in got]) for name in wanted} == wanted


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "body", "message"),
    [
        ("FP32", {}, "neither 'instances' nor 'inputs'"),
        ("FP32", {"instances": [[1, 2]], "inputs": [[1, 2]]}, "both 'instances' .* and 'inputs'"),
        ("FP32", {"instances": []}, "instances is an empty list"),
        ("FP32", {"instances": [[1, 2], [3]]}, "ragged"),
        ("FP32", {"inputs": [[1, 2], [3]]}, "ragged"),
        ("FP32", {"instances": [1, 2]}, "Expected `array`, got `int`"),
        ("FP32", {"instances": 5}, "Expected `array`, got `int`"),
        ("FP32", {"instances": [[1, "2"]]}, r"Expected `float`, got `str` - at `\$\[0\]\[1\]`"),
        ("FP32", {"instances": [[1, 2, 3]]}, r"has shape \[1, 3\]; the model takes \[-1, 2\]"),
        ("FP32", {"instances": [{"x": [1, 2]}, [1, 2]]}, "Expected `object`, got `array`"),
        ("FP32", {"instances": [{"y": [1, 2]}]}, r"row 0 .* inputs \['y'\]; .* takes \['x'\]"),
        ("FP32", {"inputs": {"x": [[1, 2]], "y": 1}}, r"inputs has \['x', 'y'\]; .* \['x'\]"),
        ("FP32", b'{"instances": [[1, NaN]]}', "malformed"),
        ("FP32", b'{"instances": [[1, 1e400]]}', "out of range"),
        ("FP32", b'{"instances": [[1, 1e39]]}', "does not fit FP32"),
        ("INT8", {"instances": [[1, 128]]}, "does not fit INT8"),
        ("FP16", {"instances": [[1, 2]]}, "FP16, which JSON cannot carry: use the binary"),
        ("FP32", {"instances": [[1, 2]], "signature_name": "other"}, '"other" not found in sig'),
        ("FP32", {"instances": [[1, 2]], "signature_name": 100}, "signature_name"),
        ("FP32", b"", "the body is not what this takes"),
        ("FP32", b"[1]", "Expected `object`, got `array`"),
        ("FP32", b"\xff", "the body is not what this takes"),
        ("two", {"instances": [[1, 2]]}, r"takes \['a', 'b'\]: give a list of objects"),
        ("two", {"inputs": [[1, 2]]}, r"takes \['a', 'b'\]: give an object"),
        ("two", {"instances": [{"a": [1, 2], "b": [1, 2]}, {"a": [1, 2]}]}, r"row 1 .* \['a'\];"),
        ("two", {"inputs": {"a": [[1, 2]]}}, r"inputs has \['a'\]; .* takes \['a', 'b'\]"),
        ("FP32-scalar", {"instances": [1]}, "is a scalar and has no rows"),
        ("strings", {"instances": [{"b64": "//4="}]}, "does not hold UTF-8"),
        ("divide", {"instances": [[1, 2]]}, "output 'y' holds NaN or infinity"),
        ("divide", {"inputs": [[0, 0]]}, "output 'y' holds NaN or infinity"),
        ("gather", {"instances": [7]}, "the model refused the input"),
    ],
)
def test_a_wrong_request_is_refused_and_the_model_goes_on(
    served: Daemon, model: str, body: bytes | dict[str, Any], message: str
) -> None:
    assert re.search(message, error(predict(served, model, body)))
    assert answers(served, "half_plus_three", instances=[1.0]) == [3.5]


def test_what_is_not_there_has_tensorflow_servings_statuses(served: Daemon) -> None:
    body = {"instances": [1.0]}
    for target in ("nobody", "nobody/versions/1", "half_plus_three/versions/5"):
        error(predict(served, target, body), 404)
        error(served.request("GET", f"/v1/models/{target}"), 404)
        error(served.request("GET", f"/v1/models/{target}/metadata"), 404)
    for label in ("nothing", "123"):
        error(predict(served, f"half_plus_three/labels/{label}", body), 400)
        error(served.request("GET", f"/v1/models/half_plus_three/labels/{label}"), 400)
    error(served.request("GET", "/v1/models"), 404)
    error(served.request("PUT", "/v1/models/half_plus_three"), 405)


@pytest.mark.parametrize("verb", ["classify", "regress"])
@pytest.mark.parametrize("version", ["", "/versions/123", "/labels/stable"])
def test_classify_and_regress_say_that_they_are_not_here(
    served: Daemon, verb: str, version: str
) -> None:
    body = {"examples": [{"x": 1.0}]}
    answer = served.request("POST", f"/v1/models/half_plus_three{version}:{verb}", body)
    assert f"{verb} is not served here" in error(answer, 501)
    assert "/v1/models/half_plus_three:predict" in answer.json()["error"]


def test_limits_of_json_are_those_of_v2(tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx", shape=("batch", 1, 2))
    limits = {"EDGE_RUNTIME__LIMITS__JSON_BYTES": "1024", "EDGE_RUNTIME__LIMITS__JSON_DEPTH": "3"}
    with daemon(
        f"m={path}", f"flat={models.identity(tmp_path / 'f.onnx')}", environment=limits
    ) as running:
        assert answers(running, "m", instances=[[[1, 2]]]) == [[[1.0, 2.0]]]
        large = {"instances": [[[1, 2]]] * 200}
        assert "limits.json_bytes" in error(predict(running, "m", large), 413)
        nested = b'{"inputs": %b1%b}' % (b"[" * 400, b"]" * 400)
        assert "Expected `float`, got `array`" in error(predict(running, "flat", nested))
    deep = {"EDGE_RUNTIME__LIMITS__JSON_DEPTH": "2"}
    with daemon(f"m={path}", environment=deep) as running:
        text = error(predict(running, "m", {"instances": [[[1, 2]]]}))
        assert "limits.json_depth" in text


def test_answers_leave_in_the_order_of_the_requests_on_one_connection(served: Daemon) -> None:
    connection = UnixConnection(served.socket)
    for value in range(5):
        body = json.dumps({"instances": [value]})
        connection.request("POST", "/v1/models/half_plus_three:predict", body)
        response = connection.getresponse()
        assert response.status == http.client.OK
        assert json.loads(response.read()) == {"predictions": [value / 2 + 3]}
    connection.close()


def test_predictions_are_counted_like_those_of_v2(served: Daemon) -> None:
    def counts() -> tuple[int, int]:
        path = "/v2/models/labelled/versions/1/stats"
        (only,) = served.request("GET", path).json()["model_stats"]
        found = only["inference_stats"]
        return found["success"]["count"], found["fail"]["count"]

    before = counts()
    answers(served, "labelled", instances=[[1, 2]])
    error(predict(served, "labelled", {"instances": [[1, 2, 3]]}))
    after = counts()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


# -- models that leave memory -------------------------------------------------------------------


def test_a_model_that_is_loaded_when_asked_answers_here_too(tmp_path: Path) -> None:
    half_plus_three(tmp_path / "models" / "m" / "1" / "model.onnx")
    config = tmp_path / "c.toml"
    config.write_text(
        f"repositories = ['{tmp_path / 'models'}']\n"
        "[models.m]\nload = 'request'\nidle_unload_s = 0.2\n"
    )
    with daemon("--config", str(config)) as running:

        def is_out() -> bool:
            (entry,) = running.request("POST", "/v2/repository/index", b"").json()
            return str(entry.get("reason", "")).startswith(LOADS_WHEN_ASKED)

        for _ in range(2):  # never in memory yet; out of it again
            eventually(is_out, "the model's leaving memory")
            status = running.request("GET", "/v1/models/m").json()["model_version_status"]
            assert [each["state"] for each in status] == ["AVAILABLE"]
            assert answers(running, "m", instances=[1.0]) == [3.5]
            assert running.request("GET", "/v1/models/m/metadata").status == 200
        eventually(is_out, "the model's leaving memory")
        answer = running.request("POST", "/predict", {"features": [1.0]})
        assert answer.json()["prediction"] == 3.5
        assert running.request("GET", "/model-info").json()["name"] == "m"
