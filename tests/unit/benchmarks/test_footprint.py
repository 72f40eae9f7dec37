"""What the benchmark reads of a process that does nothing."""

import os
import threading
import time

import pytest

from benchmarks.bench import Plan
from benchmarks.footprint import cpu_s
from benchmarks.run import main

_BUSY_S = 0.05


def _be_busy() -> None:
    end_s = time.thread_time() + _BUSY_S
    while time.thread_time() < end_s:
        pass


def test_cpu_time_is_that_of_the_whole_process_its_ended_threads_included() -> None:
    before_s = cpu_s(os.getpid())
    thread = threading.Thread(target=_be_busy)
    thread.start()
    thread.join()
    assert cpu_s(os.getpid()) - before_s >= _BUSY_S
    before_s = time.process_time()
    assert before_s <= cpu_s(os.getpid()) <= time.process_time()


def test_the_idle_agent_is_watched_for_minutes() -> None:
    assert Plan().agent_idle_s >= 180.0


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "agent", "--agent-idle-s", text])
    assert ended.value.code == 4
    assert "--agent-idle-s" in capsys.readouterr().err
