"""The fault table of the agent: what goes wrong, and during what. One row a promise.

After every row, as ``agent_fault_runs`` looks it up: the agent comes to the same end as without the
fault; the daemon served all the time; the fleet heard the truth, each number once; nothing was
handed over before it was whole.

Passes of ``agent.update.store`` and ``.stored`` for ``...@N``, and of ``.report`` and
``.reported``: 1 planned, 2 downloading, 3 verified, 4 handing over, 5 following; what comes after
that depends on how often the release is looked at.
"""

from typing import Final

from edge_runtime.failpoints import NAMES
from tests.agent_fault_runs import ABORTED, ROTATED, UPDATED, Row

ACTIONS: Final = ("kill", "error", "full", "hang")
_ELSEWHERE: Final = "agent.import."  # no update passes there; the tests of imports do
POINTS: Final = tuple(
    name for name in NAMES if name.startswith("agent.") and not name.startswith(_ELSEWHERE)
)
_STORIES: Final = {
    "agent.trust.root": ROTATED,
    "agent.update.abort": ABORTED,
    "agent.update.aborted": ABORTED,
}
_STEPS: Final = tuple(f"agent.update.{word}" for word in ("store", "stored", "report", "reported"))
_LATER: Final = ("agent.download.written", "agent.download.copied", "agent.download.renamed")


def _time(action: str) -> str:
    # A disk that fails once heals; one that fails for ever lets nothing be updated.
    return "@1" if action in {"error", "full"} else ""


TABLE: Final = (
    *(
        Row(f"{point}={action}{_time(action)}", _STORIES.get(point, UPDATED))
        for point in POINTS
        for action in ACTIONS
    ),
    *(Row(f"{point}=kill@{number}", UPDATED) for point in _STEPS for number in (2, 3, 4, 5, 6)),
    *(Row(f"{point}=error@{number}", UPDATED) for point in _STEPS for number in (3, 5)),
    *(Row(f"{point}=kill@{number}", UPDATED) for point in _LATER for number in (2, 3)),
)
"""Every row."""

SAMPLE: Final = (
    Row("agent.trust.moved=kill", UPDATED),
    Row("agent.download.written=kill@2", UPDATED),
    Row("agent.download.copied=full@1", UPDATED),
    Row("agent.download.synced=error@1", UPDATED),
    Row("agent.update.stored=kill@5", UPDATED),
    Row("agent.update.handed_over=kill", UPDATED),
    Row("agent.update.reported=kill@3", UPDATED),
    Row("agent.update.hand_over=hang", UPDATED),
    Row("agent.budget.reserved=kill", UPDATED),
)
"""Rows for every run of the tests: each kind of fault and each group of failpoints."""
