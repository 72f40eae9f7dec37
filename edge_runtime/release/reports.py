"""What releases tell people and programs: pure, from what is known to what is shown."""

from collections.abc import Sequence
from typing import Final

import msgspec

from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.release.records import BadDigest, Override, Release, Slots
from edge_runtime.release.states import SERVES_TRAFFIC, State
from edge_runtime.release.steps import Progress

ENDED_SHOWN: Final = 5
"""Releases of one model that are shown besides the one under way."""
BAD_SHOWN: Final = 100
"""What is shown of one model as remembered as bad: the newest."""
_PERCENT: Final = 100


def shown(release: Release, progress: Progress | None, now_s: float) -> schemas.Release:
    """Show a release.

    Args:
        release: As it is stored.
        progress: What it can tell while it is under way; ``None``: it is over.
        now_s: The awake clock.
    """
    left_s = None
    if release.awake_deadline_s and progress is not None:
        left_s = max(0.0, release.awake_deadline_s - now_s)
    return schemas.Release(
        id=release.id,
        model=release.model,
        version=release.version,
        state=release.state,
        mode=release.mode,
        source=release.source,
        manifest_sha256=release.manifest_sha256,
        digest=release.digest,
        variant=release.variant,
        variant_reason=release.variant_reason,
        active=release.active,
        percent=_percent(release),
        weights=release.weights,
        stage=release.stage,
        method=release.method,
        remaining_s=left_s,
        numbers=dict(progress.numbers) if progress is not None else {},
        judged=list(progress.judged) if progress is not None else [],
        waits_for=_waits_for(release, progress) if progress is not None else "",
        crashes=release.crashes,
        cause=release.cause,
        reason=release.reason,
        proof=release.proof,
        created_s=release.created_s,
        updated_s=release.updated_s,
    )


def model(  # noqa: PLR0917 - what is known, in the order in which it is shown
    slots: Slots,
    running_digest: str,
    override: Override | None,
    under_way: Progress | None,
    ended: Sequence[Release],
    installed: Sequence[int],
    bad: Sequence[BadDigest],
    now_s: float,
    active_problem: str = "",
) -> schemas.ModelReleases:
    """Show one model.

    Args:
        slots: What is active.
        running_digest: Of what really answers now.
        override: The local decision about it.
        under_way: Its release under way.
        ended: Its last releases, the newest first; the one under way may be among them.
        installed: Versions in the store.
        bad: What is remembered as bad, the newest first.
        now_s: The awake clock.
        active_problem: Why the active version does not answer, or could not be loaded again.
    """
    releases = [] if under_way is None else [shown(under_way.release, under_way, now_s)]
    ids = {each.id for each in releases}
    releases += [shown(each, None, now_s) for each in ended if each.id not in ids]
    return schemas.ModelReleases(
        model=slots.model,
        active=slots.active,
        active_source=slots.active_source,
        running_digest=running_digest,
        active_problem=active_problem,
        previous=slots.previous,
        disabled=slots.disabled,
        traffic=slots.traffic,
        override=None
        if override is None
        else schemas.Override(
            kind=override.kind,
            reason=override.reason,
            source=override.source,
            created_s=override.created_s,
        ),
        installed=list(installed),
        releases=releases[: ENDED_SHOWN + 1],
        bad=[_bad(each) for each in bad[:BAD_SHOWN]],
    )


def _bad(remembered: BadDigest) -> schemas.BadRelease:
    return schemas.BadRelease(
        version=remembered.version,
        manifest_sha256=remembered.manifest_sha256,
        digest=remembered.digest,
        cause=remembered.cause,
        reason=remembered.reason,
    )


def _percent(release: Release) -> int:
    if release.state == State.CANARY:
        return release.weights[release.stage] if release.stage < len(release.weights) else 0
    return _PERCENT if release.state == State.PROBATION else 0


def _waits_for(release: Release, progress: Progress) -> str:
    reasons = [progress.problem, progress.trouble]
    if progress.is_held() and release.state in {State.STAGED, State.SHADOWING, *SERVES_TRAFFIC}:
        reasons.append("a local hold stands; clear it")
    if release.state == State.STAGED and release.mode == "manual":
        reasons.append("it is to be promoted by hand")
    return "; ".join(filter(None, reasons))


def transition(row: msgspec.Struct) -> schemas.Transition:
    """Show a row of the history."""
    return msgspec.convert(msgspec.to_builtins(row), schemas.Transition)
