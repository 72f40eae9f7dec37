"""While a slow model runs: others are answered, who leaves costs nothing, who waits has limits."""

import re
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.daemons import Daemon, eventually
from tests.models import identity, slow
from tests.wire import Wire, infer, infer_zeros, numbers, request

pytestmark = pytest.mark.integration

LONG = [400, 512]  # rows of a run that takes the best part of a second
SHORT = [1, 512]
QUEUE_DEPTH = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    model = slow(folder / "slow.onnx", layers=64)
    return [f"slow={model}", f"m={identity(folder / 'm.onnx')}"]


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
        eventually(lambda: in_flight(daemon) == 1, "the long run's start")
        yield wire


def gauge(daemon: Daemon, name: str) -> int:
    text = daemon.request("GET", "/metrics").body.decode()
    found = re.search(rf"^{name} (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def in_flight(daemon: Daemon) -> int:
    text = daemon.request("GET", "/metrics").body.decode()
    found = re.search(r'^edge_runtime_requests_in_flight{model="slow".*} (\d+)', text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def executions(daemon: Daemon) -> int:
    stats = daemon.request("GET", "/v2/models/slow/stats").json()["model_stats"][0]
    count: int = stats["execution_count"]
    return count


def failures(daemon: Daemon, reason: str) -> int:
    text = daemon.request("GET", "/metrics").body.decode()
    pattern = rf'^edge_runtime_request_failures_total{{.*reason="{reason}".*}} (\d+)'
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else 0


def test_health_is_answered_while_a_long_run_goes_on(daemon: Daemon, busy: Wire) -> None:
    assert daemon.request("GET", "/v2/health/live").status == 200
    assert executions(daemon) == 0, "the long run was over before health answered"
    assert busy.answer().status == 200
    assert executions(daemon) == 1


def test_a_short_model_is_answered_while_a_long_run_goes_on(daemon: Daemon) -> None:
    with Wire.of(daemon) as wire:
        for _ in range(8):  # learn that it is short
            wire.send(infer("m", [[1, 2]]))
            assert numbers(wire.answer()) == [1, 2]
        with Wire.of(daemon) as long:
            long.send(infer_zeros("slow", LONG))
            eventually(lambda: in_flight(daemon) == 1, "the long run's start")
            wire.send(infer("m", [[3, 4]]))
            assert numbers(wire.answer()) == [3, 4]
            assert executions(daemon) == 0
            assert long.answer().status == 200


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
def test_who_vanishes_while_waiting_is_never_run(
    daemon: Daemon, busy: Wire, pipelined: int
) -> None:
    with Wire.of(daemon) as impatient:
        impatient.send(infer_zeros("slow", SHORT) * pipelined)
        eventually(lambda: in_flight(daemon) == 1 + pipelined, "the second client's waiting")
    assert busy.answer().status == 200
    eventually(lambda: in_flight(daemon) == 0, "the end of everything")
    assert executions(daemon) == 1
    assert failures(daemon, "CANCELED") == pipelined


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
    busy: Wire, daemon: Daemon
) -> None:
    with Wire.of(daemon) as waiting:
        waiting.send(infer_zeros("slow", SHORT) * 2)
        eventually(lambda: in_flight(daemon) == 3, "the second client's waiting")
        waiting.sock.shutdown(socket.SHUT_WR)
        assert busy.answer().status == 200
        assert [waiting.answer().status for _ in range(2)] == [200, 200]
        assert waiting.ends()


def test_who_vanishes_while_running_loses_the_connection_at_once(
    daemon: Daemon, busy: Wire
) -> None:
    assert gauge(daemon, "edge_runtime_connections") == 2
    busy.close()
    eventually(lambda: gauge(daemon, "edge_runtime_connections") == 1, "the connection's end")
    assert in_flight(daemon) == 1, "the run was over before"


@pytest.mark.parametrize("depth", [1, 64], ids=["parked", "queued"])
def test_bodies_hold_their_budget_until_they_are_answered(models: list[str], depth: int) -> None:
    large = infer_zeros("slow", [250, 512])  # 512 kB, and 819 kB for the long one
    settings = {
        "EDGE_RUNTIME__ENGINE__POOL_THREADS": "1",
        "EDGE_RUNTIME__LIMITS__PIPELINE_DEPTH": str(depth),
        "EDGE_RUNTIME__LIMITS__BODY_BYTES_IN_FLIGHT": "1500000",
    }
    with Daemon(models, settings) as running:
        for is_patient in (True, False):  # who vanishes gives back what waits and what runs
            with Wire.of(running) as wire:
                wire.send(infer_zeros("slow", LONG) + large)
                eventually(lambda: in_flight(running) == min(depth, 2), "their waiting")
                with Wire.of(running) as other:
                    other.send(large)
                    answer = other.answer()
                    assert answer.status == 503
                    assert "limits.body_bytes_in_flight" in answer.json()["error"]
                if is_patient:
                    assert [wire.answer().status for _ in range(2)] == [200, 200]
            eventually(lambda: in_flight(running) == 0, "the end of everything")
        with Wire.of(running) as wire:
            wire.send(infer_zeros("slow", [700, 512]))
            assert wire.answer().status == 200


def test_one_connection_cannot_pipeline_more_bodies_than_the_budget(models: list[str]) -> None:
    settings = {"EDGE_RUNTIME__LIMITS__BODY_BYTES_IN_FLIGHT": "1500000"}
    with Daemon(models, settings) as running, Wire.of(running) as wire:
        wire.send(infer_zeros("slow", LONG) + infer_zeros("slow", [350, 512]))
        assert [wire.answer().status for _ in range(2)] == [200, 503]
        assert wire.ends()


def test_a_request_whose_timeout_passes_while_it_waits_is_503(daemon: Daemon, busy: Wire) -> None:
    with Wire.of(daemon) as wire:
        wire.send(infer_zeros("slow", SHORT, timeout=1000))
        answer = wire.answer()
        assert answer.status == 503
        assert "timeout" in answer.json()["error"]
        wire.send(infer_zeros("slow", SHORT, timeout=60_000_000))
        assert wire.answer().status == 200
    assert busy.answer().status == 200
    assert executions(daemon) == 2
    assert failures(daemon, "REJECTED") == 1


def test_a_full_queue_is_503_and_says_when_to_come_back(daemon: Daemon, busy: Wire) -> None:
    with Wire.of(daemon) as waiting, Wire.of(daemon) as excess:
        waiting.send(infer_zeros("slow", SHORT) * QUEUE_DEPTH)
        eventually(lambda: in_flight(daemon) == 1 + QUEUE_DEPTH, "the queue's being full")
        excess.send(infer_zeros("slow", SHORT))
        answer = excess.answer()
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert busy.answer().status == 200
        for _ in range(QUEUE_DEPTH):
            assert waiting.answer().status == 200
        excess.send(infer_zeros("slow", SHORT))
        assert excess.answer().status == 200


def test_a_full_queue_does_not_read_what_it_would_refuse_anyway(daemon: Daemon, busy: Wire) -> None:
    nonsense = request("POST", "/v2/models/slow/infer", b"no JSON")
    with Wire.of(daemon) as waiting, Wire.of(daemon) as excess:
        waiting.send(infer_zeros("slow", SHORT) * QUEUE_DEPTH)
        eventually(lambda: in_flight(daemon) == 1 + QUEUE_DEPTH, "the queue's being full")
        excess.send(nonsense)
        answer = excess.answer()
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert failures(daemon, "REJECTED") == 1
        assert busy.answer().status == 200
        for _ in range(QUEUE_DEPTH):
            assert waiting.answer().status == 200
        excess.send(nonsense)
        assert excess.answer().status == 400


def test_a_higher_priority_overtakes_but_answers_keep_their_order(
    daemon: Daemon, busy: Wire
) -> None:
    with Wire.of(daemon) as wire:
        wire.send(infer_zeros("slow", [100, 512]) + infer_zeros("slow", SHORT, priority=1))
        eventually(lambda: in_flight(daemon) == 3, "both requests' waiting")
        first, second = wire.answer(), wire.answer()
        assert (first.status, second.status) == (200, 200)
        assert len(first.body) > len(second.body)
    assert busy.answer().status == 200


def test_pipelining_deeper_than_the_limit_waits_and_is_answered(models: list[str]) -> None:
    with Daemon(models, {"EDGE_RUNTIME__LIMITS__PIPELINE_DEPTH": "2"}) as running:
        with Wire.of(running) as wire:
            wire.send(infer_zeros("slow", [4, 512]) * 20 + request("GET", "/v2/health/live"))
            assert [wire.answer().status for _ in range(20)] == [200] * 20
            assert wire.answer().json() == {"live": True}
        assert executions(running) == 20


# -- deadlines that must not fire while it is we who are slow, and must fire afterwards -----------


def hasty(models: list[str], **settings: float) -> Daemon:
    times = {"idle_timeout_s": 0.1, "header_timeout_s": 0.1, "body_timeout_s": 0.1, **settings}
    return Daemon(
        models, {f"EDGE_RUNTIME__LIMITS__{key.upper()}": str(each) for key, each in times.items()}
    )


def test_a_run_longer_than_every_timeout_is_answered_and_then_idleness_counts(
    models: list[str],
) -> None:
    with hasty(models) as running, Wire.of(running) as wire:
        wire.send(infer_zeros("slow", LONG))
        assert wire.answer().status == 200
        assert wire.ends()


@pytest.mark.parametrize("rest", [b"\x00", b""])
def test_a_bad_request_behind_a_long_run_waits_for_its_turn(models: list[str], rest: bytes) -> None:
    with hasty(models) as running:
        in_flight(running)  # the first scrape takes its time; the later ones must not
        with Wire.of(running) as wire:
            wire.send(infer_zeros("slow", LONG), b"GET /v2 HTTP/1.1\r\nHost: ")
            eventually(lambda: in_flight(running) == 1, "the long run's start")
            wire.send(rest)
            assert wire.answer().status == 200
            assert wire.answer().status == (400 if rest else 408)
            assert wire.ends()


def test_a_request_that_we_did_not_go_on_reading_is_not_late(models: list[str]) -> None:
    live = request("GET", "/v2/health/live")
    running = hasty(models, pipeline_depth=1, header_timeout_s=0.5)
    with running, Wire.of(running) as wire:
        wire.send(infer_zeros("slow", [1600, 512]))
        eventually(lambda: in_flight(running) == 1, "the long run's start")
        wire.send(live + live[:-4])
        assert [wire.answer().status for _ in range(2)] == [200] * 2
        wire.send(live[-4:])
        assert wire.answer().status == 200
