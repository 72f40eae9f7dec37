"""Kept answers on the request path of a real daemon: given again, survived, marked, kept apart."""

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.client import Client, Prediction
from edge_runtime.errors import UnavailableError
from tests.customized import at_start
from tests.daemons import Daemon, daemon, eventually
from tests.models import add_constant, slow
from tests.wire import Wire, infer_zeros, request

pytestmark = pytest.mark.integration

SIZE = 512
#: Let a busy machine take its time: the cache itself gives up a slow disk, and the model runs.
PATIENCE = """
    from edge_runtime.cache import version_cache
    for name in ("_READ_S_MIN", "_READ_S_MAX", "_READ_S_UNKNOWN", "_STALE_READ_S"):
        assert hasattr(version_cache, name)
        setattr(version_cache, name, 60.0)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some milliseconds: for shorter ones the cache steps aside."""
    return slow(tmp_path_factory.mktemp("models") / "slow.onnx", SIZE, 24)


@contextmanager
def caching(folder: Path, model: Path, **settings: Any) -> Iterator[Daemon]:  # noqa: ANN401
    lines = [
        f"{key} = {json.dumps(value)}" for key, value in {"cache_ttl_s": 600, **settings}.items()
    ]
    path = folder / "c.toml"
    path.write_text(
        "\n".join(
            [
                "[cache]",
                "flush_interval_s = 0.05",
                "[http]",
                "listen = '127.0.0.1:0'",
                "[models.m]",
                f"path = '{model}'",
                *lines,
            ]
        ),
        "utf-8",
    )
    python = folder / "python"
    python.mkdir()
    with daemon("--config", str(path), environment=at_start(python, PATIENCE)) as running:
        yield running


def ask(running: Daemon, number: float, **more: Any) -> Prediction:  # noqa: ANN401
    with Client(running.socket) as client:
        return client.predict("m", {"x": np.full((1, SIZE), number, np.float32)}, **more)


def counts(running: Daemon) -> tuple[int, int, int]:
    """Runs, hits and misses."""
    with Client(running.socket) as client:
        (found,) = client.statistics("m").model_stats
    stats = found.inference_stats
    return found.execution_count, stats.cache_hit.count, stats.cache_miss.count


def stored(running: Daemon) -> int:
    """Answers in the file."""
    answer = running.request("GET", "/v2/cache/stats", admin=True)
    assert answer.status == 200, answer.body
    entries: int = answer.json()["file"]["entries"]
    return entries


def restart(running: Daemon, sign: signal.Signals) -> None:
    """Start it anew, and wait until it knows the one answer in the file."""
    running.restart(sign)
    eventually(lambda: stored(running) == 1, "the file's being read")


def test_an_equal_question_is_not_run_again_whoever_asks_and_however(
    tmp_path: Path, model: Path
) -> None:
    with caching(tmp_path, model) as running:
        first = ask(running, 1.0, id="first")
        again = ask(running, 1.0, id="second")
        assert (first.id, again.id) == ("first", "second")
        assert again.parameters == {}
        np.testing.assert_array_equal(first.outputs["y"], again.outputs["y"])
        tensor = {"name": "x", "shape": [1, SIZE], "datatype": "FP32", "data": [1.0] * SIZE}
        answer = running.infer("m", [tensor])  # the same in JSON
        assert answer.json()["outputs"][0]["data"] == first.outputs["y"].reshape(-1).tolist()
        assert counts(running) == (1, 2, 1)
        ask(running, 2.0)
        assert counts(running) == (2, 2, 2)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_kept_answers_survive_a_restart(tmp_path: Path, model: Path, sign: signal.Signals) -> None:
    with caching(tmp_path, model) as running:
        before = ask(running, 3.0)
        eventually(lambda: stored(running) == 1, "the answer's being written")
        restart(running, sign)
        after = ask(running, 3.0)
        np.testing.assert_array_equal(before.outputs["y"], after.outputs["y"])
        assert counts(running) == (0, 1, 0)


@pytest.mark.parametrize("is_cleared", [True, False])
def test_a_clear_that_failed_is_not_undone_by_kill_9(
    tmp_path: Path, model: Path, *, is_cleared: bool
) -> None:
    with caching(tmp_path, model) as running:
        ask(running, 1.0)
        eventually(lambda: stored(running) == 1, "the write")
        holds = sqlite3.connect(running.state / "cache" / "cache.db", isolation_level=None)
        holds.execute("BEGIN IMMEDIATE")
        if is_cleared:
            said = running.request("POST", "/v2/cache/clear", {"model": "m"}, admin=True)
            assert said.status == 503
            assert "locked" in said.json()["error"]
            assert "noted" not in said.json()["error"]
        running.process.kill()
        running.process.wait()
        holds.close()
        running.restart()
        if not is_cleared:
            eventually(lambda: stored(running) == 1, "the file's being read")
        ask(running, 1.0)
        assert counts(running) == ((1, 0, 1) if is_cleared else (0, 1, 0))


def test_another_model_under_the_same_version_never_gives_the_old_ones_answers(
    tmp_path: Path,
) -> None:
    path = add_constant(tmp_path / "m.onnx", 1.0, shape=("batch", SIZE))
    with caching(tmp_path, path) as running:
        ask(running, 1.0)
        add_constant(path, 2.0, shape=("batch", SIZE))
        assert running.request("POST", "/v2/repository/models/m/load", admin=True).status == 200
        assert ask(running, 1.0).outputs["y"][0, 0] == 3.0


def test_a_model_that_is_unloaded_gives_kept_answers_marked_stale_where_that_is_allowed(
    tmp_path: Path, model: Path
) -> None:
    with caching(tmp_path, model, cache_stale_s=600) as running:
        fresh = ask(running, 1.0)
        assert running.request("POST", "/v2/repository/models/m/unload", admin=True).status == 200
        stale = ask(running, 1.0, id="mine")
        assert stale.parameters == {"stale": True}
        assert (stale.id, stale.model_version) == ("mine", "1")
        np.testing.assert_array_equal(stale.outputs["y"], fresh.outputs["y"])
        with pytest.raises(UnavailableError, match="unloaded"):
            ask(running, 2.0)
        running.restart(signal.SIGKILL)


def test_a_model_that_is_unloaded_gives_nothing_where_stale_answers_are_not_allowed(
    tmp_path: Path, model: Path
) -> None:
    with caching(tmp_path, model) as running:
        ask(running, 1.0)
        assert running.request("POST", "/v2/repository/models/m/unload", admin=True).status == 200
        with pytest.raises(UnavailableError, match="unloaded"):
            ask(running, 1.0)


def test_a_model_whose_new_files_cannot_be_loaded_after_a_restart_gives_stale_answers(
    tmp_path: Path,
) -> None:
    path = slow(tmp_path / "m.onnx", SIZE, 24)
    other = add_constant(tmp_path / "other.onnx", 1.0)
    with caching(tmp_path, path, cache_stale_s=600) as running:
        (tmp_path / "c.toml").write_text(
            (tmp_path / "c.toml").read_text("utf-8") + f"\n[models.other]\npath = '{other}'\n",
            "utf-8",
        )
        running.restart()
        fresh = ask(running, 1.0)
        eventually(lambda: stored(running) == 1, "the answer's being written")
        path.write_bytes(b"not a model")
        restart(running, signal.SIGKILL)
        stale = ask(running, 1.0)
        assert stale.parameters == {"stale": True}
        np.testing.assert_array_equal(stale.outputs["y"], fresh.outputs["y"])


def test_what_one_user_asked_is_not_given_to_others_where_the_scope_is_the_user(
    tmp_path: Path, model: Path
) -> None:
    with caching(tmp_path, model, cache_scope="uid") as running:
        ask(running, 1.0)
        ask(running, 1.0)
        assert counts(running)[:2] == (1, 1)
        with Wire(running.tcp()) as wire:  # nobody knows who that is
            tensor = {"name": "x", "shape": [1, SIZE], "datatype": "FP32", "data": [1.0] * SIZE}
            for _ in range(2):
                wire.send(request("POST", "/v2/models/m/infer", {"inputs": [tensor]}))
                assert wire.answer().status == 200
        assert counts(running)[:2] == (3, 1)


def test_equal_questions_at_the_same_time_share_one_run(tmp_path: Path, model: Path) -> None:
    tensor = {"name": "x", "shape": [1, SIZE], "datatype": "FP32", "data": [7.0] * SIZE}
    message = request("POST", "/v2/models/m/infer", {"inputs": [tensor]})
    with caching(tmp_path, model) as running, Wire.of(running) as wire:
        wire.send(message * 8)
        answers = [wire.answer() for _ in range(8)]
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert counts(running)[0] == 1


def test_a_request_that_waits_for_the_run_of_an_equal_one_keeps_its_own_timeout(
    tmp_path: Path,
) -> None:
    model = slow(tmp_path / "slow.onnx", SIZE, 2000)
    shape = [16, SIZE]  # it runs for so long that the second one comes in the middle of it
    with caching(tmp_path, model) as running, Wire.of(running) as wire:
        wire.send(infer_zeros("m", shape) + infer_zeros("m", shape, timeout=1))
        assert wire.answer().status == 200
        late = wire.answer()
        assert late.status == 503
        assert "timeout passed" in late.json()["error"]
        assert counts(running)[0] == 1


def test_a_model_that_did_not_opt_in_is_never_kept(tmp_path: Path, model: Path) -> None:
    with caching(tmp_path, model, cache_ttl_s=0) as running:
        ask(running, 1.0)
        ask(running, 1.0)
        assert counts(running) == (2, 0, 0)
        assert not (running.folder / "state" / "cache").exists()


def test_opting_in_and_out_takes_effect_with_the_configuration(tmp_path: Path, model: Path) -> None:
    with caching(tmp_path, model, cache_ttl_s=0) as running:
        ask(running, 1.0)
        path = tmp_path / "c.toml"
        text = path.read_text("utf-8")
        path.write_text(text.replace("cache_ttl_s = 0", "cache_ttl_s = 600"), "utf-8")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: (ask(running, 1.0), counts(running)[1])[1] > 0, "a hit")
        path.write_text(text, "utf-8")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "configuration read again" in running.log().split("hit")[-1], "reading")

        def runs_again() -> bool:
            before = counts(running)[0]
            ask(running, 1.0)
            return counts(running)[0] == before + 1

        eventually(runs_again, "a run for an equal question")


def repository(root: Path, number: int, constant: float) -> None:
    add_constant(root / "m" / str(number) / "model.onnx", constant, shape=("batch", SIZE))


def test_a_version_that_is_gone_after_a_restart_answers_nothing_any_more(tmp_path: Path) -> None:
    root = tmp_path / "models"
    repository(root, 1, 1.0)
    slow(root / "m" / "2" / "model.onnx", SIZE, 24)
    config = tmp_path / "c.toml"
    config.write_text(
        f"repositories = ['{root}']\n[cache]\nflush_interval_s = 0.05\n[models.m]\n"
        "load = 'request'\ncache_ttl_s = 3600\ncache_stale_s = 86400\n",
        "utf-8",
    )
    with daemon("--config", str(config)) as running:
        assert ask(running, 1.0).model_version == "2"
        eventually(lambda: stored(running) == 1, "the answer's being written")
        shutil.rmtree(root / "m" / "2")
        running.restart(signal.SIGKILL)
        now = ask(running, 1.0)
        assert (now.model_version, now.parameters) == ("1", {})
        assert now.outputs["y"][0, 0] == 2.0


def test_a_model_that_is_only_asleep_is_woken_for_what_is_too_old(
    tmp_path: Path, model: Path
) -> None:
    with caching(
        tmp_path, model, cache_ttl_s=0.05, cache_stale_s=600, idle_unload_s=0.2
    ) as running:
        ask(running, 1.0)
        eventually(lambda: is_asleep(running), "the model's leaving memory")
        again = ask(running, 1.0)
        assert again.parameters == {}
        assert counts(running)[0] == 2


def test_stale_answers_are_counted(tmp_path: Path, model: Path) -> None:
    with caching(tmp_path, model, cache_stale_s=600) as running:
        ask(running, 1.0)
        assert running.request("POST", "/v2/repository/models/m/unload", admin=True).status == 200
        for _ in range(3):
            assert ask(running, 1.0).parameters == {"stale": True}
        text = running.request("GET", "/metrics").body.decode()
        assert 'edge_runtime_requests_total{model="m",outcome="success",version="1"} 4.0' in text


@pytest.mark.parametrize("is_unloaded", [True, False])
def test_a_stale_answer_is_marked_at_every_door(
    tmp_path: Path, model: Path, *, is_unloaded: bool
) -> None:
    ones = [1.0] * SIZE
    tensor = {"name": "x", "shape": [1, SIZE], "datatype": "FP32", "data": ones}
    doors: dict[str, dict[str, Any]] = {
        "/v1/models/m:predict": {"instances": [ones]},
        "/v1/models/m/versions/1:predict": {"inputs": [ones]},
        "/predict": {"features": ones},
        "/v2/models/m/infer": {"inputs": [tensor]},
    }
    path = tmp_path / "m.onnx"
    shutil.copyfile(model, path)
    with caching(tmp_path, path, cache_ttl_s=0.05, cache_stale_s=600, idle_unload_s=0.2) as running:
        for door, body in doors.items():
            assert "parameters" not in running.request("POST", door, body).json()
        path.write_bytes(b"not a model")
        if is_unloaded:
            running.request("POST", "/v2/repository/models/m/unload", admin=True)
        else:
            eventually(lambda: is_asleep(running), "the model's leaving memory")
        for door, body in doors.items():
            answer = running.request("POST", door, body)
            assert (answer.status, answer.json()["parameters"]) == (200, {"stale": True}), door
        unknown = running.request("POST", "/predict", {"features": [2.0] * SIZE})
        assert unknown.status == 503


def is_asleep(running: Daemon) -> bool:
    """Whether the model left memory and comes when asked."""
    (entry,) = running.request("POST", "/v2/repository/index").json()
    return "loads when asked" in entry.get("reason", "")
