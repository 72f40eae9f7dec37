"""Who answers for a name: loaded versions, and the immutable table that leads to them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, Protocol

from edge_runtime.manifest import Manifest, Variant
from edge_runtime.metrics import VersionStatistics
from edge_runtime.scheduling import RunCost, Runnable
from edge_runtime.session import SessionSettings
from edge_runtime.tensors import Signature

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
        leases: Requests that use it now.
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
    statistics: VersionStatistics = field(default_factory=VersionStatistics)
    cost: RunCost = field(default_factory=RunCost)
    leases: int = 0
    gone: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Routes:
    """Who answers for one model name."""

    default: LoadedVersion
    versions: Mapping[str, LoadedVersion]


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
        version: The version asked for; empty leaves the choice to the table.
    """
    routes = table.get(name)
    if routes is None:
        return None
    return routes.versions.get(version) if version else routes.default
