"""Models under a memory budget, in real daemons: they come when asked, leave when in the way."""

import signal
import threading
from pathlib import Path

import pytest

from tests.daemons import Answer, Daemon, eventually
from tests.models import add_constant
from tests.weighty import (
    MIB,
    MODEL_MIB,
    SLACK_BYTES,
    Sizes,
    X,
    adds,
    in_memory,
    lazy,
    load,
    measure,
    memory,
    state,
    weighty,
)
from tests.wire import numbers

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Sizes:
    return measure(tmp_path_factory.mktemp("sizes"))


# -- loaded when asked ---------------------------------------------------------------------------


def test_lazy_models_cost_nothing_until_they_are_asked(tmp_path: Path) -> None:
    with lazy(tmp_path, {"m": 1.0, "n": 2.0}) as running:
        before = memory(running, "Rss")  # Pss changes with who else runs the same libraries
        assert running.request("GET", "/v2/models/m/ready").json() == {"name": "m", "ready": True}
        assert state(running, "m") == ("READY", "not in memory; loads when asked")
        assert memory(running, "Rss") - before < MODEL_MIB * MIB / 2
        assert adds(running, "m") == 1.0
        assert in_memory(running, "m")
        assert not in_memory(running, "n")
        described = running.request("GET", "/v2/models/n")  # clients look before they ask
        assert described.json()["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        assert in_memory(running, "n")


def test_many_that_ask_a_lazy_model_at_once_are_all_answered(tmp_path: Path) -> None:
    with lazy(tmp_path, {"m": 1.0}) as running:
        found: list[float] = []
        threads = [
            threading.Thread(target=lambda: found.append(adds(running, "m"))) for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [1.0] * 16
        assert running.log_until_now().count("model m version 1 loaded") == 1


def test_an_idle_model_gives_its_memory_back_and_answers_again(tmp_path: Path) -> None:
    with lazy(tmp_path, {"m": 1.0}, settings="idle_unload_s = 2") as running:
        loaded = 0

        def is_measured() -> bool:
            nonlocal loaded
            assert adds(running, "m") == 1.0
            loaded = memory(running, "Rss")
            return in_memory(running, "m")

        eventually(is_measured, "a look before it is idle for too long")
        eventually(lambda: "not asked for 2 s" in state(running, "m")[1], "the idle unload")
        enough = 0.8 * MODEL_MIB * MIB
        eventually(lambda: loaded - memory(running, "Rss") > enough, "the memory's return")
        assert running.request("GET", "/v2/models/m").json()["inputs"][0]["name"] == "x"
        assert running.request("GET", "/v2/models/m/config").status == 200
        assert running.request("GET", "/v2/models/m/stats").status == 200
        assert adds(running, "m") == 1.0


def test_what_an_operator_unloads_stays_out_until_it_is_loaded(tmp_path: Path) -> None:
    with lazy(tmp_path, {"m": 1.0}) as running:
        assert adds(running, "m") == 1.0
        assert load(running, "m", "unload").status == 200
        assert running.infer("m", [X]).status == 503
        assert running.request("GET", "/v2/models/m").status == 503
        assert state(running, "m") == ("UNAVAILABLE", "unloaded")
        assert load(running, "m").status == 200
        assert in_memory(running, "m"), "an operator's load does not wait for a request"


def test_counters_do_not_go_back_while_a_model_comes_and_goes(tmp_path: Path) -> None:
    def answered(running: Daemon) -> int:
        (stats,) = running.request("GET", "/v2/models/m/stats").json()["model_stats"]
        count: int = stats["inference_stats"]["success"]["count"]
        return count

    with lazy(tmp_path, {"m": 1.0}, settings="idle_unload_s = 0.2") as running:
        for number in range(1, 4):
            adds(running, "m")
            assert answered(running) == number
            eventually(lambda: not in_memory(running, "m"), "the idle unload")
            assert answered(running) == number


# -- a budget ------------------------------------------------------------------------------------


def test_three_models_share_a_budget_that_holds_two(tmp_path: Path, sizes: Sizes) -> None:
    budget = sizes.own + int(2.5 * sizes.model)
    constants = {"a": 1.0, "b": 2.0, "c": 3.0}
    with lazy(tmp_path, constants, budget, 'load = "start"') as running:
        assert sum(in_memory(running, name) for name in constants) == 2
        for _ in range(3):
            for name, constant in constants.items():
                assert adds(running, name) == constant
                assert memory(running, "Rss") <= budget + SLACK_BYTES
        assert in_memory(running, "c")
        # Which of the others left depends on how long their loads took: a slow one stays longer.
        (left,) = [name for name in ("a", "b") if not in_memory(running, name)]
        assert state(running, left)[1].endswith(" version 1 needs the room)")


def test_requests_on_all_models_at_once_are_all_answered_under_a_budget(
    tmp_path: Path, sizes: Sizes
) -> None:
    budget = sizes.own + int(2.5 * sizes.model)
    constants = {"a": 1.0, "b": 2.0, "c": 3.0}
    with lazy(tmp_path, constants, budget) as running:
        wrong: list[Answer] = []

        def ask(name: str, constant: float) -> None:
            for _ in range(10):
                answer = running.infer(name, [X])
                if answer.status != 200 or numbers(answer)[0] != 10 + constant:
                    wrong.append(answer)

        threads = [threading.Thread(target=ask, args=each) for each in constants.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_models_that_are_mapped_from_their_optimised_graphs_share_a_budget_too(
    tmp_path: Path, sizes: Sizes
) -> None:
    budget = sizes.own + int(2.5 * sizes.model)
    constants = {"a": 1.0, "b": 2.0, "c": 3.0}
    with lazy(tmp_path, constants, budget, environment={}) as running:
        for _ in range(2):
            assert [adds(running, name) for name in constants] == [*constants.values()]


def test_a_model_that_cannot_fit_is_refused_with_the_numbers_and_harms_nobody(
    tmp_path: Path, sizes: Sizes
) -> None:
    budget = sizes.own + int(1.5 * sizes.model)
    with lazy(tmp_path, {"m": 1.0}, budget) as running:
        weighty(tmp_path / "big" / "1" / "model.onnx", 5.0, 4 * MODEL_MIB)
        text = (tmp_path / "c.toml").read_text("utf-8")
        (tmp_path / "c.toml").write_text(
            f"{text}\n[models.big]\npath = '{tmp_path / 'big' / '1' / 'model.onnx'}'\n", "utf-8"
        )
        running.process.send_signal(signal.SIGHUP)
        eventually(
            lambda: "big" in running.request("POST", "/v2/repository/index").body.decode(),
            "the new model",
        )
        assert adds(running, "m") == 1.0
        answer = running.infer("big", [X])
        assert answer.status == 503
        assert "MiB of memory; the budget of" in answer.json()["error"]
        assert running.request("GET", "/v2/models/big/ready").status == 503
        assert state(running, "big")[0] == "UNAVAILABLE"
        assert in_memory(running, "m")


def test_a_budget_below_the_daemons_own_need_is_refused(tmp_path: Path) -> None:
    model = add_constant(tmp_path / "m.onnx", 1.0)
    config = tmp_path / "c.toml"
    config.write_text("engine.memory_budget_bytes = 1000000\n", "utf-8")
    running = Daemon(["--config", str(config), f"m={model}"], wait=False)
    try:
        assert running.process.wait(60.0) == 4
        assert "engine.memory_budget_bytes is 1000000" in running.log()
        assert "before any model" in running.log()
    finally:
        running.stop()


def test_a_new_budget_is_taken_by_a_reload_and_an_impossible_one_changes_nothing(
    tmp_path: Path, sizes: Sizes
) -> None:
    constants = {"a": 1.0, "b": 2.0}
    with lazy(tmp_path, constants, settings='load = "start"') as running:
        config = tmp_path / "c.toml"
        text = config.read_text("utf-8")
        smaller = sizes.own + int(1.5 * sizes.model)
        for budget, said in ((1000, "stays as it was"), (smaller, "configuration read again")):
            config.write_text(text.replace("budget_bytes = 0", f"budget_bytes = {budget}"), "utf-8")
            running.process.send_signal(signal.SIGHUP)
            eventually(lambda said=said: said in running.log(), "the reload")  # type: ignore[misc]
            if budget == 1000:
                assert all(in_memory(running, name) for name in constants)
        eventually(lambda: sum(in_memory(running, name) for name in constants) == 1, "the eviction")
        assert [adds(running, name) for name in constants] == [1.0, 2.0]
