"""How a model's traffic is shared out: the places, the table and the entries behind it."""

from math import sqrt
from typing import NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_runtime.errors import ManifestError, ModelNotFoundError, ModelNotReadyError
from edge_runtime.registry import Registry
from edge_runtime.routing import PERMYRIAD, LoadedVersion, Traffic, bucket, route
from tests.fakes import FakeLoader, bundle

LOADER = FakeLoader()
KEYS = st.text(max_size=20)
SHARES = st.dictionaries(st.integers(2, 9), st.integers(0, 3000), max_size=3)


class Key(NamedTuple):
    """A request with a key."""

    split_key: str


class Keyless:
    """A request that must not be asked for its key."""

    @property
    def split_key(self) -> str:
        """Fail."""
        raise AssertionError("the key was computed")


def arrive(registry: Registry, *versions: int, name: str = "m") -> list[LoadedVersion]:
    """Put versions into memory."""
    arrived = []
    for version in versions:
        wanted = bundle(name, version)
        registry.entry(name, version).arrive(LOADER(wanted), wanted, 0)
        registry.refresh(name)
        arrived.append(registry.entry(name, version).loaded)
    return [each for each in arrived if each is not None]


def chosen(registry: Registry, key: str) -> str:
    """Say which version answers a request with a key."""
    loaded = route(registry.table, "m", "", Key(key))
    return loaded.version if loaded is not None else ""


# -- places --------------------------------------------------------------------------------------


def test_places_are_the_documented_ones() -> None:
    known = {("digits", "camera-1"): 7892, ("digits", "7"): 3474, ("m", "grün"): 1588}
    assert {each: bucket(*each) for each in known} == known


@given(st.text(), KEYS)
def test_a_place_is_one_of_ten_thousand_and_always_the_same(model: str, key: str) -> None:
    assert bucket(model, key) == bucket(model, key)
    assert 0 <= bucket(model, key) < PERMYRIAD


def test_one_caller_is_not_the_first_for_every_model() -> None:
    places = {bucket(f"model-{number}", "camera-1") for number in range(100)}
    assert len(places) > 90


@given(st.integers(1, PERMYRIAD - 1), st.integers(0, 2**62))
def test_shares_are_those_asked_for_whatever_the_keys_look_like(weight: int, first: int) -> None:
    count = 4000
    got = sum(bucket("m", str(number)) < weight for number in range(first, first + count))
    share = weight / PERMYRIAD
    # Five standard deviations: one of 1.7 million honest examples is outside.
    assert abs(got - count * share) <= 5 * sqrt(count * share * (1 - share)) + 1


# -- the table -----------------------------------------------------------------------------------


def test_without_a_split_no_key_is_computed() -> None:
    registry = Registry()
    _, two = arrive(registry, 1, 2)
    assert route(registry.table, "m", "", Keyless()) is two
    registry.direct("m", Traffic(1))
    one = registry.entry("m", 1).loaded
    assert route(registry.table, "m", "", Keyless()) is one
    registry.direct("m", Traffic(1, {2: 5000}))
    assert route(registry.table, "m", "2", Keyless()) is two, "who names a version gets it"


def test_a_higher_number_does_not_answer_while_traffic_is_directed() -> None:
    registry = Registry()
    registry.direct("m", Traffic(1))
    one, two = arrive(registry, 1, 2)
    for version in ("", "latest", "stable", "1"):
        assert route(registry.table, "m", version) is one
    assert route(registry.table, "m", "2") is two
    registry.direct("m", None)
    assert route(registry.table, "m", "") is two


def test_latest_and_stable_follow_the_default_and_other_aliases_their_settings() -> None:
    registry = Registry()
    one, two = arrive(registry, 1, 2)
    registry.configure("m", {"stable": 2, "small": 2})
    registry.direct("m", Traffic(1, {2: PERMYRIAD}))
    assert route(registry.table, "m", "stable", Key("x")) is one
    assert route(registry.table, "m", "latest", Key("x")) is one
    assert route(registry.table, "m", "small", Key("x")) is two
    registry.direct("m", None)
    assert route(registry.table, "m", "stable") is two


def test_who_looks_at_a_model_without_a_request_sees_the_default() -> None:
    registry = Registry()
    one, _ = arrive(registry, 1, 2)
    registry.direct("m", Traffic(1, {2: PERMYRIAD}))
    assert route(registry.table, "m", "") is one


@given(SHARES, st.lists(KEYS, max_size=20))
def test_a_key_goes_where_its_place_is(weights: dict[int, int], keys: list[str]) -> None:
    registry = Registry()
    registry.direct("m", Traffic(1, weights))
    arrive(registry, *range(1, 10))
    for key in keys:
        place, want = bucket("m", key), "1"
        for version, weight in sorted(weights.items()):
            if 0 <= place < weight:
                want = str(version)
                break
            place -= weight
        assert chosen(registry, key) == want


@given(SHARES, st.data(), st.lists(KEYS, min_size=1, max_size=30))
def test_widening_a_share_moves_no_key_back_to_the_default(
    weights: dict[int, int], data: st.DataObject, keys: list[str]
) -> None:
    assume(weights)
    widened = data.draw(st.sampled_from(sorted(weights)))
    room = PERMYRIAD - sum(weights.values())
    more = weights | {widened: weights[widened] + data.draw(st.integers(0, room))}
    registry = Registry()
    arrive(registry, *range(1, 10))
    registry.direct("m", Traffic(1, weights))
    before = {key: chosen(registry, key) for key in keys}
    registry.direct("m", Traffic(1, more))
    for key, version in before.items():
        assert version == "1" or chosen(registry, key) != "1"
        if len(weights) == 1:  # a canary: whoever has it keeps it
            assert version == "1" or chosen(registry, key) == version


def test_a_version_out_of_memory_is_replaced_by_the_default_and_moves_nobody_else() -> None:
    registry = Registry()
    arrive(registry, 1, 2, 3)
    registry.direct("m", Traffic(1, {2: 3000, 3: 3000}))
    keys = [str(number) for number in range(200)]
    before = {key: chosen(registry, key) for key in keys}
    registry.entry("m", 2).leave()
    registry.refresh("m")
    assert set(before.values()) == {"1", "2", "3"}
    for key, version in before.items():
        assert chosen(registry, key) == ("1" if version == "2" else version)


@pytest.mark.parametrize("weights", [{1: 5}, {2: -1}, {2: 5000, 3: 5001}])
def test_shares_that_are_none_are_refused(weights: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="no such shares"):
        Traffic(1, weights)


# -- where something is missing ------------------------------------------------------------------


def test_a_version_on_trial_never_answers_everything() -> None:
    registry = Registry()
    arrive(registry, 1, 2)
    registry.direct("m", Traffic(1, {2: 500}))
    registry.entry("m", 1).leave()
    registry.entry("m", 1).fail(ManifestError("broken"), 0.0)
    registry.refresh("m")
    assert route(registry.table, "m", "") is None
    entry = registry.resolve("m", "")
    assert entry is not None
    assert entry.version == 1, "the next request tries to load the default"
    registry.entry("m", 1).forget("gone")
    assert registry.resolve("m", "") is None
    assert "unavailable (gone)" in registry.missing("m", "", 0.0).message


def test_where_the_default_is_replaced_on_disk_the_highest_that_is_not_on_trial_answers() -> None:
    registry = Registry()
    arrive(registry, 1, 2)
    registry.direct("m", Traffic(1, {2: 500}))
    (three,) = arrive(registry, 3)
    registry.entry("m", 1).leave()
    registry.entry("m", 1).forget("unloaded")
    registry.refresh("m")
    assert route(registry.table, "m", "") is three


def test_who_answers_for_whom_is_known_to_the_versions() -> None:
    registry = Registry()
    one, two = arrive(registry, 1, 2)
    assert not one.on_trial
    assert not two.on_trial
    registry.direct("m", Traffic(1, {2: 500}))
    assert (one.on_trial, two.on_trial) == (False, True)
    assert registry.table["m"].proven is one
    registry.direct("m", Traffic(2, fallback=1))
    assert (one.on_trial, two.on_trial) == (False, True)
    assert route(registry.table, "m", "") is two
    assert registry.table["m"].proven is one
    registry.direct("m", None)
    assert (one.on_trial, two.on_trial) == (False, False)
    assert registry.table["m"].proven is None


def test_a_disabled_model_answers_nothing_and_says_why() -> None:
    registry = Registry()
    arrive(registry, 1)
    registry.disable("m", "its first release was rolled back")
    for version in ("", "1", "latest"):
        assert route(registry.table, "m", version) is None
        assert registry.resolve("m", version) is None
        error = registry.missing("m", version, 0.0)
        assert isinstance(error, ModelNotReadyError)
        assert error.message == "model 'm' is disabled: its first release was rolled back"
    registry.direct("m", None)
    assert route(registry.table, "m", "") is not None


def test_a_disabled_model_without_any_version_is_in_the_index() -> None:
    registry = Registry()
    arrive(registry, 1, name="z")
    registry.disable("m", "why")
    assert [(name, number, state.reason) for name, number, state in registry.index()] == [
        ("m", "", "disabled: why"),
        ("z", "1", ""),
    ]
    assert isinstance(registry.missing("m", "", 0.0), ModelNotReadyError)
    assert isinstance(registry.missing("n", "", 0.0), ModelNotFoundError)
