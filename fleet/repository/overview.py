"""What a repository holds, for people and for scripts."""

from dataclasses import dataclass
from datetime import datetime

from fleet.documents.plan import Plans
from fleet.documents.release import ReleaseFacts
from fleet.repository.layout import Layout
from fleet.repository.plans import plans_in
from fleet.repository.releases import artifacts_of, releases_of
from fleet.repository.roles import RULES
from fleet.repository.settings import read_settings
from fleet.repository.state import read_state


@dataclass(frozen=True, slots=True)
class RoleView:
    """A role.

    Attributes:
        role: Its name.
        version: Of its newest metadata.
        expires: When they expire.
        threshold: How many keys sign them.
        keyids: The keys that may.
        is_online: Whether its key lies where plans are made.
        is_signed: Whether enough of its keys signed them.
        is_pending: Whether they wait to be published.
    """

    role: str
    version: int
    expires: datetime
    threshold: int
    keyids: tuple[str, ...]
    is_online: bool
    is_signed: bool
    is_pending: bool


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """A release.

    Attributes:
        facts: As they are signed.
        files: How many artifacts it has.
        size_bytes: Bytes of all of them.
    """

    facts: ReleaseFacts
    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Overview:
    """A repository.

    Attributes:
        fleet: The fleet it is for.
        roles: Every role.
        releases: Every release.
        plans: The plans of every channel.
    """

    fleet: str
    roles: tuple[RoleView, ...]
    releases: tuple[ReleaseView, ...]
    plans: tuple[Plans, ...]


def overview(layout: Layout) -> Overview:
    """Describe a repository.

    Args:
        layout: The repository.

    Raises:
        BadInputError: It is not one.
        RepositoryError: It is broken.
    """
    state = read_state(layout)
    pending = state.pending()
    roles: list[RoleView] = []
    for role, rule in RULES.items():
        signed, named = state.of(role).signed, state.authority(role).get_delegated_role(role)
        view = RoleView(
            role,
            signed.version,
            signed.expires,
            named.threshold,
            tuple(named.keyids),
            rule.is_online,
            state.is_signed(role),
            role in pending,
        )
        roles.append(view)
    targets = state.releases.signed
    releases: list[ReleaseView] = []
    for model, versions in releases_of(targets).items():
        for version, facts in versions.items():
            artifacts = artifacts_of(targets, model, version)
            size_bytes = sum(target.length for target in artifacts.values())
            releases.append(ReleaseView(facts, len(artifacts), size_bytes))
    plans = tuple(plans_in(layout, state.rollouts.signed).values())
    return Overview(read_settings(layout).fleet, tuple(roles), tuple(releases), plans)
