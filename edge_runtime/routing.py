"""Who answers for a name: loaded versions, and the immutable table that leads to them.

While a model's traffic is split, the version follows from the request's key alone:
``bucket(model, key)`` is one of 10 000 places, and the versions that get a share own the first of
them, in the order of their numbers. So a key stays with its version, on every device and after
every start, and a share that grows takes places from the default and gives none back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate
from types import MappingProxyType
from typing import Final, Literal, Protocol, Self

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

PERMYRIAD: Final = 10_000
"""Places that a split shares out: all of the traffic."""


class Asker(Protocol):
    """What is needed of a request, and only where the traffic of its model is split."""

    @property
    def split_key(self) -> str:
        """What its version follows from: the caller's key, else its connection's number."""
        ...


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
        on_trial: Whether another version answers for it where it fails; stays as it was when it
            is taken out of the table, for the requests that are still with it.
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
    on_trial: bool = False
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
class Traffic:
    """How the requests for a model that name no version are shared out.

    Attributes:
        default: The version that gets what no other one gets, even beside a higher number.
        weights: Shares of the other versions, in ten-thousandths of the requests.
        fallback: The version that answers where another one fails; ``None``: the default.

    Raises:
        ValueError: The shares are below 0 or more than all, or the default has one.
    """

    default: int
    weights: Mapping[int, int] = field(default_factory=dict)
    fallback: int | None = None

    def __post_init__(self) -> None:
        shares = self.weights.values()
        if self.default in self.weights or min(shares, default=0) < 0 or sum(shares) > PERMYRIAD:
            raise ValueError(f"no such shares: {dict(self.weights)} beside {self.default}")

    @property
    def proven(self) -> int:
        """The version that answers where another one fails."""
        return self.default if self.fallback is None else self.fallback

    @property
    def kept(self) -> frozenset[int]:
        """Versions that stay in memory: nothing that is loaded beside them may push them out."""
        return frozenset({self.default, self.proven, *self.weights})

    @property
    def shares(self) -> dict[int, int]:
        """Shares of all versions, the default among them, in ten-thousandths."""
        rest = PERMYRIAD - sum(self.weights.values())
        return dict(sorted({**self.weights, self.default: rest}.items()))


@dataclass(frozen=True, slots=True)
class Split:
    """Which version answers for which key.

    Attributes:
        name: The model.
        versions: Versions with a share, by number; ``None``: not in memory, the default answers.
        until: For each of them, the first place that it does not own any more.
    """

    name: str
    versions: tuple[LoadedVersion | None, ...]
    until: tuple[int, ...]

    @classmethod
    def of(cls, name: str, traffic: Traffic, loaded: Mapping[str, LoadedVersion]) -> Self:
        """Share out the places.

        Args:
            name: The model.
            traffic: The shares.
            loaded: Versions in memory, by number.
        """
        order = sorted(traffic.weights)
        until = tuple(accumulate(traffic.weights[version] for version in order))
        return cls(name, tuple(loaded.get(str(version)) for version in order), until)

    def choose(self, key: str) -> LoadedVersion | None:
        """Give the version of a key; ``None``: the default's."""
        place = bucket(self.name, key)
        for version, until in zip(self.versions, self.until, strict=True):
            if place < until:
                return version
        return None


@dataclass(frozen=True, slots=True)
class Routes:
    """Who answers for one model name.

    Attributes:
        default: What answers when no version is named; ``None`` while it is not in memory.
        versions: Every version in memory, by number.
        aliases: Versions in memory, by the other names that callers may use.
        split: Who else answers when no version is named; ``None``: nobody.
        proven: What answers for a version on trial where that one fails; ``None``: nothing.
        traffic: How the traffic is directed, if it is.
    """

    default: LoadedVersion | None
    versions: Mapping[str, LoadedVersion]
    aliases: Mapping[str, LoadedVersion] = field(default_factory=dict)
    split: Split | None = None
    proven: LoadedVersion | None = None
    traffic: Traffic | None = None


@dataclass(frozen=True, slots=True)
class VersionState:
    """What the repository index says of one version."""

    state: State
    reason: str = ""


Table = Mapping[str, Routes]
EMPTY: Final[Table] = MappingProxyType({})


def bucket(model: str, key: str) -> int:
    """Give the place of a key, 0 to 9999.

    The first four bytes of the SHA-256 of ``MODEL|KEY`` in UTF-8, as a big-endian number, modulo
    10 000: the form by which devices find their cohort of a rollout. The model is in it so that
    one caller is not the first to get every model's new version.

    Args:
        model: The model's name.
        key: The caller's key, or the number of its connection.
    """
    text = f"{model}|{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(sha256(text).digest()[:4], "big") % PERMYRIAD


def route(
    table: Table, name: str, version: str, asker: Asker | None = None
) -> LoadedVersion | None:
    """Choose the version that answers; pure.

    Args:
        table: Who answers for what.
        name: The model asked for.
        version: The version asked for, a number or an alias; empty leaves the choice to the table.
        asker: Has the key that a split goes by; ``None``: whatever the split, the default.
    """
    routes = table.get(name)
    if routes is None:
        return None
    if not version:
        if routes.split is None or asker is None:
            return routes.default
        return routes.split.choose(asker.split_key) or routes.default
    return routes.versions.get(version) or routes.aliases.get(version)
