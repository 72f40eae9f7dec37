"""Decide whether a candidate may be shipped: its accuracy first, then what it is made for.

Pure. What was not measured is never taken for good.
"""

import math

from quantize.records import Decision, Goal, Latency, Score, Trial


def decide(
    trial: Trial,
    *,
    floor: float,
    goal: Goal,
    margin: float,
    baseline: Trial,
    confidence: float = 0.95,
    measurable: bool = True,
) -> Decision:
    """Judge a trial.

    Args:
        trial: The candidate, measured.
        floor: Share of the float model's score that must be kept.
        goal: What it must be better in.
        margin: By which share it must be better.
        baseline: The optimised float model, measured.
        confidence: With which the floor must be kept.
        measurable: Whether latency can be measured at all: this CPU is of the target. Where it is
            not, a candidate passes without it, and the reasons say so.

    Returns:
        The decision; its reasons name every condition, those that failed first.
    """
    if trial.status == "failed":
        return Decision(accepted=False, reasons=(trial.reason or "it failed",), floor_met=False)
    accurate, accuracy = _accuracy(trial.held_out, floor, confidence)
    better, gain = _gain(trial, goal, margin, baseline, measurable=measurable)
    verdicts = [(accurate, accuracy), (better, gain)]
    failed = [reason for met, reason in verdicts if not met]
    passed = [reason for met, reason in verdicts if met]
    remarks = _remarks(trial, goal, measurable=measurable) if not failed else []
    return Decision(
        accepted=not failed,
        reasons=(*failed, *passed, *remarks),
        floor_met=accurate,
    )


def _accuracy(score: Score | None, floor: float, confidence: float) -> tuple[bool, str]:
    if score is None:
        return False, "accuracy was not measured on the held-out samples"
    kept = (
        f"{score.metric} keeps {_percent(score.ratio)} of the float model's on {score.samples} "
        "held-out samples"
    )
    wanted = f"the floor is {_percent(floor)}"
    if not math.isfinite(score.ratio) or score.ratio < floor:
        return False, f"{kept}: below the floor of {_percent(floor)}"
    sure = f"with {score.confidence:.4g} confidence"
    if score.confidence < confidence:
        return False, f"{kept}, bounded {sure}, but {confidence:.4g} is asked for"
    if score.low is not None and floor <= score.low < math.inf:
        return True, f"{kept}, {sure} at least {_percent(score.low, down=True)}; {wanted}"
    more = "no number of them would tell, the ratio is on the floor"
    if score.samples_needed is not None:
        more = f"about {score.samples_needed} would tell, if the others are like these"
    bound = "too few to bound it"
    if score.low is not None:
        bound = f"{sure} only at least {_percent(score.low, down=True)}"
    return False, f"{kept}, {bound}; {wanted}: these samples cannot tell, {more}"


def _gain(
    trial: Trial, goal: Goal, margin: float, baseline: Trial, *, measurable: bool
) -> tuple[bool, str]:
    match goal:
        case "latency":
            return _faster(trial.latency, margin, measurable=measurable)
        case "size":
            return _smaller("size", trial.size_bytes, baseline.size_bytes, margin)
        case "memory":
            return _smaller("peak memory", trial.memory_bytes, baseline.memory_bytes, margin)


def _faster(latency: Latency | None, margin: float, *, measurable: bool) -> tuple[bool, str]:
    if not measurable:
        return True, "latency not measured: this CPU is not of the target; verify on one that is"
    if latency is None:
        return False, "latency was not measured"
    most = 1 - margin
    took = (
        f"a run takes {latency.ratio:.3f} of the float model's time "
        f"({latency.ratio_low:.3f} to {latency.ratio_high:.3f})"
    )
    if latency.ratio_high < most:
        return True, f"{took}: clearly below {most:.3g}"
    # Not "not below": NaN must not pass.
    if latency.ratio_low > 1:
        return False, f"{took}: it is slower"
    if latency.ratio_low > most:
        return False, f"{took}: not faster by {_percent(margin)}"
    return False, f"{took}: not clearly faster by {_percent(margin)}"


def _smaller(what: str, mine: int, theirs: int, margin: float) -> tuple[bool, str]:
    if mine <= 0 or theirs <= 0:
        return False, f"{what} was not measured"
    share = mine / theirs
    told = f"{what} is {share:.3f} of the float model's ({mine} of {theirs} bytes)"
    if share <= 1 - margin:
        return True, told
    return False, f"{told}: not smaller by {_percent(margin)}"


def _remarks(trial: Trial, goal: Goal, *, measurable: bool) -> list[str]:
    """Say what the goal permits and a reader should know."""
    remarks = []
    if goal != "latency":
        if not measurable or trial.latency is None:
            remarks.append("latency not measured")
        elif trial.latency.ratio_high >= 1:
            slower = "slower" if trial.latency.ratio_low > 1 else "not clearly faster"
            remarks.append(
                f"{slower}, which goal {goal} permits: a run takes {trial.latency.ratio:.3f} of "
                f"the float model's time ({trial.latency.ratio_low:.3f} to "
                f"{trial.latency.ratio_high:.3f})"
            )
    if not trial.batchable:
        remarks.append("not batchable: rows of one run change each other")
    return remarks


def _percent(share: float, *, down: bool = False) -> str:
    """Write a share; a bound is rounded down, so that it never reads as more than it is."""
    hundredths = share * 10_000
    if not math.isfinite(hundredths):
        return f"{share} (no number)"
    return f"{(math.floor(hundredths) if down else round(hundredths)) / 100:g} %"
