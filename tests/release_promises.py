"""What must be true of a device after whatever went wrong: its history, and its store."""

import stat
from itertools import pairwise

from edge_runtime.protocol.release_schemas import ENDINGS, Transition
from edge_runtime.release.crash_loop import DIED
from edge_runtime.store.store import Store
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
        left = sorted(str(each) for each in (root / "incoming").glob("*"))
        assert not left, left
        for blob in (root / "blobs").glob("*"):
            assert blob.stat().st_nlink > 1, blob
            assert stat.S_IMODE(blob.stat().st_mode) == 0o444, blob
