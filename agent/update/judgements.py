"""How the steps of a release ended, with the numbers behind it: what a fleet judges a rollout by.

Read from the runtime's history, which is written with the change itself: what a step is measuring
now may be gone a moment later, and the last step has no later moment at all. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from edge_runtime.protocol.release_schemas import Transition

BYTES_MAX: Final = 16_384
"""Of the judgements in one report; the oldest are left out before."""
REASON_CHARS_MAX: Final = 1000

Verdict = Literal["pass", "fail", "inconclusive", ""]

_JUDGED: Final = frozenset({"self-testing", "shadowing", "canary", "probation"})
_ENDED_WELL: Final = frozenset({"passed", "done"})
_ENDED: Final = _ENDED_WELL | {"failed", "roll-back", "first", "promote", "no-room"}
_AGAINST: Final = frozenset({"verdict", "errors", "self-test", "load", "crashed"})
_DEADLINE: Final = "deadline"


class Judgement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a release that has ended.

    Attributes:
        step: Which, in the runtime's words; a canary has one for each weight.
        to: Where that led.
        verdict: ``pass``, ``fail``, or ``inconclusive``: too little to tell; empty: it was not
            judged, but ended by an order.
        cause: Why it was rolled back, in the runtime's frozen words.
        reason: The same for people.
        numbers: What it was judged by, as the runtime's policy names it: ``blocks`` (the effective
            n), ``seen``, ``level``, ``agreement`` with its bounds, ``latency_ratio``, and the
            chances ``*_p``.
        at_s: When, by the runtime's clock.
    """

    step: str
    to: str
    verdict: Verdict = ""
    cause: str = ""
    reason: str = ""
    numbers: Mapping[str, Any] = {}
    at_s: float = 0.0


def judgements_of(rows: Iterable[Transition], release: int) -> list[Judgement]:
    """Read how the steps of a release ended, the oldest first.

    Args:
        rows: Of the history, in any order.
        release: Its id.
    """
    found = [
        Judgement(
            step=row.from_state,
            to=row.to_state,
            verdict=_verdict(row),
            cause=row.cause,
            reason=row.reason[:REASON_CHARS_MAX],
            numbers=row.numbers,
            at_s=row.wall_s,
        )
        for row in sorted(rows, key=lambda each: each.id)
        if row.release_id == release and row.from_state in _JUDGED and row.event in _ENDED
    ]
    return newest(found, BYTES_MAX)


def newest(found: list[Judgement], limit_bytes: int) -> list[Judgement]:
    """Give the last of them that fit into so many bytes of JSON, in their order."""
    kept: list[Judgement] = []
    for each in reversed(found):
        limit_bytes -= len(msgspec.json.encode(each)) + 1
        if limit_bytes < 0:
            break
        kept.insert(0, each)
    return kept


def _verdict(row: Transition) -> Verdict:
    if row.event in _ENDED_WELL:
        # A self-test passes or fails; a comparison may have had too little to go by.
        is_proven = row.numbers.get("is_proven", row.from_state == "self-testing")
        return "pass" if is_proven else "inconclusive"
    if row.cause == _DEADLINE:
        return "inconclusive"
    return "fail" if row.cause in _AGAINST else ""
