"""Releases as people read them. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from edge_runtime.cli.terminal import printable, table
from edge_runtime.protocol import release_schemas as schemas

NUMBERS_MAX: Final = 4  # of a step's measurements in one line; --json has all
REASON_CHARS: Final = 80  # of a reason in a table; `explain`, `--wait` and --json have all of it
BAD_SHOWN: Final = 5  # of what is remembered as bad; --json has more
_DIGEST_CHARS: Final = 12
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600

_MODELS: Final = (
    "MODEL",
    "ACTIVE",
    "FROM",
    "PREVIOUS",
    "SPLIT",
    "OVERRIDE",
    "RELEASE",
    "STATE",
    "SHARE",
    "LEFT",
    "REASON",
)
_RELEASES: Final = (
    "RELEASE",
    "VERSION",
    "STATE",
    "SHARE",
    "LEFT",
    "METHOD",
    "SINCE",
    "BY",
    "CAUSE",
    "REASON",
)
_HISTORY: Final = (
    "WHEN",
    "MODEL",
    "VERSION",
    "FROM",
    "TO",
    "EVENT",
    "CAUSE",
    "DIGEST",
    "REASON",
)


def overview(seen: schemas.Releases) -> list[str]:
    """Write how every model does."""
    lines = [trust(seen.trust)]
    if seen.problem:
        lines.append(f"nothing can be released: {printable(seen.problem)}")
    if seen.models:
        lines.append(table(_MODELS, [_model_cells(model) for model in seen.models]))
    else:
        lines.append("no model was released here; begin with: edge-runtime release stage BUNDLE")
    return lines


def trust(believed: schemas.Trust) -> str:
    """Say who decides what may run."""
    if not believed.managed:
        return (
            "not managed: unsigned bundles are taken, from whoever may order on the admin socket "
            "(release.managed)"
        )
    keys = len(believed.keys)
    return (
        f"managed: only bundles signed by {believed.threshold} of {keys} keys are taken (keyring "
        f"version {believed.keyring_version})"
    )


def _model_cells(model: schemas.ModelReleases) -> tuple[str, ...]:
    newest = model.releases[0] if model.releases else None
    reason = model.disabled or model.active_problem or (_why(newest) if newest else "")
    return (
        model.model,
        "disabled" if model.disabled else _number(model.active),
        model.active_source,
        _number(model.previous),
        split(model.traffic),
        model.override.kind if model.override else "",
        str(newest.version) if newest else "",
        newest.state if newest else "",
        f"{newest.percent} %" if newest and newest.percent else "",
        left(newest) if newest else "",
        _cut(reason),
    )


def one_model(model: schemas.ModelReleases) -> list[str]:
    """Write how one model does."""
    name = printable(model.model)
    if model.disabled:
        lines = [f"{name} is disabled: {printable(model.disabled)}"]
    else:
        digest = short(model.running_digest) or "nothing in memory"
        lines = [f"{answering(model)}; running: {digest}"]
    if model.active_problem:
        what = "not quite right" if model.running_digest else "it does not answer"
        lines.append(f"{what}: {printable(model.active_problem)}")
    if model.previous is not None:
        lines.append(f"a rollback leads to version {model.previous}")
    if model.traffic:
        lines.append(f"the traffic is split: {split(model.traffic)}")
    if model.override:
        why = f": {printable(model.override.reason)}" if model.override.reason else ""
        by = f" by {printable(model.override.source)}" if model.override.source else ""
        lines.append(f"{model.override.kind}{by}{why}; the fleet's orders wait for `release clear`")
    if model.installed:
        lines.append(f"installed: {', '.join(map(str, model.installed))}")
    if model.bad:
        shown = [f"version {each.version} ({printable(each.cause)})" for each in model.bad]
        more = f" and {len(shown) - BAD_SHOWN} more" if len(shown) > BAD_SHOWN else ""
        lines.append(
            f"remembered as bad: {', '.join(shown[:BAD_SHOWN])}{more}; --again takes one all the "
            "same"
        )
    if model.releases:
        lines.append(table(_RELEASES, [_release_cells(each) for each in model.releases]))
    return lines


def answering(model: schemas.ModelReleases) -> str:
    """Say which version of a model answers."""
    name = printable(model.model)
    if model.active is None:
        return f"{name} is what the configuration says"
    source = f" from {printable(model.active_source)}" if model.active_source else ""
    return f"{name} version {model.active}{source} is active"


def _release_cells(release: schemas.Release) -> tuple[str, ...]:
    return (
        str(release.id),
        str(release.version),
        release.state,
        f"{release.percent} %" if release.percent else "",
        left(release),
        release.method,
        when(release.updated_s),
        release.source,
        release.cause,
        _cut(_why(release)),
    )


def history(rows: Sequence[schemas.Transition]) -> str:
    """Write what happened, in the order given."""
    return table(_HISTORY, [_history_cells(row) for row in rows])


def _history_cells(row: schemas.Transition) -> tuple[str, ...]:
    return (
        when(row.wall_s),
        row.model,
        str(row.version) if row.version else "",
        row.from_state,
        row.to_state,
        row.event,
        row.cause,
        short(row.digest),
        _cut(row.reason),
    )


def step(row: schemas.Transition, percent: int = 0) -> str:
    """Write one row of the history while somebody waits.

    Args:
        row: What happened.
        percent: Share of the traffic that the version gets from then on; 0: not known, or none.
    """
    state = printable(row.to_state or row.event)
    if percent:
        state += f" {percent} %"
    why = ": ".join(printable(each) for each in (row.cause, row.reason) if each)
    measured = numbers(row.numbers)
    line = f"{when(row.wall_s)}  {state}"
    if why:
        line += f": {why}"
    return f"{line} ({measured})" if measured else line


def numbers(measured: Mapping[str, Any]) -> str:
    """Write the first few measurements that are plain numbers."""
    return ", ".join(list(_plain(measured))[:NUMBERS_MAX])


def _plain(measured: Mapping[str, Any]) -> Iterator[str]:
    for name, value in measured.items():
        words = printable(str(name)).replace("_", " ")
        if isinstance(value, float):
            yield f"{words} {value:.3g}"
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{words} {value}"


def split(weights: Mapping[str, int]) -> str:
    """Write a split of the traffic."""
    return ", ".join(f"{printable(version)}={weight} %" for version, weight in weights.items())


def left(release: schemas.Release) -> str:
    """Write how long a release's step may still take."""
    if release.remaining_s is None or release.state in schemas.ENDINGS:
        return ""
    return duration(release.remaining_s)


def duration(seconds: float) -> str:
    """Write a duration in its two largest units."""
    whole = max(0, round(seconds))
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"


def when(seconds: float) -> str:
    """Write a moment of the device's clock, in UTC; empty: there is none."""
    if not seconds:
        return ""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):  # a clock that was far off
        return f"{seconds:.0f} s"


def short(digest: str) -> str:
    """Cut a digest to what tells two apart."""
    return printable(digest[:_DIGEST_CHARS])


def _why(release: schemas.Release) -> str:
    return f"waits: {release.waits_for}" if release.waits_for else release.reason


def _cut(reason: str) -> str:
    return reason if len(reason) <= REASON_CHARS else f"{reason[: REASON_CHARS - 1]}…"


def _number(version: int | None) -> str:
    return "" if version is None else str(version)
