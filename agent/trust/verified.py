"""What a verified set of metadata says of plans and releases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from tuf.ngclient import TargetFile, Updater

from agent.errors import Distrust, TrustError
from agent.trust.reasons import Asked, translated
from agent.trust.set_facts import SetFacts
from fleet.documents.errors import DocumentError
from fleet.documents.paths import artifact_path, artifact_url_path, model_path
from fleet.documents.plan import Plans, read_plans
from fleet.documents.release import ReleaseFacts, release_of

SHA256: Final = "sha256"
MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """A file that was signed.

    Attributes:
        path: Its TUF name.
        size: In bytes.
        sha256: Of its content, in hexadecimal.
        url_path: Below the URL of artifacts, percent-encoded.
    """

    path: str
    size: int
    sha256: str
    url_path: str


@dataclass(frozen=True)
class VerifiedRelease:
    """A release as the offline key signed it.

    Attributes:
        facts: Who may run it, and how fast it may spread.
        artifacts: By the file's path in the bundle; chunk indexes are beside their files.
    """

    facts: ReleaseFacts
    artifacts: Mapping[str, Artifact]


class VerifiedSet:
    """One consistent set of metadata, every signature of which was checked.

    Args:
        updater: That checked it.
        facts: Of its files.
        origin: The repository, for messages.
        asked: What its fetcher asked for last, for messages.

    Attributes:
        facts: The same.
        plans: What was read of a channel's plans; ``None``: nothing, or the channel has none.
    """

    def __init__(self, updater: Updater, facts: SetFacts, origin: str, asked: Asked) -> None:
        self.facts = facts
        self.plans: Plans | None = None
        self._updater = updater
        self._origin = origin
        self._asked = asked

    def artifact(self, path: str) -> Artifact | None:
        """Give what was signed of a file; ``None``: nobody who may signed one of that name.

        Args:
            path: Its TUF name; one that the refresh looked up, or a release's.

        Raises:
            TrustError: It is signed without SHA-256.
        """
        target = self._target(path)
        return artifact_of(target, self._origin, self.facts) if target else None

    def release(self, model: str, version: int) -> VerifiedRelease | None:
        """Give a release; ``None``: none of that name and version was signed.

        Raises:
            TrustError: What was signed contradicts itself, or is not understood.
        """
        folder = artifact_path(model, version, "")
        artifacts: dict[str, Artifact] = {}
        custom: object = None
        for path in self.facts.artifacts:
            if not path.startswith(folder):
                continue
            target = self._target(path)
            if target is None:
                continue  # described by a role that may not
            file = path.removeprefix(folder)
            artifacts[file] = artifact_of(target, self._origin, self.facts)
            if file == MANIFEST:
                custom = target.custom
        if MANIFEST not in artifacts:
            return None
        origin = f"{self._origin}: {folder}{MANIFEST}"
        try:
            facts = release_of(custom, origin)
        except DocumentError as error:
            raise TrustError(Distrust.MALFORMED, error.message) from error
        if (facts.model, facts.version) != (model, version):
            raise TrustError(
                Distrust.MALFORMED,
                f"{origin}: the facts signed with it are of {facts.model} {facts.version}",
            )
        return VerifiedRelease(facts, artifacts)

    def _target(self, path: str) -> TargetFile | None:
        with translated(self._asked, self._origin):
            return self._updater.get_targetinfo(path)

    def min_counter(self, model: str) -> int:
        """Give the highest floor of any signed release of a model; 0: there is none.

        All of them count: who chooses among releases must not choose among their floors.
        """
        folder = model_path(model)
        floors = [0]
        for path in self.facts.artifacts:
            if path.startswith(folder) and path.endswith(f"/{MANIFEST}"):
                target = self._updater.get_targetinfo(path)
                try:
                    if target is not None:
                        floors.append(release_of(target.custom, path).min_counter)
                except DocumentError:
                    continue  # nobody installs it either
        return max(floors)


def artifact_of(target: TargetFile, origin: str, facts: SetFacts) -> Artifact:
    """Give what was signed of a file.

    Args:
        target: As python-tuf has it.
        origin: The repository, for messages.
        facts: Of the set it is in.

    Raises:
        TrustError: It is signed without SHA-256.
    """
    digest = target.hashes.get(SHA256)
    if digest is None:
        raise TrustError(
            Distrust.MALFORMED, f"{origin}: {target.path} is signed without its SHA-256"
        )
    url_path = artifact_url_path(target.path, digest) if facts.is_consistent else quote(target.path)
    return Artifact(target.path, target.length, digest, url_path)


def plans_of(data: bytes, origin: str, *, fleet: str, channel: str) -> Plans:
    """Read plans that were signed, and check whom they are for.

    Args:
        data: Their text, whose digest was checked.
        origin: Where they come from, for messages.
        fleet: The device's; empty: any.
        channel: The device's.

    Raises:
        TrustError: They are not understood, or are for others.
    """
    try:
        plans = read_plans(data, origin)
    except DocumentError as error:
        raise TrustError(Distrust.MALFORMED, error.message) from error
    if fleet and plans.fleet != fleet:
        raise TrustError(
            Distrust.WRONG_FLEET, f"{origin}: the plans are of fleet {plans.fleet}, not {fleet}"
        )
    if plans.channel != channel:
        raise TrustError(
            Distrust.WRONG_FLEET,
            f"{origin}: the plans are of channel {plans.channel}, not {channel}",
        )
    return plans
