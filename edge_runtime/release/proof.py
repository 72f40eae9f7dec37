"""Whether a version is committed because it was proven, or for want of anything against it. Pure.

Proven is what passed on evidence: it agreed with the active version (in the shadow or in the
canary), and it did well under real requests (in the canary or in probation). What a step let
through because its time was over, or because somebody ordered it, proves nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from edge_runtime.release.records import Release, Transition
from edge_runtime.release.states import SERVES_TRAFFIC, State

PROVEN: Final = "proven"
UNPROVEN: Final = "unproven"
"""What is stored and reported; the names never change."""

IS_PROVEN: Final = "is_proven"
"""Among the numbers of a step that ended: whether the evidence was enough."""

TOO_LITTLE: Final = "too little to tell, so it goes on: "
"""Begins the reason of a step that ended without enough evidence."""

_COMPARED: Final = frozenset({State.SHADOWING, State.CANARY})


class Step(NamedTuple):
    """How a step ended.

    Attributes:
        state: Which.
        reason: Why, as a sentence.
        is_proven: Whether the evidence was enough.
    """

    state: str
    reason: str
    is_proven: bool = False


class Proof(NamedTuple):
    """What a commit rests on.

    Attributes:
        word: ``PROVEN`` or ``UNPROVEN``.
        reason: Why, as a sentence.
    """

    word: str
    reason: str


def steps_of(rows: Iterable[Transition], release_id: int) -> list[Step]:
    """Read how the steps of a release ended, in the order of the rows."""
    return [
        Step(row.from_state, row.reason, bool(row.numbers.get(IS_PROVEN)))
        for row in rows
        if row.release_id == release_id
    ]


def proof(release: Release, steps: Sequence[Step]) -> Proof:
    """Say what a commit rests on.

    Args:
        release: Which is committed.
        steps: How its steps ended, the newest first: the one that leads to the commit.
    """
    lacks: list[str] = []
    compared = [step for step in steps if step.state in _COMPARED]
    tried = [step for step in steps if step.state in SERVES_TRAFFIC]
    if release.active is None:
        lacks.append("there was nothing to compare it with")
    elif not any(step.is_proven for step in compared):
        lacks.append(_lacking(compared) or "it was never compared with the active version")
    if not any(step.is_proven for step in tried):
        lacks.append(_lacking(tried) or "it was not watched under real requests")
    if not lacks:
        return Proof(PROVEN, steps[0].reason)
    return Proof(UNPROVEN, f"committed without proof: {'; '.join(dict.fromkeys(lacks))}")


def _lacking(steps: Sequence[Step]) -> str:
    """Say what the last of some steps lacked; empty: it does not say."""
    step = next((each for each in steps if each.reason), None)
    return f"{step.state}: {step.reason.removeprefix(TOO_LITTLE)}" if step is not None else ""
