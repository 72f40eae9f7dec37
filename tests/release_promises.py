"""What must be true of a device after whatever went wrong: its history, and its store."""

import contextlib
import stat
from itertools import pairwise
from pathlib import Path

from edge_runtime.protocol.release_schemas import ENDINGS, Transition
from edge_runtime.release.crash_loop import DIED
from edge_runtime.store.store import Store
from tests.daemons import eventually
from tests.release_device import MODEL, Device, Truth


def check_history(truth: Truth) -> None:
    """Look whether the history is one story, which ends where the device is."""
    rows = truth.rows
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    by_release: dict[int, list[Transition]] = {}
    for row in rows:
        by_release.setdefault(row.release_id, []).append(row)
    by_release.pop(0, None)
    states = {each.id: each.state for each in truth.status.releases}
    for release_id, story in by_release.items():
        for before, after in pairwise(story):
            assert after.from_state == before.to_state, (before, after)
        assert story[0].from_state == "", story[0]
        assert story[-1].to_state == states[release_id], story[-1]
        ends = [row for row in story if row.to_state in ENDINGS and row.event != DIED]
        assert len(ends) <= 2, story  # committed, rolled back
    assert rows[-1].digest == truth.status.running_digest, (rows[-1], truth.status)


def check_store(device: Device, truth: Truth | None, restarts: int) -> None:
    """Look whether the store has whole versions and nothing else."""
    root = device.daemon.state / "store"
    store = Store(root, reserve_bytes=0, bundle_bytes=2**30)
    for name in store.names():
        for version in store.versions(name):
            assert store.verify(name, version)
    if truth is not None:
        assert store.versions(MODEL) == truth.status.installed
    if restarts and root.is_dir():
        # A release is over before what nobody needs any more is removed.
        eventually(lambda: not _litter(root), "an orderly store")


def _litter(root: Path) -> list[str]:
    """List what lies in a store and belongs to no version."""
    found = sorted(str(each) for each in (root / "incoming").glob("*"))
    for blob in (root / "blobs").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            facts = blob.stat()
            if facts.st_nlink < 2 or stat.S_IMODE(facts.st_mode) != 0o444:
                found.append(str(blob))
    return found
