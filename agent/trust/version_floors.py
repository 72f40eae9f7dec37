"""Whether a set of metadata goes back behind what was believed once: pure."""

from collections.abc import Mapping
from typing import Final

from agent.records.floors import VersionFloor

ROOT: Final = "root"
ANY_AUTHORITY: Final = ""
"""Roots follow one another whatever keys other roles have."""


def way_back(
    floors: Mapping[str, VersionFloor], versions: Mapping[str, int], authority: str
) -> str:
    """Say how a set goes back, or nothing.

    Args:
        floors: Newest versions that were believed, by role.
        versions: Of the set, by role.
        authority: Whose keys signed the set; versions of other keys do not count.

    Returns:
        A sentence; empty: it does not.
    """
    for role, floor in sorted(floors.items()):
        if floor.authority not in {ANY_AUTHORITY, authority}:
            continue
        version = versions.get(role)
        if version is None:
            return f"{role} is gone, whose version {floor.version} was believed once"
        if version < floor.version:
            return f"{role} has version {version}, but {floor.version} was believed once"
    return ""


def risen(
    floors: Mapping[str, VersionFloor], versions: Mapping[str, int], authority: str
) -> dict[str, VersionFloor]:
    """Give the floors that a set that is believed changes.

    Args:
        floors: Newest versions that were believed, by role.
        versions: Of the set, by role.
        authority: Whose keys signed the set.
    """
    now = {
        role: VersionFloor(version, ANY_AUTHORITY if role == ROOT else authority)
        for role, version in versions.items()
    }
    return {role: floor for role, floor in now.items() if floors.get(role) != floor}
