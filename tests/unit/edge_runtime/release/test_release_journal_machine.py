"""The journal under any order of changes, refusals, restarts and kills, against a dictionary."""

import contextlib
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from edge_runtime.release.journal import Journal
from edge_runtime.release.journal_rows import RecordT, from_row, to_row
from edge_runtime.release.journal_schema import DATABASE
from edge_runtime.release.records import (
    BadDigest,
    Override,
    Previous,
    Release,
    Slots,
    Transition,
)
from tests.release_records import NOW_S, note, release, transition

FINAL = {"committed", "rolled-back", "failed"}
MODELS = st.sampled_from(["a", "b", "a.b-c@1"])
VERSIONS = st.integers(1, 2**63 - 1)
STATES = st.sampled_from(["staged", "canary", *sorted(FINAL), "of a newer program"])
TEXTS = st.text(max_size=20) | st.just("x" * 2_000)
SECONDS = st.floats(0, 1e12, allow_nan=False)
DIGESTS = st.sampled_from([f"{number:064x}" for number in range(3)])
SOURCES = st.sampled_from(["store", "seed"])
NUMBERS = st.dictionaries(TEXTS, st.floats() | st.integers(0, 2**53) | TEXTS, max_size=3)
RELEASES = st.builds(
    release,
    model=MODELS,
    version=VERSIONS,
    manifest_sha256=DIGESTS,
    state=STATES,
    reason=TEXTS,
    weights=st.lists(st.integers(1, 100), max_size=4).map(tuple),
    active=st.none() | VERSIONS,
    awake_deadline_s=SECONDS,
    order=st.integers(0, 2**63 - 1),
)
SLOTS = st.builds(
    Slots,
    model=MODELS,
    active=VERSIONS,
    active_source=SOURCES,
    previous=VERSIONS,
    previous_source=SOURCES,
    traffic=st.dictionaries(VERSIONS.map(str), st.integers(0, 100), max_size=3),
) | st.builds(Slots, model=MODELS, disabled=TEXTS)
OVERRIDES = st.builds(
    Override,
    model=MODELS,
    kind=st.sampled_from(["hold", "rollback"]),
    reason=TEXTS,
    source=TEXTS,
    created_s=SECONDS,
)


class _DiesError(Exception):
    """Stands for a kill."""


@dataclass
class Model:
    """What the journal should say."""

    releases: dict[int, Release] = field(default_factory=dict)
    slots: dict[str, Slots] = field(default_factory=dict)
    overrides: dict[str, Override] = field(default_factory=dict)
    bad: dict[str, BadDigest] = field(default_factory=dict)
    history: list[Transition] = field(default_factory=list)
    orders: int = 0
    daemon: Previous = field(default_factory=Previous)


def stored(record: RecordT) -> RecordT:
    """Give what becomes of a record on its way to the file and back."""
    return from_row(type(record), to_row(record))


class JournalMachine(RuleBasedStateMachine):
    """Changes the journal and the dictionary alike."""

    made = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir="/tmp"))
        self.lives = 0
        self.model = Model()
        self.journal = self._opened()

    def teardown(self) -> None:
        """Leave nothing."""
        self.journal.close()
        shutil.rmtree(self.root)

    def _tell(self, row: Transition) -> None:
        self.model.history.append(stored(msgspec.structs.replace(row, id=self._next_row())))

    def _next_row(self) -> int:
        return len(self.model.history) + 1

    # -- changes -------------------------------------------------------------------------------

    @initialize(boot=st.sampled_from(["one", "two"]))
    def start(self, boot: str) -> None:
        """Begin as a daemon does."""
        assert self.journal.mark_started(boot) == self.model.daemon
        self._started(boot)

    def _started(self, boot: str) -> None:
        last = self.model.daemon
        self.model.daemon = msgspec.structs.replace(last, boot_id=boot, was_clean=False)

    @rule(target=made, new=RELEASES, told=st.booleans())
    def insert(self, new: Release, *, told: bool) -> int:
        """Begin a release."""
        found = self.journal.insert(new, transition(None, new) if told else None)
        assert found.id not in self.model.releases
        assert found == msgspec.structs.replace(new, id=found.id)
        self.model.releases[found.id] = stored(found)
        if told:
            self._tell(transition(None, found))
        return found.id

    @rule(
        number=made,
        state=STATES,
        reason=TEXTS,
        numbers=NUMBERS,
        slots=st.none() | SLOTS,
        is_bad=st.booleans(),
    )
    def move(
        self, number: int, state: str, reason: str, numbers: dict[str, object], slots: Slots | None,
        *, is_bad: bool,
    ) -> None:  # fmt: skip
        """Bring a release to another state."""
        before = self.model.releases[number]
        after = msgspec.structs.replace(before, state=state, reason=reason, looks=before.looks + 1)
        row = msgspec.structs.replace(transition(before, after, "passed"), numbers=numbers)
        bad = BadDigest.of(after, NOW_S) if is_bad else None
        assert self.journal.move(after, row, slots=slots, bad=bad).id == self._next_row()
        self.model.releases[number] = stored(after)
        self._tell(row)
        if slots is not None:
            self._put(slots)
        if bad is not None:
            self.model.bad[bad.manifest_sha256] = stored(bad)

    @rule(number=made, looks=st.integers(0, 8))
    def save(self, number: int, looks: int) -> None:
        """Spend something within a state."""
        after = msgspec.structs.replace(self.model.releases[number], looks=looks)
        self.journal.save(after)
        self.model.releases[number] = after

    @rule(slots=SLOTS)
    def set_slots(self, slots: Slots) -> None:
        """Say what is active."""
        self.journal.set_slots(slots, note(slots.model))
        self._put(slots)
        self._tell(note(slots.model))

    def _put(self, slots: Slots) -> None:
        self.model.slots[slots.model] = stored(slots)

    @rule(override=OVERRIDES)
    def set_override(self, override: Override) -> None:
        """Decide something by hand."""
        self.journal.set_override(override)
        self.model.overrides[override.model] = stored(override)

    @rule(model=MODELS)
    def clear_override(self, model: str) -> None:
        """Let the fleet decide again."""
        was_there = self.model.overrides.pop(model, None) is not None
        assert self.journal.clear_override(model, note(model)) == was_there
        if was_there:
            self._tell(note(model))

    @rule(digest=DIGESTS)
    def forget_bad(self, digest: str) -> None:
        """Let a manifest be staged again."""
        was_there = self.model.bad.pop(digest, None) is not None
        assert self.journal.forget_bad(digest) == was_there

    @rule()
    def next_order(self) -> None:
        """Number an order."""
        self.model.orders += 1
        assert self.journal.next_order() == self.model.orders

    @rule(awake_s=SECONDS, is_end=st.booleans())
    def tick(self, awake_s: float, *, is_end: bool) -> None:
        """Let awake time pass, or stop in order."""
        last = self.model.daemon
        most_s = max(last.awake_s, awake_s)
        was_clean = is_end or last.was_clean
        self.model.daemon = msgspec.structs.replace(last, awake_s=most_s, was_clean=was_clean)
        (self.journal.mark_clean if is_end else self.journal.tick)(awake_s)

    # -- what is refused, and what ends it -----------------------------------------------------

    @rule(number=made, slots=SLOTS)
    def refuse(self, number: int, slots: Slots) -> None:
        """Ask for a move of which the last part is wrong."""
        before = self.model.releases[number]
        after = msgspec.structs.replace(before, state="rolling-back")
        bad = msgspec.structs.replace(BadDigest.of(after, NOW_S), version=0)
        with pytest.raises(ValueError, match="refuses"):
            self.journal.move(after, transition(before, after), slots=slots, bad=bad)

    @rule(boot=st.sampled_from(["one", "two"]), kill=st.booleans())
    def restart(self, boot: str, *, kill: bool) -> None:
        """Stop, or die, and start again."""
        if kill:
            self._copy_files()
        self.journal.close()
        self.journal = self._opened()
        assert self.journal.mark_started(boot) == self.model.daemon
        self._started(boot)

    @rule(slots=SLOTS)
    def die_within_a_change(self, slots: Slots) -> None:
        """Die after some of a change."""
        with contextlib.suppress(_DiesError), self.journal._file.changing() as change:
            change.run("DELETE FROM slots", {})
            change.run("DELETE FROM overrides", {})
            change.run("UPDATE releases SET state = :model", {"model": slots.model})
            self._copy_files()
            raise _DiesError
        self.journal.close()
        self.journal = self._opened()

    def _copy_files(self) -> None:
        """Keep the files as they are on the disk at this moment; the next opening finds those."""
        last = self.root / str(self.lives)
        self.lives += 1
        shutil.copytree(last, self.root / str(self.lives))

    def _opened(self) -> Journal:
        return Journal(self.root / str(self.lives) / DATABASE).open()

    # -- what must be so -----------------------------------------------------------------------

    @invariant()
    def says_what_was_stored(self) -> None:
        """Compare everything."""
        model, journal = self.model, self.journal
        newest = sorted(model.releases.values(), key=lambda each: -each.id)
        assert journal.releases() == newest
        assert journal.releases(unfinished=True) == [e for e in newest if e.state not in FINAL]
        assert journal.all_slots() == [model.slots[name] for name in sorted(model.slots)]
        assert journal.overrides() == [model.overrides[name] for name in sorted(model.overrides)]
        assert journal.history() == model.history[::-1]
        assert journal.history("a") == [e for e in model.history[::-1] if e.model == "a"]
        assert {each.manifest_sha256: each for each in journal.all_bad()} == model.bad
        assert journal.previous() == model.daemon
        assert (journal.damage, journal.problem) == ("", "")

    @invariant()
    def others_read_the_same(self) -> None:
        """Compare what somebody sees who reads the file meanwhile."""
        with Journal.read(self.root / str(self.lives) / DATABASE) as reader:
            assert reader.history(limit=3) == self.journal.history(limit=3)
            assert reader.all_slots() == self.journal.all_slots()


JournalMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestJournalMachine = JournalMachine.TestCase
