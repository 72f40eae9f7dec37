"""The fault table: what goes wrong, during what, and how the release must end. One row a promise.

After every row, as ``release_fault_runs`` looks it up: the active version answers, and rightly; no
request failed but what the kill itself cut off; the store has whole versions and nothing else; the
history is one story that ends where the device is, with the digest of what really answers.

The journal's transactions of plan ``good``, for ``journal.*=...@N``: 1 the daemon's start, 2 the
order's number, 3 installed, 4 self-testing, 5 staged, 6 shadowing, 7 its look, 8 canary, 9 its
look, 10 the next weight, 11 its look, 12 probation. The routing changes, for ``swap.*``: 1 and 2
the two weights, 3 and 4 probation (beside, then in front), 5 the commit.

An unsynced write that is lost has a table of its own at the file layer, where it can be had:
``tests/unit/edge_runtime/store``.
"""

from typing import Final

from tests.release_fault_runs import DISABLED, Row

COMMITTED: Final = "committed"
CRASHED: Final = "rolled-back crashed"
DISK: Final = "rolled-back disk"
BACK: Final = "rolled-back operator"
BROKEN: Final = "failed internal"
LATE: Final = "failed deadline"

_KILLED: Final = (
    # Nothing, or only bytes, is there: what is ordered again is installed whole.
    *(("store.received", COMMITTED), ("store.blob.written", COMMITTED)),
    *(("store.blob.written@2", COMMITTED), ("store.blob.synced", COMMITTED)),
    *(("store.linked", COMMITTED), ("store.synced", COMMITTED), ("store.renamed", COMMITTED)),
    ("store.installed", COMMITTED),
    # Steps in which it gets no traffic begin again.
    *(("release.self_test.begun", COMMITTED), ("release.self_test.passed", COMMITTED)),
    *(("release.staged", COMMITTED), ("release.shadow.begun", COMMITTED)),
    # Who was not in memory yet is not to blame; whoever was, has crashed.
    *(("release.canary.begun", COMMITTED), ("release.canary.step", CRASHED)),
    *(("release.probation.begun", CRASHED), ("release.commit", CRASHED)),
    ("release.committed", COMMITTED),
    *((f"journal.begin@{number}", COMMITTED) for number in (1, 2, 3, 4, 5, 6, 7, 8)),
    *((f"journal.begin@{number}", CRASHED) for number in (9, 10, 11, 12)),
    *((f"journal.commit@{number}", COMMITTED) for number in (1, 2, 3, 4, 5, 6, 7, 8)),
    *((f"journal.commit@{number}", CRASHED) for number in (9, 10, 11, 12)),
    *(("trial.self_test.started@1", COMMITTED), ("trial.self_test.answered@1", COMMITTED)),
    *(("trial.comparison.started@1", COMMITTED), ("trial.comparison.loaded@1", COMMITTED)),
    ("trial.comparison.answered@1", COMMITTED),
    *(("swap.before@1", CRASHED), ("swap.after@1", CRASHED)),
    *(("swap.before@2", CRASHED), ("swap.after@2", CRASHED)),
    *(("swap.before@3", CRASHED), ("swap.after@3", CRASHED)),
    *(("swap.before@4", CRASHED), ("swap.after@4", CRASHED)),
    *(("swap.before@5", COMMITTED), ("swap.after@5", COMMITTED)),
)
_POWER_CUT: Final = (
    # Nobody died of the version: it goes on where it was.
    *(("release.canary.begun", COMMITTED), ("release.canary.step", COMMITTED)),
    *(("release.probation.begun", COMMITTED), ("release.commit", COMMITTED)),
    *(("swap.before@1", COMMITTED), ("swap.after@4", COMMITTED)),
    *(("journal.commit@9", COMMITTED), ("journal.commit@12", COMMITTED)),
)
_ERROR: Final = (
    # The order is refused with the disk's words; the next one is taken.
    *(("store.received@1", COMMITTED), ("store.blob.written@1", COMMITTED)),
    *(("store.blob.written@2", COMMITTED), ("store.blob.synced@1", COMMITTED)),
    *(("store.linked@1", COMMITTED), ("store.synced@1", COMMITTED)),
    *(("store.renamed@1", COMMITTED), ("store.installed@1", COMMITTED)),
    # What is stored, is stored; what is not, is tried again.
    *(("release.self_test.begun", COMMITTED), ("release.self_test.passed@1", COMMITTED)),
    *(("release.staged", COMMITTED), ("release.shadow.begun", COMMITTED)),
    *(("release.canary.begun", COMMITTED), ("release.canary.step", COMMITTED)),
    *(("release.probation.begun", COMMITTED), ("release.commit@1", COMMITTED)),
    ("release.committed", COMMITTED),
    *((f"journal.commit@{number}", COMMITTED) for number in (1, 2, 3, 4, 5, 6, 8, 10, 12)),
    # A look that cannot be counted could be had again and again: rather back.
    *((f"journal.commit@{number}", DISK) for number in (7, 9, 11)),
    *(("trial.self_test.started@1", BROKEN), ("trial.self_test.answered@1", BROKEN)),
    *(("trial.comparison.started@1", COMMITTED), ("trial.comparison.loaded@1", COMMITTED)),
    ("trial.comparison.answered@1", COMMITTED),
    *(("swap.before@1", DISK), ("swap.after@1", DISK)),
    *(("swap.before@2", DISK), ("swap.after@2", DISK)),
    *(("swap.before@3", DISK), ("swap.after@3", DISK)),
    *(("swap.before@4", DISK), ("swap.after@4", DISK)),
    *(("swap.before@5", COMMITTED), ("swap.after@5", COMMITTED)),
)
_FULL: Final = (
    *(("store.received@1", COMMITTED), ("store.blob.written@1", COMMITTED)),
    *(("store.blob.written@2", COMMITTED), ("store.blob.synced@1", COMMITTED)),
    *(("store.linked@1", COMMITTED), ("store.synced@1", COMMITTED)),
    *(("store.renamed@1", COMMITTED), ("store.installed@1", COMMITTED)),
    *((f"journal.begin@{number}", COMMITTED) for number in (1, 2, 3, 4, 5, 6, 8, 10, 12)),
    *((f"journal.begin@{number}", DISK) for number in (7, 9, 11)),
)
_HANG: Final = (
    # Told to stop, it stops all the same; the next one goes on.
    *(("store.received@1", COMMITTED), ("store.blob.synced@1", COMMITTED)),
    *(("store.renamed@1", COMMITTED), ("store.installed@1", COMMITTED)),
    *(("release.self_test.begun", COMMITTED), ("release.self_test.passed", COMMITTED)),
    *(("release.staged", COMMITTED), ("release.shadow.begun", COMMITTED)),
    # Its journal cannot say that it stopped in order, so it is taken to have crashed, if it was
    # in memory.
    *(("release.canary.begun", COMMITTED), ("release.canary.step", CRASHED)),
    *(("release.probation.begun", CRASHED), ("release.commit", CRASHED)),
    ("release.committed", COMMITTED),
    *((f"journal.commit@{number}", COMMITTED) for number in (1, 2, 3, 4, 5, 8)),
    *((f"journal.commit@{number}", CRASHED) for number in (10, 12)),
    *(("trial.self_test.started@1", COMMITTED), ("trial.self_test.answered@1", COMMITTED)),
    *(("trial.comparison.started@1", COMMITTED), ("trial.comparison.loaded@1", COMMITTED)),
    ("trial.comparison.answered@1", COMMITTED),
    *(("swap.before@1", COMMITTED), ("swap.after@2", COMMITTED)),
    *(("swap.before@4", COMMITTED), ("swap.after@5", COMMITTED)),
)
_JUMPS: Final = (
    # Deadlines count awake time: a clock that is set forward brings none nearer, and one that is
    # set back lets none go.
    *("store.received", "store.installed", "journal.commit@4", "journal.begin@7"),
    *("release.self_test.begun", "release.self_test.passed", "release.staged"),
    *("release.shadow.begun", "release.canary.begun", "release.canary.step"),
    *("release.probation.begun", "release.commit", "release.committed"),
    *("trial.self_test.answered@1", "swap.after@1", "swap.after@4"),
)
_BACK_FROM: Final = ("self-testing", "staged", "shadowing", "canary", "probation", "committed")
_BACK: Final = (
    "release.roll_back=kill",
    "release.rolled_back=kill",
    "release.roll_back=error",
    "release.rolled_back=error@1",
    "release.roll_back=hang",
)
_FILLED: Final = ("store.received", "store.blob.written", "store.linked", "store.filled")
_OTHERS: Final = (
    # The routing change on the way back.
    Row("swap.before=kill@2", "back from canary", BACK),
    Row("swap.after=kill@2", "back from canary", BACK),
    Row("swap.before=kill@3", "back from probation", BACK),
    Row("swap.before=kill@4", "back from committed", BACK),
    Row("swap.after=kill@4", "back from committed", BACK),
    Row("swap.before=error@2", "back from canary", BACK),
    Row("swap.before=error@3", "back from probation", BACK),
    Row("swap.before=error@4", "back from committed", BACK),
    Row("swap.before=hang@4", "back from committed", BACK),
    # The first version ever: there is nothing to go back to.
    Row("release.staged=kill", "first", COMMITTED),
    Row("release.probation.begun=kill", "first", COMMITTED),
    Row("release.commit=kill", "first", DISABLED),
    Row("release.committed=kill", "first", COMMITTED),
    Row("swap.before=kill@1", "first", COMMITTED),  # and then it is loaded
    Row("swap.after=kill@1", "first", COMMITTED),
    Row("journal.commit=kill@7", "first", DISABLED),
    Row("journal.commit=kill@3", "first", COMMITTED),
    Row("journal.commit=kill@5", "first", COMMITTED),
    Row("journal.commit=error@5", "first", COMMITTED),
    Row("journal.begin=full@6", "first", COMMITTED),
    Row("release.probation.begun=hang", "first", COMMITTED),
    Row("release.probation.begun=kill", "first", COMMITTED, power=True),
    Row("release.probation.begun=jump:+86400", "first", COMMITTED),
    Row("store.renamed=kill", "first", COMMITTED),
    Row("store.renamed=full@1", "first", COMMITTED),
    # The active version lies in the store.
    Row("release.canary.begun=kill", "next", COMMITTED),
    Row("release.canary.step=kill", "next", CRASHED),
    Row("release.commit=kill", "next", CRASHED),
    Row("release.committed=kill", "next", COMMITTED),
    Row("swap.after=kill@4", "next", CRASHED),
    Row("swap.before=error@3", "next", DISK),
    Row("release.committed=hang", "next", COMMITTED),
    Row("journal.begin=hang@1", "next", COMMITTED),
    Row("journal.commit=error@1", "next", COMMITTED),
    Row("journal.commit=full@1", "next", COMMITTED),
    Row("release.canary.step=jump:-86400", "next", COMMITTED),
    # Variants that were left out are brought: it is whole all the time, and filled up in the end.
    *(Row(f"{point}=kill", "filled", COMMITTED) for point in _FILLED),
    *(Row(f"{point}=error@1", "filled", COMMITTED) for point in _FILLED),
    *(Row(f"{point}=full@1", "filled", COMMITTED) for point in _FILLED),
    Row("store.blob.synced=hang@1", "filled", COMMITTED),
    Row("store.filled=hang@1", "filled", COMMITTED),
    Row("store.filled=kill", "filled", COMMITTED, power=True),
    # By hand.
    Row("release.probation.begun=kill", "promote", COMMITTED),
    Row("swap.after=kill@1", "promote", CRASHED),
    Row("release.commit=kill", "promote", CRASHED),
    Row("release.committed=kill", "promote", COMMITTED),
    Row("journal.commit=error@6", "promote", COMMITTED),
    Row("journal.begin=full@6", "promote", COMMITTED),
    Row("swap.before=error@1", "promote", DISK),
    Row("release.probation.begun=hang", "promote", COMMITTED),
    # What hangs is left alone, and the release comes to its end.
    Row("trial.self_test.started=hang@1", "brief", LATE, alone=True),
    Row("trial.self_test.answered=hang@1", "brief", LATE, alone=True),
    Row("trial.comparison.started=hang@1", "good", COMMITTED, alone=True),
    Row("trial.comparison.loaded=hang@1", "good", COMMITTED, alone=True),
    Row("trial.comparison.answered=hang@1", "good", COMMITTED, alone=True),
    Row("swap.before=hang@1", "back from canary", BACK, alone=True),
    Row("swap.after=hang@1", "back from canary", BACK, alone=True),
    Row("swap.before=hang@1", "back from probation", BACK, alone=True),
    Row("swap.after=hang@2", "back from probation", BACK, alone=True),
    Row("store.collect=hang@1", "collect", COMMITTED, alone=True),
    # Old versions are removed.
    Row("store.collect=kill", "collect", COMMITTED),
    Row("store.collect=error@1", "collect", COMMITTED),
    Row("store.collect=full", "collect", COMMITTED),
    Row("store.collect=hang@1", "collect", COMMITTED),
)


def _points(point: str, action: str) -> str:
    name, at, number = point.partition("@")
    return f"{name}={action}{at}{number}"


def _rows(action: str, promises: tuple[tuple[str, str], ...], *, power: bool = False) -> list[Row]:
    return [Row(_points(point, action), "good", ends, power) for point, ends in promises]


TABLE: Final = (
    *_rows("kill", _KILLED),
    *_rows("kill", _POWER_CUT, power=True),
    *_rows("error", _ERROR),
    *_rows("full", _FULL),
    *_rows("hang", _HANG),
    *(Row(_points(point, "jump:+86400"), "strict", COMMITTED) for point in _JUMPS),
    *(Row(_points(point, "jump:-86400"), "quiet", COMMITTED) for point in _JUMPS),
    *(Row(points, f"back from {state}", BACK) for state in _BACK_FROM for points in _BACK),
    *_OTHERS,
)
"""Every row."""

SAMPLE: Final = (
    Row("store.renamed=kill", "promote", COMMITTED),
    Row("release.canary.begun=kill", "good", COMMITTED),
    Row("release.canary.step=kill", "good", CRASHED),
    Row("journal.commit=error@6", "promote", COMMITTED),
    Row("store.blob.written=full@1", "promote", COMMITTED),
    Row("swap.before=hang@1", "back from canary", BACK, alone=True),
    Row("release.commit=jump:+86400", "promote", COMMITTED),
    Row("trial.self_test.answered=error@1", "good", BROKEN),
    Row("swap.after=kill@1", "first", COMMITTED),
    Row("release.commit=kill", "first", DISABLED),
)
"""Rows for every run of the tests: each kind of fault and each group of failpoints once."""
