"""Which version of a model really answers, and by whose word; pure."""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

from agent.update.standing import PROBATION, Standing

READY: Final = "READY"
SEED: Final = "seed"


class Source(StrEnum):
    """By whose word a version answers; shown as JSON, so the words are frozen."""

    RELEASE = "release"
    """A release was committed."""
    PROBATION = "probation"
    """A release is on probation: it answers everything, and is not committed yet."""
    CONFIGURATION = "configuration"
    """The daemon's configuration, or a folder, names it; no release was committed."""
    NOBODY = ""
    """Nothing answers."""


class Answering(NamedTuple):
    """What answers.

    Attributes:
        versions: Which; the newest last. Several: whoever asks says which it wants.
        source: By whose word.
    """

    versions: tuple[int, ...]
    source: Source


def answering(standing: Standing, ready: Collection[int]) -> Answering:
    """Say what answers for a model.

    Args:
        standing: What releases say of it.
        ready: Its versions that the daemon could answer with, candidates among them.
    """
    passage = standing.under_way()
    if passage is not None and passage.state == PROBATION and standing.answers == passage.version:
        return Answering((passage.version,), Source.PROBATION)
    if standing.disabled:
        return Answering((), Source.NOBODY)
    if standing.active is not None:
        source = Source.CONFIGURATION if standing.active_source == SEED else Source.RELEASE
        return Answering((standing.active,), source)
    tried = set() if passage is None else {passage.version}
    own = tuple(sorted(set(ready) - tried))
    return Answering(own, Source.CONFIGURATION if own else Source.NOBODY)


def ready_versions(index: Iterable[Mapping[str, Any]]) -> dict[str, set[int]]:
    """Read which versions can answer.

    Args:
        index: The daemon's, as the Triton extension says it.
    """
    found: dict[str, set[int]] = {}
    for entry in index:
        name, version = entry.get("name"), entry.get("version")
        if entry.get("state") != READY or not (isinstance(name, str) and isinstance(version, str)):
            continue
        if version.isascii() and version.isdecimal():
            found.setdefault(name, set()).add(int(version))
    return found
