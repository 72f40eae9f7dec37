"""Who answers for a name: the table, and the entries it is made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ManifestError, ModelNotFoundError, ModelNotReadyError
from edge_runtime.registry import Registry
from edge_runtime.routing import EMPTY, LoadedVersion, route
from tests.fakes import FakeLoader, bundle

LOADER = FakeLoader()


def arrive(registry: Registry, version: int, name: str = "m") -> LoadedVersion:
    """Put a version into memory."""
    wanted = bundle(name, version)
    loaded = LOADER(wanted)
    registry.entry(name, version).arrive(loaded, wanted, 0)
    registry.refresh(name)
    return loaded


def sleep(registry: Registry, version: int, name: str = "m") -> None:
    """Let a version be loaded when asked for."""
    entry = registry.entry(name, version)
    entry.bundle = bundle(name, version)
    entry.sleep()
    registry.refresh(name)


def test_an_empty_table_leads_nowhere() -> None:
    assert route(EMPTY, "m", "") is None


def test_a_number_leads_to_that_version_and_no_other_spelling_does() -> None:
    registry = Registry()
    one = arrive(registry, 1)
    assert route(registry.table, "m", "1") is one
    for spelling in ("01", "+1", "1.0", " 1", "\u0661", "0", "-1", "9" * 5000):
        assert route(registry.table, "m", spelling) is None
        assert registry.resolve("m", spelling) is None


def test_the_table_is_replaced_and_never_changed() -> None:
    registry = Registry()
    one = arrive(registry, 1)
    before = registry.table
    two = arrive(registry, 2)
    assert route(before, "m", "") is one
    assert route(before, "m", "2") is None
    assert route(registry.table, "m", "") is two


def test_a_newer_version_that_is_not_in_memory_is_not_replaced_by_an_older_one() -> None:
    registry = Registry()
    arrive(registry, 1)
    sleep(registry, 2)
    for version in ("", "latest", "stable", "2"):
        assert route(registry.table, "m", version) is None
        entry = registry.resolve("m", version)
        assert entry is not None
        assert entry.version == 2
    assert route(registry.table, "m", "1") is not None


def test_a_newer_version_that_failed_does_not_answer_by_default() -> None:
    registry = Registry()
    one = arrive(registry, 1)
    sleep(registry, 2)
    registry.entry("m", 2).fail(ManifestError("bad"), 0.0)
    registry.refresh("m")
    for version in ("", "latest", "stable"):
        assert route(registry.table, "m", version) is one
    assert route(registry.table, "m", "2") is None


def test_an_alias_that_is_configured_wins_over_what_stable_means_otherwise() -> None:
    registry = Registry()
    one, two = arrive(registry, 1), arrive(registry, 2)
    assert route(registry.table, "m", "stable") is two
    registry.configure("m", {"stable": 1})
    assert route(registry.table, "m", "stable") is one
    assert route(registry.table, "m", "latest") is two
    assert route(registry.table, "m", "") is two


def test_an_alias_is_of_one_model_only() -> None:
    registry = Registry()
    arrive(registry, 1)
    arrive(registry, 1, name="n")
    registry.configure("m", {"good": 1})
    assert route(registry.table, "n", "good") is None


@pytest.mark.parametrize(
    ("version", "error", "message"),
    [
        ("3", ModelNotFoundError, "has no version '3'; it has 1, 2$"),
        ("x", ModelNotFoundError, "it has 1, 2, also as gone, latest, old, stable$"),
        ("gone", ModelNotFoundError, "7, to which the alias 'gone' leads .*; served: 1, 2$"),
        ("old", ModelNotReadyError, r"version old \(1\) is not loaded \(not in memory; loads"),
        ("1", ModelNotReadyError, r"model 'm' version 1 is not loaded \(not in memory"),
    ],
)
def test_what_does_not_answer_is_told_with_what_there_is(
    version: str, error: type[Exception], message: str
) -> None:
    registry = Registry()
    sleep(registry, 1)
    arrive(registry, 2)
    registry.configure("m", {"old": 1, "gone": 7})
    with pytest.raises(error, match=message):
        raise registry.missing("m", version, 0.0)


def test_pauses_between_tries_grow_and_have_an_end() -> None:
    registry = Registry()
    sleep(registry, 1)
    entry = registry.entry("m", 1)
    pauses = []
    for _ in range(12):
        entry.fail(ManifestError("bad"), 100.0)
        pauses.append(entry.retry_at_s - 100.0)
        assert not entry.may_load(entry.retry_at_s - 0.1)
        assert entry.may_load(entry.retry_at_s)
    assert pauses[:3] == [10.0, 20.0, 40.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 640.0


@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=8))
def test_the_table_and_the_entries_never_disagree(steps: list[tuple[int, bool]]) -> None:
    registry = Registry()
    registry.configure("m", {"good": 2})
    for version, stays in steps:
        if stays:
            arrive(registry, version)
        else:
            sleep(registry, version)
    for text in ("", "1", "2", "3", "4", "5", "good", "latest", "stable", "other"):
        entry = registry.resolve("m", text)
        assert route(registry.table, "m", text) is (entry.loaded if entry else None)
