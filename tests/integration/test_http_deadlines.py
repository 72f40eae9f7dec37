"""Deadlines that must not fire while it is the daemon that is slow, and must fire afterwards.

They are so short that a test may be too slow to send or to look: then it begins anew.
"""

import contextlib
from collections.abc import Callable

import pytest

from tests.daemons import Daemon, eventually
from tests.long_runs import LONG, in_flight, models_of
from tests.wire import Wire, infer_zeros, request

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return models_of(tmp_path_factory.mktemp("models"))


def hasty(models: list[str], **settings: float) -> Daemon:
    times = {"idle_timeout_s": 0.1, "header_timeout_s": 0.1, "body_timeout_s": 0.1, **settings}
    return Daemon(
        models, {f"EDGE_RUNTIME__LIMITS__{key.upper()}": str(each) for key, each in times.items()}
    )


def has_in_flight(running: Daemon, count: int) -> bool:
    with contextlib.suppress(ConnectionError):  # we were too slow to ask
        return in_flight(running) == count
    return False


def under_way(running: Daemon, wire: Wire, *parts: bytes) -> bool:
    """Send something; tell whether a run is under way then, and so all that was sent was read."""
    with contextlib.suppress(ConnectionError):
        wire.send(*parts)
    while not wire.has_more():
        if has_in_flight(running, 1):
            return True
    return False


def behind_a_run(running: Daemon, attempt: Callable[[Wire], bool], *parts: bytes) -> None:
    """Do something once a run is under way, and anew if it was over too soon for it."""

    def is_done() -> bool:
        eventually(lambda: has_in_flight(running, 0), "the end of what came before")
        with Wire.of(running) as wire:
            return under_way(running, wire, *parts) and attempt(wire)

    eventually(is_done, "a run that is long enough")


def test_a_run_longer_than_every_timeout_is_answered_and_then_idleness_counts(
    models: list[str],
) -> None:
    def attempt(wire: Wire) -> bool:
        assert wire.answer().status == 200
        assert wire.ends()
        return True

    with hasty(models) as running:
        behind_a_run(running, attempt, infer_zeros("slow", LONG))


@pytest.mark.parametrize(("rest", "timeout_s"), [(b"\x00", 60.0), (b"", 0.1)])
def test_a_bad_request_behind_a_long_run_waits_for_its_turn(
    models: list[str], rest: bytes, timeout_s: float
) -> None:
    def attempt(wire: Wire) -> bool:
        wire.send(rest)
        assert wire.answer().status == 200
        assert wire.answer().status == (400 if rest else 408)
        assert wire.ends()
        return True

    with hasty(models, header_timeout_s=timeout_s) as running:
        head = b"GET /v2 HTTP/1.1\r\nHost: "
        behind_a_run(running, attempt, infer_zeros("slow", LONG), head)


def test_a_request_that_we_did_not_go_on_reading_is_not_late(models: list[str]) -> None:
    live = request("GET", "/v2/health/live")

    with hasty(models, pipeline_depth=1, header_timeout_s=0.5) as running:

        def attempt(wire: Wire) -> bool:
            # What was read is all but the last bytes, and nothing more is until the run is over.
            if not under_way(running, wire, live + live[:-4]):
                return False
            wire.send(live[-4:])
            assert [wire.answer().status for _ in range(3)] == [200] * 3
            return True

        behind_a_run(running, attempt, infer_zeros("slow", [1600, 512]))
