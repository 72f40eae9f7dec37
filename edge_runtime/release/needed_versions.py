"""Versions that this device could not do without, and those that a keyring would orphan. Pure.

An orphan is a version that too few keys of a keyring signed. In memory it answers on; at the next
start, or where a rollback leads to it, it could not be loaded any more.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from edge_runtime.bundle import Bundle
from edge_runtime.errors import SignatureError
from edge_runtime.release.records import SEED, STORE, Release, Slots
from edge_runtime.trust.keyring import Keyring, check_release


class NeededVersion(NamedTuple):
    """A version that must be loadable again.

    Attributes:
        model: The model.
        version: Its version.
        role: What for, in a word or two.
        directory: Its bundle's folder; ``None``: it is in the store.
    """

    model: str
    version: int
    role: str
    directory: Path | None = None

    def __str__(self) -> str:
        return f"{self.model} version {self.version} ({self.role})"


Head = tuple[bytes, bytes | None]
"""The exact bytes of a manifest, and of its signature if there is one."""


def needed_versions(
    every: Iterable[Slots],
    under_way: Iterable[Release],
    bundles: Mapping[tuple[str, int], Bundle],
) -> list[NeededVersion]:
    """List the versions that must be loadable again, each once.

    Args:
        every: What is active, of each model.
        under_way: The releases under way.
        bundles: What is served, in memory or not, and what the configuration has of released
            models, by name and version.
    """
    found: dict[tuple[str, int], NeededVersion] = {}

    def add(model: str, version: int | None, role: str, directory: Path | None = None) -> None:
        if version is not None:
            found.setdefault((model, version), NeededVersion(model, version, role, directory))

    def seed(model: str, version: int | None, role: str) -> None:
        bundle = bundles.get((model, version or 0))
        if bundle is not None and bundle.manifest_sha256:  # a bare file cannot be signed
            add(model, version, role, bundle.directory)

    known = list(every)
    for slots in known:
        for version, source, role in (
            (slots.active, slots.active_source, "active"),
            (slots.previous, slots.previous_source, "previous"),
        ):
            if source == STORE:
                add(slots.model, version, role)
            elif source == SEED:
                seed(slots.model, version, role)
    for release in under_way:
        add(release.model, release.version, "under way")
    for model, version in bundles:
        seed(model, version, "active")
    for slots in known:
        for text in slots.traffic:
            add(slots.model, int(text), "with a share of the traffic")
    return list(found.values())


def orphans(
    needed: Iterable[NeededVersion],
    head: Callable[[NeededVersion], Head | None],
    keyring: Keyring,
    present: Keyring | None = None,
) -> list[NeededVersion]:
    """List the versions that a keyring does not let in.

    Args:
        needed: Those that matter.
        head: Reads one; ``None``: it cannot be read, which is no keyring's doing.
        keyring: The one that counts, or is to.
        present: The one that it takes the place of: what that does not let in either is not lost
            by the new one. ``None``: none.
    """
    lost = []
    for each in needed:
        found = head(each)
        if found is None or _lets_in(keyring, found):
            continue
        if present is None or _lets_in(present, found):
            lost.append(each)
    return lost


def _lets_in(keyring: Keyring, head: Head) -> bool:
    try:
        check_release(keyring, *head)
    except SignatureError:
        return False
    return True


def would_orphan(version: int, lost: Sequence[NeededVersion]) -> str:
    """Say what a keyring would cost, and what to do.

    Args:
        version: Of the keyring.
        lost: What it does not let in; not empty.
    """
    return (
        f"too few keys of keyring version {version} signed {', '.join(map(str, lost))}: in memory "
        "they answer on, and at the next start they cannot be loaded. First release versions that "
        "its keys signed, or stage these again with their signatures (`edge-runtime bundle sign`)"
    )
