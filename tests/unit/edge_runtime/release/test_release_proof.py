"""A commit says whether it rests on evidence, and what was lacking."""

import pytest

from edge_runtime.release.proof import TOO_LITTLE, Step, proof
from tests.release_records import release

LITTLE = f"{TOO_LITTLE}3 blocks, at least 16 are needed to pass"
SHADOW = Step("shadowing", "agreement: 1", is_proven=True)
CANARY = Step("canary", "agreement: 1; errors: 0", is_proven=True)
PROBATION = Step("probation", "errors: 0", is_proven=True)
SHADOW_SHORT = SHADOW._replace(reason=LITTLE, is_proven=False)
CANARY_SHORT = CANARY._replace(reason=LITTLE, is_proven=False)
PROBATION_SHORT = PROBATION._replace(reason=LITTLE, is_proven=False)


@pytest.mark.parametrize(
    "steps",
    [
        [PROBATION, CANARY, SHADOW],
        [PROBATION_SHORT, CANARY, SHADOW],
        [PROBATION_SHORT, CANARY_SHORT, CANARY, SHADOW_SHORT],
        [PROBATION, SHADOW],  # memory did not hold both
    ],
)
def test_what_agreed_and_did_well_under_requests_is_proven(steps: list[Step]) -> None:
    assert proof(release(active=1), steps) == ("proven", steps[0].reason)


@pytest.mark.parametrize(
    ("steps", "lacks"),
    [
        (
            [PROBATION_SHORT, CANARY_SHORT, SHADOW_SHORT],
            ["canary: 3 blocks", "probation: 3 blocks"],
        ),
        ([PROBATION_SHORT, SHADOW], ["probation: 3 blocks, at least 16 are needed to pass"]),
        ([PROBATION, CANARY_SHORT], ["canary: 3 blocks, at least 16 are needed to pass"]),
        ([PROBATION, Step("staged", "promoted by ann")], ["was never compared"]),
        ([Step("probation", "promoted by ann"), SHADOW], ["probation: promoted by ann"]),
    ],
)
def test_what_was_let_through_or_promoted_is_not(steps: list[Step], lacks: list[str]) -> None:
    word, reason = proof(release(active=1), steps)
    assert word == "unproven"
    assert reason.startswith("committed without proof: ")
    for lack in lacks:
        assert lack in reason
    assert TOO_LITTLE not in reason


def test_a_first_version_was_compared_with_nothing() -> None:
    assert proof(release(), [PROBATION]) == (
        "unproven",
        "committed without proof: there was nothing to compare it with",
    )
