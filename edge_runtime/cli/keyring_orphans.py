"""``edge-runtime keyring check --state-dir``: what a keyring would orphan, without a daemon."""

from pathlib import Path

from edge_runtime.errors import ArtifactError, ModelNotFoundError, SignatureError
from edge_runtime.locations import JOURNAL_NAME
from edge_runtime.release.admission import KEYRING
from edge_runtime.release.journal import Journal
from edge_runtime.release.needed_versions import (
    Head,
    NeededVersion,
    needed_versions,
    orphans,
    would_orphan,
)
from edge_runtime.store.layout import FOLDER
from edge_runtime.store.store import Store
from edge_runtime.trust.keyring import Keyring
from edge_runtime.trust.keyring_file import KeyringFile


def check_installed(keyring: Keyring, state: Path) -> None:
    """Check that a keyring lets in what was released on a device; changes nothing there.

    Args:
        keyring: The new one.
        state: The daemon's state directory, whether it runs or not.

    Raises:
        SignatureError: It would orphan versions that are needed.
        StorageError: The state cannot be read.
    """
    with Journal.read(state / JOURNAL_NAME) as journal:
        unfinished = journal.releases(unfinished=True)
        needed = needed_versions(journal.all_slots(), unfinished, {})
    store = Store(state / FOLDER, reserve_bytes=0, bundle_bytes=0)

    def head(each: NeededVersion) -> Head | None:
        try:
            return store.head(each.model, each.version)
        except (ArtifactError, ModelNotFoundError):
            return None

    has_one = (state / KEYRING).exists()
    present = KeyringFile(state / KEYRING).read() if has_one else None
    lost = orphans(needed, head, keyring, present)
    if lost:
        raise SignatureError(would_orphan(keyring.version, lost))
