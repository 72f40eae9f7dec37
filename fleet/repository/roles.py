"""The roles of the repository: who signs for whom, where their keys live, how long they last."""

from dataclasses import dataclass
from typing import Final

from fleet.documents.paths import RELEASES_ROLE, ROLLOUTS_ROLE

ROOT: Final = "root"
TARGETS: Final = "targets"
RELEASES: Final = RELEASES_ROLE
ROLLOUTS: Final = ROLLOUTS_ROLE
SNAPSHOT: Final = "snapshot"
TIMESTAMP: Final = "timestamp"


@dataclass(frozen=True, slots=True)
class RoleRule:
    """What is fixed about a role.

    Attributes:
        authority: The role whose metadata names its keys.
        is_online: Whether its key lies where plans are made, or in a safe.
        expires_days: How long its metadata lasts, if the operator says nothing else.
        why: What its key can do, for people.
    """

    authority: str
    is_online: bool
    expires_days: int
    why: str


RULES: Final[dict[str, RoleRule]] = {
    ROOT: RoleRule(
        ROOT,
        is_online=False,
        expires_days=730,
        why="names every other key; kept apart, used once a year",
    ),
    TARGETS: RoleRule(
        ROOT, is_online=False, expires_days=730, why="says who signs releases and who signs plans"
    ),
    RELEASES: RoleRule(
        TARGETS,
        is_online=False,
        expires_days=365,
        why="says which bundles exist, and their guard-rails",
    ),
    ROLLOUTS: RoleRule(
        TARGETS, is_online=True, expires_days=30, why="chooses among releases: signs the plans"
    ),
    SNAPSHOT: RoleRule(
        ROOT, is_online=True, expires_days=30, why="says which metadata belong together"
    ),
    TIMESTAMP: RoleRule(
        ROOT, is_online=True, expires_days=7, why="says that this is the newest state"
    ),
}
"""Every role; root first, then as a client reads them."""

SIGNING_ORDER: Final = (ROLLOUTS, RELEASES, TARGETS, ROOT, SNAPSHOT, TIMESTAMP)
"""In which order new metadata are written: nothing names what is not there yet."""

LISTED: Final = (TARGETS, RELEASES, ROLLOUTS)
"""Roles whose versions the snapshot lists."""
