"""A disk that does not answer holds up nobody for longer than they want to wait."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Awaitable
from functools import partial

import pytest

from edge_runtime.errors import StorageError
from edge_runtime.release import disk_thread
from edge_runtime.release.disk_thread import DiskThread, aside

SOON_S = 0.05
LONG_S = 60.0
FOREVER = """
import asyncio, threading
from edge_runtime.release.disk_thread import DiskThread, aside

async def main():
    thread = DiskThread("disk")
    thread.patiently(threading.Event().wait)
    waiting = asyncio.ensure_future(aside(threading.Event().wait))
    await asyncio.sleep(0)
    thread.end()
    waiting.cancel()
    print("over")

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time; who asks ``disk`` waits for one that hangs."""
    monkeypatch.setattr(disk_thread, "ANSWER_S", LONG_S)


class Hanging(threading.Event):
    """A disk that answers once this is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._monkeypatch = monkeypatch

    async def gives_up(self, work: Awaitable[object]) -> None:
        """See that who asks it is told that it does not answer."""
        with self._monkeypatch.context() as patch:
            patch.setattr(disk_thread, "ANSWER_S", SOON_S)
            with pytest.raises(StorageError, match="the disk has not answered"):
                await work


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Hanging:
    """It answers once this is set."""
    return Hanging(monkeypatch)


def test_what_is_done_comes_back_in_order() -> None:
    done: list[int] = []

    async def work() -> list[int]:
        thread = DiskThread("disk")
        results = [thread.patiently(partial(done.append, number)) for number in (1, 2)]
        last = await thread(lambda: len(done))
        await asyncio.gather(*results)
        thread.end()
        return [*done, last]

    assert asyncio.run(work()) == [1, 2, 2]


def test_errors_come_back_and_the_thread_goes_on() -> None:
    async def work() -> int:
        thread = DiskThread("disk")
        with pytest.raises(ZeroDivisionError):
            await thread(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await aside(lambda: 1 // 0)
        try:
            return await thread(lambda: 7)
        finally:
            thread.end()

    assert asyncio.run(work()) == 7


def test_who_waits_is_told_that_the_disk_does_not_answer_and_the_next_one_at_once(
    disk: Hanging,
) -> None:
    began = threading.Event()

    def hang() -> None:
        began.set()
        disk.wait()

    async def work() -> None:
        thread = DiskThread("disk")
        await disk.gives_up(thread(hang))
        thread.patiently(hang)  # a thread that was late never began the first one
        assert await asyncio.to_thread(began.wait, LONG_S)
        assert thread._present is not None
        thread._present.began_s -= 2 * LONG_S  # for longer than anybody waits
        tries = asyncio.ensure_future(thread(lambda: None))
        done, _ = await asyncio.wait((tries,), timeout=LONG_S / 2)
        assert done
        with pytest.raises(StorageError, match="the disk has not answered"):
            await tries
        disk.set()
        thread.end()

    asyncio.run(work())


def test_what_was_given_up_before_it_began_is_never_done(disk: Hanging) -> None:
    done: list[str] = []

    async def work() -> None:
        thread = DiskThread("disk")
        first = thread.patiently(disk.wait)
        await disk.gives_up(thread(lambda: done.append("given up")))
        disk.set()
        await first
        await thread(lambda: done.append("asked later"))
        thread.end()

    asyncio.run(work())
    assert done == ["asked later"]


def test_who_is_patient_gets_it_when_the_disk_wakes_up(disk: Hanging) -> None:
    async def work() -> str:
        thread = DiskThread("disk")
        blocked = thread.patiently(disk.wait)
        patient = thread.patiently(lambda: "stored")
        await disk.gives_up(thread(lambda: None))
        assert not patient.done()
        disk.set()
        await blocked
        thread.end()
        return await patient

    assert asyncio.run(work()) == "stored"


def test_a_thread_of_its_own_holds_up_no_other(disk: Hanging) -> None:
    async def work() -> int:
        with pytest.raises(StorageError, match="the disk has not answered"):
            await aside(disk.wait, within_s=SOON_S)
        found = await aside(lambda: 7, within_s=LONG_S)
        disk.set()
        return found

    assert asyncio.run(work()) == 7


def test_a_process_ends_while_its_disk_hangs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FOREVER], capture_output=True, text=True, timeout=LONG_S, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
