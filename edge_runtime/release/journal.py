"""The release journal ``runtime.db``: what is released here, what is active, and all that happened.

Persist, then act: when a method returns, what it stored survives a power cut. Each is one
transaction, so that a release, the slots, the bad digests and the history never disagree.

The file keeps SQLite's rollback journal (``journal_mode=TRUNCATE``), not a write-ahead log. It
changes a few times an hour, so the speed of a log is worth nothing, and the file alone, without a
log beside it, is always the whole truth: it can be read while no daemon runs without creating
anything, and copied off a device. ``synchronous=FULL`` is enough with TRUNCATE, which syncs the
truncated journal at the end of a commit; with DELETE it is not, because the directory is not synced
after the deletion, and the journal that comes back with the power would undo the commit.

A method may block for as long as the disk takes. Any thread may call, one gets in at a time; none
belongs on the request path. What is bounded, and how the history is kept from being rewritten:
``journal_schema``.
"""

from pathlib import Path
from typing import Final, Self

import msgspec

from edge_runtime.release.journal_file import Change
from edge_runtime.release.journal_reader import JournalReader
from edge_runtime.release.journal_rows import to_row
from edge_runtime.release.records import (
    BadDigest,
    Override,
    Previous,
    Release,
    Slots,
    Transition,
)

_INSERT_RELEASE: Final = """
INSERT INTO releases (
    model, version, manifest_sha256, digest, state, stage, weights, mode, source, "order", active,
    active_source, method, looks, awake_deadline_s, crashes, cause, reason, variant,
    variant_reason, proof, created_s, updated_s
) VALUES (
    :model, :version, :manifest_sha256, :digest, :state, :stage, :weights, :mode, :source, :order,
    :active, :active_source, :method, :looks, :awake_deadline_s, :crashes, :cause, :reason,
    :variant, :variant_reason, :proof, :created_s, :updated_s
)
"""
_UPDATE_RELEASE: Final = """
UPDATE releases SET
    model = :model, version = :version, manifest_sha256 = :manifest_sha256, digest = :digest,
    state = :state, stage = :stage, weights = :weights, mode = :mode, source = :source,
    "order" = :order, active = :active, active_source = :active_source, method = :method,
    looks = :looks, awake_deadline_s = :awake_deadline_s, crashes = :crashes, cause = :cause,
    reason = :reason, variant = :variant, variant_reason = :variant_reason,
    proof = :proof, created_s = :created_s, updated_s = :updated_s
WHERE id = :id AND state = :from_state
"""
_INSERT_HISTORY: Final = """
INSERT INTO history (
    release_id, model, version, from_state, to_state, event, cause, reason, digest, numbers,
    wall_s, awake_s, boot_id
) VALUES (
    :release_id, :model, :version, :from_state, :to_state, :event, :cause, :reason, :digest,
    :numbers, :wall_s, :awake_s, :boot_id
)
"""
_PUT_SLOTS: Final = """
INSERT INTO slots (
    model, active, active_source, active_digest, previous, previous_source, previous_digest,
    disabled
) VALUES (
    :model, :active, :active_source, :active_digest, :previous, :previous_source,
    :previous_digest, :disabled
) ON CONFLICT (model) DO UPDATE SET
    active = excluded.active, active_source = excluded.active_source,
    active_digest = excluded.active_digest, previous = excluded.previous,
    previous_source = excluded.previous_source, previous_digest = excluded.previous_digest,
    disabled = excluded.disabled
"""
_CLEAR_TRAFFIC: Final = "DELETE FROM traffic WHERE model = :model"
_PUT_TRAFFIC: Final = """
INSERT INTO traffic (model, version, percent) VALUES (:model, :version, :percent)
"""
_PUT_OVERRIDE: Final = """
INSERT INTO overrides (model, kind, reason, source, created_s)
VALUES (:model, :kind, :reason, :source, :created_s)
ON CONFLICT (model) DO UPDATE SET
    kind = excluded.kind, reason = excluded.reason, source = excluded.source,
    created_s = excluded.created_s
"""
_CLEAR_OVERRIDE: Final = "DELETE FROM overrides WHERE model = :model"
_PUT_BAD: Final = """
INSERT INTO bad_digests (
    manifest_sha256, model, version, digest, cause, reason, "order", created_s
) VALUES (:manifest_sha256, :model, :version, :digest, :cause, :reason, :order, :created_s)
ON CONFLICT (manifest_sha256) DO UPDATE SET
    model = excluded.model, version = excluded.version, digest = excluded.digest,
    cause = excluded.cause, reason = excluded.reason, "order" = excluded."order",
    created_s = excluded.created_s
"""
_FORGET_BAD: Final = "DELETE FROM bad_digests WHERE manifest_sha256 = :manifest_sha256"
_NEXT_ORDER: Final = "UPDATE daemon SET orders = orders + 1"
_ORDERS: Final = "SELECT orders FROM daemon"
_PREVIOUS: Final = "SELECT boot_id, was_clean, awake_s FROM daemon"
_STARTED: Final = "UPDATE daemon SET boot_id = :boot_id, was_clean = 0"
_CLEAN: Final = "UPDATE daemon SET was_clean = 1, awake_s = max(awake_s, :awake_s)"
_TICK: Final = "UPDATE daemon SET awake_s = max(awake_s, :awake_s)"


class Journal(JournalReader):
    """The journal of the daemon that runs.

    Every method that changes something raises ``StorageError`` if the disk does not take it, and
    ``ValueError`` if what it was given contradicts itself or the journal; nothing changed then.

    Args:
        path: The file, in the state directory; see ``journal_schema.DATABASE``.
    """

    @classmethod
    def read(cls, path: Path) -> JournalReader:
        """Open a journal for reading only; creates and changes nothing, whoever uses it.

        It is read as it is now: later changes do not show.

        Args:
            path: The file.

        Raises:
            StorageError: There is none, it is damaged, or a newer program wrote it.
        """
        reader = JournalReader(path)
        reader._file.open_to_read()  # noqa: SLF001 - a base of this class
        return reader

    def open(self) -> Self:
        """Open the file, or make it.

        A damaged one is renamed, kept, and told of in ``damage``. One that cannot be written can
        be read: ``problem`` says why, and each change tries again.

        Returns:
            This journal.

        Raises:
            StorageError: Another daemon has it, a newer program wrote it, others may write to its
                folder, or it can neither be written nor read.
        """
        self._file.open()
        return self

    # -- releases ------------------------------------------------------------------------------

    def insert(self, release: Release, transition: Transition | None = None) -> Release:
        """Begin a release.

        Args:
            release: What is to be stored; its ``id`` is ignored.
            transition: The first row of its history; its ``id`` and ``release_id`` are ignored.

        Returns:
            The release with its number.
        """
        with self._file.changing() as change:
            made = change.run(_INSERT_RELEASE, to_row(release)).made
            stored = msgspec.structs.replace(release, id=made)
            if transition is not None:
                first = msgspec.structs.replace(transition, release_id=made)
                _check_tells(first, stored)
                _add(change, first)
        return stored

    def move(
        self,
        release: Release,
        transition: Transition,
        *,
        slots: Slots | None = None,
        bad: BadDigest | None = None,
    ) -> Transition:
        """Bring a release to another state, and tell it in the history.

        Args:
            release: What it becomes.
            transition: The row of the history, without its number; ``from_state`` must be the
                state that is stored now, ``to_state`` the release's.
            slots: What is active from now on; ``None``: as before.
            bad: A manifest to remember; ``None``: none.

        Returns:
            The row with its number.
        """
        _check_tells(transition, release)
        with self._file.changing() as change:
            _update(change, release, transition.from_state)
            if slots is not None:
                _put_slots(change, slots)
            if bad is not None:
                change.run(_PUT_BAD, to_row(bad))
            made = _add(change, transition)
        return msgspec.structs.replace(transition, id=made)

    def save(self, release: Release) -> None:
        """Keep what a release has spent within a state: looks, crashes; it tells no history.

        Args:
            release: In the state that is stored.
        """
        with self._file.changing() as change:
            _update(change, release, release.state)

    # -- what is active, and local decisions ---------------------------------------------------

    def set_slots(self, slots: Slots, note: Transition | None = None) -> None:
        """Say what is active for a model.

        Args:
            slots: It.
            note: A row for the history; ``None``: none. The same in the methods below.
        """
        with self._file.changing() as change:
            _put_slots(change, slots)
            _add(change, note)

    def set_override(self, override: Override, note: Transition | None = None) -> None:
        """Remember a local decision about a model, in the place of the last one."""
        with self._file.changing() as change:
            change.run(_PUT_OVERRIDE, to_row(override))
            _add(change, note)

    def clear_override(self, model: str, note: Transition | None = None) -> bool:
        """Forget the local decision about a model.

        Returns:
            Whether there was one; if not, nothing is noted.
        """
        with self._file.changing() as change:
            was_there = change.run(_CLEAR_OVERRIDE, {"model": model}).changed > 0
            _add(change, note if was_there else None)
        return was_there

    def forget_bad(self, manifest_sha256: str, note: Transition | None = None) -> bool:
        """Let a manifest be staged again.

        Returns:
            Whether it was remembered as bad; if not, nothing is noted.
        """
        with self._file.changing() as change:
            done = change.run(_FORGET_BAD, {"manifest_sha256": manifest_sha256})
            _add(change, note if done.changed else None)
        return done.changed > 0

    # -- the daemon ----------------------------------------------------------------------------

    def next_order(self) -> int:
        """Number an order: larger than every one before, over all starts."""
        with self._file.changing() as change:
            change.run(_NEXT_ORDER, {})
            number: int = change.rows(_ORDERS, {})[0]["orders"]
        return number

    def mark_started(self, boot_id: str) -> Previous:
        """Note that a daemon runs now, and has not stopped in order yet.

        Args:
            boot_id: In which boot of the device.

        Returns:
            How the one before ended.
        """
        with self._file.changing() as change:
            row = change.rows(_PREVIOUS, {})[0]
            change.run(_STARTED, {"boot_id": boot_id})
        return Previous(
            boot_id=row["boot_id"], was_clean=bool(row["was_clean"]), awake_s=row["awake_s"]
        )

    def mark_clean(self, awake_s: float = 0.0) -> None:
        """Note that the daemon stops in order.

        Args:
            awake_s: The awake clock, in seconds; it never goes back.
        """
        with self._file.changing() as change:
            change.run(_CLEAN, {"awake_s": awake_s})

    def tick(self, awake_s: float) -> None:
        """Note how long the device has been awake; it never goes back.

        Args:
            awake_s: The awake clock, in seconds.
        """
        with self._file.changing() as change:
            change.run(_TICK, {"awake_s": awake_s})


def _add(change: Change, transition: Transition | None) -> int:
    return change.run(_INSERT_HISTORY, to_row(transition)).made if transition is not None else 0


def _update(change: Change, release: Release, from_state: str) -> None:
    if change.run(_UPDATE_RELEASE, {**to_row(release), "from_state": from_state}).changed != 1:
        raise ValueError(f"release {release.id} is not {from_state!r} in the journal")


def _put_slots(change: Change, slots: Slots) -> None:
    values = to_row(slots)
    split = values.pop("traffic")
    change.run(_PUT_SLOTS, values)
    change.run(_CLEAR_TRAFFIC, {"model": slots.model})
    for version, percent in split.items():
        row = {"model": slots.model, "version": int(version), "percent": percent}
        change.run(_PUT_TRAFFIC, row)


def _check_tells(transition: Transition, release: Release) -> None:
    """Refuse a row that tells of something else than what happens to the release."""
    told = (transition.release_id, transition.model, transition.version, transition.to_state)
    if told != (release.id, release.model, release.version, release.state):
        raise ValueError(f"the row for the history {told} does not tell of release {release.id}")
