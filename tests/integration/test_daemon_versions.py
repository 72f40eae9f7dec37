"""Versions that come and go with their files, and requests that come while they are loaded."""

import shutil
import signal
import threading
from pathlib import Path

import pytest

from tests.daemons import Daemon, daemon, eventually
from tests.models import add_constant
from tests.weighty import PLAIN, X, adds, load, state, weighty
from tests.wire import numbers

pytestmark = pytest.mark.integration


def seen(running: Daemon) -> list[str]:
    """List the versions in the index."""
    rows = running.request("POST", "/v2/repository/index").json()
    return [f"{row['name']}/{row['version']}" for row in rows]


def test_requests_that_come_while_an_operator_loads_an_unloaded_model_are_answered(
    tmp_path: Path,
) -> None:
    model = weighty(tmp_path / "m.onnx", 1.0, 96)
    with daemon(f"m={model}", environment=PLAIN) as running:
        for _ in range(3):
            assert load(running, "m", "unload").status == 200
            assert running.infer("m", [X]).status == 503
            loading = threading.Thread(target=load, args=(running, "m"))
            loading.start()
            eventually(lambda: state(running, "m")[0] != "UNAVAILABLE", "the load")
            assert adds(running, "m") == 1.0
            loading.join()


def test_a_version_that_was_deleted_is_forgotten_everywhere_and_an_unloaded_one_is_not(
    tmp_path: Path,
) -> None:
    root = tmp_path / "models"
    for number in (1, 2):
        add_constant(root / "m" / str(number) / "model.onnx", float(number))
    (root / "bad" / "1").mkdir(parents=True)
    (root / "bad" / "1" / "model.onnx").write_bytes(b"no model")
    (tmp_path / "c.toml").write_text(
        f"repositories = ['{root}']\n[models.m]\nversion_policy.all = true\ncache_ttl_s = 60\n",
        "utf-8",
    )

    with daemon("--config", str(tmp_path / "c.toml")) as running:
        for number in (1, 2):
            assert numbers(running.infer(f"m/versions/{number}", [X]))[0] == 10 + number
        assert load(running, "m", "unload").status == 200
        assert seen(running) == ["bad/1", "m/1", "m/2"]
        shutil.rmtree(root / "bad")
        shutil.rmtree(root / "m" / "1")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: seen(running) == ["m/2"], "the end of what is gone")
        eventually(lambda: running.infer("m", [X]).status == 200, "the version that stayed")
        assert adds(running, "m") == 2.0
        metrics = running.request("GET", "/metrics").body.decode()
        assert 'version="2"' in metrics
        assert 'version="1"' not in metrics
        told = running.request("GET", "/v1/models/m").json()["model_version_status"]
        assert [each["version"] for each in told] == ["2"]
        counted = running.request("GET", "/v2/models/stats").json()["model_stats"]
        assert [each["version"] for each in counted] == ["2"]
        kept = running.request("GET", "/v2/cache/stats", admin=True).json()["versions"]
        assert [each["version"] for each in kept] == ["2"]


def test_a_model_whose_folder_was_deleted_answers_until_a_reload_and_is_forgotten_then(
    tmp_path: Path,
) -> None:
    root = tmp_path / "models"
    add_constant(root / "m" / "1" / "model.onnx", 1.0)
    (tmp_path / "c.toml").write_text(f"repositories = ['{root}']\n", "utf-8")
    with daemon("--config", str(tmp_path / "c.toml")) as running:
        root.rename(tmp_path / "away")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "the model repository" in running.log(), "the look at the repository")
        assert adds(running, "m") == 1.0, "a repository that cannot be read takes nothing away"
        (tmp_path / "away").rename(root)
        shutil.rmtree(root / "m")
        assert load(running, "m").status == 404
        assert adds(running, "m") == 1.0, "a load that finds nothing takes nothing away"
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: seen(running) == [], "the end of the model")
        assert running.infer("m", [X]).status == 404
