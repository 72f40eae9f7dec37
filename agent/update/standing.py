"""What the runtime says about one model, as far as updates need it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.records.updates import Update
from edge_runtime.protocol.release_schemas import ENDINGS, ModelReleases

COMMITTED: Final = "committed"
PROBATION: Final = "probation"
ABORTED: Final = "aborted"
_FLEET: Final = "fleet"
HARMFUL: Final = frozenset({"verdict", "self-test", "errors", "crashed", "load"})
"""Causes that speak against the release, and not against the moment."""


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One release in the runtime.

    Attributes:
        id: Rises with each release.
        version: Of the model.
        state: In the runtime's words.
        rollout: That ordered it; empty: a person did.
        manifest_sha256: Of its bundle.
        digest: Of the variant that it runs; empty: not chosen yet.
        cause: Why it was rolled back, in the runtime's frozen words.
        reason: The same for people.
        percent: Share of the traffic while it is under way.
        waits_for: Why it does not go on now; empty: it does.
        numbers: What it has measured so far, by name.
        judged: What the evidence says so far, in sentences.
        changed_s: When it came into its state, by the runtime's clock; 0: that is not known.
    """

    id: int
    version: int
    state: str
    rollout: str = ""
    manifest_sha256: str = ""
    digest: str = ""
    cause: str = ""
    reason: str = ""
    percent: int = 0
    waits_for: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    judged: tuple[str, ...] = ()
    changed_s: float = 0.0

    def is_of(self, update: Update) -> bool:
        """Tell whether it is what an update would hand over."""
        wanted = (update.rollout, update.version, update.manifest_sha256)
        return (self.rollout, self.version, self.manifest_sha256) == wanted

    @property
    def is_over(self) -> bool:
        """Tell whether the runtime is done with it."""
        return self.state in ENDINGS


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model in the runtime.

    Attributes:
        active: Version that a release made active; ``None``: the configuration decides, or a first
            release is tried, or nothing answers.
        active_source: ``store``: a release made it active; ``seed``: the configuration's own came
            back; empty: none is.
        running_digest: Of what really answers; empty: nothing is in memory.
        active_problem: Why the active version does not answer, or could not be loaded again.
        previous: Version that it can go back to; ``None``: none.
        disabled: Why it answers nobody; empty: it does.
        override: ``hold`` or ``rollback``: a person's decision; empty: none.
        override_reason: Why.
        installed: Versions on its disk.
        bad: SHA-256 of manifests that it remembers as bad.
        releases: Newest first.
    """

    active: int | None = None
    active_source: str = ""
    running_digest: str = ""
    active_problem: str = ""
    previous: int | None = None
    disabled: str = ""
    override: str = ""
    override_reason: str = ""
    installed: frozenset[int] = frozenset()
    bad: frozenset[str] = frozenset()
    releases: tuple[Passage, ...] = ()

    @property
    def newest_release(self) -> int:
        """The highest id of a release; 0: there is none."""
        return max((release.id for release in self.releases), default=0)

    @property
    def answers(self) -> int | None:
        """The version that answers, where releases say so.

        In probation it is the one that is tried, the active one only kept; what runs tells.
        """
        passage = self.under_way()
        is_on_probation = passage is not None and passage.state == PROBATION
        if passage is None or not (is_on_probation and passage.digest):
            return self.active
        return passage.version if passage.digest == self.running_digest else self.active

    @property
    def since_s(self) -> float | None:
        """When the release under way, or else the last one, came into its state."""
        newest = self.under_way() or next(iter(self.releases), None)
        return None if newest is None or not newest.changed_s else newest.changed_s

    def passage(self, update: Update) -> Passage | None:
        """Give the release that an update's hand-over began; ``None``: there is none.

        Args:
            update: Releases that were there before its hand-over are not its.
        """
        if update.seen_release < 0:
            return None
        for release in self.releases:
            is_same = release.version == update.version and (
                release.manifest_sha256 == update.manifest_sha256
            )
            if release.id > update.seen_release and is_same:
                return release
        return None

    def under_way(self) -> Passage | None:
        """Give the newest release that the runtime is not done with."""
        return next((release for release in self.releases if not release.is_over), None)


def standing_of(model: ModelReleases) -> Standing:
    """Read what the runtime answers about a model.

    Args:
        model: Of ``GET /admin/releases``.
    """
    override = model.override
    return Standing(
        active=model.active,
        active_source=model.active_source,
        running_digest=model.running_digest,
        active_problem=model.active_problem,
        previous=model.previous,
        disabled=model.disabled,
        override="" if override is None else override.kind,
        override_reason="" if override is None else override.reason,
        installed=frozenset(model.installed),
        bad=frozenset(bad.manifest_sha256 for bad in model.bad),
        releases=tuple(
            Passage(
                id=release.id,
                version=release.version,
                state=release.state,
                rollout=_rollout(release.source),
                manifest_sha256=release.manifest_sha256,
                digest=release.digest,
                cause=release.cause,
                reason=release.reason,
                percent=release.percent,
                waits_for=release.waits_for,
                numbers=release.numbers,
                judged=tuple(release.judged),
                changed_s=release.updated_s,
            )
            for release in sorted(model.releases, key=lambda each: each.id, reverse=True)
        ),
    )


def _rollout(source: str) -> str:
    """Read who ordered a release: ``fleet ROLLOUT uid=1000``, ``fleet uid=1000``, or a person."""
    who, *rest = source.split() or [""]
    if who != _FLEET:
        return ""
    return rest[0] if rest and "=" not in rest[0] else _FLEET
