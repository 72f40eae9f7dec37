"""The thread that loads makes way, and what it makes for others does not."""

import errno
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge_runtime.priority import at_usual_priority, make_way

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux")


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_only_the_thread_that_makes_way_has_a_lower_priority() -> None:
    before = _niceness()
    with ThreadPoolExecutor(1) as usual:
        usual.submit(int)
        with ThreadPoolExecutor(1, initializer=make_way, initargs=(usual,)) as loader:
            assert loader.submit(_niceness).result() == max(before, 10)
        assert usual.submit(_niceness).result() == before
    assert _niceness() == before


def test_threads_made_at_the_usual_priority_do_not_inherit_the_loaders() -> None:
    def niceness_of_a_new_thread() -> int:
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(_niceness()))
        thread.start()
        thread.join()
        return seen[0]

    with ThreadPoolExecutor(1) as usual:
        usual.submit(int)
        with ThreadPoolExecutor(1, initializer=make_way, initargs=(usual,)) as loader:
            inherited = loader.submit(niceness_of_a_new_thread).result()
            made = loader.submit(at_usual_priority, niceness_of_a_new_thread).result()
    assert inherited == max(_niceness(), 10)
    assert made == _niceness()


def test_a_thread_that_never_made_way_does_the_work_itself() -> None:
    assert at_usual_priority(threading.get_ident) == threading.get_ident()


def test_what_fails_at_the_usual_priority_fails_where_it_was_asked() -> None:
    with (
        ThreadPoolExecutor(1) as usual,
        ThreadPoolExecutor(1, initializer=make_way, initargs=(usual,)) as loader,
        pytest.raises(ZeroDivisionError),
    ):
        loader.submit(at_usual_priority, lambda: 1 // 0).result()


def test_where_a_thread_may_not_make_way_it_works_all_the_same_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", forbidden)
    with (
        ThreadPoolExecutor(1) as usual,
        ThreadPoolExecutor(1, initializer=make_way, initargs=(usual,)) as loader,
    ):
        assert loader.submit(at_usual_priority, threading.get_ident).result()
    assert "cannot make way" in caplog.text
