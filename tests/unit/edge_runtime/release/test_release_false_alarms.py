"""How often the policy is wrong, by simulated releases: seeded, so the same on every machine.

A release is a shadow step with one comparison per block, looked at whenever a look is due, or a
canary step with two sides of traffic. The bound on false alarms is what a policy that is wrong
with chance ``alpha`` exceeds once in a thousand such experiments.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from scipy import stats

from edge_runtime.release.evidence import Evidence, Observation, Side
from edge_runtime.release.policy import Judgement, Thresholds, is_look_due, judge

RELEASES = 400
BLOCKS = 600
WANTED = Thresholds()
TRAFFIC = Thresholds(agreement_floor=0.0)


def alarms_max(releases: int) -> int:
    return int(stats.binom.ppf(0.999, releases, WANTED.alpha))


Random = np.random.Generator
Block = Observation | tuple[Side, Side]
Step = Callable[[Random, int], Sequence[Block]]
"""Makes so many blocks, each one a comparison or the candidate's and the active one's traffic."""


def shadow(
    *,
    errors: tuple[float, float] = (0.01, 0.01),
    disagrees: float = 0.0,
    bad: float = 0.0,
    ratio: float = 1.0,
) -> Step:
    """Make comparisons; times of one input vary together, and each on its own."""

    def blocks(random: Random, count: int) -> Sequence[Block]:
        chances = random.random((count, 4))
        times = 0.01 * np.exp(random.normal(0, 0.5, (count, 1)) + random.normal(0, 0.2, (count, 2)))
        return [
            Observation(
                at_s=float(block),
                input_digest=b"%d" % block,
                is_error_candidate=chance[0] < errors[0],
                is_error_active=chance[1] < errors[1],
                is_bad=chance[2] < bad,
                agrees=float(chance[3] >= disagrees),
                active_s=active_s,
                candidate_s=candidate_s * ratio,
            )
            for block, (chance, (active_s, candidate_s)) in enumerate(
                zip(chances.tolist(), times.tolist(), strict=True)
            )
        ]

    return blocks


def canary(
    weight: float,
    *,
    errors: tuple[float, float] = (0.01, 0.01),
    ratio: float = 1.0,
    clustered: bool = False,
) -> Step:
    """Make traffic, of which the candidate gets a share; load changes with the time.

    With ``clustered`` a block's runs fail together: a bad input that is sent again and again.
    """

    def failed(random: Random, runs: int, share: float) -> int:
        if clustered:
            return runs * int(random.random() < share)
        return int(random.binomial(runs, share))

    def blocks(random: Random, count: int) -> Sequence[Block]:
        made = []
        for block in range(count):
            runs = int(random.poisson(40))
            ours = int(random.binomial(runs, weight))
            load = 0.01 * np.exp(np.sin(block / 60) + random.normal(0, 0.3))
            sides = []
            for each, share, factor in ((ours, errors[0], ratio), (runs - ours, errors[1], 1.0)):
                wrong = failed(random, each, share)
                times = load * factor * np.exp(random.normal(0, 0.3, each - wrong))
                sides.append(Side(runs=each, errors=wrong, answered_s=float(times.sum())))
            made.append((sides[0], sides[1]))
        return made

    return blocks


def released(
    seed: int, step: Step, wanted: Thresholds, blocks: int = BLOCKS, restart_at: int = -1
) -> Judgement:
    """Take one release through a step."""
    evidence, looks = Evidence(1.0), 0
    for place, block in enumerate(step(np.random.default_rng(seed), blocks)):
        if place == restart_at:
            evidence = Evidence(1.0)
        if isinstance(block, Observation):
            evidence.add(block)
        else:
            evidence.add_block(float(place), candidate=block[0], active=block[1])
        if is_look_due(evidence.blocks, looks, wanted):
            found = judge(evidence.snapshot(), wanted, looks)
            if found.verdict != "inconclusive":
                return found
            looks = found.looks
    return judge(evidence.snapshot(), wanted, looks, is_over=True)


def verdicts(
    count: int, step: Step, wanted: Thresholds, blocks: int = BLOCKS, restart_at: int = -1
) -> Iterator[str]:
    for seed in range(count):
        yield released(seed, step, wanted, blocks, restart_at).verdict


@pytest.mark.parametrize(
    ("step", "wanted", "restart_at"),
    [
        (shadow(), WANTED, -1),
        (shadow(), WANTED, 70),
        (shadow(errors=(0.1, 0.1)), WANTED, -1),
        (canary(0.05), TRAFFIC, -1),
        (canary(0.5), TRAFFIC, -1),
        (canary(0.9, errors=(0.05, 0.05)), TRAFFIC, -1),
        (canary(0.5, errors=(0.05, 0.05), clustered=True), TRAFFIC, -1),
    ],
    ids=["shadow", "restarted", "faulty", "canary", "even", "mostly", "clustered"],
)
def test_an_equal_candidate_is_rarely_rejected(
    step: Step, wanted: Thresholds, restart_at: int
) -> None:
    found = list(verdicts(RELEASES, step, wanted, 130, restart_at))
    assert found.count("fail") <= alarms_max(RELEASES)


def test_a_candidate_exactly_at_every_limit_is_rarely_rejected() -> None:
    step = shadow(disagrees=1 - WANTED.agreement_floor, ratio=WANTED.latency_ratio_max)
    found = list(verdicts(RELEASES, step, WANTED, 130))
    assert found.count("fail") <= alarms_max(RELEASES)


def test_a_candidate_below_the_floor_of_agreement_rarely_passes() -> None:
    step = shadow(errors=(0, 0), disagrees=1 - WANTED.agreement_floor)
    found = list(verdicts(60, step, WANTED))
    assert found.count("pass") <= alarms_max(60)


def test_an_equal_candidate_passes_within_the_time_of_a_step() -> None:
    assert list(verdicts(40, shadow(errors=(0, 0)), WANTED)).count("pass") >= 35
    assert list(verdicts(40, canary(0.05), TRAFFIC)).count("pass") >= 38


@pytest.mark.parametrize(
    ("step", "wanted", "blocks"),
    [
        (shadow(ratio=10.0), WANTED, 20),
        (shadow(disagrees=0.06), WANTED, BLOCKS),
        (shadow(bad=0.05), WANTED, BLOCKS),
        (shadow(errors=(0.06, 0.01)), WANTED, BLOCKS),
        (canary(0.5, errors=(0.05, 0.0)), TRAFFIC, 300),
        (canary(0.05, errors=(0.3, 0.0), clustered=True), TRAFFIC, 300),
        (canary(0.5, ratio=10.0), TRAFFIC, 20),
        (canary(0.05, ratio=10.0), TRAFFIC, 30),
    ],
    ids=[
        "10x slower",
        "accuracy",
        "nan",
        "errors",
        "canary errors",
        "canary bursts",
        "canary 10x slower",
        "canary of 5 percent",
    ],
)
def test_a_bad_candidate_is_caught(step: Step, wanted: Thresholds, blocks: int) -> None:
    found = list(verdicts(40, step, wanted, blocks))
    assert found.count("fail") >= 36
    assert found.count("pass") <= 2


def test_what_is_a_little_worse_never_passes() -> None:
    found = [released(seed, shadow(disagrees=0.05), WANTED) for seed in range(40)]
    assert all(each.verdict != "pass" for each in found)
    assert sum(each.verdict == "fail" or each.is_suspect for each in found) >= 36
    assert sum(each.verdict == "fail" for each in found) >= 30
