"""What one check found: the links of the chain that explains a decision."""

from dataclasses import dataclass

from agent.plan.reasons import Reason


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        name: What was checked, in a word.
        passed: Whether it speaks for going on.
        sentence: The same for people, with its numbers.
        reason: The decision's reason if this finding decides; ``None``: it passed.
        waits: Whether it speaks only against doing it now.
        again_at_s: When that may be over, seconds since 1970; ``None``: nobody knows.
    """

    name: str
    passed: bool
    sentence: str
    reason: Reason | None = None
    waits: bool = False
    again_at_s: float | None = None


def found(
    name: str,
    sentence: str,
    *failed: Reason,
    waits: bool = False,
    again_at_s: float | None = None,
) -> Finding:
    """Make a finding.

    Args:
        name: What was checked.
        sentence: What was found.
        failed: Why not; nothing: it passed.
        waits: It may pass later without another plan.
        again_at_s: When, if that is known.
    """
    return Finding(
        name=name,
        passed=not failed,
        sentence=sentence,
        reason=failed[0] if failed else None,
        waits=waits,
        again_at_s=again_at_s,
    )
