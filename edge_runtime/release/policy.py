"""The verdict over a candidate: a function of what was seen, and of nothing else.

Several measures can speak against a candidate (``findings``), each with a known chance of a false
alarm. Who looks often finds something at last, so the evidence is looked at no more than
``looks_max`` times a step, each time with twice as many blocks, and all measures of all looks share
one chance of a false alarm, ``alpha``, in equal parts (Bonferroni: simple, exact, cautious). Looks
that were passed over, and at the end of a step all that are left, give their part to the look that
is made. Looks are counted in the journal: a restart loses the evidence, and never gains a second
chance.

A candidate passes if nothing speaks against it, not even by ``alpha`` uncorrected, and if the
agreement is *proven* to reach its floor. To pass, all must hold, so their number needs no
correction there; the looks do. Where neither can be said the verdict is ``inconclusive``, with what
is lacking. Pure.
"""

import math
from typing import Final, Literal

import msgspec

from edge_runtime.manifest import Comparison
from edge_runtime.release.evidence import Snapshot
from edge_runtime.release.findings import Finding, findings, is_agreement_proven
from edge_runtime.settings.release import Release
from edge_runtime.settings.release import Thresholds as Overrides

Verdict = Literal["pass", "fail", "inconclusive"]

LOOKS_MAX: Final = 8
FIRST_LOOK: Final = 8
"""Blocks at the first look; each further one needs twice as many."""
FAILURES_IN_A_ROW: Final = 3
"""So many failures on inputs that the active version answers are no accident."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate must reach, and how sure a verdict must be.

    Attributes:
        agreement_floor: Least share of inputs on which the outputs agree; 0: not asked, for steps
            in which nothing is compared.
        latency_ratio_max: Most time of a run, over the active version's.
        error_rate_max: Most share of real requests on which it may fail; 0: not asked, for steps
            in which it can be compared with another version.
        alpha: Chance of one step to reject a candidate that is as good as the active version; also
            of one step to take a candidate for proven that agrees less than the floor.
        looks_max: Looks at the evidence of one step.
        blocks_min: Blocks needed to pass.
        traffic_min: Blocks of real traffic needed to pass; 0: it gets none.
        is_agreement_proven: An earlier step has proven the floor: it only must not be contradicted.
    """

    agreement_floor: float = 0.98
    latency_ratio_max: float = 1.5
    error_rate_max: float = 0.0
    alpha: float = 0.05
    looks_max: int = LOOKS_MAX
    blocks_min: int = 16
    traffic_min: int = 0
    is_agreement_proven: bool = False


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and all that it rests on.

    Attributes:
        verdict: Of the evidence so far.
        reasons: Why, in sentences for a person.
        numbers: The same for programs, all finite: counts, estimates, chances (``*_p``), and
            ``level``, the chance below which a measure fails at this look; 0 where there was none.
        looks: Looks spent in this step with this one; to be stored before anything is done.
        is_suspect: A measure speaks against the candidate by ``alpha`` uncorrected: it is not for
            lack of traffic alone that it did not pass.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    numbers: dict[str, float]
    looks: int
    is_suspect: bool = False


def rules(comparison: Comparison, overrides: Overrides) -> Comparison:
    """Give the manifest's rules of comparison, with what the device's owner changed.

    Args:
        comparison: The candidate's manifest's ``acceptance.comparison``.
        overrides: ``[models.NAME.release]`` of the configuration.
    """
    changes = {
        field: value
        for field in ("agreement_floor", "cosine_floor", "latency_ratio_max")
        if (value := getattr(overrides, field)) is not None
    }
    return msgspec.structs.replace(comparison, **changes)


def thresholds(comparison: Comparison, overrides: Overrides, settings: Release) -> Thresholds:
    """Put together what a candidate must reach.

    Args:
        comparison: The candidate's manifest's ``acceptance.comparison``.
        overrides: ``[models.NAME.release]`` of the configuration; wins over the manifest.
        settings: ``[release]`` of the configuration.
    """
    wanted, errors = rules(comparison, overrides), overrides.error_rate_max
    return Thresholds(
        agreement_floor=wanted.agreement_floor,
        latency_ratio_max=wanted.latency_ratio_max,
        error_rate_max=settings.error_rate_max if errors is None else errors,
        alpha=settings.alpha,
        blocks_min=settings.blocks_min,
    )


def blocks_needed(floor: float, alpha: float) -> int | None:
    """Count the blocks that prove a floor if every one of them agrees.

    Args:
        floor: Least share that must agree.
        alpha: Chance to be wrong.

    Returns:
        Their number; ``None``: a floor of 1 is proven by no number.
    """
    if floor <= 0:
        return 0
    return math.ceil(math.log(alpha) / math.log(floor)) if floor < 1 else None


def next_look(looks: int, wanted: Thresholds) -> int | None:
    """Tell with how many blocks the next look is due.

    Args:
        looks: Looks spent in this step.
        wanted: The last look waits until the floor of agreement could be proven at all.

    Returns:
        8, 16, 32 and so on; ``None``: none is left.
    """
    if looks >= wanted.looks_max:
        return None
    blocks = FIRST_LOOK << looks
    if looks < wanted.looks_max - 1:
        return blocks
    floor = 0.0 if wanted.is_agreement_proven else wanted.agreement_floor
    provable = blocks_needed(floor, wanted.alpha / wanted.looks_max)
    return max(blocks, wanted.blocks_min, wanted.traffic_min, provable or 0)


def is_look_due(blocks: int, looks: int, wanted: Thresholds) -> bool:
    """Tell whether a look is due; cheap, for asking before a snapshot is made.

    Args:
        blocks: Blocks seen.
        looks: Looks spent in this step.
        wanted: As for ``judge``.
    """
    due = next_look(looks, wanted)
    return due is not None and blocks >= due


def too_many_errors(consecutive_candidate_failures: int) -> str:
    """Decide at once, whatever the looks, on failures that the active version did not have.

    Args:
        consecutive_candidate_failures: Failures of the candidate in a row, on inputs that the
            active version then answered.

    Returns:
        Why it fails, as a sentence; empty: it does not.
    """
    if consecutive_candidate_failures < FAILURES_IN_A_ROW:
        return ""
    return (
        f"errors: the candidate failed {consecutive_candidate_failures} times in a row on inputs "
        "that the active version answered"
    )


def judge(
    snapshot: Snapshot, wanted: Thresholds, looks_done: int, *, is_over: bool = False
) -> Judgement:
    """Judge a candidate.

    Args:
        snapshot: What was seen in this step.
        wanted: What it must reach.
        looks_done: Looks spent in this step so far, those before a restart among them.
        is_over: The step's time is over: the last look is made now, whatever there is.

    Returns:
        The verdict. Between looks it is ``inconclusive`` and no look is spent. It fails only at a
        look.
    """
    looks = looks_done
    while is_look_due(snapshot.blocks, looks, wanted):
        looks += 1
    if is_over:
        looks = max(looks, wanted.looks_max)
    elif looks == looks_done:
        return _no_look(snapshot, wanted, looks)
    found = findings(
        snapshot,
        agreement_floor=wanted.agreement_floor,
        latency_ratio_max=wanted.latency_ratio_max,
        error_rate_max=wanted.error_rate_max,
        alpha=wanted.alpha,
    )
    # None is left where a step ends after its last look: nothing can fail or be proven any more.
    share = wanted.alpha * (looks - looks_done) / wanted.looks_max
    level = share / len(found)
    numbers: dict[str, float] = {"blocks": snapshot.blocks, "seen": snapshot.seen, "level": level}
    for finding in found:
        numbers.update(finding.numbers)
    against = [finding for finding in found if finding.chance <= level and level > 0]
    suspects = [finding for finding in found if finding.chance <= wanted.alpha]
    lacks = _lacks(snapshot, wanted, share)
    verdict: Verdict = "inconclusive"
    if against:
        verdict = "fail"
        reasons = [_sentence(finding, f"below {level:.2g} it fails") for finding in against]
    elif suspects or lacks:
        doubt = f"to pass it must be above {wanted.alpha:.2g}"
        reasons = [_sentence(finding, doubt) for finding in suspects] + lacks
    else:
        verdict, reasons = "pass", [finding.sentence for finding in found]
    return Judgement(
        verdict=verdict,
        reasons=tuple(reasons),
        numbers=numbers,
        looks=looks,
        is_suspect=bool(suspects),
    )


def _no_look(snapshot: Snapshot, wanted: Thresholds, looks: int) -> Judgement:
    due = next_look(looks, wanted)
    reason = f"{snapshot.blocks} of the {due} blocks of the next look"
    if due is None:
        reason = f"all {wanted.looks_max} looks of this step are spent"
    numbers: dict[str, float] = {"blocks": snapshot.blocks, "seen": snapshot.seen, "level": 0.0}
    return Judgement(verdict="inconclusive", reasons=(reason,), numbers=numbers, looks=looks)


def _lacks(snapshot: Snapshot, wanted: Thresholds, alpha: float) -> list[str]:
    """Say what is lacking to pass, if nothing speaks against it."""
    lacks = []
    if snapshot.blocks < wanted.blocks_min:
        lacks.append(f"{snapshot.blocks} blocks, at least {wanted.blocks_min} are needed to pass")
    real = snapshot.candidate.count
    if real < wanted.traffic_min:
        lacks.append(f"{real} blocks of real traffic, at least {wanted.traffic_min} are needed")
    if wanted.agreement_floor <= 0 or wanted.is_agreement_proven:
        return lacks
    if alpha <= 0:
        return [*lacks, f"agreement: all {wanted.looks_max} looks were spent without a proof"]
    if is_agreement_proven(snapshot, wanted.agreement_floor, alpha):
        return lacks
    needed = blocks_needed(wanted.agreement_floor, alpha)
    sentence = (
        f"agreement: {snapshot.agreements:.6g} of {snapshot.answered} blocks do not prove the "
        f"floor of {wanted.agreement_floor:.4g}"
    )
    if needed is None:
        sentence += ", which no number of blocks can prove"
    elif snapshot.answered < needed:
        sentence += f"; {needed} blocks that all agree would prove it"
    return [*lacks, sentence]


def _sentence(finding: Finding, rule: str) -> str:
    return (
        f"{finding.sentence}; were the candidate good enough, the chance of that or worse would be "
        f"{finding.chance:.2g}, {rule}"
    )
