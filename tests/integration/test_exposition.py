"""What a scraper sees of a real daemon, over its life."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from edge_runtime.client import Client
from tests.conftest import DIGITS
from tests.daemons import Answer, Daemon, daemon, eventually

pytestmark = pytest.mark.integration

MODEL = f"digits={DIGITS / 'digits-int8.onnx'}"
IMAGE = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": [0.5] * 64}
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def scrape(running: Daemon) -> list[Metric]:
    return list(prometheus(running.request("GET", "/metrics").body.decode()))


def values(found: list[Metric], name: str, **labels: str) -> Iterator[float]:
    for family in found:
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                yield sample.value


def value(running: Daemon, name: str, **labels: str) -> float:
    (only,) = values(scrape(running), name, **labels)
    return only


def counters(found: list[Metric]) -> dict[tuple[str, tuple[str, ...]], float]:
    """Give everything that may only grow."""
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in found
        for sample in family.samples
        if family.type in {"counter", "histogram"} and family.name.startswith("edge_runtime")
    }


def test_the_answer_says_which_format_it_is(digits: Daemon) -> None:
    plain = digits.request("GET", "/metrics")
    asked = digits.request("GET", "/metrics", headers=OPENMETRICS)
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    expected = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert asked.headers["Content-Type"] == expected
    assert asked.body.endswith(b"# EOF\n")
    read = openmetrics(asked.body.decode())  # type: ignore[no-untyped-call]
    assert len(list(read)) == len(list(prometheus(plain.body.decode())))
    assert not digits.request("HEAD", "/metrics").body
    assert digits.request("GET", "/metrics", admin=True).status == 200


def test_a_head_that_repeats_is_still_asked_for_its_format(digits: Daemon) -> None:
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nAccept: %s\r\n\r\n"
    kinds = []
    with digits.connect() as sock:
        for accept in (b"*/*", b"*/*", b"application/openmetrics-text", b"*/*"):
            sock.sendall(request % accept)
            with sock.makefile("rb") as answer:
                head = b"".join(iter(answer.readline, b"\r\n"))
                answer.read(int(head.rpartition(b"Content-Length: ")[2]))
            kinds.append(b"openmetrics" in head)
    assert kinds == [False, False, True, False]


def test_pipelined_scrapes_are_answered_in_their_order(digits: Daemon) -> None:
    with digits.connect() as sock:
        sock.sendall(
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
            b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        with sock.makefile("rb") as answer:
            text = answer.read()
    assert text.index(b"edge_runtime_build_info") < text.index(b'{"live":true}')


def test_counters_survive_an_idle_unload_and_go_on_when_the_model_is_back(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"

    def write(idle_unload_s: float) -> None:
        path = DIGITS / "digits-int8.onnx"
        text = f"[models.digits]\npath = '{path}'\nidle_unload_s = {idle_unload_s}\n"
        config.write_text(text, "utf-8")

    write(0)  # or it may leave between two requests, too
    with daemon("--config", str(config)) as running:
        for _ in range(3):
            assert running.infer("digits", [IMAGE]).status == 200
        assert running.infer("digits", [{**IMAGE, "name": "x"}]).status == 400
        before = counters(scrape(running))
        assert before["edge_runtime_inference_rows_total", ("1", "digits")] == 3
        write(0.1)
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: value(running, "edge_runtime_model_loaded") == 0, "the unload")
        assert value(running, "edge_runtime_model_unloads_total", reason="idle") == 1
        assert value(running, "edge_runtime_model_size_bytes") == 0
        asleep = counters(scrape(running))
        assert before.keys() <= asleep.keys()
        assert all(asleep[key] >= count for key, count in before.items())
        (told,) = running.request("GET", "/v2/models/stats").json()["model_stats"]
        assert told["inference_count"] == 3
        assert told["memory_usage"] == []
        assert running.infer("digits", [IMAGE]).status == 200
        awake = counters(scrape(running))
        assert all(awake[key] >= count for key, count in asleep.items())
        assert awake["edge_runtime_inference_rows_total", ("1", "digits")] == 4
        assert awake["edge_runtime_model_loads_total", ("1", "digits")] == 2


def test_memory_of_a_model_is_measured_and_told_everywhere() -> None:
    with daemon(MODEL) as running:
        size = value(running, "edge_runtime_model_size_bytes", model="digits")
        (told,) = running.request("GET", "/v2/models/digits/stats").json()["model_stats"]
    assert size > 0
    assert told["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": size}]


def test_answers_from_the_cache_are_hits_and_no_inferences() -> None:
    cached = {"EDGE_RUNTIME__MODELS__DIGITS__CACHE_TTL_S": "60"}
    with daemon(MODEL, environment=cached) as running:
        for _ in range(4):
            assert running.infer("digits", [IMAGE]).status == 200
        outcomes = {
            name: value(running, "edge_runtime_cache_requests_total", outcome=name)
            for name in ("memory_hit", "miss", "bypassed")
        }
        runs = value(running, "edge_runtime_inference_runs_total")
        answered = value(running, "edge_runtime_requests_total", outcome="success")
        (told,) = running.request("GET", "/v2/models/digits/stats").json()["model_stats"]
    hits, misses = outcomes["memory_hit"], outcomes["miss"]
    assert sum(outcomes.values()) == answered == 4
    assert runs == 4 - hits
    stats = told["inference_stats"]
    assert (stats["cache_hit"]["count"], stats["cache_miss"]["count"]) == (hits, misses)
    assert told["inference_count"] == told["execution_count"] == runs
    assert stats["success"]["count"] == 4


def test_a_load_that_fails_is_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("repository")
    good = (DIGITS / "digits-int8.onnx").read_bytes()
    for version, content in ((1, good), (2, b"no model")):
        folder = root / "digits" / str(version)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(content)
    with daemon(str(root)) as running:
        name = "edge_runtime_model_load_failures_total"
        assert value(running, name, version="2") >= 1
        assert value(running, name, version="1") == 0
        assert value(running, "edge_runtime_model_load_duration_seconds_count", version="1") == 1


def test_the_client_reads_the_same_text(digits: Daemon) -> None:
    with Client(digits.socket) as client:
        names = {each.name for each in prometheus(client.metrics())}
    assert names == {each.name for each in scrape(digits)}


def test_connections_are_counted(digits: Daemon) -> None:
    before = value(digits, "edge_runtime_connections_accepted_total")
    with digits.connect():
        answer: Answer = digits.request("GET", "/metrics")
        found = list(prometheus(answer.body.decode()))
    assert list(values(found, "edge_runtime_connections_accepted_total")) == [before + 2]
    assert next(values(found, "edge_runtime_connections")) >= 1
