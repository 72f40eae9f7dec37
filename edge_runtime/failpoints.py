"""Named places where a test makes the process die, fail, wait for ever, or find another time.

Off unless ``$EDGE_RUNTIME_FAILPOINTS`` is set when the process starts::

    store.renamed=kill              die at once (SIGKILL)
    store.blob.written=error@3      the disk fails (EIO), the third time only
    journal.commit=full             the disk is full (ENOSPC)
    trial.self_test.started=hang    the thread waits for ever
    release.canary.step=jump:+3600  the wall clock jumps by so many seconds, the first time
    boot_id=another                 the device says that it is in this boot: the power was cut

Several are separated by commas. ``kill``, ``error``, ``full`` and ``hang`` act every time unless a
number says which time. ``NAMES`` lists every failpoint there is.
"""

import contextlib
import errno
import logging
import math
import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from edge_runtime.errors import ConfigError

_log = logging.getLogger(__name__)

VARIABLE: Final = "EDGE_RUNTIME_FAILPOINTS"

NAMES: Final[dict[str, str]] = {
    "store.received": "a bundle's manifest is accepted; nothing is written yet",
    "store.blob.written": "one file's bytes are written, not yet durable",
    "store.blob.synced": "one file's bytes are durable",
    "store.linked": "every file lies in the incoming folder and is shared with the store",
    "store.synced": "the names in the incoming folder are durable",
    "store.renamed": "the version is at its place, which is not durable yet",
    "store.installed": "the version is at its place for good",
    "store.filled": "variants left out before are at their place; their record does not say so yet",
    "store.collect": "a version is out of sight for good; its files are still to be removed",
    "release.staged": "a release is in the journal as staged",
    "release.self_test.begun": "the journal says that the self-test runs; it does not yet",
    "release.self_test.passed": "the self-test passed; the journal does not say so yet",
    "release.shadow.begun": "the journal says that the shadow runs; it does not yet",
    "release.canary.begun": "the journal says that the canary begins; no request goes there yet",
    "release.canary.step": "the journal says the next weight; requests still follow the last one",
    "release.probation.begun": "the journal says that probation runs; the switch is still to come",
    "release.commit": "probation passed; the journal does not say so yet",
    "release.committed": "the journal says that the release is committed",
    "release.roll_back": "the journal says that the release is rolling back; nothing is done yet",
    "release.rolled_back": "the way back is done; the journal does not say so yet",
    "journal.begin": "a transaction of the journal is about to begin",
    "journal.commit": "a transaction of the journal is about to be committed",
    "trial.self_test.started": "the process that tests a candidate has been started",
    "trial.self_test.answered": "that process has answered; its answer is not used yet",
    "trial.comparison.started": "the process that compares both versions has been started",
    "trial.comparison.loaded": "that process has both versions in memory",
    "trial.comparison.answered": "that process has compared both; its answer is not used yet",
    "swap.before": "the routing table is about to be replaced",
    "swap.after": "the routing table has been replaced",
    "agent.trust.verified": "metadata is verified in its work folder; it is not durable yet",
    "agent.trust.synced": "it is durable there; what was believed is still in its place",
    "agent.trust.moved": "what was believed is moved aside; nothing is in its place",
    "agent.trust.renamed": "the new metadata is in its place, which is not durable yet",
    "agent.trust.adopted": "it is believed; its versions are not kept as floors yet",
    "agent.trust.root": "a new root is kept after a failure; no link leads to it yet",
    "agent.import.laid_out": "the files of an import are laid out aside; nobody has judged them",
    "agent.import.verified": "they are verified where they lie; nothing is in its place yet",
    "agent.import.placed": "they are in their place; nothing in them is believed yet",
    "agent.budget.reserved": "bytes that may now be received are counted as spent for good",
    "agent.download.received": "bytes of an artifact have arrived; they are not written yet",
    "agent.download.written": "bytes of an artifact are in its .part file",
    "agent.download.copied": "a chunk of an older file is in the .part file",
    "agent.download.verified": "a .part file is whole and verified; it is not durable yet",
    "agent.download.synced": "a .part file is durable; it does not have its final name yet",
    "agent.download.renamed": "an artifact has its final name, which is not durable yet",
    "agent.update.store": "what became of an update is about to be stored",
    "agent.update.stored": "it is stored; nothing has been done or said about it yet",
    "agent.update.fetched": "everything of an update is downloaded; that is not stored yet",
    "agent.update.hand_over": "the runtime is about to be given a release, or told to go back",
    "agent.update.handed_over": "the runtime has taken it; that is not stored yet",
    "agent.update.abort": "the runtime is about to be told to let go of a release",
    "agent.update.aborted": "it has been told; that is not stored yet",
    "agent.update.report": "the fleet is about to be told of a state",
    "agent.update.reported": "the outbox has it; that is not stored yet",
}
"""Every failpoint and the moment it stands for."""

_ENTRY: Final = re.compile(
    r"(?P<name>[a-z_.]+)=(?P<action>kill|error|full|hang|jump)(:(?P<shift>[^@]+))?(@(?P<time>[1-9][0-9]{0,8}))?"
)
_BOOT_ID: Final = re.compile(r"boot_id=(?P<name>[a-z0-9-]{1,64})")
_STANDARD_ERROR: Final = 2
_ERRORS: Final = {"error": errno.EIO, "full": errno.ENOSPC}


@dataclass(slots=True)
class _Trap:
    """What waits at one failpoint.

    Attributes:
        action: What it does.
        only: Which time it acts, from 1; 0: every time.
        shift_s: How far the wall clock jumps, in seconds.
    """

    action: str
    only: int
    shift_s: float = 0.0


@dataclass(slots=True)
class Failpoints:
    """What is set, and how often each failpoint has been passed.

    Attributes:
        traps: What waits, by name of the failpoint; empty: everything is off.
        shift_s: How far the wall clock has jumped, in seconds.
        boot_id: What this boot of the device is called; empty: what Linux calls it.
    """

    traps: dict[str, list[_Trap]] = field(default_factory=dict)
    shift_s: float = 0.0
    boot_id: str = ""
    _passed: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    def passed(self, name: str) -> None:
        """Do what is set for a failpoint that the process comes to.

        Raises:
            OSError: ``error`` or ``full`` is set.
        """
        traps = self.traps.get(name)
        if traps is None:
            return
        with self._lock:
            count = self._passed[name] = self._passed.get(name, 0) + 1
            due = [trap for trap in traps if trap.only in {0, count}]
            self.shift_s += sum(trap.shift_s for trap in due)
        for trap in due:
            if trap.action == "kill":
                # What a queue writes to the log would die with the process.
                os.write(_STANDARD_ERROR, f"failpoint {name}: kill\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)
            _log.warning("failpoint %s: %s", name, trap.action)
            if trap.action in {"kill", "hang"}:
                threading.Event().wait()
            if trap.action in _ERRORS:
                code = _ERRORS[trap.action]
                raise OSError(code, f"{os.strerror(code)} (failpoint {name})")


def parse(text: str) -> Failpoints:
    """Read what ``$EDGE_RUNTIME_FAILPOINTS`` says.

    Args:
        text: As in the description of this module; empty: everything is off.

    Raises:
        ConfigError: An entry is not of that form, or names a failpoint that does not exist.
    """
    found = Failpoints()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        boot = _BOOT_ID.fullmatch(entry)
        if boot is not None:
            found.boot_id = boot["name"]
            continue
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ConfigError(
                f"${VARIABLE}: {entry!r} is not NAME=ACTION or NAME=ACTION@TIME, with an action of "
                "kill, error, full, hang and jump:SECONDS"
            )
        name, action = match["name"], match["action"]
        if name not in NAMES:
            raise ConfigError(
                f"${VARIABLE}: there is no failpoint {name!r}; there are {', '.join(NAMES)}"
            )
        if (action == "jump") != (match["shift"] is not None):
            raise ConfigError(f"${VARIABLE}: {entry!r}: jump, and only jump, takes seconds")
        shift_s = _seconds(match["shift"], entry) if action == "jump" else 0.0
        # A clock that jumps again and again would be another test than the one that was asked for.
        only = int(match["time"] or (1 if action == "jump" else 0))
        found.traps.setdefault(name, []).append(_Trap(action, only, shift_s))
    return found


def _seconds(text: str, entry: str) -> float:
    try:
        shift_s = float(text)
    except ValueError:
        shift_s = math.nan
    if not math.isfinite(shift_s):
        raise ConfigError(f"${VARIABLE}: {entry!r}: {text!r} is not a number of seconds")
    return shift_s


_set: Final = parse(os.environ.get(VARIABLE, ""))
if _set.traps or _set.boot_id:
    _log.warning("failpoints are set in $%s: this process may die on purpose", VARIABLE)


def failpoint(name: str) -> None:
    """Mark a place where a test may make the process fail; nothing happens otherwise.

    Args:
        name: One of ``NAMES``.

    Raises:
        OSError: A test asked for it.
    """
    if _set.traps:
        _set.passed(name)


async def reached(name: str) -> None:
    """Mark such a place on an event loop's thread, which must never hang: another one does.

    Args:
        name: One of ``NAMES``.

    Raises:
        OSError: A test asked for it.
    """
    if name not in _set.traps:
        return
    import asyncio  # noqa: PLC0415 - programs without a loop have failpoints too

    loop = asyncio.get_running_loop()
    passed: asyncio.Future[OSError | None] = loop.create_future()

    def tell(error: OSError | None) -> None:
        if not passed.done():
            passed.set_result(error)

    def run() -> None:
        error = None
        try:
            failpoint(name)
        except OSError as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="failpoint", daemon=True).start()
    error = await passed
    if error is not None:
        raise error


def are_set() -> bool:
    """Tell whether anything is set: the daemon says so loudly at its start."""
    return bool(_set.traps or _set.boot_id)


def boot_id() -> str:
    """Name the boot that a test pretends; empty: the real one."""
    return _set.boot_id


def wall_time() -> float:
    """Give the time of the wall clock in seconds since 1970, with the jumps of a test."""
    return time.time() + _set.shift_s
