"""The process of a trial, seen from the daemon: start it, ask it, watch it, be rid of it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from typing import Final

from edge_runtime import idle_process
from edge_runtime.errors import ProtocolError
from edge_runtime.release.trial_limits import DOING_BYTES, Kind, Usage, death, queued_s, usage
from edge_runtime.release.trial_messages import (
    ACTIVE,
    ANSWER_BYTES_MAX,
    CANDIDATE,
    HEAD,
    Answer,
    Order,
    frame,
    lengths,
    read_answer,
)

CHILD: Final = "edge_runtime.release.trial_child"

_LOOK_S: Final = 0.05
_REAP_S: Final = (0.001, 0.05)
_CHUNK_BYTES: Final = 2**18
_STARVED_SHARE: Final = 0.5
_QUEUED_SHARE: Final = 0.25
_LINE_BYTES: Final = 4096
_LINE_SIGNS: Final = 300


class TrialDiedError(Exception):
    """The process did not answer, and is no more.

    Attributes:
        kind: How it came to that.
        why: The same for a person: what follows "the candidate".
        doing: What it was doing, and of which side; empty: it had not begun.
        resident_bytes: Memory that it held when it was last looked at; 0: it was not.
    """

    def __init__(self, kind: Kind, why: str, doing: str, resident_bytes: int = 0) -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why
        self.doing = doing
        self.resident_bytes = resident_bytes


class TrialProcess:
    """A child process that answers one order at a time.

    Everything happens on the event loop's thread and nothing there waits, but for the start, which
    takes a millisecond: the process must die with the thread that started it.

    Args:
        memory_bytes: Resident memory it may hold; more, and it is killed.
        cpu_s: CPU time it may use in its life; 0: any.
        is_idle: Whether it runs only while nobody else wants to.

    Raises:
        OSError: The system has no room for one more process.
    """

    def __init__(self, *, memory_bytes: int, cpu_s: float = 0.0, is_idle: bool = True) -> None:
        self._memory_bytes = memory_bytes
        self._resident_bytes = 0
        self._killed: tuple[Kind, str] | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        with contextlib.ExitStack() as undo:
            # Files in memory: reading them costs nothing until there is something to explain.
            self._printed = _opened(undo, "printed")
            self._doing = _opened(undo, "doing")
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    idle_process.command(
                        CHILD,
                        str(theirs.fileno()),
                        str(self._doing),
                        str(memory_bytes),
                        str(cpu_s),
                        is_idle=is_idle,
                    ),
                    stdin=subprocess.DEVNULL,
                    stdout=self._printed,
                    stderr=self._printed,
                    pass_fds=(theirs.fileno(), self._doing),
                )
            ours.setblocking(False)  # noqa: FBT003 - the library's way
            self._ours = ours
            undo.pop_all()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked; an order that failed ends it."""
        return self._killed is None and self._process.returncode is None

    @property
    def doing(self) -> str:
        """What it says that it is doing."""
        if self._doing < 0:
            return ""
        return os.pread(self._doing, DOING_BYTES, 0).rstrip(b"\0").decode("utf-8", "replace")

    def usage(self) -> Usage | None:
        """Look at what it holds and has used; ``None``: it is gone."""
        return usage(self.pid) if self._process.returncode is None else None

    async def ask(
        self,
        order: Order,
        tensors: Sequence[bytes | memoryview] = (),
        *,
        within_s: float,
        starved_after_s: float = 0.0,
    ) -> Answer:
        """Give an order and wait for what comes of it.

        Args:
            order: What to do.
            tensors: The bytes that belong to it.
            within_s: Time it may take, in seconds awake.
            starved_after_s: When to give up if it got less than half of a CPU until then; 0: not
                before ``within_s``.

        Raises:
            TrialDiedError: There is no answer and no process any more.
            InvalidTensorError: The order is too large; nothing was sent.
        """
        exchange = asyncio.ensure_future(self._exchange(order, tensors))
        try:
            await self._watched(exchange, within_s, starved_after_s)
            return exchange.result()
        except (OSError, EOFError, ProtocolError) as error:
            if isinstance(error, ProtocolError):
                self._kill("broken", f"gave an answer that is none ({error.message})")
            raise await self._died() from error
        except BaseException:
            self._kill("ended", "was given up")
            raise
        finally:
            exchange.cancel()

    async def close(self) -> None:
        """Be rid of the process, whatever it is doing; may be called again."""
        self._kill("ended", "was given up")
        await asyncio.shield(asyncio.ensure_future(self._buried()))

    # -- asking ----------------------------------------------------------------------------------

    async def _exchange(self, order: Order, tensors: Sequence[bytes | memoryview]) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(sock=self._ours)
        reader, writer = self._streams
        writer.write(frame(order, sum(map(len, tensors))))
        for part in tensors:
            for start in range(0, len(part), _CHUNK_BYTES):
                writer.write(part[start : start + _CHUNK_BYTES])
                await writer.drain()
        head = await reader.readexactly(HEAD.size)
        header_bytes, _ = lengths(head, ANSWER_BYTES_MAX, 0)
        return read_answer(await reader.readexactly(header_bytes))

    async def _watched(
        self, exchange: "asyncio.Future[Answer]", within_s: float, starved_after_s: float
    ) -> None:
        """Wait until it has an answer or is at an end, and see to it that it keeps its limits."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()  # does not run while the device sleeps
        first = self.usage() or Usage(0, 0.0)
        first_queued_s = queued_s(self.pid) or 0.0
        while not (await asyncio.wait({exchange}, timeout=_LOOK_S))[0]:
            now = self.usage()
            if now is None or self._killed is not None:
                continue  # it is about to be gone
            self._resident_bytes = now.resident_bytes
            passed_s = loop.time() - began_s
            if now.resident_bytes > self._memory_bytes:
                self._kill(
                    "memory",
                    f"needs more than the {self._memory_bytes} bytes of memory that it may have",
                )
            if passed_s > (starved_after_s or within_s) and self._is_starved(
                now.cpu_s - first.cpu_s, first_queued_s, passed_s
            ):
                self._kill(
                    "starved",
                    f"came to no end in {passed_s:.0f} s, of which it had a CPU for "
                    f"{now.cpu_s - first.cpu_s:.1f} s",
                )
            elif passed_s > within_s:
                self._kill("hung", f"hung: it came to no end within {within_s:.0f} s")

    def _is_starved(self, cpu_s: float, first_queued_s: float, passed_s: float) -> bool:
        """Tell who waits for a CPU from who waits for something that will never come."""
        if cpu_s > _STARVED_SHARE * passed_s:
            return False
        waited_s = queued_s(self.pid)
        return waited_s is None or waited_s - first_queued_s > _QUEUED_SHARE * passed_s

    # -- its end -------------------------------------------------------------------------------

    def _kill(self, kind: Kind, why: str) -> None:
        """End the process; the first reason counts."""
        if self._killed is None and self._process.poll() is None:
            self._killed = kind, why
            self._process.send_signal(signal.SIGKILL)

    async def _died(self) -> TrialDiedError:
        """Wait for the end of a process that closed its side, and say how it came to it."""
        if self._killed is None:
            await self._waited(5.0)
        doing = self.doing
        plain = doing.removeprefix(f"{CANDIDATE}: ").removeprefix(f"{ACTIVE}: ")
        self._kill("broken", "stopped answering")
        if self._killed is not None:
            kind, why = self._killed
            why = f"{why} while {plain}" if plain else why
        else:
            kind, why = death(self._process.returncode, plain, self._last_line())
        await self._buried()
        return TrialDiedError(kind, why, doing, self._resident_bytes)

    async def _buried(self) -> None:
        """Close everything that belongs to it; its memory is the system's again."""
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()
        self._ours.close()
        await self._waited(float("inf"))
        files, self._printed, self._doing = (self._printed, self._doing), -1, -1
        for file in files:
            if file >= 0:
                os.close(file)

    async def _waited(self, within_s: float) -> None:
        pause_s, longest_s = _REAP_S
        while self._process.poll() is None and within_s > 0:
            await asyncio.sleep(pause_s)
            within_s -= pause_s
            pause_s = min(2 * pause_s, longest_s)

    def _last_line(self) -> str:
        size = os.fstat(self._printed).st_size
        tail = os.pread(self._printed, _LINE_BYTES, max(0, size - _LINE_BYTES))
        lines = tail.decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:_LINE_SIGNS] if lines else ""


def _opened(undo: contextlib.ExitStack, name: str) -> int:
    file = os.memfd_create(f"edge-runtime-trial-{name}", os.MFD_CLOEXEC)
    undo.callback(os.close, file)
    return file
