"""Releases under constant load: several clients, several formats, through every transition."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.client import Client
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.manifest import Comparison
from tests import bad_models
from tests.daemons import eventually
from tests.models import add_constant
from tests.release_device import MODEL, Device, bundle
from tests.release_traffic import Asked, ask_json, numbers
from tests.weighty import MODEL_MIB, measure, weighty

pytestmark = pytest.mark.integration

OTHER = "other"
MUCH = {"comparison": Comparison(agreement_floor=0.9, latency_ratio_max=1000.0)}


# -- clients ---------------------------------------------------------------------------------------


def right(at_s: float, version: str, given: object, wanted: object) -> Asked:
    """Judge numbers."""
    is_right = np.allclose(np.asarray(given), np.asarray(wanted), atol=1e-3)
    return Asked(at_s, 200, version, is_right, "" if is_right else f"{wanted} {given}")


class Kept:
    """A client whose connection stays.

    Args:
        binary: The form of its tensors.
        rows: Of each request.
    """

    def __init__(self, *, binary: bool, rows: int) -> None:
        self._binary, self._rows = binary, rows
        self._client: Client | None = None

    def __call__(self, on: Device, count: int) -> Asked:
        """Ask once."""
        at_s = time.monotonic()
        client = self._client = self._client or Client(str(on.daemon.socket))
        sent = np.array([numbers(count + row) for row in range(self._rows)], np.float32)
        try:
            outputs = client.infer(MODEL, {"x": sent}, binary=self._binary)
        except EdgeRuntimeError as error:
            return Asked(at_s, 500, shown=f"{type(error).__name__}: {error.message}")
        return right(at_s, "", outputs["y"], sent + 1)

    def close(self) -> None:
        """Give the connection up."""
        if self._client is not None:
            self._client.close()


def ask_plainly(on: Device, count: int) -> Asked:
    """Send features to ``/predict``; the answer is the larger of both numbers, and which it is."""
    at_s, row = time.monotonic(), list(numbers(count))
    answer = on.daemon.request("POST", "/predict", {"model": MODEL, "features": row})
    if answer.status != 200:
        return Asked(at_s, answer.status, shown=answer.body.decode())
    body = answer.json()
    given = [body["prediction"], body["confidence"]]
    return right(at_s, body["model_version"], given, [row.index(max(row)), max(row) + 1])


def ask_other(on: Device, count: int) -> Asked:
    """Ask a model that has nothing to do with it."""
    at_s, row = time.monotonic(), list(numbers(count))
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": row}
    answer = on.daemon.infer(OTHER, [tensor])
    if answer.status != 200:
        return Asked(at_s, answer.status, shown=answer.body.decode())
    return right(at_s, "", answer.json()["outputs"][0]["data"], [each + 3 for each in row])


@contextlib.contextmanager
def loaded(folder: Path, seed: Path, more: str = "", **release: Any) -> Iterator[Device]:  # noqa: ANN401 - settings
    """Run a device with two models, asked by clients of every kind."""
    other = add_constant(folder / "other.onnx", 3.0)
    kept = [
        Kept(binary=True, rows=1),
        Kept(binary=True, rows=5),
        Kept(binary=False, rows=3),
    ]
    more += f'\n[models.{OTHER}]\npath = "{other}"'
    try:
        with Device(folder, seed=seed, more=more, **release) as on:
            on.begin_traffic(*kept, ask_json, ask_plainly, ask_other)
            yield on
    finally:
        for client in kept:
            client.close()


# -- releases --------------------------------------------------------------------------------------


def test_no_request_fails_and_none_is_answered_wrong_through_every_transition(
    tmp_path: Path,
) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    with loaded(tmp_path, seed) as on:
        on.stage(bundle(tmp_path / "good", 2, bad_models.good))
        assert on.ended(2).state == "committed"
        on.stage(bundle(tmp_path / "bad", 3, bad_models.not_a_number, acceptance=MUCH))
        assert on.ended(3).state == "rolled-back"
        # From here on a step lasts until somebody decides.
        on.take_settings(shadow_s=0.0, canary_s=300.0, probation_s=300.0, blocks_min=4096)
        on.stage(bundle(tmp_path / "late", 4))
        on.reach(4, "canary")
        answers(on, "4")
        assert on.order("abort").status == 200
        on.stage(bundle(tmp_path / "by-hand", 5), mode="manual")
        on.reach(5, "staged")
        assert on.order("promote").status == 200
        on.reach(5, "probation")
        answers(on, "5")
        assert on.order("rollback").status == 200
        assert on.status().active == 2
        # From what is committed, back to what is not in memory any more.
        assert on.order("rollback").status == 200
        answers(on, "1")
        passed = {(row.from_state, row.to_state) for row in on.history()}
        assert {
            ("shadowing", "canary"),
            ("canary", "canary"),
            ("canary", "probation"),
            ("probation", "committed"),
            ("shadowing", "rolling-back"),
            ("canary", "rolling-back"),
            ("probation", "rolling-back"),
            ("committed", "rolling-back"),
        } <= passed
        assert on.traffic.faults() == []
        assert "3" not in on.traffic.by_version()


def answers(on: Device, version: str) -> None:
    """Wait until a version has answered from now on."""
    since_s = time.monotonic()
    eventually(lambda: on.traffic.by_version(since_s).get(version, 0) > 5, f"{version}'s answers")


def test_a_split_stays_over_a_restart_with_its_shares_its_keys_and_its_counts(
    tmp_path: Path,
) -> None:
    seed = add_constant(tmp_path / "seed.onnx", 1.0, note="seed")
    with Device(tmp_path, seed=seed, shadow_s=0.0, canary_s=0.5) as on:
        on.stage(bundle(tmp_path / "v2"))
        assert on.ended(2).state == "committed"
        order = {"weights": {"1": 70, "2": 30}, "reason": "which one sells more"}
        assert on.post(f"/admin/models/{MODEL}/traffic", order).status == 200
        before = versions_of_keys(on)
        assert set(before.values()) == {"1", "2"}
        assert counts(on) == {version: list(before.values()).count(version) for version in "12"}
        on.restart()
        assert on.status().traffic == {"1": 70, "2": 30}
        assert shares(on) == {"1": 0.7, "2": 0.3}
        assert versions_of_keys(on) == before, "a caller stays with its version"
        assert counts(on) == {version: list(before.values()).count(version) for version in "12"}
        row = on.history()[-1]
        assert (row.event, row.reason) == ("traffic", "which one sells more")
        assert row.numbers == {"weights": {"1": 70, "2": 30}}


def versions_of_keys(on: Device) -> dict[str, str]:
    """Ask once with each of many keys, and say which version answered."""
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
    found = {}
    for key in (f"user-{number}" for number in range(40)):
        answer = on.daemon.infer(MODEL, [tensor], parameters={"routing_key": key})
        assert answer.json()["outputs"][0]["data"] == [2.0, 3.0]
        found[key] = answer.json()["model_version"]
    return found


def counts(on: Device) -> dict[str, int]:
    """Count the answers since the start by version, as the statistics say."""
    found = {}
    for version in "12":
        path = f"/v2/models/{MODEL}/versions/{version}/stats"
        (each,) = on.daemon.request("GET", path).json()["model_stats"]
        found[version] = each["inference_stats"]["success"]["count"]
    return found


def shares(on: Device) -> dict[str, float]:
    """Read the shares of the traffic from the metrics."""
    text = on.daemon.request("GET", "/metrics", admin=True).body.decode()
    name = f'edge_runtime_traffic_share{{model="{MODEL}",version="'
    lines = [line.removeprefix(name) for line in text.splitlines() if line.startswith(name)]
    return {line.partition('"')[0]: float(line.split()[-1]) for line in lines}


# -- no room for both ------------------------------------------------------------------------------


def test_where_memory_holds_one_version_the_old_one_leaves_first_and_requests_wait(
    tmp_path: Path,
) -> None:
    sizes = measure(tmp_path / "sizes")
    seed = weighty(tmp_path / "seed.onnx", 1.0, 2 * MODEL_MIB)
    budget_bytes = sizes.own + 3 * sizes.model  # each of these is of two
    more = f"[batching]\nenabled = false\n[engine]\nmemory_budget_bytes = {budget_bytes}\n"
    settings = {"probation_s": 300.0, "shadow_s": 0.0}
    with loaded(tmp_path, seed, more + "graph_cache_bytes = 0", **settings) as on:
        lean = bundle(tmp_path / "v2", 2, lambda path: weighty(path, 1.0, 2 * MODEL_MIB - 1))
        on.stage(lean)
        on.reach(2, "probation")
        answers(on, "2")
        row = on.history()[-1]
        assert row.event == "no-room"
        assert "model 'm' version 2 is not loaded: it needs" in row.reason
        since_s = time.monotonic()
        answers(on, "2")
        assert "1" not in on.traffic.by_version(since_s)
        eventually(
            lambda: on.status().releases[0].method == "resource-preserving", "the method's telling"
        )
        assert on.order("rollback").status == 200
        release = on.ended(2)
        assert (release.state, release.method) == ("rolled-back", "resource-preserving")
        answers(on, "1")
        assert on.traffic.faults() == [], "requests wait, and none is refused"
