"""Who may ask a model, and how much: the kernel says who is calling."""

import os
import signal
from pathlib import Path

import pytest

from tests.daemons import Daemon, daemon, eventually
from tests.models import identity, slow
from tests.wire import Wire, infer, infer_zeros, numbers

pytestmark = pytest.mark.integration

INFER = infer("m", [[1.0, 2.0]])


def config(folder: Path, model: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(f"{text}\n[models.open]\npath = '{model}'\n", "utf-8")
    return path


def closed(model: Path, rule: str) -> str:
    return f"[models.m]\npath = '{model}'\ncallers = ['{rule}']\n[http]\nlisten = '127.0.0.1:0'\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity(tmp_path_factory.mktemp("models") / "m.onnx")


def status(running: Daemon) -> int:
    with Wire.of(running) as wire:
        wire.send(INFER)
        return wire.answer().status


@pytest.mark.parametrize("rule", [f"uid:{os.getuid()}", f"gid:{os.getgid()}"])
def test_a_user_on_the_list_is_answered_on_the_unix_socket(
    tmp_path: Path, model: Path, rule: str
) -> None:
    with daemon("--config", str(config(tmp_path, model, closed(model, rule)))) as running:
        with Wire.of(running) as wire:
            wire.send(INFER)
            assert numbers(wire.answer()) == [1.0, 2.0]
        with Wire(running.tcp()) as wire:  # over TCP nobody says who it is
            wire.send(INFER)
            assert wire.answer().status == 403


def test_a_user_who_is_not_on_the_list_is_refused_and_other_models_answer(
    tmp_path: Path, model: Path
) -> None:
    text = closed(model, f"uid:{os.getuid() + 1}")
    with daemon("--config", str(config(tmp_path, model, text))) as running, Wire.of(running) as w:
        w.send(INFER)
        refused = w.answer()
        assert refused.status == 403
        assert f"uid={os.getuid()}" in refused.json()["error"]
        assert "models.m.callers" in refused.json()["error"]
        w.send(infer("open", [[1.0, 2.0]]))
        assert numbers(w.answer()) == [1.0, 2.0]


def test_who_is_not_on_the_list_learns_that_a_model_is_ready_and_nothing_of_its_use(
    tmp_path: Path, model: Path
) -> None:
    text = closed(model, f"uid:{os.getuid() + 1}")
    with daemon("--config", str(config(tmp_path, model, text))) as running:

        def asks(path: str, method: str = "GET") -> int:
            return running.request(method, path).status

        assert asks("/v2/models/m/ready") == asks("/v1/models/m") == 200
        assert asks("/v1/models/m/labels/latest") == 200
        assert b'"m"' in running.request("POST", "/v2/repository/index").body
        for version in ("", "/versions/1"):
            for what in ("", "/config", "/stats"):
                assert asks(f"/v2/models/m{version}{what}") == 403
        assert asks("/v1/models/m/metadata") == asks("/model-info?model=m") == 403
        told = running.request("GET", "/v2/models/stats").json()["model_stats"]
        assert [each["name"] for each in told] == ["open"]
        for admin in (False, True):
            metrics = running.request("GET", "/metrics", admin=admin).body.decode()
            assert 'model="open"' in metrics
            assert ('model="m"' in metrics) is admin


def test_who_is_on_the_list_sees_the_numbers_of_the_model(tmp_path: Path, model: Path) -> None:
    text = closed(model, f"uid:{os.getuid()}")
    with daemon("--config", str(config(tmp_path, model, text))) as running:
        assert status(running) == 200
        (told,) = running.request("GET", "/v2/models/m/stats").json()["model_stats"]
        assert told["inference_count"] == 1
        told = running.request("GET", "/v2/models/stats").json()["model_stats"]
        assert [each["name"] for each in told] == ["m", "open"]
        assert 'model="m"' in running.request("GET", "/metrics").body.decode()
        with Wire(running.tcp()) as wire:  # over TCP nobody says who it is
            wire.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            text = wire.answer().body.decode()
            assert 'model="open"' in text
            assert 'model="m"' not in text


def test_the_list_changes_with_the_configuration_and_a_wrong_one_changes_nothing(
    tmp_path: Path, model: Path
) -> None:
    path = config(tmp_path, model, closed(model, f"uid:{os.getuid() + 1}"))
    with daemon("--config", str(path)) as running:
        assert status(running) == 403
        config(tmp_path, model, closed(model, "user:no-such-user"))
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "no user 'no-such-user'" in running.log(), "the refusal")
        assert status(running) == 403
        config(tmp_path, model, closed(model, f"uid:{os.getuid()}"))
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: status(running) == 200, "the new list")


def test_one_user_cannot_have_more_unanswered_than_its_limit(tmp_path: Path) -> None:
    model = slow(tmp_path / "slow.onnx")
    text = f"[limits]\nrequests_per_user = 3\n[models.m]\npath = '{model}'\n"
    with daemon("--config", str(config(tmp_path, model, text))) as running, Wire.of(running) as w:
        w.send(b"".join(infer_zeros("m", [1, 512]) for _ in range(8)))
        answers = [w.answer() for _ in range(8)]
        refused = [answer for answer in answers if answer.status == 503]
        assert 1 <= len(refused) <= 5
        assert all("requests_per_user" in answer.json()["error"] for answer in refused)
        assert all(answer.headers["Retry-After"] == "1" for answer in refused)
        w.send(infer_zeros("m", [1, 512]))
        assert w.answer().status == 200
