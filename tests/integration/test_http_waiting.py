"""While a slow model runs: others are answered, who leaves costs nothing, who waits has limits."""

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.daemons import Daemon, eventually
from tests.long_runs import (
    LONG,
    SHORT,
    during_a_long_run,
    executions,
    goes_on,
    in_flight,
    models_of,
)
from tests.wire import Wire, infer, infer_zeros, numbers, request

pytestmark = pytest.mark.integration

QUEUE_DEPTH = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return models_of(tmp_path_factory.mktemp("models"))


@pytest.fixture
def daemon(models: list[str]) -> Iterator[Daemon]:
    """A daemon of its own for each test: they compare counters."""
    settings = {
        "EDGE_RUNTIME__ENGINE__POOL_THREADS": "1",
        "EDGE_RUNTIME__ENGINE__QUEUE_DEPTH": str(QUEUE_DEPTH),
    }
    with Daemon(models, settings) as running:
        in_flight(running)  # the first scrape takes its time; the later ones must not
        yield running


@pytest.fixture
def busy(daemon: Daemon) -> Iterator[Wire]:
    """A connection whose long run occupies the only thread of the pool."""
    with Wire.of(daemon) as wire:
        wire.send(infer_zeros("slow", LONG))
        while not goes_on(daemon, 1, wire):  # over before anybody looked
            assert wire.answer().status == 200
            wire.send(infer_zeros("slow", LONG))
        yield wire


def gauge(daemon: Daemon, name: str) -> int:
    text = daemon.request("GET", "/metrics").body.decode()
    found = re.search(rf"^{name} (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def failures(daemon: Daemon, reason: str) -> int:
    text = daemon.request("GET", "/metrics").body.decode()
    pattern = rf'^edge_runtime_request_failures_total{{.*reason="{reason}".*}} (\d+)'
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else 0


def test_health_is_answered_while_a_long_run_goes_on(daemon: Daemon) -> None:
    def attempt(long: Wire) -> bool:
        before = executions(daemon)
        assert daemon.request("GET", "/v2/health/live").status == 200
        if executions(daemon) != before or long.has_more():
            return False
        assert long.answer().status == 200
        assert executions(daemon) == before + 1
        return True

    during_a_long_run(daemon, attempt)


def test_a_short_model_is_answered_while_a_long_run_goes_on(daemon: Daemon) -> None:
    with Wire.of(daemon) as wire:
        for _ in range(8):  # learn that it is short
            wire.send(infer("m", [[1, 2]]))
            assert numbers(wire.answer()) == [1, 2]

        def attempt(long: Wire) -> bool:
            before = executions(daemon)
            wire.send(infer("m", [[3, 4]]))
            assert numbers(wire.answer()) == [3, 4]
            if executions(daemon) != before or long.has_more():
                return False
            assert long.answer().status == 200
            return True

        during_a_long_run(daemon, attempt)


def test_health_is_answered_while_short_runs_never_stop(daemon: Daemon) -> None:
    rounds = 50
    stop = threading.Event()
    answered = [0]

    def hammer() -> None:
        with Wire.of(daemon) as wire:
            while not stop.is_set():
                wire.send(infer("m", [[1, 2]]) * QUEUE_DEPTH)
                for _ in range(QUEUE_DEPTH):
                    assert wire.answer().status == 200
                    answered[0] += 1

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        eventually(lambda: answered[0] > 0, "the hammer's first answer")
        with Wire.of(daemon) as wire:
            for _ in range(rounds):
                wire.send(request("GET", "/v2/health/live"))
                assert wire.answer().status == 200
        assert thread.is_alive()
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("pipelined", [1, 3])
def test_who_vanishes_while_waiting_is_never_run(daemon: Daemon, pipelined: int) -> None:
    def attempt(long: Wire) -> bool:
        before, canceled = executions(daemon), failures(daemon, "CANCELED")
        with Wire.of(daemon) as impatient:
            impatient.send(infer_zeros("slow", SHORT) * pipelined)
            if not goes_on(daemon, 1 + pipelined, long):
                return False
        eventually(lambda: gauge(daemon, "edge_runtime_connections") == 2, "its end")
        if executions(daemon) != before:
            return False
        assert long.answer().status == 200
        eventually(lambda: in_flight(daemon) == 0, "the end of everything")
        assert executions(daemon) == before + 1
        assert failures(daemon, "CANCELED") == canceled + pipelined
        return True

    during_a_long_run(daemon, attempt)


def test_who_vanishes_while_running_harms_nobody(daemon: Daemon, busy: Wire) -> None:
    busy.close()
    eventually(lambda: in_flight(daemon) == 0, "the run's end")
    with Wire.of(daemon) as wire:
        wire.send(infer_zeros("slow", SHORT))
        assert wire.answer().status == 200


def test_a_client_that_closed_only_its_sending_side_is_answered_when_its_run_ends(
    busy: Wire,
) -> None:
    busy.sock.shutdown(socket.SHUT_WR)
    assert busy.answer().status == 200
    assert busy.ends()


def test_a_client_that_closed_only_its_sending_side_is_answered_although_it_waits(
    daemon: Daemon,
) -> None:
    def attempt(long: Wire) -> bool:
        before = executions(daemon)
        with Wire.of(daemon) as waiting:
            waiting.send(infer_zeros("slow", SHORT) * 2)
            if not goes_on(daemon, 3, long):
                return False
            waiting.sock.shutdown(socket.SHUT_WR)
            is_waiting = executions(daemon) == before
            assert long.answer().status == 200
            assert [waiting.answer().status for _ in range(2)] == [200, 200]
            assert waiting.ends()
        return is_waiting

    during_a_long_run(daemon, attempt)


def test_who_vanishes_while_running_loses_the_connection_at_once(daemon: Daemon) -> None:
    def attempt(long: Wire) -> bool:
        eventually(lambda: gauge(daemon, "edge_runtime_connections") == 2, "one who runs")
        long.close()
        eventually(lambda: gauge(daemon, "edge_runtime_connections") == 1, "the connection's end")
        return in_flight(daemon) == 1  # else the run was over before

    during_a_long_run(daemon, attempt)


@pytest.mark.parametrize("depth", [1, 64], ids=["parked", "queued"])
def test_bodies_hold_their_budget_until_they_are_answered(models: list[str], depth: int) -> None:
    large = infer_zeros("slow", [250, 512])  # 512 kB, and 819 kB for the long one
    settings = {
        "EDGE_RUNTIME__ENGINE__POOL_THREADS": "1",
        "EDGE_RUNTIME__LIMITS__PIPELINE_DEPTH": str(depth),
        "EDGE_RUNTIME__LIMITS__BODY_BYTES_IN_FLIGHT": "1500000",
    }
    with Daemon(models, settings) as running:

        def is_refused(*, is_patient: bool) -> bool:
            eventually(lambda: in_flight(running) == 0, "the end of what came before")
            with Wire.of(running) as wire:
                wire.send(infer_zeros("slow", LONG) + large)
                if not goes_on(running, min(depth, 2), wire):
                    return False
                with Wire.of(running) as other:
                    with contextlib.suppress(BrokenPipeError):  # refused, and left a little later
                        other.send(large)
                    answer = other.answer()
                    if answer.status == 200:  # the long one was over, and its body gone
                        return False
                    assert answer.status == 503
                    assert "limits.body_bytes_in_flight" in answer.json()["error"]
                if is_patient:
                    assert [wire.answer().status for _ in range(2)] == [200, 200]
            eventually(lambda: in_flight(running) == 0, "the end of everything")
            return True

        eventually(lambda: is_refused(is_patient=True), "a run that is long enough")
        # Who vanishes gives back what waits and what runs.
        eventually(lambda: is_refused(is_patient=False), "a run that is long enough")
        with Wire.of(running) as wire:
            wire.send(infer_zeros("slow", [700, 512]))
            assert wire.answer().status == 200


def test_one_connection_cannot_pipeline_more_bodies_than_the_budget(models: list[str]) -> None:
    settings = {"EDGE_RUNTIME__LIMITS__BODY_BYTES_IN_FLIGHT": "1500000"}
    with Daemon(models, settings) as running:

        def is_refused() -> bool:
            with Wire.of(running) as wire:
                wire.send(infer_zeros("slow", LONG) + infer_zeros("slow", [350, 512]))
                assert wire.answer().status == 200
                if (second := wire.answer().status) == 200:  # it came after the first one's end
                    return False
                assert second == 503
                assert wire.ends()
            return True

        eventually(is_refused, "two bodies at once")


def test_a_request_whose_timeout_passes_while_it_waits_is_503(daemon: Daemon) -> None:
    def attempt(long: Wire) -> bool:
        before, rejected = executions(daemon), failures(daemon, "REJECTED")
        if long.has_more():  # its run may be among those
            return False
        with Wire.of(daemon) as wire:
            wire.send(infer_zeros("slow", SHORT, timeout=1000))
            answer = wire.answer()
            if answer.status == 200:  # it had nothing to wait for
                return False
            assert answer.status == 503
            assert "timeout" in answer.json()["error"]
            wire.send(infer_zeros("slow", SHORT, timeout=60_000_000))
            assert wire.answer().status == 200
        assert long.answer().status == 200
        assert executions(daemon) == before + 2
        assert failures(daemon, "REJECTED") == rejected + 1
        return True

    during_a_long_run(daemon, attempt)


def test_a_full_queue_is_503_and_says_when_to_come_back(daemon: Daemon) -> None:
    check_full_queue(daemon, infer_zeros("slow", SHORT), 200)


def test_a_full_queue_does_not_read_what_it_would_refuse_anyway(daemon: Daemon) -> None:
    check_full_queue(daemon, request("POST", "/v2/models/slow/infer", b"no JSON"), 400)


def check_full_queue(daemon: Daemon, whole: bytes, otherwise: int) -> None:
    """Send a request to a full queue; it gets another status when the queue is not full."""

    def attempt(long: Wire) -> bool:
        with Wire.of(daemon) as waiting, Wire.of(daemon) as excess:
            waiting.send(infer_zeros("slow", SHORT) * QUEUE_DEPTH)
            if not goes_on(daemon, 1 + QUEUE_DEPTH, long):
                return False
            rejected = failures(daemon, "REJECTED")
            excess.send(whole)
            answer = excess.answer()
            if answer.status == otherwise:  # the run was over, and others left the queue
                return False
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
            assert failures(daemon, "REJECTED") == rejected + 1
            assert long.answer().status == 200
            for _ in range(QUEUE_DEPTH):
                assert waiting.answer().status == 200
            excess.send(whole)
            assert excess.answer().status == otherwise
        return True

    during_a_long_run(daemon, attempt)


def test_a_higher_priority_overtakes_but_answers_keep_their_order(daemon: Daemon) -> None:
    def attempt(long: Wire) -> bool:
        with Wire.of(daemon) as wire:
            wire.send(infer_zeros("slow", [100, 512]) + infer_zeros("slow", SHORT, priority=1))
            if not goes_on(daemon, 3, long):
                return False
            first, second = wire.answer(), wire.answer()
            assert (first.status, second.status) == (200, 200)
            assert len(first.body) > len(second.body)
        assert long.answer().status == 200
        return True

    during_a_long_run(daemon, attempt)


def test_pipelining_deeper_than_the_limit_waits_and_is_answered(models: list[str]) -> None:
    with Daemon(models, {"EDGE_RUNTIME__LIMITS__PIPELINE_DEPTH": "2"}) as running:
        with Wire.of(running) as wire:
            wire.send(infer_zeros("slow", [4, 512]) * 20 + request("GET", "/v2/health/live"))
            assert [wire.answer().status for _ in range(20)] == [200] * 20
            assert wire.answer().json() == {"live": True}
        assert executions(running) == 20
