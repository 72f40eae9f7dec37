"""What answers for a model and why, and what comes next, in sentences. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from edge_runtime.protocol.release_schemas import ModelReleases, Release
from edge_runtime.release.proof import PROVEN, UNPROVEN
from edge_runtime.release.states import FINAL, Cause, State

_DIGEST_CHARS: Final = 12

_DOING: Final[Mapping[str, str]] = {
    State.INSTALLED: "is installed, and its self-test is about to begin",
    State.SELF_TESTING: "is tested in a process of its own, which serves nobody",
    State.STAGED: "passed its self-test and serves nobody yet",
    State.SHADOWING: "runs beside the active version on copies of real inputs; its answers go to "
    "nobody",
    State.CANARY: "answers a share of the requests",
    State.PROBATION: "answers everything and is still watched; a rollback is one step away",
    State.ROLLING_BACK: "is being rolled back",
}
_NEXT: Final[Mapping[str, str]] = {
    State.SELF_TESTING: "If it passes, it is staged; if not, nothing has changed for anybody.",
    State.SHADOWING: "If it agrees, is no slower and fails no more than the active version, it "
    "becomes the canary; if not, it is rolled back.",
    State.CANARY: "If it does as well as the active version, it gets the next share; if not, it is "
    "rolled back.",
    State.PROBATION: "If it goes on well, it is committed; if not, it is rolled back.",
}
_MINUTE_S: Final = 60


def explain(model: ModelReleases) -> list[str]:
    """Explain one model.

    Args:
        model: How it does.

    Returns:
        Sentences, in the order in which somebody would ask.
    """
    under_way = [each for each in model.releases if each.state not in FINAL]
    sentences = [*_standing(model), *_deaths(model), *_override(model)]
    for release in under_way:
        sentences += _under_way(release)
    if not under_way:
        sentences += _last(model)
    return sentences


def _standing(model: ModelReleases) -> Iterator[str]:
    if model.disabled:
        yield f"{model.model} is disabled and answers 503: {model.disabled}."
    elif model.active is not None:
        where = {
            "store": ", because its release was committed",
            "seed": ", because the configuration or a folder names it",
        }.get(model.active_source, "")
        yield f"Version {model.active} of {model.model} is active{where}."
    elif model.active_source == "store":
        yield f"No version of {model.model} is active."
    else:
        yield (
            f"The configuration and its folders say what answers for {model.model}: no release of "
            "it was committed here."
        )
    if model.running_digest:
        yield f"What really answers now has the digest {model.running_digest[:_DIGEST_CHARS]}."
    elif not model.disabled and not model.active_problem:
        yield "Nothing of it is in memory now."
    if model.active_problem:
        why = model.active_problem.rstrip(".")
        yield f"{'It is not quite right' if model.running_digest else 'It does not answer'}: {why}."
    if model.traffic:
        shares = ", ".join(f"version {key}: {share} %" for key, share in model.traffic.items())
        yield f"By hand, the traffic is split: {shares}."
    if model.previous is not None:
        yield f"A rollback leads to version {model.previous}."
    elif not model.disabled and model.active_source == "store":
        yield "There is no previous version: a rollback disables the model."


def _deaths(model: ModelReleases) -> Iterator[str]:
    """Say what is known of deaths of the daemon with the active version in memory."""
    release = _active(model)
    if release is None or not release.crashes:
        return
    if release.cause == Cause.CRASHED:
        yield f"It is not taken back for the daemon's deaths: {release.reason.rstrip('.')}."
    elif release is not model.releases[0]:  # of the last release it is said further down
        yield _died(release.crashes, f"version {release.version}")


def _died(times: int, what: str) -> str:
    often = "once" if times == 1 else f"{times} times in a row"
    return (
        f"The daemon died {often} with {what} in memory; after `release.committed_crashes_max` "
        "times in a row the version before it answers again, unless that did not help before."
    )


def _active(model: ModelReleases) -> Release | None:
    """Find the release that made the active version active, if it is among those shown."""
    if model.active_source != "store":
        return None
    made = (
        each
        for each in model.releases
        if each.state == State.COMMITTED and each.version == model.active
    )
    return next(made, None)


def _override(model: ModelReleases) -> Iterator[str]:
    override = model.override
    if override is None:
        return
    by = f" by {override.source}" if override.source else ""
    why = f" ({override.reason})" if override.reason else ""
    what = "A hold" if override.kind == "hold" else "A rollback"
    yield f"{what}{by}{why} stands: the fleet's orders are refused until it is cleared."


def _under_way(release: Release) -> Iterator[str]:
    by = f", ordered by {release.source}" if release.source else ""
    doing = _DOING.get(release.state, f"is in state {release.state!r}")
    yield f"Version {release.version} (release {release.id}{by}) {doing}."
    if release.percent:
        yield f"Its share of the traffic is {release.percent} %."
    if release.variant:
        why = f": {release.variant_reason}" if release.variant_reason else ""
        yield f"Its variant on this device is {release.variant}{why}."
    if release.method == "resource-preserving":
        yield "Memory did not hold both versions, so the active one left first."
    elif release.method:
        yield "The version before it stays in memory for the way back."
    for sentence in release.judged:
        yield f"So far: {sentence.rstrip('.')}."
    if release.crashes:
        times = "once" if release.crashes == 1 else f"{release.crashes} times"
        yield f"The daemon died {times} under it."
    if release.waits_for:
        yield f"It waits: {release.waits_for}."
        return
    following = _NEXT.get(release.state)
    if following:
        yield following
    if release.remaining_s is not None:
        yield f"The step has {_duration(release.remaining_s)} of awake time left."


def _last(model: ModelReleases) -> Iterator[str]:
    if not model.releases:
        yield "Nothing was released here yet."
        return
    last = model.releases[0]
    if last.state == State.COMMITTED:
        how = " on evidence" if last.proof == PROVEN else ""
        yield f"The last release, of version {last.version}, was committed{how}; none is under way."
        if last.proof == UNPROVEN and last.cause != Cause.CRASHED:
            yield f"It was {last.reason.rstrip('.')}."
        if last.crashes and last.cause != Cause.CRASHED:
            yield _died(last.crashes, "it")
        return
    why = ": ".join(each for each in (last.cause, last.reason) if each)
    ended = "failed" if last.state == State.FAILED else "was rolled back"
    yield f"The last release, of version {last.version}, {ended}{f' ({why})' if why else ''}."


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, _MINUTE_S)
    return f"{minutes} min {rest} s" if minutes else f"{whole} s"
