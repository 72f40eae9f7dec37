"""Traffic that never stops while a release happens, and what came of every request of it."""

import contextlib
import http.client
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.daemons import Answer, UnixConnection

if TYPE_CHECKING:
    import subprocess

    from tests.release_device import Device

PAUSE_S: Final = 0.004  # between two requests of one client
GONE_S: Final = 10.0
"""Time for a process that was killed to be gone, after its connections were cut."""
CUT: Final = 0
_LOST: Final = -1
_OK: Final = 200
_RIGHT: Final = 1e-3


class Asked(NamedTuple):
    """What came of one request.

    Attributes:
        at_s: When it was sent, in seconds on the monotonic clock.
        status: Of the answer; 0: the daemon was killed or stopped meanwhile.
        version: That answered.
        is_right: Whether the numbers were.
        shown: Body of a bad answer, or what else went wrong.
    """

    at_s: float
    status: int
    version: str = ""
    is_right: bool = False
    shown: str = ""


Ask = Callable[["Device", int], Asked]
"""Sends one request and judges the answer; told the request's number, so that inputs differ."""


def numbers(count: int) -> tuple[float, float]:
    """Give a row of inputs: from 0 to 16 and from -8 to 8, hardly ever the same."""
    return (count * 7919 % 16000) / 1000.0, (count * 6271 % 16000) / 1000.0 - 8.0


def ask_json(device: "Device", count: int) -> Asked:
    """Send a JSON request on a connection of its own."""
    row = list(numbers(count))
    at_s = time.monotonic()
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": row}
    return judged(at_s, device.daemon.infer(device.model, [tensor]), row)


def judged(at_s: float, answer: Answer, row: Sequence[float]) -> Asked:
    """Say whether an answer in JSON is right.

    Args:
        at_s: When the request was sent.
        answer: What came back.
        row: What was asked.
    """
    if answer.status != _OK:
        return Asked(at_s, answer.status, shown=answer.body.decode(errors="replace"))
    body = answer.json()
    given = body["outputs"][0]["data"]
    is_right = len(given) == len(row) and all(
        abs(got - (each + 1)) < _RIGHT for got, each in zip(given, row, strict=True)
    )
    return Asked(at_s, _OK, body["model_version"], is_right, "" if is_right else f"{row} {given}")


class Traffic:
    """Clients that ask without a break while the daemon is up, each in a thread of its own.

    Args:
        device: Whose daemon.
        clients: What each one does.

    Attributes:
        asked: All that came back, in order of the answers.
    """

    def __init__(self, device: "Device", clients: Sequence[Ask]) -> None:
        self._device = device
        self._over = threading.Event()
        self.asked: list[Asked] = []
        self._killed: subprocess.Popen[bytes] | None = None
        self._threads = [
            threading.Thread(target=self._work, args=(ask, number * 1_000_003), daemon=True)
            for number, ask in enumerate(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, ask: Ask, count: int) -> None:
        while not self._over.wait(PAUSE_S):
            process = self._device.daemon.process
            if not self._device.is_up.wait(PAUSE_S) or process is not self._device.daemon.process:
                continue  # what a restart cuts is told by the process that was killed
            if process is self._killed:
                continue  # nobody is there before the next one
            count += 1
            self.asked.append(self._one(ask, count, process))

    def _one(self, ask: Ask, count: int, process: "subprocess.Popen[bytes]") -> Asked:
        at_s = time.monotonic()
        try:
            return ask(self._device, count)
        except Exception as error:  # noqa: BLE001 - told: a thread that ends would tell nothing
            is_cut = isinstance(error, (OSError, http.client.HTTPException))
            if is_cut and self._has_gone(process):
                return Asked(at_s, CUT)
            return Asked(at_s, _LOST, shown=f"{type(error).__name__}: {error}")

    def _has_gone(self, process: "subprocess.Popen[bytes]") -> bool:
        """Tell whether a daemon was killed or told to stop, however late this is asked."""
        end_s = time.monotonic() + GONE_S
        while not self._is_over(process):  # a stop may come between the look at is_up and this
            if process.poll() is not None:
                if process.returncode == -signal.SIGKILL:
                    # Not ``is_up.clear()``: the next daemon may be up by now.
                    self._killed = process
                    return True
                return self._is_over(process)
            is_alive = self._answers() and process.poll() is None  # so it was before, too
            if is_alive or time.monotonic() > end_s:
                return self._is_over(process)
            time.sleep(PAUSE_S)
        return True

    def _answers(self) -> bool:
        connection = UnixConnection(self._device.daemon.socket, 1.0)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.request("GET", "/v2/health/live")
            return bool(connection.getresponse().status)
        return False

    def _is_over(self, process: "subprocess.Popen[bytes]") -> bool:
        return not self._device.is_up.is_set() or process is not self._device.daemon.process

    def end(self) -> None:
        """Stop asking."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def by_version(self, since_s: float = 0.0) -> dict[str, int]:
        """Count the right answers by version.

        Args:
            since_s: Only of requests that were sent later, on the monotonic clock.
        """
        counts: dict[str, int] = {}
        for each in list(self.asked):
            if each.is_right and each.at_s >= since_s:
                counts[each.version] = counts.get(each.version, 0) + 1
        return counts

    def faults(self) -> list[Asked]:
        """List requests that failed without a kill, and wrong answers."""
        return [each for each in list(self.asked) if each.status != CUT and not each.is_right]
