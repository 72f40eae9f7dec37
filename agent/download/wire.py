"""Bytes of one answer: counted, within the bandwidth, and given up at once when called off."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol, Self

from agent.download.notices import Meter
from agent.download.pace import TokenBucket
from agent.download.ranges import Asked, Placed, WrongFileError, place
from agent.errors import CanceledError, NetworkError

FREE: Final = "file:"
"""Begins URLs of files on this disk, which cost nothing."""
WATCH_S: Final = 0.5
ABORT_S: Final = 0.05


class Answer(Protocol):
    """What a server answered; see ``agent.trust.http``."""

    @property
    def status(self) -> int:
        """Its HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Give its body, as it comes."""
        ...


class Web(Protocol):
    """The agent's HTTP; see ``agent.trust.http``."""

    def get(
        self, url: str, *, headers: Mapping[str, str], limit_bytes: int
    ) -> AbstractContextManager[Answer]:
        """Ask for something.

        Raises:
            NetworkError: It may work later.
            RefusedError: The server refuses.
            TooLargeError: The body is over the limit.
        """
        ...

    def abort(self) -> None:
        """End the answer that another thread waits for."""
        ...


class Wire:
    """How the bytes of one artifact come; in a ``with`` block it can be called off at any time.

    Args:
        web: Asks servers.
        spend: Called with the size of whatever was received, of use or not; with 0 before that.
        bucket: The bandwidth limit, shared by all artifacts.
        meter: Is told what comes.
        cancelled: Ends everything when it is set.
        monotonic_s: A clock that only goes forwards, in seconds.
    """

    def __init__(
        self,
        web: Web,
        spend: Callable[[int], None],
        bucket: TokenBucket,
        meter: Meter,
        *,
        cancelled: threading.Event,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._web = web
        self._spend = spend
        self._bucket = bucket
        self._meter = meter
        self._cancelled = cancelled
        self._monotonic_s = monotonic_s
        self._waits = threading.Event()
        self._is_over = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="download-canceled", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._waits.set()

    def alive(self) -> None:
        """Go on.

        Raises:
            CanceledError: It was called off.
        """
        if self._cancelled.is_set():
            raise CanceledError("the download was called off; what is there of it is kept")

    def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            CanceledError: It was called off meanwhile.
        """
        self._cancelled.wait(seconds)
        self.alive()

    def progress(self, done: int) -> None:
        """Note that so many bytes of the file are there."""
        self._meter.note(0, done, self._monotonic_s())

    @contextlib.contextmanager
    def receive(self, url: str, asked: Asked) -> Iterator[tuple[Placed, Iterator[bytes]]]:
        """Ask a server for a part of a file.

        Args:
            url: Of the file.
            asked: The part.

        Yields:
            Where the answer's bytes belong, and them, never more than belong there.

        Raises:
            CanceledError: It was called off.
            NetworkError: It may work later.
            RefusedError: The server refuses.
            TooLargeError: The server has more bytes than the file.
            UnusableAnswerError: The answer does not hold what was asked for.
        """
        self.alive()
        self._waits.set()
        try:
            with self._web.get(url, headers=asked.headers(), limit_bytes=asked.size) as answer:
                placed = place(answer.status, answer.headers, asked)
                if not url.startswith(FREE):
                    self._spend(0)
                yield placed, self._metered(answer, placed, is_free=url.startswith(FREE))
        except NetworkError:
            self.alive()  # or it is the network's error that we made ourselves
            raise
        finally:
            self._waits.clear()

    def _metered(self, answer: Answer, placed: Placed, *, is_free: bool) -> Iterator[bytes]:
        at = placed.begin
        for block in answer.chunks():
            if not is_free:
                self._spend(len(block))
            self.alive()
            now_s = self._monotonic_s()
            at += len(block)
            if at > placed.end:
                raise WrongFileError(f"it does not end at byte {placed.end}")
            yield block
            self._meter.note(0 if is_free else len(block), at, now_s)
            wait_s = 0.0 if is_free else self._bucket.take(len(block), now_s)
            if wait_s > 0 and at < placed.end:
                self.pause(wait_s)
        if at < placed.end:
            raise NetworkError(f"the answer ended at byte {at}, not at {placed.end}")

    def _watch(self) -> None:
        """Wake up the thread that waits for a server as soon as the download is called off.

        Sleeps while no server is waited for: a pause may last for hours.
        """
        while not self._is_over:
            self._waits.wait()
            if self._cancelled.wait(WATCH_S) and self._waits.is_set() and not self._is_over:
                self._web.abort()
                time.sleep(ABORT_S)
