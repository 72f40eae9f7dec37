"""Models come and go under load: swaps lose nothing, broken files change nothing, nothing leaks."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.daemons import Daemon, daemon, eventually
from tests.models import add_constant, identity, save, value
from tests.wire import Wire, infer, numbers

pytestmark = pytest.mark.integration

X = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [10, 20]}


def version(root: Path, number: int, constant: float | None = None, name: str = "m") -> Path:
    """Add a version whose answer is ``x`` plus its number; complete at once, as a copy is not."""
    folder = root / name / str(number)
    hidden = add_constant(root / name / f".{number}" / "model.onnx", constant or number)
    hidden.parent.rename(folder)
    return folder


def index(running: Daemon, *, admin: bool = False) -> dict[tuple[str, str], tuple[str, str]]:
    answer = running.request("POST", "/v2/repository/index", admin=admin)
    assert answer.status == 200
    return {
        (entry["name"], entry["version"]): (entry["state"], entry.get("reason", ""))
        for entry in answer.json()
    }


def answers(running: Daemon, number: int | None = None, name: str = "m") -> float:
    """Give what the model adds."""
    model = name if number is None else f"{name}/versions/{number}"
    answer = running.infer(model, [X])
    return numbers(answer)[0] - 10


def load(running: Daemon, name: str = "m", what: str = "load") -> Any:  # noqa: ANN401
    return running.request("POST", f"/v2/repository/models/{name}/{what}", admin=True)


def serving(running: Daemon) -> list[str]:
    answer = running.request("GET", "/v2/models/m")
    versions: list[str] = answer.json()["versions"] if answer.status == 200 else []
    return versions


# -- repositories, policies, the index -----------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "served", "default"),
    [
        ("", ["10"], 10),
        ("latest = 2", ["9", "10"], 10),
        ("all = true", ["1", "2", "9", "10"], 10),
        ("specific = [1, 9]", ["1", "9"], 9),
    ],
)
def test_a_policy_says_which_versions_are_served(
    tmp_path: Path, policy: str, served: list[str], default: int
) -> None:
    root = tmp_path / "models"
    for number in (1, 2, 9, 10):
        version(root, number)
    config = tmp_path / "c.toml"
    config.write_text(f"repositories = ['{root}']\n[models.m.version_policy]\n{policy}\n", "utf-8")
    with daemon("--config", str(config)) as running:
        assert serving(running) == served
        assert answers(running) == default
        assert [answers(running, int(number)) for number in served] == [float(n) for n in served]
        for absent in {"1", "2", "9", "10"} - set(served):
            assert running.infer(f"m/versions/{absent}", [X]).status == 404
        ready = {key for key, (state, _) in index(running).items() if state == "READY"}
        assert ready == {("m", number) for number in served}


def test_the_index_is_on_both_sockets_and_can_be_cut_to_what_is_ready(tmp_path: Path) -> None:
    root = tmp_path / "models"
    version(root, 1)
    (root / "bad" / "1").mkdir(parents=True)
    (root / "bad" / "1" / "model.onnx").write_bytes(b"no model")
    with daemon(str(root)) as running:
        both = index(running)
        assert both == index(running, admin=True)
        assert both["m", "1"] == ("READY", "")
        state, reason = both["bad", "1"]
        assert state == "UNAVAILABLE"
        assert "model.onnx" in reason
        ready = running.request("POST", "/v2/repository/index", {"ready": True})
        assert [entry["name"] for entry in ready.json()] == ["m"]


def test_load_and_unload_are_refused_on_the_data_socket_and_change_nothing(tmp_path: Path) -> None:
    with daemon(f"m={identity(tmp_path / 'm.onnx')}") as running:
        for what in ("load", "unload"):
            answer = running.request("POST", f"/v2/repository/models/m/{what}")
            assert answer.status == 403
            assert "admin.sock" in answer.json()["error"]
        assert running.infer("m", [X]).status == 200


def test_predictions_are_not_for_the_admin_socket(tmp_path: Path) -> None:
    with daemon(f"m={identity(tmp_path / 'm.onnx')}") as running:
        answer = running.request("POST", "/v2/models/m/infer", {"inputs": [X]}, admin=True)
        assert answer.status == 404


def test_ready_follows_what_is_loaded(tmp_path: Path) -> None:
    with daemon(f"m={identity(tmp_path / 'm.onnx')}") as running:
        assert running.request("GET", "/v2/health/ready").json() == {"ready": True}
        assert running.request("GET", "/v2/models/m/ready").json() == {"name": "m", "ready": True}
        assert running.request("GET", "/v2/models/m/versions/2/ready").status == 404
        assert load(running, what="unload").status == 200
        answer = running.request("GET", "/v2/models/m/ready")
        assert answer.status == 503
        assert "unloaded" in answer.json()["error"]
        assert running.infer("m", [X]).status == 503
        assert running.request("GET", "/v2/health/ready").status == 200
        assert index(running)["m", "1"] == ("UNAVAILABLE", "unloaded")
        assert load(running).status == 200
        assert running.infer("m", [X]).status == 200


def test_what_is_not_there_cannot_be_loaded_or_unloaded(tmp_path: Path) -> None:
    with daemon(f"m={identity(tmp_path / 'm.onnx')}") as running:
        for what in ("load", "unload"):
            answer = load(running, "other", what)
            assert answer.status == 404
            assert "other" in answer.json()["error"]


# -- new files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["garbage", "cut off", "missing"])
def test_a_broken_new_version_leaves_the_old_one_answering(tmp_path: Path, damage: str) -> None:
    root = tmp_path / "models"
    version(root, 1)
    with daemon(str(root)) as running:
        file = version(root, 2) / "model.onnx"
        if damage == "missing":
            file.unlink()
        else:
            whole = file.read_bytes()
            file.write_bytes(b"garbage" if damage == "garbage" else whole[: len(whole) // 2])
        answer = load(running)
        assert answer.status == 400
        assert answer.json()["error"]
        assert answers(running) == 1.0
        assert serving(running) == ["1"]
        state, reason = index(running)["m", "2"]
        assert state == "UNAVAILABLE"
        assert reason
        assert running.infer("m/versions/2", [X]).status == 503
        add_constant(file, 2.0)  # and mended, it is taken
        assert load(running).status == 200
        assert answers(running) == 2.0


def test_new_files_of_the_same_version_are_taken_when_loaded(tmp_path: Path) -> None:
    model = add_constant(tmp_path / "m.onnx", 1.0)
    with daemon(f"m={model}") as running:
        assert answers(running) == 1.0
        add_constant(tmp_path / "new.onnx", 5.0).rename(model)
        assert answers(running) == 1.0
        assert load(running).status == 200
        assert answers(running) == 5.0


def test_a_broken_file_of_the_same_version_leaves_the_loaded_one_answering(tmp_path: Path) -> None:
    model = add_constant(tmp_path / "m.onnx", 1.0)
    with daemon(f"m={model}") as running:
        (tmp_path / "new").write_bytes(b"no model")
        (tmp_path / "new").rename(model)
        assert load(running).status == 400
        assert answers(running) == 1.0
        assert index(running)["m", "1"][0] == "READY"


def test_the_index_says_that_the_new_files_of_a_serving_version_are_broken(tmp_path: Path) -> None:
    model = add_constant(tmp_path / "m.onnx", 1.0)
    with daemon(f"m={model}") as running:
        (tmp_path / "new").write_bytes(b"no model")
        (tmp_path / "new").rename(model)
        assert load(running).status == 400
        assert "failed" in index(running)["m", "1"][1]


def test_sighup_picks_up_a_new_version_and_a_new_model(tmp_path: Path) -> None:
    root = tmp_path / "models"
    version(root, 1)
    with daemon(str(root)) as running:
        version(root, 2)
        version(root, 1, 7.0, name="other")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: serving(running) == ["2"], "the new version")
        assert answers(running) == 2.0
        eventually(lambda: ("other", "1") in index(running), "the new model's being known")
        eventually(lambda: index(running)["other", "1"][0] == "READY", "the new model")
        assert answers(running, name="other") == 7.0


def test_sighup_reads_the_configuration_and_keeps_the_old_one_when_it_is_wrong(
    tmp_path: Path,
) -> None:
    root = tmp_path / "models"
    for number in (1, 2):
        version(root, number)
    config = tmp_path / "c.toml"
    start = f"repositories = ['{root}']\n[models.m.version_policy]\n"
    config.write_text(start + "specific = [1]\n", "utf-8")
    with daemon("--config", str(config)) as running:
        assert serving(running) == ["1"]
        config.write_text(start + "newest = 1\n", "utf-8")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: "stays as it was" in running.log(), "the refusal")
        assert "newest" in running.log()
        assert serving(running) == ["1"]
        config.write_text(start + "all = true\n[limits]\nbody_bytes = 300\n", "utf-8")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: serving(running) == ["1", "2"], "the new policy")
        assert running.request("POST", "/v2/models/m/infer", b"x" * 301).status == 413
        config.write_text(start + "specific = [2]\n", "utf-8")
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: serving(running) == ["2"], "the retired version")


# -- under load ----------------------------------------------------------------------------------


class Hammer:
    """A client that asks all the time, and remembers every answer.

    Attributes:
        seen: What the model added, in order.
        problems: Answers that were no prediction.
    """

    def __init__(self, running: Daemon, depth: int) -> None:
        self.seen: list[float] = []
        self.problems: list[object] = []
        self._running = running
        self._depth = depth
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        try:
            with Wire.of(self._running) as wire:
                while not self.stop.is_set():
                    wire.send(infer("m", [[10, 20]]) * self._depth)
                    for _ in range(self._depth):
                        answer = wire.answer()
                        if answer.status == 200:
                            self.seen.append(numbers(answer)[0] - 10)
                        else:
                            self.problems.append(answer)
        except (OSError, AssertionError) as error:
            self.problems.append(error)


@contextmanager
def hammering(running: Daemon) -> Iterator[list[Hammer]]:
    hammers = [Hammer(running, depth) for depth in (1, 1, 5, 20)]
    for hammer in hammers:
        hammer.thread.start()
    try:
        yield hammers
    finally:
        for hammer in hammers:
            hammer.stop.set()
        for hammer in hammers:
            hammer.thread.join()


def test_a_swap_under_load_loses_no_request(tmp_path: Path) -> None:
    root = tmp_path / "models"
    version(root, 1)
    with daemon(str(root)) as running, hammering(running) as hammers:
        for number in range(2, 8):
            before = [len(hammer.seen) for hammer in hammers]
            version(root, number)
            assert load(running).status == 200
            assert answers(running) == number, "after the swap only the new one answers"

            def moved(before: list[int] = before, number: int = number) -> bool:
                return all(
                    hammer.problems or (len(hammer.seen) > seen and hammer.seen[-1] == number)
                    for hammer, seen in zip(hammers, before, strict=True)
                )

            eventually(moved, "every client's seeing the new version")
    for hammer in hammers:
        assert not hammer.problems
        assert hammer.seen == sorted(hammer.seen), "nobody sees an older version again"
        assert set(hammer.seen) <= set(range(1, 8))


def heavy(path: Path, mib: int) -> Path:
    """``y = x + 1`` and weights of some MiB that ONNX Runtime cannot leave out."""
    side = 512
    rounds = mib * (1 << 20) // (4 * side * side)
    weights: list[onnx.TensorProto] = []
    nodes = []
    for number in range(rounds):
        array = np.full((side, side), number + 1, np.float32)
        weights.append(numpy_helper.from_array(array, f"w{number}"))
        nodes.append(helper.make_node("MatMul", ["h", f"w{number}"], [f"p{number}"]))
    zero = numpy_helper.from_array(np.zeros((2, side), np.float32), "zero")
    nodes.insert(0, helper.make_node("MatMul", ["x", "zero"], ["h"]))
    products = [f"p{number}" for number in range(rounds)]
    nodes.append(helper.make_node("Sum", products, ["s"]))
    nodes.append(helper.make_node("ReduceSum", ["s"], ["total"], keepdims=0))
    nodes.append(helper.make_node("Add", ["x", "total"], ["y"]))
    return save(path, nodes, [value("x")], [value("y")], [zero, *weights])


def resident_bytes(running: Daemon) -> int:
    pages = Path(f"/proc/{running.process.pid}/statm").read_text("ascii").split()[1]
    return int(pages) * 4096


MODEL_MIB = 8
GROWTH_MAX_MIB = 8  # over 40 rounds: one model that leaked once; 40 leaks would be 320 MiB


def test_memory_stays_flat_over_50_rounds_of_loading_and_unloading(tmp_path: Path) -> None:
    model = heavy(tmp_path / "m.onnx", MODEL_MIB)
    with daemon(f"m={model}") as running:
        loaded = resident_bytes(running)
        sizes = []
        for _ in range(50):
            assert load(running, what="unload").status == 200
            sizes.append(resident_bytes(running))
            assert load(running).status == 200
            assert running.infer("m", [X]).status == 200
        growth = (sizes[-1] - sizes[9]) / (1 << 20)
        assert growth < GROWTH_MAX_MIB, [size >> 20 for size in sizes]
        assert sizes[-1] < loaded, "an unloaded model's memory is given back"


def test_a_start_falls_back_to_the_version_before_a_broken_newest_one(tmp_path: Path) -> None:
    root = tmp_path / "models"
    version(root, 1)
    version(root, 2, 2.0)
    (root / "m" / "2" / "model.onnx").write_bytes(
        (root / "m" / "2" / "model.onnx").read_bytes()[:-9]
    )
    (root / "m" / "3").mkdir()
    with daemon(str(root)) as running:
        assert serving(running) == ["1"]
        assert index(running)["m", "2"][0] == "UNAVAILABLE"
        assert index(running)["m", "3"][0] == "UNAVAILABLE"


def test_sighup_applies_changed_settings_of_a_model_and_loads_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "models"
    version(root, 1)
    version(root, 1, name="other")
    config = tmp_path / "c.toml"
    config.write_text(f'repositories = ["{root}"]\n')
    with daemon("--config", str(config)) as running:
        config.write_text(f'repositories = ["{root}"]\n[models.m]\nintra_op_threads = 3\n')
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: running.log().count("model m version 1 loaded") == 2, "the reload")
        assert running.log().count("model other version 1 loaded") == 1
