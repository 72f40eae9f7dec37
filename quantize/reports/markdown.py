"""``report.md``: what a search came to, for the person who decides. The verdict comes first."""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from quantize.records import Recipe, Trial
from quantize.reports.advice import QUIET_DB, best_refused, blamed
from quantize.reports.document import Report, trial_named
from quantize.reports.pictures import SENSITIVITY_FILE, TRADE_OFF_FILE
from quantize.reports.wording import (
    COMPARATIVE,
    at_least,
    best_score,
    code,
    floor_text,
    keeps_floor,
    kept,
    line,
    percent,
    refusal,
    run,
    seconds,
    shortened,
    size,
    speed,
    table,
)

MARKDOWN_FILE: Final = "report.md"
GROUPS_MAX: Final = 20
"""Rows of the table of layers: the worst ones."""


def markdown(report: Report, pictures: Collection[str] = ()) -> str:
    """Write the report for a person.

    Args:
        report: A finished search.
        pictures: File names of the pictures that stand beside it.
    """
    name = report.settings.name or "the model"
    lines = [f"# {name}: {_headline(report)}", "", *_verdict(report), ""]
    lines += _shipped(report)
    lines += ["## Next step", "", *(f"- {step}" for step in report.next_steps), ""]
    if report.notes:
        lines += ["## Notes", "", *(f"- {line(note)}" for note in report.notes), ""]
    lines += _trials(report, TRADE_OFF_FILE in pictures)
    lines += _refusals(report)
    lines += _layers(report, SENSITIVITY_FILE in pictures)
    lines += _samples(report)
    lines += _passes(report)
    lines += _settings(report)
    lines += _machine(report)
    return "\n".join(lines).rstrip() + "\n"


def verdict(report: Report) -> list[str]:
    """Say in a few lines how the search ended: what the command prints, too.

    Args:
        report: A finished search.
    """
    lines = {
        "met": _verdict_met,
        "floor-not-reached": _verdict_floor,
        "not-faster": _verdict_not_faster,
    }[report.ending](report)
    if not report.measured_here:
        lines.append(
            f"Time: not measured, because this machine is not of the class {report.target} "
            f"({line(report.host.cpu)})."
        )
    if report.stopped_early:
        lines.append(f"Stopped early: {line(report.stopped_early)}")
    return lines


def _verdict(report: Report) -> list[str]:
    first, *others = verdict(report)
    head, colon, rest = first.partition(":")
    return [f"**{head}**{colon}{rest}", "", *(f"- {each}" for each in others)]


def _headline(report: Report) -> str:
    floor = floor_text(report.settings.floor)
    return {
        "met": "met",
        "floor-not-reached": f"the floor of {floor} is not reached, nothing quantised is shipped",
        "not-faster": f"not {COMPARATIVE[report.settings.goal]}, the float model is kept",
    }[report.ending]


def _verdict_met(report: Report) -> list[str]:
    floor, goal = floor_text(report.settings.floor), report.settings.goal
    trial = trial_named(report, report.chosen) or report.baseline
    lines = [f"Met: {code(trial.name)} is shipped; goal {goal}, floor {floor}."]
    if trial.held_out:
        lines.append(f"Keeps {kept(trial.held_out)}.")
    if trial.latency:
        lines.append(f"Speed: {speed(trial.latency)}, {run(trial.latency)}.")
    lines.append(_size_sentence(trial, report.baseline))
    if trial.memory_bytes and report.baseline.memory_bytes:
        lines.append(
            f"Peak memory: {size(trial.memory_bytes)}; the float model takes "
            f"{size(report.baseline.memory_bytes)}."
        )
    if not trial.batchable:
        lines.append(
            "Not batchable: it scales each run by its largest value, so rows would change each "
            "other. The manifest says so, and the daemon joins no requests."
        )
    return lines


def _verdict_floor(report: Report) -> list[str]:
    floor = floor_text(report.settings.floor)
    lines = [f"Floor of {floor} not reached: nothing is shipped as quantised, no bundle written."]
    best = best_refused(report)
    score = best_score(best) if best else None
    if best is None or score is None:
        return [*lines, f"None of {len(report.trials)} candidates could be built and scored."]
    where = "held-out" if score.low is not None else "search"
    lines.append(
        f"Best of {len(report.trials)} candidates ({where} set): {code(best.name)} keeps "
        f"{kept(score)}."
    )
    if score.ratio >= report.settings.floor and score.low is not None:
        needed = f"; about {score.samples_needed} could" if score.samples_needed else ""
        lines.append(f"It may be good enough, but {score.samples} samples cannot tell{needed}.")
    if to_blame := blamed(report):
        names = shortened([group[0] for group in to_blame], 3)
        lines.append(f"Layers to blame first: {names}.")
    return lines


def _verdict_not_faster(report: Report) -> list[str]:
    goal, margin = report.settings.goal, report.settings.margin
    word = COMPARATIVE[goal]
    good = [each for each in report.trials if keeps_floor(each, report.settings.floor)]
    sure = sum(each.decision is not None for each in good)
    lines = [
        f"Not {word}: the optimised float model is kept as the only variant, {code('fp32')}.",
        (
            f"{len(good)} of {len(report.trials)} candidates keep the floor of "
            f"{floor_text(report.settings.floor)} ({sure} of these shown on held-out "
            f"samples); none is clearly {word} "
            f"(the goal {goal} asks for at least {percent(margin, 0)})."
        ),
    ]
    fastest = min(
        (trial for trial in good if trial.latency),
        key=lambda trial: trial.latency.ratio if trial.latency else 1.0,
        default=None,
    )
    if fastest and fastest.latency:
        lines.append(f"The fastest of them, {code(fastest.name)}: {speed(fastest.latency)}.")
        lines.append(_size_sentence(fastest, report.baseline))
    return lines


def _size_sentence(trial: Trial, baseline: Trial) -> str:
    if not baseline.size_bytes:
        return f"Size: {size(trial.size_bytes)}."
    share = percent(trial.size_bytes / baseline.size_bytes, 0)
    return f"Size: {size(trial.size_bytes)}, {share} of the float model's."


def _shipped(report: Report) -> list[str]:
    if not report.shipped:
        return []
    rows = []
    for each in report.shipped:
        needs = [word for word in (each.requires.arch, *each.requires.cpu_flags) if word]
        rows.append(
            [
                code(each.name),
                code(each.trial),
                ", ".join(needs) or "any CPU",
                code(each.file),
                size(each.size_bytes),
            ]
        )
    return [
        "## Shipped",
        "",
        "A device takes the first variant whose needs its CPU meets.",
        "",
        *table(("variant", "candidate", "needs", "file", "size"), rows),
    ]


def _trials(report: Report, pictured: bool) -> list[str]:  # noqa: FBT001 - private
    heads = (
        "candidate",
        "kept (search)",
        "kept (held out, at least)",
        "time (interval)",
        "size",
        "memory",
        "any x86",
        "outcome",
    )
    rows = [_baseline_row(report)]
    for trial in report.trials:
        mark = "**chosen**" if trial.name == report.chosen else _outcome(trial, report)
        rows.append(_trial_row(trial, report, mark))
    lines = [
        "## What was tried",
        "",
        (
            "Kept, time, size and memory are shares of those of the optimised float model, which "
            "stands first with its own. `any x86`: integer results are the same on x86 CPUs "
            "without VNNI."
        ),
        "",
        *table(heads, rows),
    ]
    if report.pareto:
        lines += [
            f"Accepted, and in no respect all worse than another: {shortened(report.pareto, 12)}.",
            "",
        ]
    if pictured:
        lines += [f"![What candidates keep and cost]({TRADE_OFF_FILE})", ""]
    return lines


def _baseline_row(report: Report) -> list[str]:
    baseline = report.baseline
    times = [trial.latency.reference_p50_s for trial in report.trials if trial.latency]
    return [
        code(baseline.name),
        "",
        "",
        seconds(sorted(times)[len(times) // 2]) if times else "",
        size(baseline.size_bytes),
        size(baseline.memory_bytes) if baseline.memory_bytes else "",
        "yes",
        "the measure",
    ]


def _trial_row(trial: Trial, report: Report, outcome: str) -> list[str]:
    held, latency, base = trial.held_out, trial.latency, report.baseline
    bound = f" ({at_least(held.low)})" if held and held.low is not None else ""
    return [
        code(trial.name),
        percent(trial.search.ratio, 2) if trial.search else "",
        f"{percent(held.ratio, 2)}{bound}" if held else "",
        f"{latency.ratio:.2f} ({latency.ratio_low:.2f} to {latency.ratio_high:.2f})"
        if latency
        else "",
        _share(trial.size_bytes, base.size_bytes),
        _share(trial.memory_bytes, base.memory_bytes),
        "" if trial.status == "failed" else "yes" if trial.portable else "no",
        outcome,
    ]


def _outcome(trial: Trial, report: Report) -> str:
    if trial.status == "failed":
        return "failed"
    reason = refusal(trial, report.settings)
    if not reason:
        return "accepted"
    return "set aside" if reason.startswith("set aside") else "refused"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if part and whole else ""


def _refusals(report: Report) -> list[str]:
    """Give every reason once, with the trials it holds for, in the order they were tried."""
    by_reason: dict[str, list[str]] = {}
    for trial in report.trials:
        if reason := refusal(trial, report.settings):
            nodes = f" (left in float: {shortened(trial.excluded, 4)})" if trial.excluded else ""
            by_reason.setdefault(reason, []).append(f"{code(trial.name)}{nodes}")
    lines = [f"- {', '.join(names)}: {line(reason)}" for reason, names in by_reason.items()]
    return ["## Why not the others", "", *lines, ""] if lines else []


def _layers(report: Report, pictured: bool) -> list[str]:  # noqa: FBT001 - private
    if not report.sensitivity:
        return []
    groups = sorted(report.sensitivity, key=lambda group: (group.signal_to_noise_db, group.nodes))
    rows = [
        [
            shortened(group.nodes, 3),
            line(group.operator),
            f"{group.signal_to_noise_db:.1f}",
            percent(group.time_share),
            "yes" if group.excluded else "",
        ]
        for group in groups[:GROUPS_MAX]
    ]
    lines = [
        "## Layers to blame" if blamed(report) else "## Layers",
        "",
        (
            f"Signal to noise of each group's output, quantised against float: below "
            f"{QUIET_DB:g} dB the error is over a tenth of the signal. The worst come first."
        ),
        "",
        *table(("nodes", "operator", "dB", "share of time", "left in float"), rows),
    ]
    if len(groups) > GROUPS_MAX:
        lines += [f"{len(groups) - GROUPS_MAX} more groups are in report.json.", ""]
    if pictured:
        lines += [f"![What quantising each layer loses]({SENSITIVITY_FILE})", ""]
    return lines


def _samples(report: Report) -> list[str]:
    split = report.split
    return [
        "## Samples",
        "",
        (
            f"{split.calibration} for calibration, {split.search} for the search, {split.held_out} "
            f"held out for the decision; no sample is in two sets "
            f"({split.duplicates} duplicates left out)."
        ),
        "",
        *table(
            ("set", "SHA-256"),
            [(line(role), code(digest)) for role, digest in sorted(split.sha256.items())],
        ),
    ]


def _passes(report: Report) -> list[str]:
    if not report.passes:
        return []
    rows = [
        [
            code(each.name),
            "kept" if each.kept else "not kept",
            f"{each.nodes_before} to {each.nodes_after}"
            if each.nodes_after
            else str(each.nodes_before),
            f"{each.max_difference:.2g}",
            f"{each.latency_ratio:.2f}" if each.latency_ratio is not None else "",
            line(each.reason),
        ]
        for each in report.passes
    ]
    heads = ("step", "outcome", "nodes", "largest difference", "time", "why")
    return ["## Rewriting the float model", "", *table(heads, rows)]


def _settings(report: Report) -> list[str]:
    echoed = msgspec.to_builtins(report.settings)
    recipes: Sequence[Recipe] = report.settings.recipes
    echoed["recipes"] = [recipe.name for recipe in recipes]
    resolved = {"metric": report.metric, "target": report.target}
    rows = []
    for name, value in echoed.items():
        shown = msgspec.json.encode(value).decode()
        meant = resolved.get(name, value)
        rows.append([code(name), code(shown) + (f" = {line(meant)}" if meant != value else "")])
    return ["## Settings", "", *table(("setting", "value"), rows)]


def _machine(report: Report) -> list[str]:
    host, source = report.host, report.source
    packages = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    return [
        "## Machine and model",
        "",
        f"- Machine: {line(host.cpu)}; {host.cpus} usable CPUs; {line(host.system)}",
        f"- Packages: {line(packages)}",
        (
            f"- Model: {size(source.size_bytes)}, {source.nodes} nodes, opset {source.opset}, "
            f"SHA-256 {code(source.sha256)}"
        ),
        f"- Made {line(report.created)} in {seconds(report.seconds)}",
        "",
    ]
