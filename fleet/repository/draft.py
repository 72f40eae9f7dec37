"""New metadata: signed in memory with every key that is needed, and written only when whole."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile, Role

from fleet.errors import BadInputError
from fleet.repository.disk import replace, uninterrupted, write_new
from fleet.repository.key_files import Keys
from fleet.repository.layout import Layout
from fleet.repository.roles import LISTED, ROOT, SIGNING_ORDER, SNAPSHOT, TIMESTAMP
from fleet.repository.settings import RepositorySettings
from fleet.repository.state import AnyMetadata, State


@dataclass(frozen=True, slots=True)
class Signed:
    """What a command wrote.

    Attributes:
        versions: New version of each role that was signed, in the order of writing.
        pending: Roles that wait for ``edge-fleet repo publish``, since the online keys are
            elsewhere.
    """

    versions: Mapping[str, int]
    pending: tuple[str, ...]


class Draft:
    """Changes of metadata that are not written yet.

    Args:
        layout: The repository.
        state: Its metadata; the caller changes what they say, the draft their versions.
        settings: Its settings.
        keys: What may be signed with.
        now: The time, with whole seconds.
    """

    def __init__(
        self,
        layout: Layout,
        state: State,
        settings: RepositorySettings,
        keys: Keys,
        now: datetime,
    ) -> None:
        self._layout = layout
        self._state = state
        self._settings = settings
        self._keys = keys
        self._now = now
        self._renewed: set[str] = set()
        root = state.root.signed.roles[ROOT]
        self._outgoing = Role(list(root.keyids), root.threshold)
        self._extra: list[CryptoSigner] = []
        self._pending: tuple[str, ...] = ()
        self._files: dict[str, bytes] | None = None

    def check_keys(self, role: str) -> None:
        """Open the keys of a role, before anything costly is done.

        Raises:
            BadInputError: Too few of them are here.
        """
        self._signers(role)

    def use(self, signers: Sequence[CryptoSigner]) -> None:
        """Sign with more keys: new ones, which are not in a file yet."""
        self._extra += signers

    def renew(self, role: str) -> None:
        """Give a role's metadata a new version and a new expiry; they are signed in the end."""
        if role in self._renewed:
            return
        self._renewed.add(role)
        signed = self._state.of(role).signed
        on_disk = [] if role == TIMESTAMP else self._layout.versions(role)
        signed.version = max([signed.version, *on_disk]) + 1
        signed.expires = self._now + timedelta(days=self._settings.days(role))

    def sign(self, *, publish: bool = False) -> None:
        """Sign everything, in memory.

        Args:
            publish: Whether to fail if the online keys are not here; else what is new waits.

        Raises:
            BadInputError: Keys are not here; nothing was written.
        """
        self._pending = () if self._list_versions(required=publish) else self._state.pending()
        self._files = {role: self._sign(role) for role in SIGNING_ORDER if role in self._renewed}

    def write(self, *, publish: bool = False) -> Signed:
        """Write what is signed; the timestamp, which makes it public, comes last.

        Args:
            publish: As for ``sign``, which is done first unless it was.

        Raises:
            BadInputError: Keys are not here; nothing was written.
            OSError: The disk refused; what was there before is still what clients see.
        """
        if self._files is None:
            self.sign(publish=publish)
        files = self._files or {}
        with uninterrupted():
            for role, data in files.items():
                path = self._layout.metadata_file(role, self._state.of(role).signed.version)
                if role == TIMESTAMP:
                    replace(path, data)
                else:
                    write_new(path, data)
                if role == ROOT:
                    self._give_root()
            self._give_root()
        versions: dict[str, int] = {role: self._state.of(role).signed.version for role in files}
        return Signed(versions, self._pending)

    def _give_root(self) -> None:
        """Let the file for new devices be the newest root, also if a command was stopped."""
        version = self._state.root.signed.version
        newest = self._layout.metadata_file(ROOT, version).read_bytes()
        if not self._layout.root.is_file() or self._layout.root.read_bytes() != newest:
            replace(self._layout.root, newest)

    def _list_versions(self, *, required: bool) -> bool:
        """Bring snapshot and timestamp up to date; tell whether they are."""
        new = {
            f"{role}.json": MetaFile(version=self._state.of(role).signed.version) for role in LISTED
        }
        snapshot, timestamp = self._state.snapshot.signed, self._state.timestamp.signed
        is_new = new != snapshot.meta or SNAPSHOT in self._renewed
        if not is_new and TIMESTAMP not in self._renewed:
            return True
        roles = (SNAPSHOT, TIMESTAMP) if is_new else (TIMESTAMP,)
        if not required and not all(self._has_keys(role) for role in roles):
            self._renewed -= {SNAPSHOT, TIMESTAMP}
            return False
        if is_new:
            self.renew(SNAPSHOT)
            snapshot.meta = new
            timestamp.snapshot_meta = MetaFile(version=snapshot.version)
        self.renew(TIMESTAMP)
        return True

    def _sign(self, role: str) -> bytes:
        metadata: AnyMetadata = self._state.of(role)
        metadata.signatures.clear()
        for signer in self._signers(role):
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def _has_keys(self, role: str) -> bool:
        wanted = self._state.authority(role).get_delegated_role(role)
        return len(self._found(wanted)) >= wanted.threshold

    def _signers(self, role: str) -> list[CryptoSigner]:
        """Find the keys of a role; a new root is signed by the old one's keys as well."""
        wanted = [self._state.authority(role).get_delegated_role(role)]
        if role == ROOT:
            wanted.append(self._outgoing)
        signers: dict[str, CryptoSigner] = {}
        for each in wanted:
            found = self._found(each)
            if len(found) < each.threshold:
                raise BadInputError(
                    f"{role} is signed by {each.threshold} of {len(each.keyids)} keys, and "
                    f"{len(found)} of them are in {self._keys.shown}; name the folder that has "
                    "them with --keys"
                )
            signers |= {signer.public_key.keyid: signer for signer in found}
        return list(signers.values())

    def _found(self, role: Role) -> list[CryptoSigner]:
        extra = [each for each in self._extra if each.public_key.keyid in role.keyids]
        known = {each.public_key.keyid for each in extra}
        return extra + [
            each for each in self._keys.signers(role.keyids) if each.public_key.keyid not in known
        ]
