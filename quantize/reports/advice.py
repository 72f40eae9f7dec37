"""What to do next, decided from a report alone."""

from collections.abc import Sequence
from typing import Final

from quantize.records import Trial
from quantize.reports.document import Report
from quantize.reports.wording import (
    at_least,
    best_score,
    floor_text,
    keeps_floor,
    percent,
    shortened,
    size,
    speed,
)

FEW_CALIBRATION_SAMPLES: Final = 100
"""Below this, more calibration samples are worth a try; 100 to 500 are customary."""
_HOPELESS: Final = 0.5  # nobody asks for less
QUIET_DB: Final = 20.0
"""A group whose signal is less than ten times its error is worth naming."""


def best_refused(report: Report) -> Trial | None:
    """Find the quantised trial that keeps most of the score, on the set that counts most."""
    # A score with a bound is from the held-out set: it says more than a better one without.
    scored = [
        (score.low is not None, score.low if score.low is not None else score.ratio, trial)
        for trial in report.trials
        if (score := best_score(trial)) is not None
    ]
    if not scored:
        return None
    return max(scored, key=lambda each: each[:2])[2]


def next_steps(report: Report) -> tuple[str, ...]:
    """Say what to do now, most promising first.

    Args:
        report: A finished search; its own ``next_steps`` are not looked at.
    """
    steps = {
        "met": _after_success,
        "floor-not-reached": _after_missing_the_floor,
        "not-faster": _after_not_being_faster,
    }[report.ending](report)
    if report.stopped_early:
        steps.append(f"Give it more time (`--time-budget`): {report.stopped_early}")
    return tuple(steps)


def _after_success(report: Report) -> list[str]:
    where = "on every kind of device that will run it"
    steps = [f"Run `edge-quantize verify BUNDLE` {where}: it needs only the runtime's packages."]
    if not report.measured_here:
        steps.insert(
            0,
            f"Measure the time on a device of the class {report.target}: run the same command "
            "there, or `edge-quantize verify BUNDLE`, before it is rolled out.",
        )
    chosen = next((each for each in report.trials if each.name == report.chosen), None)
    if (
        chosen is not None
        and not chosen.portable
        and not any(
            each.requires.arch == "" and not each.requires.cpu_flags for each in report.shipped
        )
    ):
        steps.append(
            "No variant runs on every CPU: devices without the required instructions refuse this "
            "bundle. Search again with `--target portable` for them."
        )
    return steps


def _after_missing_the_floor(report: Report) -> list[str]:
    steps: list[str] = []
    best = best_refused(report)
    score = best_score(best) if best else None
    floor = report.settings.floor
    if best is None or score is None:
        return [
            (
                "No candidate could be built and scored. The reasons are below; look at the model "
                "with `edge-quantize inspect MODEL`."
            )
        ]
    if score.samples_needed is not None:
        steps.append(
            f"Give more held-out samples (`--evaluate`): {best.name} keeps "
            f"{percent(score.ratio, 2)}, and about {score.samples_needed} samples would show that; "
            f"{score.samples} cannot."
        )
    elif score.ratio >= floor:
        steps.append(
            f"Give more held-out samples (`--evaluate`): {best.name} keeps "
            f"{percent(score.ratio, 2)}, but {score.samples} samples do not make that sure."
        )
    if score.ratio < floor:
        steps += _more_calibration(report)
    if to_blame := blamed(report):
        layers = shortened([group[0] for group in to_blame], 3)
        steps.append(
            f"Train the model with quantisation in mind (quantisation-aware training), first of "
            f"{layers}: weights and ranges then adapt, which no calibration can do."
        )
    if report.target != "portable" and not report.host.vnni:
        steps.append("Try another target: full-range weights need VNNI, and lose less.")
    lower = score.low if score.low is not None else score.ratio
    if _HOPELESS < lower < floor:
        sure = "for sure" if score.low is not None else "on the search set"
        steps.append(
            f"If it is good enough for its use, ask for less: the best keeps "
            f"{at_least(lower)} {sure} (`--floor {_rounded_down(lower)}`), not "
            f"{floor_text(floor)}."
        )
    return steps


def _after_not_being_faster(report: Report) -> list[str]:
    steps = []
    goal = report.settings.goal
    good = [trial for trial in report.trials if keeps_floor(trial, report.settings.floor)]
    smallest = min(good, key=lambda trial: (trial.size_bytes, trial.name), default=None)
    margin = report.settings.margin
    if (
        goal != "size"
        and smallest is not None
        and 0 < smallest.size_bytes < (1 - margin) * report.baseline.size_bytes
    ):
        pace = f", {speed(smallest.latency)}" if smallest.latency else ""
        steps.append(
            f"If the file's size matters more: `--goal size` may ship {smallest.name}, "
            f"{size(smallest.size_bytes)} in place of {size(report.baseline.size_bytes)}{pace}."
        )
    fastest = min(
        (trial for trial in good if trial.latency),
        key=lambda trial: trial.latency.ratio if trial.latency else 1.0,
        default=None,
    )
    if goal != "latency" and fastest and fastest.latency and fastest.latency.ratio_high < 1:
        steps.append(
            f"If speed matters more: `--goal latency` may ship {fastest.name}, "
            f"{speed(fastest.latency)}."
        )
    if goal == "latency" and not report.host.vnni:
        steps.append(
            "Try a device with VNNI (x86-64) or the dot product (arm64): this CPU lacks the "
            "instruction that makes int8 fast."
        )
    if not report.settings.prune:
        steps.append(
            "Remove channels (`--prune`): a smaller network is faster on every CPU, under the same "
            "floor."
        )
    steps.append("Or ship the float model that is here: it is optimised, and loses nothing.")
    return steps


def _more_calibration(report: Report) -> list[str]:
    used = report.split.calibration
    if used >= FEW_CALIBRATION_SAMPLES:
        return []
    return [
        (
            f"Give more calibration samples (`--data`): {used} were used, "
            f"{FEW_CALIBRATION_SAMPLES} to 500 that look like real use are customary."
        )
    ]


def blamed(report: Report) -> Sequence[tuple[str, ...]]:
    """Name the groups of nodes that cost the floor, worst first; none where it is not missed.

    Where the best candidate keeps the floor but too few samples show it, no layer is to blame.
    """
    best = best_refused(report)
    score = best_score(best) if best else None
    if report.ending != "floor-not-reached" or (score and score.ratio >= report.settings.floor):
        return []
    groups = sorted(report.sensitivity, key=lambda group: group.signal_to_noise_db)
    noisy = [group.nodes for group in groups if group.signal_to_noise_db < QUIET_DB]
    return noisy or [group.nodes for group in groups[:1]]


def _rounded_down(ratio: float) -> str:
    """Write a floor that the ratio meets, with at most three decimals."""
    return f"{int(ratio * 1000) / 1000:g}"
