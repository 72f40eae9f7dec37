"""The log's lines: one record one line, whatever is in it, and never a request held up."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.logs import RecordQueue, formatter, is_journal
from edge_runtime.settings import Log

TEXT = formatter(Log(), in_journal=False)
JSON = formatter(Log(format="json"), in_journal=False)
WAIT_S = 10.0
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


class Held(logging.Handler):
    """Writes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []
        self.may_write = threading.Event()
        self.has_begun = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, when that is allowed."""
        self.has_begun.set()
        assert self.may_write.wait(WAIT_S)
        self.written.append(record.getMessage())


@pytest.fixture
def held() -> Any:  # noqa: ANN401 - a generator of one
    handler = Held()
    logger = logging.getLogger(LOGGER)
    logger.addHandler(handler)
    logger.propagate = False
    yield handler
    handler.may_write.set()
    logger.removeHandler(handler)
    logger.propagate = True


def test_records_are_written_in_their_order(held: Held) -> None:
    records = RecordQueue()
    held.may_write.set()
    assert all(records.put(record(str(number))) for number in range(100))
    records.close(WAIT_S)
    assert held.written == [str(number) for number in range(100)]


def test_a_log_that_is_read_slowly_costs_records_and_no_time(held: Held) -> None:
    records = RecordQueue(most=2)
    assert records.put(record("0"))
    assert held.has_begun.wait(WAIT_S)  # the thread is busy with it
    assert [records.put(record(str(number))) for number in range(1, 5)] == [
        True,
        True,
        False,
        False,
    ]
    held.may_write.set()
    records.close(WAIT_S)
    assert held.written == ["0", "1", "2"]


def test_closing_does_not_wait_for_ever_for_a_log_that_nobody_reads(held: Held) -> None:
    records = RecordQueue(most=1)
    records.put(record("0"))
    assert held.has_begun.wait(WAIT_S)
    records.close(0.01)  # there is room for the end of the queue
    records.close(0.01)  # there is none
    assert held.written == []


def test_a_queue_that_was_never_used_has_no_thread() -> None:
    before = threading.active_count()
    RecordQueue().close()
    assert threading.active_count() == before


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
