"""What the journal stored is there after it was closed; what it refuses changes nothing."""

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_runtime.release.journal import Journal
from edge_runtime.release.journal_schema import DATABASE
from edge_runtime.release.records import BadDigest, Override, Previous, Release, Slots
from tests.release_records import BOOT, MANIFEST, NOW_S, note, release, transition

SLOTS = Slots(
    model="digits",
    active=2,
    active_source="store",
    active_digest="d" * 64,
    previous=1,
    previous_source="seed",
    traffic={"2": 80, "3": 20},
)
BAD = BadDigest(
    manifest_sha256=MANIFEST, model="digits", version=2, cause="crashed", order=3, created_s=NOW_S
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / DATABASE


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path).open() as opened:
        yield opened


def moved(journal: Journal, before: Release, state: str) -> Release:
    after = msgspec.structs.replace(before, state=state)
    journal.move(after, transition(before, after))
    return after


def everything(journal: Journal) -> tuple[object, ...]:
    """Read all there is."""
    return (
        journal.releases(),
        journal.all_slots(),
        journal.overrides(),
        journal.history(),
        journal.all_bad(),
        journal.previous(),
    )


# -- what is stored --------------------------------------------------------------------------------


def test_nothing_is_known_at_first(journal: Journal) -> None:
    assert everything(journal) == ([], [], [], [], [], Previous())
    assert journal.slots("digits") == Slots(model="digits")
    assert journal.release(1) is None
    assert journal.override("digits") is None
    assert journal.bad(MANIFEST) is None
    assert (journal.damage, journal.problem) == ("", "")


def test_everything_is_there_after_it_was_opened_again(path: Path) -> None:
    override = Override(model="other", kind="hold", reason="fair", source="uid=0", created_s=NOW_S)
    with Journal(path).open() as journal:
        journal.mark_started(BOOT)
        first = journal.insert(release(weights=(5, 100), active=1, active_source="seed"))
        after = msgspec.structs.replace(first, state="failed", cause="crashed", stage=1)
        journal.move(after, transition(first, after), slots=SLOTS, bad=BAD)
        journal.set_override(override)
        journal.tick(12.5)
        before = everything(journal)
    with Journal(path).open() as journal:
        assert everything(journal) == before
        assert journal.release(first.id) == after
        assert journal.slots("digits") == SLOTS
        assert journal.override("other") == override
        assert journal.bad(MANIFEST) == BAD
        assert journal.previous() == Previous(boot_id=BOOT, was_clean=False, awake_s=12.5)


def test_releases_are_numbered_and_a_number_is_never_used_again(path: Path) -> None:
    with Journal(path).open() as journal:
        assert [journal.insert(release(version=each)).id for each in (1, 2)] == [1, 2]
    with Journal(path).open() as journal:
        assert journal.insert(release(version=3)).id == 3


def test_a_release_begins_with_the_first_row_of_its_history(journal: Journal) -> None:
    made = release()
    stored = journal.insert(made, transition(None, made))
    (row,) = journal.history()
    assert (row.release_id, row.from_state, row.to_state) == (stored.id, "", "installed")


def test_only_what_is_under_way_is_unfinished(journal: Journal) -> None:
    states = ["staged", "committed", "a state of a newer program", "failed", "rolled-back"]
    for state in states:
        journal.insert(release(state=state))
    found = [each.state for each in journal.releases(unfinished=True)]
    assert found == ["a state of a newer program", "staged"]


def test_releases_and_history_are_told_by_model_and_newest_first(journal: Journal) -> None:
    for model in ("a", "b", "a"):
        moved(journal, journal.insert(release(model)), "staged")
    assert [each.id for each in journal.releases("a")] == [3, 1]
    assert [each.id for each in journal.releases(limit=1)] == [3]
    assert [each.id for each in journal.history("a")] == [3, 1]
    assert [each.id for each in journal.history(limit=2)] == [3, 2]
    assert [each.id for each in journal.history(before_id=3, limit=1)] == [2]
    assert [each.id for each in journal.history("a", before_id=3)] == [1]
    assert journal.history(limit=0) == journal.history(limit=-1) == []


def test_a_move_returns_the_row_with_its_number(journal: Journal) -> None:
    before = journal.insert(release())
    after = msgspec.structs.replace(before, state="self-testing")
    assert journal.move(after, transition(before, after)) == journal.history()[0]


def test_a_release_is_saved_within_its_state_without_a_row(journal: Journal) -> None:
    first = journal.insert(release())
    looked = msgspec.structs.replace(first, looks=2)
    journal.save(looked)
    assert journal.releases() == [looked]
    assert journal.history() == []
    with pytest.raises(ValueError, match="is not 'staged' in the journal"):
        journal.save(msgspec.structs.replace(first, state="staged"))
    assert journal.releases() == [looked]


def test_slots_that_are_set_again_replace_the_whole_split(journal: Journal) -> None:
    journal.set_slots(SLOTS)
    journal.set_slots(msgspec.structs.replace(SLOTS, model="other", traffic={"7": 100}))
    changed = msgspec.structs.replace(SLOTS, active=5, traffic={"5": 100})
    journal.set_slots(changed, note(event="traffic"))
    assert journal.slots("digits") == changed
    assert journal.slots("other").traffic == {"7": 100}
    assert [each.event for each in journal.history()] == ["traffic"]


def test_an_override_is_replaced_and_cleared_once(journal: Journal) -> None:
    held = Override(model="digits", kind="hold", created_s=NOW_S)
    taken_back = Override(model="digits", kind="rollback", created_s=NOW_S)
    journal.set_override(held, note(event="hold"))
    journal.set_override(taken_back, note(event="rollback"))
    assert journal.overrides() == [taken_back]
    assert journal.clear_override("digits", note(event="clear"))
    assert not journal.clear_override("digits", note(event="clear"))
    assert journal.overrides() == []
    assert [each.event for each in journal.history()] == ["clear", "rollback", "hold"]


def test_a_bad_digest_is_remembered_until_it_is_forgotten(journal: Journal) -> None:
    before = journal.insert(release())
    for cause in ("errors", "crashed"):
        after = msgspec.structs.replace(before, state=f"after {cause}")
        bad = msgspec.structs.replace(BAD, cause=cause)
        journal.move(after, transition(before, after), bad=bad)
        before = after
    assert journal.all_bad() == [BAD]
    assert journal.forget_bad(MANIFEST, note(event="again"))
    assert not journal.forget_bad(MANIFEST, note(event="again"))
    assert journal.bad(MANIFEST) is None
    assert [each.event for each in journal.history(limit=1)] == ["again"]


# -- starts and stops ------------------------------------------------------------------------------


def test_orders_grow_over_restarts(path: Path) -> None:
    numbers = []
    for _ in range(3):
        with Journal(path).open() as journal:
            numbers += [journal.next_order(), journal.next_order()]
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_a_daemon_that_was_killed_did_not_stop_in_order(path: Path) -> None:
    with Journal(path).open() as journal:
        assert journal.mark_started("one") == Previous()
        journal.tick(3.0)
    with Journal(path).open() as journal:
        wanted = Previous(boot_id="one", was_clean=False, awake_s=3.0)
        assert journal.previous() == wanted == journal.mark_started("two")
        journal.mark_clean(4.0)
    with Journal(path).open() as journal:
        wanted = Previous(boot_id="two", was_clean=True, awake_s=4.0)
        assert journal.mark_started("three") == wanted


def test_the_journal_may_be_closed_twice_and_is_of_no_use_then(path: Path) -> None:
    journal = Journal(path).open()
    journal.close()
    journal.close()
    with pytest.raises(RuntimeError, match="not open"):
        journal.tick(1.0)


# -- what is refused -------------------------------------------------------------------------------

REFUSED = {
    "a version below 1": release(version=0),
    "no model": release(model=""),
    "a model with too long a name": release(model="x" * 129),
    "no state": release(state=""),
    "a digest of another length": release(manifest_sha256="abc"),
    "a digest that is not hexadecimal": release(manifest_sha256="g" * 64),
    "a negative stage": release(stage=-1),
    "a deadline that is no number": release(awake_deadline_s=float("nan")),
    "an unknown mode": msgspec.structs.replace(release(), mode="by chance"),
    "text for a number": msgspec.structs.replace(release(), looks="many"),
}


@pytest.mark.parametrize("made", REFUSED.values(), ids=REFUSED)
def test_refuses_a_release_with(journal: Journal, made: Release) -> None:
    with pytest.raises(ValueError, match="journal refuses"):
        journal.insert(made)
    assert journal.releases() == []


WRONG_SLOTS = {
    "a released version without a number": Slots(model="m", active_source="store"),
    "a previous version without a number": Slots(model="m", previous_source="store"),
    "an active version while it is disabled": Slots(model="m", active=1, disabled="why"),
    "a share over everything": Slots(model="m", traffic={"1": 101}),
    "a share of version 0": Slots(model="m", traffic={"0": 10}),
    "a share of no version": Slots(model="m", traffic={"latest": 10}),
    "two shares of one version": Slots(model="m", traffic={"1": 10, "01": 10}),
}


@pytest.mark.parametrize("slots", WRONG_SLOTS.values(), ids=WRONG_SLOTS)
def test_refuses_slots_with(journal: Journal, slots: Slots) -> None:
    wanted = Slots(model="m", active=7, active_source="store", traffic={"7": 100})
    journal.set_slots(wanted)
    with pytest.raises(ValueError, match=r"journal refuses|invalid literal"):
        journal.set_slots(slots, note("m"))
    assert journal.all_slots() == [wanted]
    assert journal.history() == []


def test_refuses_to_move_a_release_that_is_in_another_state(journal: Journal) -> None:
    first = journal.insert(release())
    moved(journal, first, "self-testing")
    before = everything(journal)
    with pytest.raises(ValueError, match="is not 'installed' in the journal"):
        moved(journal, first, "staged")
    assert everything(journal) == before


def test_refuses_to_move_a_release_that_it_does_not_know(journal: Journal) -> None:
    with pytest.raises(ValueError, match="release 5 is not"):
        moved(journal, release(id=5), "staged")
    assert everything(journal) == ([], [], [], [], [], Previous())


@pytest.mark.parametrize("field", ["model", "version", "manifest_sha256", "created_s"])
def test_what_a_release_is_never_changes(journal: Journal, field: str) -> None:
    first = journal.insert(release())
    other = {"model": "other", "version": 9, "manifest_sha256": "b" * 64, "created_s": 1.0}
    changed = msgspec.structs.replace(first, state="staged", **{field: other[field]})
    with pytest.raises(ValueError, match="never changes"):
        journal.move(changed, transition(first, changed))
    assert journal.releases() == [first]


@pytest.mark.parametrize("lie", [{"to_state": "committed"}, {"version": 9}, {"release_id": 2}])
def test_refuses_a_history_that_tells_of_something_else(
    journal: Journal, lie: dict[str, object]
) -> None:
    first = journal.insert(release())
    after = msgspec.structs.replace(first, state="staged")
    row = msgspec.structs.replace(transition(first, after), **lie)
    with pytest.raises(ValueError, match="does not tell of release 1"):
        journal.move(after, row)
    assert journal.releases() == [first]


def test_a_refused_part_takes_the_whole_move_back(journal: Journal) -> None:
    first = journal.insert(release())
    after = msgspec.structs.replace(first, state="committed")
    before = everything(journal)
    wrong = msgspec.structs.replace(BAD, version=0)
    with pytest.raises(ValueError, match="journal refuses"):
        journal.move(after, transition(first, after), slots=SLOTS, bad=wrong)
    assert everything(journal) == before
    assert moved(journal, first, "committed").state == "committed"


def test_refuses_a_note_of_a_release_that_is_not_there(journal: Journal) -> None:
    with pytest.raises(ValueError, match="no such release"):
        journal.set_slots(SLOTS, note(release_id=4, version=2))
    assert journal.all_slots() == []


# -- threads ---------------------------------------------------------------------------------------


def test_threads_get_in_one_at_a_time(journal: Journal) -> None:
    numbers: list[int] = []

    def take() -> None:
        numbers.extend(journal.next_order() for _ in range(25))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 101))
