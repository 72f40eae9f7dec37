"""The cache as the request path meets it."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.cache.hashing import INLINE_BYTES
from edge_runtime.cache.life import SLACK_S
from edge_runtime.cache.schema import DIRECTORY
from edge_runtime.settings import Cache, Model
from tests.caching import (
    DISK_ONLY,
    NAMES,
    RAM_ONLY,
    RUN_NS,
    Asked,
    CachedModel,
    feeds,
    is_answer,
    outputs,
)


def test_an_answer_is_given_again_without_a_run(model: CachedModel) -> None:
    assert not model.predict(1)
    hit = model.ask(1).hit
    assert is_answer(hit.outputs, 1)
    assert (hit.run_ns, hit.created_s) == (RUN_NS, model.time.wall_s)
    assert not model.predict(2)
    counters = model.version.counters
    assert (counters.hits, counters.misses) == (1, 2)
    assert counters.hit_ns > 0
    assert counters.miss_ns > 0


def test_outputs_come_in_the_order_of_each_request(model: CachedModel) -> None:
    model.predict(1, ("text", "double"))
    assert model.predict(1, ("double", "text"))
    assert not model.predict(1, ("double",))
    assert model.predict(1, ("double", "double"))


def test_a_kept_answer_cannot_be_changed_by_anybody(model: CachedModel) -> None:
    given = outputs(1)
    model.ask(1).ticket.done(given, RUN_NS)
    for array in (*given, *model.ask(1).hit.outputs):
        assert not array.flags.writeable


def test_an_answer_ends_its_life_with_the_time_to_live(model: CachedModel) -> None:
    model.predict(1)
    model.time.pass_(59)
    assert model.predict(1)
    model.time.pass_(1)
    assert not model.predict(1)
    assert model.predict(1)


@pytest.mark.parametrize("settings", [RAM_ONLY, DISK_ONLY], ids=["memory", "disk"])
def test_a_clock_that_jumps_back_makes_no_answer_live_for_ever(
    state: Path, settings: Cache
) -> None:
    with CachedModel(state, settings=settings) as model:
        model.predict(1)
        model.settle()
        model.time.wall_s -= 3600
        assert not model.predict(1), "it claims to come from the future"
        model.settle()
        assert model.predict(1)
        model.time.monotonic_s += 60
        model.time.wall_s -= 10 * SLACK_S
        assert not model.predict(1)


def test_a_small_correction_of_the_clock_costs_nothing(model: CachedModel) -> None:
    model.predict(1)
    model.time.wall_s -= SLACK_S / 2
    assert model.predict(1)


def test_a_clock_that_stands_still_does_not_keep_an_answer_alive(model: CachedModel) -> None:
    model.predict(1)
    model.time.monotonic_s += 60
    assert not model.predict(1)


def test_a_clock_that_jumps_forwards_ends_lives(model: CachedModel) -> None:
    model.predict(1)
    model.time.wall_s += 10**9
    assert not model.predict(1)
    assert model.predict(1)


def test_equal_questions_share_one_run(model: CachedModel) -> None:
    first = model.begin(1)
    others = [model.begin(1) for _ in range(3)]
    stranger = model.begin(2)
    assert not any(each.hits or each.tickets for each in others)
    assert stranger.ticket
    first.ticket.done(outputs(1), RUN_NS)
    assert all(is_answer(each.hit.outputs, 1) for each in others)
    counters = model.version.counters
    assert (counters.joined, counters.misses, counters.hits) == (3, 2, 0)


def test_when_the_first_run_fails_the_next_one_runs_and_nobody_fails_with_it(
    model: CachedModel,
) -> None:
    first, second, third = (model.begin(1) for _ in range(3))
    first.ticket.failed()
    assert not third.tickets
    second.ticket.done(outputs(1), RUN_NS)
    assert is_answer(third.hit.outputs, 1)
    assert model.predict(1)


def test_a_failed_run_leaves_nothing_behind(model: CachedModel) -> None:
    model.begin(1).ticket.failed()
    assert model.begin(1).ticket


@pytest.mark.parametrize("priority", [1, 2**31, 2**64 - 1])
def test_an_urgent_question_does_not_wait_for_a_leisurely_one(
    model: CachedModel, priority: int
) -> None:
    leisurely, follower = model.begin(1), model.begin(1)
    urgent = model.begin(1, priority=priority)
    urgent.ticket.done(outputs(1), RUN_NS)
    assert is_answer(follower.hit.outputs, 1)
    leisurely.ticket.done(outputs(1), RUN_NS)
    assert model.predict(1)


def test_a_run_that_cannot_begin_does_not_hold_up_those_who_wait(model: CachedModel) -> None:
    def breaks(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.version.fetch(feeds(1), NAMES, None, lambda _: None, breaks)
    assert model.begin(1).ticket


def test_outputs_that_cannot_be_kept_are_a_miss_and_nothing_worse(
    model: CachedModel, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = model.begin(1), model.begin(1)
    first.ticket.done(outputs(1)[:1], RUN_NS)  # one output too few
    assert model.version.counters.errors == 1
    second.ticket.done(outputs(1), RUN_NS)
    assert model.predict(1)
    assert "cannot keep" in caplog.text


def test_inputs_that_have_no_key_are_a_miss_and_nothing_worse(
    model: CachedModel, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[object] = []
    for _ in range(2):
        wrong = {"number": np.zeros(1, np.float32)}
        model.version.fetch(wrong, NAMES, None, seen.append, seen.append)
    assert seen == [None, None]
    assert (model.version.counters.errors, model.version.counters.misses) == (2, 2)
    assert len(caplog.records) == 1


def test_a_large_question_is_named_on_another_thread_and_answered_all_the_same(
    folder: Path,
) -> None:
    def threads() -> set[str]:
        return {thread.name for thread in threading.enumerate()}

    large = {"number": np.arange(INLINE_BYTES, dtype=float)}
    with CachedModel(folder, settings=RAM_ONLY) as model:
        first, second = Asked(), Asked()
        assert "cache-keys" not in threads()
        for asked in (first, second):
            model.version.fetch(large, NAMES, None, asked.hits.append, asked.tickets.append)
        assert not first.tickets
        model.wait_until(lambda: bool(first.tickets))
        first.ticket.done(outputs(1), RUN_NS)
        model.wait_until(lambda: bool(second.hits))
        assert is_answer(second.hit.outputs, 1)
        assert "cache-keys" in threads()
        wrong = {"number": np.zeros(INLINE_BYTES, np.float32)}
        lost = Asked()
        model.version.fetch(wrong, NAMES, None, lost.hits.append, lost.tickets.append)
        model.wait_until(lambda: lost.tickets == [None])
    assert "cache-keys" not in threads()


# -- scopes ------------------------------------------------------------------------------------


def test_users_share_answers_unless_the_model_forbids_it(folder: Path) -> None:
    with CachedModel(folder, settings=RAM_ONLY) as shared:
        assert not shared.predict(1, uid=1)
        assert shared.predict(1, uid=2)
        assert shared.predict(1)
    model = Model(cache_ttl_s=60, cache_scope="uid")
    with CachedModel(folder, settings=RAM_ONLY, model=model) as apart:
        assert not apart.predict(1, uid=1)
        assert apart.predict(1, uid=1)
        assert not apart.predict(1, uid=2)


def test_users_who_are_kept_apart_share_no_run_either(folder: Path) -> None:
    model = Model(cache_ttl_s=60, cache_scope="uid")
    with CachedModel(folder, settings=RAM_ONLY, model=model) as apart:
        one, two = apart.begin(1, uid=1), apart.begin(1, uid=2)
        assert one.ticket
        assert two.ticket


def test_a_caller_without_a_user_bypasses_a_cache_of_users(folder: Path) -> None:
    model = Model(cache_ttl_s=60, cache_scope="uid", cache_stale_s=60)
    with CachedModel(folder, settings=RAM_ONLY, model=model) as apart:
        apart.predict(1, uid=0)
        for _ in range(2):
            assert apart.ask(1).tickets == [None]
        assert apart.stale(1) is None
        assert apart.version.counters.bypassed == 2


# -- by-passing --------------------------------------------------------------------------------


def test_a_model_that_is_too_fast_bypasses_itself_and_says_so(model: CachedModel) -> None:
    for _ in range(2):
        for number in range(100):
            asked = model.begin(number)
            for ticket in asked.tickets:
                if ticket is not None:
                    ticket.done(outputs(number), 15_000)
    assert model.begin(1).tickets == [None]
    assert model.version.counters.bypassed
    (version,) = model.cache.status().versions
    assert version.verdict.startswith("by-passed: ")
    assert version.bypassed == model.version.counters.bypassed


# -- what nobody asked for costs nothing -------------------------------------------------------


def test_without_a_model_that_opted_in_there_is_no_thread_no_file_and_no_sqlite(
    folder: Path,
) -> None:
    code = (
        "import asyncio, sys, threading\n"
        "from pathlib import Path\n"
        "from edge_runtime.cache.predictions import PredictionCache\n"
        "from edge_runtime.hardware import cpu_facts\n"
        "from edge_runtime.settings import Cache, Model\n"
        "async def main():\n"
        "    cache = PredictionCache(asyncio.get_running_loop(), Cache(), Path(sys.argv[1]),\n"
        "                            runtime_version='1', cpu=cpu_facts())\n"
        "    cache.configure({'m': Model()})\n"
        "    assert cache.status().file is None\n"
        "    assert await cache.close(1)\n"
        "asyncio.run(main())\n"
        "print(threading.active_count(), 'sqlite3' in sys.modules, 'sqlite_utils' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["1", "False", "False"]
    assert not (folder / DIRECTORY).exists()


def test_a_cache_of_memory_only_touches_no_disk(folder: Path, model: CachedModel) -> None:
    model.predict(1)
    assert not (folder / DIRECTORY).exists()
    assert model.cache.status().file is None


def test_nothing_is_kept_of_a_model_whose_last_version_is_gone(model: CachedModel) -> None:
    other = model.open(version="2")
    model.predict(1)
    rooms = model.cache._parts.front._rooms
    model.cache.forget("m", "2")
    assert not other.is_open
    assert model.predict(1), "version 1 is still there"
    under_way = model.begin(2)
    model.cache.forget("m", "1")
    assert not rooms
    under_way.ticket.done(outputs(2), RUN_NS)
    assert not rooms
    assert model.cache.memory_bytes == 0
    model.version = model.open()
    assert not model.predict(1)
    assert model.predict(1)
