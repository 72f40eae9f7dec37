"""Records become rows and come back; what they say about slots holds."""

import math

import msgspec
import numpy as np
import pytest

from edge_runtime.release.journal_rows import NUMBERS_BYTES_MAX, TEXT_MAX, from_row, to_row
from edge_runtime.release.records import BadDigest, Record, Release, Slots, Transition
from tests.release_records import NOW_S, note, release, transition

STORE_1 = Slots(model="m", active=1, active_source="store", active_digest="one")


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        release().state = "committed"  # type: ignore[misc]


@pytest.mark.parametrize(
    "made", [release(weights=(5, 25, 100)), note(numbers={"a": [1, 2.5, "x"]})]
)
def test_a_row_comes_back_as_it_was(made: Record) -> None:
    assert from_row(type(made), to_row(made)) == made


def test_a_commit_keeps_the_last_version_to_go_back_to() -> None:
    slots = STORE_1.committed(2, "store", "two")
    assert (slots.active, slots.active_source, slots.active_digest) == (2, "store", "two")
    assert (slots.previous, slots.previous_source, slots.previous_digest) == (1, "store", "one")


def test_a_commit_of_the_active_version_keeps_the_previous_one() -> None:
    slots = STORE_1.committed(2, "store", "two").committed(2, "store", "other variant")
    assert (slots.active_digest, slots.previous) == ("other variant", 1)


def test_a_seed_of_the_same_number_is_another_version() -> None:
    seeded = Slots(model="m", active=2, active_source="seed").committed(2, "store", "two")
    assert (seeded.previous, seeded.previous_source) == (2, "seed")


def test_the_first_commit_leaves_nothing_to_go_back_to() -> None:
    assert Slots(model="m", disabled="reverted").committed(1, "store", "one") == STORE_1


def test_a_commit_ends_a_split() -> None:
    split = msgspec.structs.replace(STORE_1, traffic={"1": 80, "2": 20})
    assert split.committed(3, "store", "three").traffic == {}


def test_what_is_reverted_gives_way_to_the_previous_version() -> None:
    back = STORE_1.committed(2, "store", "two").reverted("slow")
    assert back == STORE_1


def test_a_first_release_that_is_reverted_disables_the_model() -> None:
    back = STORE_1.reverted("slow")
    assert (back.active, back.active_source, back.disabled) == (None, "", "slow")


def test_a_transition_tells_of_the_change() -> None:
    before = release(id=7, state="canary")
    after = msgspec.structs.replace(before, state="rolling-back", cause="errors", reason="3 of 3")
    row = transition(before, after, "roll_back")
    assert (row.release_id, row.from_state, row.to_state) == (7, "canary", "rolling-back")
    assert (row.cause, row.reason, row.event) == ("errors", "3 of 3", "roll_back")


def test_the_first_transition_comes_from_no_state() -> None:
    assert transition(None, release()).from_state == ""


def test_a_bad_digest_says_why() -> None:
    bad = BadDigest.of(release(cause="crashed", reason="it died", order=4), NOW_S)
    assert (bad.cause, bad.reason, bad.order) == ("crashed", "it died", 4)


def test_numbers_of_numpy_are_stored_as_numbers() -> None:
    stored = to_row(note(numbers={"a": np.float32(0.5), "b": np.int64(3)}))["numbers"]
    assert msgspec.json.decode(stored) == {"a": 0.5, "b": 3}


def test_numbers_that_are_not_finite_are_stored_as_null() -> None:
    stored = from_row(Transition, to_row(note(numbers={"a": math.nan, "b": math.inf})))
    assert stored.numbers == {"a": None, "b": None}


def test_too_many_numbers_are_left_out_and_said_so() -> None:
    numbers = {str(each): 1.0 for each in range(NUMBERS_BYTES_MAX)}
    assert list(from_row(Transition, to_row(note(numbers=numbers))).numbers) == ["left_out_bytes"]


def test_what_has_no_form_in_json_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        to_row(note(numbers={"a": object()}))


def test_a_long_text_is_cut() -> None:
    stored = to_row(note(reason="x" * (TEXT_MAX + 1)))["reason"]
    assert len(stored) == TEXT_MAX
    assert stored.endswith("...")


def test_a_text_that_utf8_has_no_form_for_is_stored_all_the_same() -> None:
    assert to_row(note(reason="model\udcff.onnx"))["reason"] == "model?.onnx"


def test_many_weights_are_stored_whole() -> None:
    weights = tuple(range(1, 101)) * 50
    assert from_row(Release, to_row(release(weights=weights))).weights == weights


@pytest.mark.parametrize("damage", [{"weights": "[5,"}, {"weights": 5}, {"version": "two"}])
def test_a_row_that_makes_no_sense_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_row(Release, {**to_row(release()), **damage})
