"""What comes over the wire is counted, and is never more or less than it should be."""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from agent.download.notices import Meter, Progress
from agent.download.pace import TokenBucket
from agent.download.ranges import Asked, UnusableAnswerError, WrongFileError
from agent.download.wire import Wire
from agent.errors import CanceledError, NetworkError

PART = Asked(10, 20, 100)
GOOD = {"content-range": "bytes 10-19/100"}


@dataclass
class FakeAnswer:
    """An answer of fixed blocks."""

    status: int
    headers: Mapping[str, str]
    blocks: Sequence[bytes]

    def chunks(self) -> Iterator[bytes]:
        """Give them."""
        yield from self.blocks


@dataclass
class FakeWeb:
    """Always the same answer."""

    answer: FakeAnswer
    asked: list[Mapping[str, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def get(
        self, url: str, *, headers: Mapping[str, str], limit_bytes: int
    ) -> Iterator[FakeAnswer]:
        """Answer."""
        assert url
        assert limit_bytes == PART.size
        self.asked.append(headers)
        yield self.answer

    def abort(self) -> None:
        """Nobody waits here."""


class Listener:
    """A wire and what it told."""

    def __init__(self, *blocks: bytes, headers: Mapping[str, str] = GOOD, rate: int = 0) -> None:
        self.spent: list[int] = []
        self.told: list[Progress] = []
        self.cancelled = threading.Event()
        self.now_s = 0.0
        self.web = FakeWeb(FakeAnswer(206, headers, blocks))
        self.wire = Wire(
            self.web,
            self.spent.append,
            TokenBucket(rate, 0.0),
            Meter(self.told.append, 100, 0.0),
            cancelled=self.cancelled,
            monotonic_s=lambda: self.now_s,
        )

    def take(self, url: str = "http://x/y") -> bytes:
        """Read everything."""
        with self.wire.receive(url, PART) as (placed, blocks):
            assert placed.begin == PART.begin
            return b"".join(blocks)

    def call_off(self) -> None:
        """Call it off when the first bytes are there."""
        with self.wire.receive("http://x/y", PART) as (_, blocks):
            for _ in blocks:
                self.cancelled.set()


def test_bytes_are_counted_before_and_when_they_come() -> None:
    listener = Listener(b"12345", b"67890")
    assert listener.take() == b"1234567890"
    assert listener.spent == [0, 5, 5]
    assert listener.web.asked == [PART.headers()]


def test_nothing_beyond_the_end_is_given_but_it_is_counted() -> None:
    listener = Listener(b"12345", b"67890!")
    taken: list[bytes] = []
    with (
        pytest.raises(WrongFileError),
        listener.wire.receive("http://x/y", PART) as (_, blocks),
    ):
        taken.extend(blocks)
    assert taken == [b"12345"]
    assert sum(listener.spent) == 11


def test_an_answer_that_ends_early_is_to_be_asked_again() -> None:
    listener = Listener(b"12345")
    with pytest.raises(NetworkError, match="ended at byte 15"):
        listener.take()
    assert sum(listener.spent) == 5


def test_an_answer_that_is_of_no_use_is_not_read() -> None:
    listener = Listener(b"12345", headers={})
    with pytest.raises(UnusableAnswerError):
        listener.take()
    assert listener.spent == []


def test_files_on_this_disk_cost_nothing() -> None:
    listener = Listener(b"1234567890", rate=1)
    assert listener.take("file:///x/y") == b"1234567890"
    assert listener.spent == []


def test_a_download_that_was_called_off_asks_nobody() -> None:
    listener = Listener(b"1234567890")
    listener.cancelled.set()
    with pytest.raises(CanceledError):
        listener.take()
    assert listener.web.asked == []


def test_what_had_come_when_it_was_called_off_is_counted() -> None:
    listener = Listener(b"12345", b"67890")
    with pytest.raises(CanceledError):
        listener.call_off()
    assert sum(listener.spent) == 10
