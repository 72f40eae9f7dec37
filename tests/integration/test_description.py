"""What a real daemon says of itself: metadata, statistics, metrics and openapi.json."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_runtime.api.handlers import Handlers
from edge_runtime.api.tables import admin_routes, data_routes
from edge_runtime.metrics import ServerStatistics
from edge_runtime.settings import Limits
from tests import models
from tests.daemons import Daemon, daemon
from tests.protocol_models import GOOD, MODELS, PAIR, write_repository

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("repository")
    write_repository(root)
    with daemon(str(root), environment={"EDGE_RUNTIME__DEFAULT_MODEL": "FP32"}) as running:
        yield running


# -- what the daemon says of itself -------------------------------------------------------------


def test_server_advertises_only_what_is_there(served: Daemon) -> None:
    answer = served.request("GET", "/v2").json()
    assert answer["name"] == "edge-runtime"
    assert answer["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "parameters",
        "schedule_policy",
        "statistics",
    ]


def test_metadata_and_configuration_agree(served: Daemon) -> None:
    for prefix in ("/v2/models/two", "/v2/models/two/versions/1"):
        metadata = served.request("GET", prefix).json()
        config = served.request("GET", f"{prefix}/config").json()
        assert config["max_batch_size"] > 0
        for kind, ends in (("input", metadata["inputs"]), ("output", metadata["outputs"])):
            assert config[kind] == [
                {"name": end["name"], "data_type": "TYPE_FP32", "dims": end["shape"][1:]}
                for end in ends
            ]
            assert all(end["shape"] == [-1, 2] for end in ends)
        assert metadata["platform"] == config["platform"] == "onnxruntime_onnx"
        assert metadata["versions"] == ["1"]
        assert metadata["properties"]["execution_providers"] == "CPUExecutionProvider"


def test_model_without_a_batch_axis_has_whole_dims(served: Daemon) -> None:
    config = served.request("GET", "/v2/models/text/config").json()
    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "x", "data_type": "TYPE_STRING", "dims": [1]}]


def test_index_lists_every_version(served: Daemon) -> None:
    index = served.request("POST", "/v2/repository/index", b"").json()
    assert {"name": "FP32", "version": "1", "state": "READY"} in index
    assert len(index) == MODELS
    assert served.request("POST", "/v2/repository/index", {"ready": True}).json() == index


def statistics(served: Daemon, path: str) -> dict[str, Any]:
    (only,) = served.request("GET", path).json()["model_stats"]
    assert isinstance(only, dict)
    return only


def test_statistics_count_every_request_once(served: Daemon) -> None:
    path = "/v2/models/two/versions/1/stats"
    before = statistics(served, path)
    three = [{**each, "shape": [3, 2], "data": [1] * 6} for each in PAIR]
    for inputs in (PAIR, three, PAIR[:1]):
        served.infer("two", inputs)
    after = statistics(served, path)
    assert after["inference_count"] - before["inference_count"] == 4
    assert after["execution_count"] - before["execution_count"] == 2
    stats = after["inference_stats"]
    for kind, count in (("success", 2), ("fail", 1), ("queue", 2), ("compute_infer", 2)):
        assert stats[kind]["count"] - before["inference_stats"][kind]["count"] == count, kind
    assert stats["cache_hit"] == stats["cache_miss"] == {"count": 0, "ns": 0}
    parts = ("compute_input", "queue", "compute_infer", "compute_output")
    # A run's output part ends when all who shared it were answered: a little after each of them.
    assert 0 < stats["success"]["ns"] <= sum(stats[part]["ns"] for part in parts)
    assert {batch["batch_size"] for batch in after["batch_stats"]} >= {1, 3}
    every = served.request("GET", "/v2/models/stats").json()["model_stats"]
    assert len(every) == MODELS
    assert statistics(served, "/v2/models/two/stats") in every


def test_answer_that_json_cannot_carry_is_counted_as_a_failure(served: Daemon) -> None:
    path = "/v2/models/divide/stats"
    before = statistics(served, path)["inference_stats"]
    served.infer("divide", [GOOD])
    after = statistics(served, path)["inference_stats"]
    assert after["fail"]["count"] == before["fail"]["count"] + 1
    assert after["success"]["count"] == before["success"]["count"]


def test_metrics_are_prometheus_text(served: Daemon) -> None:
    served.infer("labelled", [GOOD])
    answer = served.request("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    found = {
        (sample.name, sample.labels.get("model")): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    count = found["edge_runtime_request_duration_seconds_count", "labelled"]
    told = statistics(served, "/v2/models/labelled/stats")["inference_stats"]
    assert count == told["success"]["count"] > 0


# -- openapi.json -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document(served: Daemon) -> dict[str, Any]:
    answer = served.request("GET", "/openapi.json").json()
    assert isinstance(answer, dict)
    return answer


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (each for key, each in part.items() if key == "$ref")
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_openapi_is_whole(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    prefix = "#/components/schemas/"
    assert {each.removeprefix(prefix) for each in references(document)} <= set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for _, path, operation in operations(document):
        given = operation.get("parameters", ())
        declared = {each["name"] for each in given if each["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))


def test_openapi_has_every_route_of_both_doors(served: Daemon, document: dict[str, Any]) -> None:
    nothing = cast("Any", None)
    handlers = Handlers(nothing, nothing, ServerStatistics(0.0), nothing, Limits())
    routes = {
        (route.method.lower(), route.path)
        for route in (*data_routes(handlers), *admin_routes(handlers))
    }
    assert routes == {(method, path) for method, path, _ in operations(document)}
    assert served.request("GET", "/openapi.json", admin=True).json() == document


REQUESTS: dict[str, dict[str, Any] | None] = {
    "/v2/models/{name}/infer": {"inputs": [GOOD]},
    "/v2/models/{name}/versions/{version}/infer": {"inputs": [GOOD]},
    "/v2/repository/index": {"ready": True},
    "/v1/models/{name}:predict": {"instances": [[1, 2]]},
    "/v1/models/{name}/versions/{version}:predict": {"inputs": [[1, 2]]},
    "/v1/models/{name}/labels/{label}:predict": {"instances": [{"x": [1, 2]}]},
    "/predict": {"features": [1, 2]},
}


def test_answers_are_what_openapi_says(served: Daemon, document: dict[str, Any]) -> None:
    checked = 0
    for method, path, operation in operations(document):
        content = operation["responses"]["200"].get("content")
        if content is None or "{repository}" in path:
            continue
        if path.startswith("/admin") and (method == "post" or "{name}" in path):
            continue  # nothing was released here; test_release_door asks those
        target = path.format(name="FP32", version="1", label="latest")
        admin = "admin" in operation["tags"]
        answer = served.request(method.upper(), target, REQUESTS.get(path), admin=admin)
        assert answer.status == 200, path
        schema = {**content["application/json"]["schema"], "components": document["components"]}
        jsonschema.validate(answer.json(), schema, jsonschema.Draft202012Validator)
        checked += 1
    assert checked >= 15


@pytest.mark.parametrize("path", ["/v2/models/nobody", "/v2/nothing", "/v2/models/FP32/infer"])
def test_errors_are_what_openapi_says(served: Daemon, document: dict[str, Any], path: str) -> None:
    answer = served.request("GET", path)
    assert answer.status in {404, 405}
    jsonschema.validate(answer.json(), document["components"]["schemas"]["ErrorBody"])


# -- start-up -----------------------------------------------------------------------------------


def test_missing_execution_provider_is_reported_and_done_without(tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx")
    wanted = {"EDGE_RUNTIME__ENGINE__PROVIDERS": '["CUDAExecutionProvider"]'}
    with daemon(f"m={path}", environment=wanted) as running:
        assert running.infer("m", [GOOD]).status == 200
        properties = running.request("GET", "/v2/models/m").json()["properties"]
        assert properties["execution_providers"] == "CPUExecutionProvider"
        assert (
            "CUDAExecutionProvider are not installed; using CPUExecutionP"
            in running.log_until_now()
        )
