"""What survives a restart and a change of files, and what is given while a model cannot run."""

from pathlib import Path

import pytest

from edge_runtime.settings import Cache, Model
from tests.caching import (
    DISK_ONLY,
    RAM_ONLY,
    RUN_NS,
    SIGNATURE,
    CachedModel,
    TurnableClock,
    entries_on_disk,
    is_answer,
    outputs,
)

# -- restarts ----------------------------------------------------------------------------------


def test_answers_survive_a_restart(state: Path) -> None:
    time = TurnableClock()
    with CachedModel(state, time) as before:
        for number in range(10):
            before.predict(number)
    time.pass_(30)
    with CachedModel(state, time) as after:
        assert all(after.predict(number) for number in range(10))
        assert after.version.counters.disk_hits == 10
        assert all(after.predict(number) for number in range(10))
        assert after.version.counters.disk_hits == 10, "they are in memory now"
        time.pass_(30)
        assert not after.predict(1)


def test_answers_of_another_digest_engine_or_version_are_not_given(state: Path) -> None:
    time = TurnableClock()
    with CachedModel(state, time) as before:
        before.predict(1)
    with CachedModel(state, time, digest="second") as after:
        assert not after.predict(1)
        other = after.cache.open(
            "m", "1", "second", ("GPU", "CPU"), after.version.subject.signature
        )
        assert other is not None
        after.version = other
        assert not after.predict(1)
        after.version = after.open("second", version="2")
        assert not after.predict(1)


def test_what_another_digest_had_answered_leaves_the_disk(state: Path) -> None:
    with CachedModel(state) as before:
        for number in range(600):
            before.predict(number)
    with CachedModel(state, digest="second") as after:
        after.wait_until(lambda: entries_on_disk(after) == 0)
        after.predict(1)
    with CachedModel(state, digest="second") as third:
        assert third.predict(1)
        assert entries_on_disk(third) == 1


def test_a_version_that_is_loaded_again_unchanged_keeps_its_answers(model: CachedModel) -> None:
    model.predict(1)
    assert model.open() is model.version
    assert model.predict(1)


def test_a_version_that_was_replaced_is_asked_no_more(model: CachedModel) -> None:
    model.predict(1)
    old, late = model.version, model.begin(2)
    model.open("second")
    assert old.counters.ram_entries == 0
    assert model.ask(1).tickets == [None]
    late.ticket.done(outputs(2), RUN_NS)
    assert model.cache.memory_bytes == 0


def test_a_digest_that_comes_back_while_it_is_being_forgotten_keeps_working(state: Path) -> None:
    with CachedModel(state) as model:
        for number in range(600):
            model.predict(number)
        model.settle()
        model.open("second")
        model.version = model.open("first")
        model.predict(1000)
        model.settle()
    with CachedModel(state) as after:
        assert after.predict(1000)


# -- while the model cannot run ----------------------------------------------------------------

STALE = Model(cache_ttl_s=60, cache_stale_s=600)


@pytest.mark.parametrize("settings", [RAM_ONLY, DISK_ONLY], ids=["memory", "disk"])
def test_a_stale_answer_is_given_for_as_long_as_the_policy_allows(
    state: Path, settings: Cache
) -> None:
    with CachedModel(state, settings=settings, model=STALE) as model:
        model.predict(1)
        model.settle()
        model.time.pass_(659)
        hit = model.stale(1)
        assert hit is not None
        assert is_answer(hit.outputs, 1)
        assert model.stale(2) is None
        model.time.pass_(1)
        assert model.stale(1) is None
        assert model.version.counters.stale == 1


def test_no_stale_answer_is_given_where_the_policy_has_none(model: CachedModel) -> None:
    model.predict(1)
    assert model.stale(1) is None


def test_a_stale_answer_is_no_answer_for_a_model_that_runs(folder: Path) -> None:
    with CachedModel(folder, settings=RAM_ONLY, model=STALE) as model:
        model.predict(1)
        model.time.pass_(61)
        assert not model.predict(1)


def test_after_a_restart_a_version_is_found_before_it_is_loaded(state: Path) -> None:
    time = TurnableClock()
    with CachedModel(state, time, model=STALE) as before:
        before.predict(1)
        before.version = before.open(version="2")
        before.predict(2)
    with CachedModel(state, time, model=STALE, digest="") as after:
        found = after.cache.find("m", "2")
        assert found is not None
        assert after.cache.find("m") is found
        assert found.subject.signature.outputs["text"].labels == ("a label",)
        after.version = found
        hit = after.stale(2)
        assert hit is not None
        assert is_answer(hit.outputs, 2)
        assert after.open(version="2") is found


def test_after_a_restart_a_bundle_s_own_limits_still_hold(state: Path) -> None:
    time = TurnableClock()
    signature = SIGNATURE
    with CachedModel(state, time, model=STALE, digest="") as before:
        opened = before.cache.open("m", "1", "d", (), signature, ttl_max_s=10)
        assert opened is not None
        before.version = opened
        before.predict(1)
        before.configure(Model(cache_ttl_s=50, cache_stale_s=600))
        assert opened.policy.ttl_s == 10
    with CachedModel(state, time, model=STALE, digest="") as after:
        found = after.cache.find("m")
        assert found is not None
        assert found.policy.ttl_s == 10
        assert after.cache.open("m", "1", "d", (), signature, ttl_max_s=20) is found
        assert found.policy.ttl_s == 20
        assert after.cache.open("m", "1", "d", (), signature) is found
        assert found.policy.ttl_s == 60


def test_after_a_change_of_runtime_nothing_is_found(state: Path) -> None:
    with CachedModel(state, model=STALE) as before:
        before.predict(1)
    with CachedModel(state, model=STALE, digest="", runtime_version="2.0") as after:
        assert after.cache.find("m") is None
        after.version = after.open()
        assert not after.predict(1)
        after.wait_until(lambda: entries_on_disk(after) == 1)
