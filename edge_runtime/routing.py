"""Who answers for a name: loaded versions, and the immutable table that leads to them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, Protocol

from edge_runtime.batching import NOT_PROBED, Lane, RowCap, Runnable, Verdict
from edge_runtime.cache.version_cache import VersionCache
from edge_runtime.manifest import Manifest, Variant
from edge_runtime.metrics import VersionStatistics
from edge_runtime.session import SessionSettings
from edge_runtime.settings import Batching
from edge_runtime.tensors import Signature


class NotAsked:
    """Stands for a cache of which nobody knows yet whether there is one."""


NOT_ASKED: Final = NotAsked()

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


class LoadedSession(Runnable, Protocol):
    """A session that can be closed."""

    providers: tuple[str, ...]

    def terminate(self) -> None:
        """Make the runs that go on end early, with an error."""
        ...

    def close(self) -> None:
        """Let go of the model's memory."""
        ...


@dataclass(slots=True, eq=False)
class LoadedVersion:
    """One version in memory.

    Attributes:
        name: The model's name.
        version: As on the wire.
        digest: Of what really runs (DESIGN.md section 2).
        manifest: What it was loaded from.
        variant: The variant that runs on this CPU.
        variant_reason: Why that one.
        session: What runs.
        signature: What it takes and gives.
        settings: How the session was loaded.
        load_s: How long loading took, in seconds.
        size_bytes: Memory that it holds, as measured when it was loaded; 0: not measured.
        verdict: Whether its requests may share runs.
        cap: Most rows of a run that is shared.
        joining: What ``verdict`` was found with: the settings, and the most rows allowed.
        inline: Whether short runs may execute on the loop's thread.
        leases: Requests that use it now.
        last_used_ns: When it was there or was found in use, in monotonic nanoseconds; what it
            answered since is in its statistics.
        swap: How it took the place of what answered before it; empty: nothing did.
        when_free: Called when the last lease ends.
        cache: Answers that it gave; ``None``: its model did not opt in.
        lane: How the scheduler sees it.
    """

    name: str
    version: str
    digest: str
    manifest: Manifest
    variant: Variant
    variant_reason: str
    session: LoadedSession
    signature: Signature
    settings: SessionSettings = field(default_factory=SessionSettings)
    load_s: float = 0.0
    size_bytes: int = 0
    verdict: Verdict = NOT_PROBED
    cap: RowCap | None = None
    joining: tuple[Batching, int] | None = None
    inline: bool = True
    leases: int = 0
    last_used_ns: int = 0
    swap: str = ""
    when_free: Callable[["LoadedVersion"], None] | None = None
    cache: VersionCache | NotAsked | None = NOT_ASKED
    lane: Lane = field(init=False)

    def __post_init__(self) -> None:
        self.lane = Lane(
            self.session,
            self.signature,
            verdict=self.verdict,
            cap=self.cap,
            inline=self.inline,
            name=f"{self.name} version {self.version}",
        )

    @property
    def statistics(self) -> VersionStatistics:
        """Its counters; replace them through ``lane``."""
        return self.lane.statistics


@dataclass(frozen=True, slots=True)
class Routes:
    """Who answers for one model name.

    Attributes:
        default: What answers when no version is named; ``None`` while it is not in memory.
        versions: Every version in memory, by number.
        aliases: Versions in memory, by the other names that callers may use.
    """

    default: LoadedVersion | None
    versions: Mapping[str, LoadedVersion]
    aliases: Mapping[str, LoadedVersion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionState:
    """What the repository index says of one version."""

    state: State
    reason: str = ""


Table = Mapping[str, Routes]
EMPTY: Final[Table] = MappingProxyType({})


def route(table: Table, name: str, version: str) -> LoadedVersion | None:
    """Choose the version that answers; pure.

    Args:
        table: Who answers for what.
        name: The model asked for.
        version: The version asked for, a number or an alias; empty leaves the choice to the table.
    """
    routes = table.get(name)
    if routes is None:
        return None
    if not version:
        return routes.default
    return routes.versions.get(version) or routes.aliases.get(version)
