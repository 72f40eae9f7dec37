"""The log's lines: one record one line, whatever is in it, and never a request held up."""

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.logs import RESERVED, RecordQueue, formatter, is_journal
from edge_runtime.settings import Log

TEXT = formatter(Log(), in_journal=False)
JSON = formatter(Log(format="json"), in_journal=False)
WAIT_S = 60.0
LARGE = 2**20  # more than a pipe holds
LOGGER = "edge_runtime.test_logs"
ANYTHING = st.text(st.characters(codec="utf-8"), max_size=30)


def record(message: str = "done", level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord(LOGGER, level, __file__, 1, message, None, None)
    if fields:
        made.fields = fields
    return made


@given(st.dictionaries(st.sampled_from(["model", "path", "error"]), ANYTHING))
def test_text_is_one_line_whatever_a_caller_chose(fields: dict[str, str]) -> None:
    made = record()
    made.fields = fields
    line = TEXT.format(made)
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert all(f" {key}=" in line for key in fields)


@given(ANYTHING, ANYTHING)
def test_json_is_one_object_a_line_and_reads_back(message: str, model: str) -> None:
    line = JSON.format(record(message, model=model, rows=3))
    assert "\n" not in line
    told = json.loads(line)
    assert list(told) == ["time", "level", "logger", "message", "model", "rows"]
    assert (told["message"], told["model"], told["rows"]) == (message, model, 3)
    assert (told["level"], told["logger"]) == ("info", LOGGER)
    assert told["time"].endswith("+00:00")


def test_text_quotes_only_what_needs_it() -> None:
    line = TEXT.format(record(model="digits", path="", error="no such input", id='a"b', rows=2))
    assert line.endswith('done model=digits path="" error="no such input" id="a\\"b" rows=2')


def test_a_traceback_stays_in_the_json_object() -> None:
    try:
        raise ValueError("broken")  # noqa: TRY301 - the traceback is what is tested
    except ValueError:
        made = record("failed", logging.ERROR)
        made.exc_info = sys.exc_info()
    assert "ValueError: broken" in json.loads(JSON.format(made))["exception"]
    assert "ValueError: broken" in TEXT.format(made)


@pytest.mark.parametrize(
    ("level", "priority"), [(10, 7), (20, 6), (30, 4), (40, 3), (50, 2), (25, 6)]
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_every_line_in_the_journal_has_its_priority(form: str, level: int, priority: int) -> None:
    made = record("first\nsecond", level)
    text = formatter(Log(format=form), in_journal=True).format(made)  # type: ignore[arg-type]
    assert all(line.startswith(f"<{priority}>") for line in text.splitlines())


def test_text_in_the_journal_leaves_the_time_to_the_journal() -> None:
    assert formatter(Log(), in_journal=True).format(record()) == f"<6>{LOGGER}: done"


def test_the_journal_is_known_by_the_stream_it_names() -> None:
    with Path(os.devnull).open("wb") as file:
        status = os.fstat(file.fileno())
        stream = f"{status.st_dev}:{status.st_ino}"
        assert is_journal(file.fileno(), {"JOURNAL_STREAM": stream})
        assert not is_journal(file.fileno(), {"JOURNAL_STREAM": f"{status.st_dev}:1"})
        assert not is_journal(file.fileno(), {"JOURNAL_STREAM": "nonsense"})
        assert not is_journal(file.fileno(), {})
    assert not is_journal(-1, {"JOURNAL_STREAM": "1:1"})


@dataclass
class Writing:
    """A queue, and the pipe that its thread writes into.

    Attributes:
        records: The queue.
        logger: A logger whose only handler it is.
        lost: Grows with every record of the logger's that had no place.
    """

    records: RecordQueue
    logger: logging.Logger
    lost: list[int]
    reads: int
    writes: int

    def block(self) -> None:
        """Have the thread write more than the pipe holds."""
        self.logger.info("x" * LARGE)
        assert select.select([self.reads], [], [], WAIT_S)[0]

    def lines(self) -> list[str]:
        """Let the thread end, and give what it wrote."""
        with ThreadPoolExecutor(1) as threads:
            text = threads.submit(self._text)
            assert self.records.finish(WAIT_S)
            os.close(self.writes)
            return text.result(WAIT_S).splitlines()

    def _text(self) -> str:
        return b"".join(iter(lambda: os.read(self.reads, LARGE), b"")).decode()


@pytest.fixture
def writing() -> Iterator[Callable[..., Writing]]:
    logger = logging.getLogger(LOGGER)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    made: list[Writing] = []

    def make(most: int = 1024, form: Literal["text", "json"] = "json") -> Writing:
        reads, writes = os.pipe()
        records = RecordQueue(writes, Log(format=form), most)
        records.start()
        logger.addHandler(records)
        made.append(Writing(records, logger, [], reads, writes))
        records.lost = lambda: made[-1].lost.append(1)
        return made[-1]

    yield make
    for each in made:
        logger.removeHandler(each.records)
        os.close(each.reads)  # which ends a write that waits
        with contextlib.suppress(OSError):
            each.records.finish(WAIT_S)
            os.close(each.writes)
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def messages(lines: list[str]) -> list[str]:
    return [json.loads(line)["message"][:20] for line in lines]


def test_records_of_requests_and_of_all_else_are_written_in_their_order(
    writing: Callable[..., Writing],
) -> None:
    log = writing()
    for number in range(0, 100, 2):
        assert log.records.put(record(str(number)))
        log.logger.info("%d", number + 1)
    assert messages(log.lines()) == [str(number) for number in range(100)]


def test_a_log_that_nobody_reads_costs_records_and_no_time(writing: Callable[..., Writing]) -> None:
    log = writing(most=2)
    log.block()
    assert [log.records.put(record(str(number))) for number in range(4)] == [True, True] + [
        False
    ] * 2
    for number in range(RESERVED + 3):  # requests do not crowd out what the daemon says of itself
        log.logger.warning("daemon %d", number)
    assert len(log.lost) == 3
    assert messages(log.lines()) == ["x" * 20, "0", "1"] + [
        f"daemon {number}" for number in range(RESERVED)
    ]


def test_the_end_does_not_wait_for_a_log_that_nobody_reads(writing: Callable[..., Writing]) -> None:
    log = writing(most=0)
    log.block()
    assert not log.records.finish(0.01)  # there is room for the end of the queue
    while not log.lost:
        log.logger.info("more")
    assert not log.records.finish(0.01)  # there is none


def test_a_record_is_as_it_was_when_it_was_logged(writing: Callable[..., Writing]) -> None:
    log = writing()
    log.block()
    told = ["before"]
    log.logger.info("it is %s", told)
    told[0] = "after"
    try:
        raise ValueError("broken")  # noqa: TRY301 - the traceback is what is tested
    except ValueError:
        log.logger.exception("failed")
    large, listed, failed = log.lines()
    assert len(large) > LARGE
    assert json.loads(listed)["message"] == "it is ['before']"
    assert json.loads(failed)["exception"].endswith("ValueError: broken")


def test_a_record_that_cannot_be_rendered_is_told_and_ends_nothing(
    writing: Callable[..., Writing],
) -> None:
    log = writing()
    wrong = record("%d")
    wrong.args = ("no number",)
    log.records.handle(wrong)  # pytest's own handlers would raise
    log.logger.info("next")
    *trace, last = log.lines()
    assert "TypeError" in trace[-2]
    assert trace[-1].startswith(f"in a record of {LOGGER}, ")
    assert json.loads(last)["message"] == "next"


def test_a_descriptor_that_does_not_wait_loses_nothing(writing: Callable[..., Writing]) -> None:
    log = writing()
    os.set_blocking(log.writes, False)
    log.block()
    log.logger.info("next")
    large, following = log.lines()
    assert len(large) > LARGE
    assert json.loads(following)["message"] == "next"


def test_lines_reach_standard_error() -> None:
    program = (
        "import logging\n"
        "from edge_runtime import logs\n"
        "from edge_runtime.settings import Log\n"
        "logs.configure(Log(format='json', level='warning'))\n"
        "logging.getLogger('a').info('hidden')\n"
        "logging.getLogger('a').warning('%s', 'shown')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["message"] == "shown"


def test_lines_around_a_block_of_queued_ones_appear_in_their_order() -> None:
    program = (
        "import logging\n"
        "from edge_runtime import logs\n"
        "from edge_runtime.settings import Log\n"
        "logs.configure(Log(format='json'))\n"
        "logging.info('before')\n"
        "with logs.queued(Log(format='json')) as records:\n"
        "    for number in range(100):\n"
        "        logging.info(number)\n"
        "    records.configure(Log(format='json', level='warning'))\n"
        "    logging.info('hidden')\n"
        "logging.info('hidden')\n"
        "logging.error('after')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert messages(done.stderr.splitlines()) == ["before", *map(str, range(100)), "after"]
