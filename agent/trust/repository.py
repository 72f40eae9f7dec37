"""The repository as the device believes it: refreshed as a whole or not at all.

A refresh works on a copy. What it ends with is checked against the newest that was ever believed,
made durable, and only then put in the place of what was there. What cannot be believed changes
nothing: the device goes on with what it knows.
"""

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuf.ngclient import Updater

from agent.clock import Clock
from agent.errors import AgentError, Distrust, RefusedError, StateError, TrustError
from agent.records.floors import Floors
from agent.settings.device import Repository as RepositorySettings
from agent.trust.documents import Source, document
from agent.trust.fetcher import TIMESTAMP, Fetcher, FolderFetcher
from agent.trust.first_root import FirstRoot, first_root
from agent.trust.http import Http, open_http
from agent.trust.metadata_folder import AdoptedError, MetadataFolder
from agent.trust.places import Places, places_of
from agent.trust.reasons import translated
from agent.trust.reference_time import judge_expiry_by
from agent.trust.room import Room, unlimited
from agent.trust.set_facts import authority_in, read_set
from agent.trust.verified import Artifact, VerifiedRelease, VerifiedSet, plans_of
from agent.trust.version_floors import risen, way_back
from edge_runtime.failpoints import failpoint
from fleet.documents.paths import ROLLOUTS_ROLE, artifact_path, plans_path
from fleet.documents.plan import Plans

_log = logging.getLogger(__name__)

NEVER_EXPIRED_S: Final = 0.0
"""By this clock nothing has expired: for what was fresh when it was kept."""
FAILING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES})
"""What a disk says that no new folder would mend."""
RELEASE_PROBE: Final = artifact_path("-", 1, "-")
"""Not a release; to look it up brings the metadata of every release."""


@dataclass(frozen=True)
class Following:
    """What a device wants of a repository.

    Attributes:
        channel: Whose plans it follows; empty: nobody's.
        fleet: Whose plans it believes; empty: any fleet's.
        more: Names of artifacts that are looked up in a refresh, so that they are known after it.
        keeps_steps: Whether what was verified before a failure is kept, step by step as the TUF
            specification says, instead of new roots only.
    """

    channel: str
    fleet: str = ""
    more: tuple[str, ...] = (RELEASE_PROBE,)
    keeps_steps: bool = False

    def looks_up(self) -> tuple[str, ...]:
        """Name the artifacts that are looked up in a refresh."""
        return (plans_path(self.channel), *self.more) if self.channel else self.more


STABLE: Final = Following("stable")


@dataclass(frozen=True)
class Refreshed:
    """What a refresh brought.

    Attributes:
        changed: Whether anything is believed that was not before.
        timestamp_version: Of the timestamp that is believed now.
        plans_version: Of the metadata of plans; 0: there are none.
        fetched_bytes: What came over the network.
    """

    changed: bool
    timestamp_version: int
    plans_version: int
    fetched_bytes: int


class Repository:
    """Refreshes and reads signed metadata; one thread at a time.

    Args:
        folder: Of the metadata; beside it are ``.new`` and ``.old`` ones.
        settings: Where the repository is, and the file of the first root.
        floors: Newest versions that were believed.
        clock: By which expiry is judged.
        count: Told how many bytes of metadata came over the network.
        room: Says how many more may come; ``None``: any number.
        following: Whose plans, and what else is looked up.
        places: Where files are; ``None``: as the settings say.
        http: Asks servers; ``None``: one of its own.
    """

    def __init__(
        self,
        folder: Path,
        settings: RepositorySettings,
        floors: Floors,
        clock: Clock,
        count: Callable[[int], None],
        *,
        room: Room = unlimited,
        following: Following = STABLE,
        places: Places | None = None,
        http: Http | None = None,
    ) -> None:
        self._folder = MetadataFolder(folder)
        self._settings = settings
        self._floors = floors
        self._clock = clock
        self._count = count
        self._room = room
        self._following = following
        self._places = places
        self._http = http or open_http(settings, clock)
        self._known: VerifiedSet | None = None
        self._was_read = False

    def refresh(self, announced: bytes | None = None) -> Refreshed:
        """Believe the newest of what the repository serves, if it can be believed as a whole.

        Args:
            announced: A timestamp that somebody announced, as it came. It is not downloaded again
                then; one that is not believed is as if there was none.

        Raises:
            TrustError: It cannot be believed; nothing changed, but that new roots are kept.
            NetworkError: It cannot be reached; the same.
            RefusedError: A file that must be there is not; the same.
            AdoptedError: The disk refused after something new was believed, and that stays.
            StateError: The disk refused; the same as of ``TrustError``.
            ConfigError: The first root or the URL is missing or wrong.
        """
        places = self._places or places_of(self._settings)
        before = self._http.received_bytes
        self._clock.keep_floor()
        try:
            changed = self._refreshed(places, announced)
        finally:
            self._http.close()
        known = self._known
        versions = known.facts.versions if known else {}
        return Refreshed(
            changed=changed,
            timestamp_version=versions.get(TIMESTAMP, 0),
            plans_version=versions.get(ROLLOUTS_ROLE, 0),
            fetched_bytes=self._http.received_bytes - before,
        )

    def verify(self) -> None:
        """Look whether a refresh would be believed now, and keep nothing: not even a new root.

        Raises:
            AgentError: It would not be; the same as of ``refresh``.
        """
        places = self._places or places_of(self._settings)
        fetcher, root = self._fetcher(None), first_root(self._settings.root)
        try:
            try:
                self._worked_out(places, fetcher, root)
            except StateError as error:
                if not _is_unusable(error):
                    raise
                self._worked_out(places, fetcher, root, empty=True)
            except TrustError as error:
                if error.reason is not Distrust.EXPIRED or not self._would_forget(root):
                    raise
                # A refresh would keep the new root first, and forget then.
                self._worked_out(places, fetcher, root, heeds_signed=False)
        finally:
            self._folder.drop()
            self._http.close()

    def plans(self, channel: str) -> Plans | None:
        """Give the plans that are believed; ``None``: none are known.

        Args:
            channel: Whose; only the channel that is followed is known.

        Raises:
            StateError: The disk refused.
            ConfigError: The first root is missing or wrong.
        """
        known = self._read()
        return known.plans if known and channel == self._following.channel else None

    def release(self, model: str, version: int) -> VerifiedRelease | None:
        """Give a release that is believed; ``None``: none is known.

        Args:
            model: Its name.
            version: Its version.

        Raises:
            TrustError: What was signed contradicts itself, or is not understood.
            StateError: The disk refused.
            ConfigError: The first root is missing or wrong.
        """
        known = self._read()
        return known.release(model, version) if known else None

    def min_counter(self, model: str) -> int:
        """Give the highest floor of any release of a model that is believed; 0: there is none.

        Raises:
            StateError: The disk refused.
            ConfigError: The first root is missing or wrong.
        """
        known = self._read()
        return known.min_counter(model) if known else 0

    def artifact(self, path: str) -> Artifact | None:
        """Give what was signed of a file; ``None``: nothing that is known.

        Args:
            path: Its TUF name: one that is looked up in a refresh, or a release's.

        Raises:
            TrustError: It is signed without SHA-256.
            StateError: The disk refused.
            ConfigError: The first root is missing or wrong.
        """
        known = self._read()
        return known.artifact(path) if known else None

    def reread(self) -> None:
        """Look into the folder again: another of its kind has refreshed it."""
        self._known, self._was_read = None, False

    def is_fresh(self) -> bool:
        """Tell whether what is known has not expired: if it has, nothing new should begin.

        Raises:
            StateError: The disk refused.
            ConfigError: The first root is missing or wrong.
        """
        known = self._read()
        return known is not None and self._clock.wall_s() < known.facts.ends_s

    def _refreshed(self, places: Places, announced: bytes | None) -> bool:
        fetcher = self._fetcher(announced)
        try:
            return self._attempt(places, fetcher, empty=False)
        except TrustError as error:
            if error.reason is Distrust.EXPIRED and self._has_other_keys():
                _log.info("the time that replaced keys had signed is forgotten")
                return self._refreshed(places, announced)
            if announced is None or fetcher.role != TIMESTAMP:
                raise
            _log.info("an announced timestamp is not believed: %s", error.message)
            return self._refreshed(places, None)
        except StateError as error:
            if isinstance(error, AdoptedError) or not _is_unusable(error):
                raise
            _log.warning("the kept metadata cannot be used, and is fetched anew: %s", error.message)
            return self._attempt(places, fetcher, empty=True)

    def _has_other_keys(self) -> bool:
        """Tell whether the clock was ahead only by the word of keys that are replaced by now."""
        root = first_root(self._settings.root)
        return self._clock.heed_authority(authority_in(self._folder.path, root.data))

    def _would_forget(self, root: FirstRoot) -> bool:
        """Tell whether the work folder has a new root, whose keys vouch for no time yet."""
        now, new = (
            authority_in(each, root.data) for each in (self._folder.path, self._folder.work)
        )
        return "" not in {now, new} and now != new

    def _attempt(self, places: Places, fetcher: Fetcher, *, empty: bool) -> bool:
        root = first_root(self._settings.root)
        try:
            known = self._worked_out(places, fetcher, root, empty=empty)
        except AgentError:
            if self._following.keeps_steps:
                self._folder.adopt()
            elif self._folder.discard(root.version):
                self._known, self._was_read = None, False  # keys may have been replaced
            raise
        except BaseException:
            self._folder.drop()
            raise
        self._known, self._was_read = None, False  # whatever fails next, the folder says what is
        changed = self._folder.adopt()
        self._known, self._was_read = known, True
        try:
            failpoint("agent.trust.adopted")
            self._believe(known)
        except (OSError, StateError) as error:
            kind = AdoptedError if changed else StateError
            raise kind(f"cannot keep what is believed: {error}") from error
        return changed

    def _fetcher(self, announced: bytes | None) -> Fetcher:
        return Fetcher(self._http, self._settings.metadata_s, self._count, announced, self._room)

    def _worked_out(
        self,
        places: Places,
        fetcher: Fetcher,
        root: FirstRoot,
        *,
        empty: bool = False,
        heeds_signed: bool = True,
    ) -> VerifiedSet:
        """Work out in the work folder what would be believed."""
        work = self._folder.begin(empty=empty)
        self._clock.heed_authority(authority_in(work, root.data))
        now_s = self._clock.wall_s()
        if not heeds_signed and not self._clock.is_trusted() and now_s <= self._clock.floor_s:
            now_s = self._clock.own_floor_s
        source = Source(
            self._http, places.artifacts, self._settings.metadata_s, self._count, self._room
        )
        return self._checked(work, root, places.metadata, fetcher, now_s=now_s, source=source)

    def _checked(
        self,
        work: Path,
        root: FirstRoot,
        url: str,
        fetcher: Fetcher | FolderFetcher,
        *,
        now_s: float,
        source: Source | None = None,
    ) -> VerifiedSet:
        with translated(fetcher, url):
            updater = Updater(str(work), url, fetcher=fetcher, bootstrap=root.data)
            judge_expiry_by(updater, now_s)
            updater.refresh()
            for path in self._following.looks_up():
                updater.get_targetinfo(path)
            facts = read_set(work)
            known = VerifiedSet(updater, facts, url, fetcher)
            back = way_back(self._floors.versions(), facts.versions, facts.authority)
            if back:
                raise TrustError(Distrust.ROLLED_BACK, f"{url}: {back}")
            known.plans = self._plans(work, known, source)
        return known

    def _plans(self, work: Path, known: VerifiedSet, source: Source | None) -> Plans | None:
        channel = self._following.channel
        artifact = known.artifact(plans_path(channel)) if channel else None
        data = document(work, artifact, source) if artifact else None
        if artifact is None or data is None:
            return None
        return plans_of(data, artifact.path, fleet=self._following.fleet, channel=channel)

    def _believe(self, known: VerifiedSet) -> None:
        changed = risen(self._floors.versions(), known.facts.versions, known.facts.authority)
        if changed:
            self._floors.keep_versions(changed)
        # That nothing of it has expired bounds both times: neither a wrong clock of this device nor
        # one of the fleet's can carry the floor beyond what the repository itself can follow. Plans
        # that are dated after the end of their own metadata contradict them, and say nothing.
        dated_s = known.plans.issued_s if known.plans else 0.0
        seconds = dated_s if dated_s < known.facts.ends_s else 0.0
        believed_s = self._clock.believed_s()
        if believed_s is not None:
            seconds = max(seconds, believed_s)
        self._clock.raise_floor(min(seconds, known.facts.ends_s), known.facts.authority)

    def _read(self) -> VerifiedSet | None:
        if self._known is None and not self._was_read:
            self._known = self._kept()
            self._was_read = True
        return self._known

    def _kept(self) -> VerifiedSet | None:
        root = first_root(self._settings.root)
        with self._folder.copied() as copy:
            if copy is None:
                return None
            try:
                # What was fresh once is known, whatever the time; `is_fresh` says how it is now.
                return self._checked(
                    copy, root, str(copy), FolderFetcher(copy), now_s=NEVER_EXPIRED_S
                )
            except (TrustError, RefusedError, StateError) as error:
                _log.warning("the kept metadata cannot be used until a refresh: %s", error.message)
                return None


def _is_unusable(error: StateError) -> bool:
    """Tell whether the kept metadata is what fails, and not the disk."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno not in FAILING
