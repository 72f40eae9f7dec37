"""New files in real daemons, with room for both and without; versions by other names."""

import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.daemons import daemon, eventually
from tests.every_row import every
from tests.models import add_constant, save, value
from tests.weighty import (
    MIB,
    MODEL_MIB,
    PLAIN,
    SLACK_BYTES,
    Sizes,
    X,
    adds,
    lazy,
    load,
    measure,
    memory,
    state,
    swap_of,
    weighty,
)
from tests.wire import Wire, infer, numbers

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Sizes:
    return measure(tmp_path_factory.mktemp("sizes"))


# -- swaps ---------------------------------------------------------------------------------------


def test_a_swap_for_which_there_is_no_room_lets_the_old_files_go_first_and_says_so(
    tmp_path: Path, sizes: Sizes
) -> None:
    budget = sizes.own + int(1.5 * sizes.model)
    with lazy(tmp_path, {"m": 1.0}, budget, 'load = "start"') as running:
        stop = threading.Event()
        seen: list[float | int] = []

        def ask() -> None:
            while not stop.is_set():
                answer = running.infer("m", [X])
                seen.append(numbers(answer)[0] - 10 if answer.status == 200 else answer.status)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for constant in (2.0, 3.0):
                weighty(tmp_path / "m.onnx", constant)
                assert load(running, "m").status == 200
                assert swap_of(running).startswith("resource-preserving (needs ")
                assert memory(running, "Rss") <= budget + SLACK_BYTES
        finally:
            stop.set()
            asking.join()
        assert adds(running, "m") == 3.0
        assert seen == sorted(seen)
        assert set(seen) <= {1.0, 2.0, 3.0}, "requests wait, and none is refused"
        assert "resource-preserving" in running.log_until_now()


def test_a_swap_for_which_there_is_room_keeps_the_old_files_and_says_so(
    tmp_path: Path, sizes: Sizes
) -> None:
    with lazy(tmp_path, {"m": 1.0}, sizes.own + 4 * sizes.model, 'load = "start"') as running:
        weighty(tmp_path / "m.onnx", 2.0)
        assert load(running, "m").status == 200
        assert swap_of(running).startswith("availability-preserving (needs ")
        assert adds(running, "m") == 2.0


def test_the_old_version_answers_again_when_its_successor_cannot_be_loaded(
    tmp_path: Path, sizes: Sizes
) -> None:
    root = tmp_path / "models"
    weighty(root / "m" / "1" / "model.onnx", 1.0)
    environment = {
        **PLAIN,
        "EDGE_RUNTIME__ENGINE__MEMORY_BUDGET_BYTES": str(sizes.own + int(1.5 * sizes.model)),
    }
    with daemon(str(root), environment=environment) as running:
        assert adds(running, "m") == 1.0
        # Sound as a file, as large as its predecessor, and nothing that ONNX Runtime can run.
        table = numpy_helper.from_array(np.ones((MODEL_MIB * MIB // 8, 2), np.float32), "table")
        node = helper.make_node("NoSuchOperator", ["x", "table"], ["y"])
        save(root / "m" / "2" / "model.onnx", [node], [value("x")], [value("y")], [table])
        answer = load(running, "m")
        assert answer.status == 400
        assert "NoSuchOperator" in answer.json()["error"]
        assert adds(running, "m") == 1.0
        assert state(running, "m", "2")[0] == "UNAVAILABLE"


def test_memory_stays_flat_over_many_reloads_that_have_no_room_for_both(
    tmp_path: Path, sizes: Sizes
) -> None:
    with lazy(tmp_path, {"m": 0.0}, sizes.own + int(1.5 * sizes.model), "") as running:
        other = weighty(tmp_path / "other.onnx", 1.0)
        held = []
        for number in range(200 // every(2)):
            names = tmp_path / "m.onnx", tmp_path / "aside.onnx", other
            names[0].rename(names[1])
            names[2].rename(names[0])
            names[1].rename(names[2])
            assert load(running, "m").status == 200
            assert adds(running, "m") == (number + 1) % 2
            held.append(memory(running, "Rss"))
        assert swap_of(running).startswith("resource-preserving")
        assert held[-1] - held[19] < MODEL_MIB * MIB / 4, [each // MIB for each in held]


def test_a_daemon_that_was_killed_while_it_loaded_starts_and_answers(
    tmp_path: Path, sizes: Sizes
) -> None:
    budget = sizes.own + int(1.5 * sizes.model)
    with lazy(tmp_path, {"a": 1.0, "b": 2.0}, budget) as running, Wire.of(running) as wire:
        wire.send(infer("a", [[1.0, 2.0]]))
        eventually(lambda: "loads when asked" not in state(running, "a")[1], "the load")
        running.process.kill()
        running.process.wait()
    with lazy(tmp_path, {"a": 1.0, "b": 2.0}, budget) as running:
        assert [adds(running, name) for name in "abab"] == [1.0, 2.0, 1.0, 2.0]


# -- names of versions, and stand-ins ------------------------------------------------------------


def test_aliases_lead_to_versions_and_answers_carry_the_number(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        add_constant(tmp_path / "models" / "m" / str(number) / "model.onnx", float(number))
    config = tmp_path / "c.toml"
    config.write_text(
        "repositories = ['models']\n[models.m]\nversion_policy.all = true\n"
        "aliases = { stable = 2, gone = 7 }\n",
        "utf-8",
    )
    with daemon("--config", str(config)) as running:
        for alias, number in {"stable": 2, "latest": 3, "1": 1}.items():
            answer = running.infer(f"m/versions/{alias}", [X])
            assert numbers(answer)[0] == 10 + number
            assert answer.json()["model_version"] == str(number)
            described = running.request("GET", f"/v2/models/m/versions/{alias}")
            assert described.json()["properties"]["version"] == str(number)
        answer = running.infer("m/versions/gone", [X])
        assert answer.status == 404
        assert (
            "no version 7, to which the alias 'gone' leads (models.m.aliases); served: 1, 2, 3"
            in answer.json()["error"]
        )
        assert "alias 'gone' leads to version 7" in state(running, "m", "3")[1]
        assert running.infer("m/versions/other", [X]).status == 404


def test_an_older_version_stands_in_at_a_reload_too(tmp_path: Path) -> None:
    root = tmp_path / "models"
    add_constant(root / "m" / "1" / "model.onnx", 1.0)
    with daemon(str(root)) as running:
        assert load(running, "m", "unload").status == 200
        node = helper.make_node("NoSuchOperator", ["x"], ["y"])
        save(root / "m" / "2" / "model.onnx", [node], [value("x")], [value("y")])
        assert load(running, "m").status == 400
        assert adds(running, "m") == 1.0
        assert state(running, "m", "2")[0] == "UNAVAILABLE"
