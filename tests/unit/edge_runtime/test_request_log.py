"""Which requests get a record, what is in it, and what happens when there are too many."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from edge_runtime.access import Peer
from edge_runtime.api import request_log
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.request_log import NEVER, NoLog, RequestLog
from edge_runtime.errors import InvalidTensorError, ModelFailedError, OverloadedError
from edge_runtime.metrics import ServerStatistics
from edge_runtime.protocol.messages import InferRequest, Spent
from edge_runtime.settings import Log

if TYPE_CHECKING:
    import asyncio

PEER = Peer(1000, 100, 4711, "unix", frozenset({100}))


@dataclass
class Client:
    """A connection whose answers are noted as a real one does."""

    log: NoLog
    peer: Peer = PEER
    is_draining: bool = False

    def answered(self, exchange: Exchange) -> None:
        """Note an answer."""
        if exchange.status >= self.log.from_status:
            self.log.note(exchange)


@dataclass
class Written:
    """What was written.

    Attributes:
        records: In their order.
        is_full: Whether nothing more is taken.
    """

    records: list[logging.LogRecord] = field(default_factory=list)
    is_full: bool = False

    def put(self, record: logging.LogRecord) -> bool:
        """Take a record."""
        if not self.is_full:
            self.records.append(record)
        return not self.is_full

    def fields(self) -> list[dict[str, Any]]:
        """Give the fields of each."""
        return [record.fields for record in self.records]  # type: ignore[attr-defined]


@dataclass(eq=False)
class Timer:
    """What is called once it is due."""

    due_s: float
    call: Callable[[], None]
    timers: list["Timer"]

    def cancel(self) -> None:
        """Forget it."""
        self.timers.remove(self)


@dataclass
class Loop:
    """As much of an event loop as a log needs: its clock, moved by hand, and timers."""

    now_s: float = 1000.0
    timers: list[Timer] = field(default_factory=list)
    is_closed: bool = False

    def time(self) -> float:
        """Tell the time."""
        return self.now_s

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Set a timer."""
        self.timers.append(Timer(self.now_s + delay_s, call, self.timers))
        return self.timers[-1]

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        """Call it, or say that the loop is closed."""
        if self.is_closed:
            raise RuntimeError
        call()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds
        for timer in [each for each in self.timers if each.due_s <= self.now_s]:
            timer.cancel()
            timer.call()


@dataclass
class Setting:
    """A log and what it wrote."""

    loop: Loop
    statistics: ServerStatistics
    written: Written
    log: RequestLog

    def exchange(self, asked: InferRequest | None = None, target: bytes = b"/m") -> Exchange:
        """Make a request."""
        made = Exchange(Client(self.log))
        made.method, made.target, made.infer, made.body = b"POST", target, asked, b"12345"
        return made


@pytest.fixture
def setting() -> Setting:
    loop, statistics, written = Loop(), ServerStatistics(0.0), Written()
    log = RequestLog(cast("asyncio.AbstractEventLoop", loop), statistics, written.put)
    log.configure(Log(requests="all"))
    return Setting(loop, statistics, written, log)


def test_a_log_that_wants_nothing_is_never_asked() -> None:
    assert NoLog().from_status == NEVER > 599


@pytest.mark.parametrize(
    ("requests", "level", "statuses"),
    [
        ("off", "info", []),
        ("failures", "info", [400, 503, 500]),
        ("failures", "warning", [400, 503, 500]),
        ("failures", "error", [500]),
        ("all", "info", [200, 400, 503, 500]),
        ("all", "warning", [400, 503, 500]),
    ],
)
def test_the_settings_say_which_requests_get_a_record(
    setting: Setting,
    requests: Literal["off", "failures", "all"],
    level: Literal["info", "warning", "error"],
    statuses: list[int],
) -> None:
    setting.log.configure(Log(requests=requests, level=level))
    setting.exchange().json({})
    for status in (400, 503, 500):
        setting.exchange().error(status, "no")
    assert [fields["status"] for fields in setting.written.fields()] == statuses


def test_an_answered_prediction_has_a_full_record(setting: Setting) -> None:
    asked = InferRequest("digits", "", "mine")
    asked.spent = Spent("3", 0, 2, 1_500_000, 2_000_000)
    setting.exchange(asked, b"/v2/models/digits/infer?token=secret").json({"ok": True})
    (record,) = setting.written.records
    assert (record.levelno, record.getMessage()) == (logging.INFO, "request answered")
    (fields,) = setting.written.fields()
    assert fields.pop("duration_ms") > 0
    assert fields == {
        "request_id": "mine",
        "status": 200,
        "method": "POST",
        "path": "/v2/models/digits/infer",
        "model": "digits",
        "version": "3",
        "rows": 2,
        "queue_ms": 1.5,
        "compute_ms": 2.0,
        "caller": "unix",
        "uid": 1000,
        "gid": 100,
        "pid": 4711,
        "bytes_in": 5,
        "bytes_out": len('{"ok":true}'),
    }


def test_a_failure_says_why_and_how_bad_it_is(setting: Setting) -> None:
    for error in (InvalidTensorError("wrong"), OverloadedError("full"), ModelFailedError("broken")):
        setting.exchange(InferRequest("m", "7")).refused(error)
    levels = [record.levelno for record in setting.written.records]
    assert levels == [logging.WARNING, logging.WARNING, logging.ERROR]
    fields = setting.written.fields()
    assert [each["error"] for each in fields] == ["wrong", "full", "broken"]
    assert all((each["model"], each["version"]) == ("m", "7") for each in fields)
    assert len({each["request_id"] for each in fields}) == 3


def test_what_a_library_may_have_quoted_is_for_the_caller_only(setting: Setting) -> None:
    error = ModelFailedError("the model failed while running: node 'a': 987654321 is out of range")
    error.quoted = "987654321 is out of range"
    exchange = setting.exchange(InferRequest("m"))
    exchange.refused(error)
    assert isinstance(exchange.answer, bytes)
    assert b"987654321" in exchange.answer
    (fields,) = setting.written.fields()
    assert fields["error"].startswith("the model failed while running: node 'a': (not logged")
    assert "987654321" not in str(fields)


def test_a_probe_that_is_told_not_ready_has_not_failed(setting: Setting) -> None:
    setting.log.configure(Log())
    setting.exchange().json({"ready": False}, 400)
    assert not setting.written.records


def test_texts_of_the_caller_are_cut(setting: Setting) -> None:
    asked = InferRequest("m" * 5000, "1" * 5000, "i" * 5000)
    setting.exchange(asked, b"/" + b"p" * 5000).error(400, "e" * 5000)
    (fields,) = setting.written.fields()
    assert max(len(str(value)) for value in fields.values()) <= 2 * request_log.TEXT_CHARS_MAX


@pytest.mark.parametrize(
    "mark", ["\n", "\r", "\x1b[2J", "\x7f", "\x85", "\x9b2J", "\u2028", "\u202e", "\u200b"]
)
def test_texts_of_the_caller_forge_no_line_and_command_no_terminal(
    setting: Setting, mark: str
) -> None:
    said = f"a{mark}2026-01-01 CRITICAL all is lost"
    asked = InferRequest(said, said, said)
    target = b"/" + said.encode("latin-1", "ignore")
    setting.exchange(asked, target).error(400, f"the inputs do not match: unknown {said}")
    (fields,) = setting.written.fields()
    assert all(str(value).isprintable() for value in fields.values())
    assert fields["model"] != said
    assert "all is lost" in fields["model"]


def test_escapes_do_not_lengthen_a_text_beyond_its_limit(setting: Setting) -> None:
    asked = InferRequest("\u2028" * 5000)
    setting.exchange(asked).error(400, "\x00" * 5000)
    (fields,) = setting.written.fields()
    assert max(len(str(value)) for value in fields.values()) <= 2 * request_log.TEXT_CHARS_MAX


def test_large_answers_are_counted_without_their_head(setting: Setting) -> None:
    exchange = setting.exchange()
    exchange.send(200, [b"a" * 100_000, memoryview(b"b" * 7)])
    head = setting.exchange()
    head.method = b"HEAD"
    head.json({"much": "text"})
    assert [fields["bytes_out"] for fields in setting.written.fields()] == [100_007, 0]


def test_a_client_in_a_loop_fills_no_disk_and_hides_no_other_failure(setting: Setting) -> None:
    setting.log.configure(Log(failures_per_minute=3))
    for _ in range(1000):
        setting.exchange().error(400, "again")
    setting.exchange().error(500, "other")
    statuses = [fields["status"] for fields in setting.written.fields()]
    assert statuses == [400, 400, 400, 500]
    assert setting.statistics.records_limited == 997
    setting.loop.advance(60)
    told = setting.written.fields()[4:]
    assert told == [{"left_out": 997, "left_out_by": {"400": 997}}]
    setting.exchange().error(400, "in the next minute")
    assert setting.written.fields()[-1]["error"] == "in the next minute"
    assert not setting.loop.timers


def test_what_was_left_out_is_told_once_it_can_be_written(setting: Setting) -> None:
    setting.written.is_full = True
    setting.exchange().json({})
    setting.loop.advance(60)
    setting.loop.advance(60)
    assert not setting.written.records
    setting.written.is_full = False
    setting.loop.advance(60)
    assert setting.written.fields() == [{"left_out": 1, "left_out_by": {"queue": 1}}]
    assert not setting.loop.timers


def test_records_that_the_log_does_not_take_are_counted_and_told(setting: Setting) -> None:
    setting.written.is_full = True
    for _ in range(5):
        setting.exchange().json({})
    assert setting.statistics.records_dropped == 5
    setting.written.is_full = False
    setting.log.close()
    assert setting.written.fields() == [{"left_out": 5, "left_out_by": {"queue": 5}}]


def test_at_the_end_what_was_left_out_is_told_even_where_requests_fill_the_log(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    setting.written.is_full = True
    setting.exchange().json({})
    setting.log.close()
    (told,) = caplog.records
    fields: dict[str, Any] = told.fields  # type: ignore[attr-defined]
    assert fields == {"left_out": 1, "left_out_by": {"queue": 1}}
    assert not setting.loop.timers


def test_records_of_all_else_that_had_no_place_are_counted_and_told(setting: Setting) -> None:
    setting.log.lost()
    assert setting.statistics.records_dropped == 1
    setting.loop.advance(60)
    assert setting.written.fields() == [{"left_out": 1, "left_out_by": {"queue": 1}}]
    setting.loop.is_closed = True
    setting.log.lost()
    assert setting.statistics.records_dropped == 1


def test_a_closed_log_wants_nothing(setting: Setting) -> None:
    setting.log.close()
    setting.exchange().error(500, "late")
    assert not setting.written.records


def test_a_defect_in_the_log_does_not_reach_the_request(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = setting.exchange()
    exchange.infer = "no request"  # type: ignore[assignment]
    exchange.json({})
    assert exchange.answer is not None
    assert "nobody foresaw" in caplog.text


def test_nothing_wakes_the_process_while_nothing_is_left_out(setting: Setting) -> None:
    setting.exchange().error(400, "once")
    assert not setting.loop.timers
