"""Every limit on what a client may send, how fast it must be, and how much it may leave unread."""

import contextlib
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests.daemons import Daemon, daemon, eventually
from tests.models import identity, save, value
from tests.wire import Wire, infer, infer_zeros, numbers, request

pytestmark = pytest.mark.integration

LIVE = request("GET", "/v2/health/live")
INFER = infer("m", [[1.0, 2.0]])
CHUNKED = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
)
MIB = 1 << 20
WIDE = MIB // 4  # FP32 elements of one answer of 1 MiB


def limits(**settings: float) -> dict[str, str]:
    return {f"EDGE_RUNTIME__LIMITS__{key.upper()}": str(text) for key, text in settings.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity(tmp_path_factory.mktemp("models") / "m.onnx")


@pytest.fixture(scope="module")
def small(model: Path) -> Iterator[Daemon]:
    """A daemon whose size limits are small."""
    sizes = limits(header_bytes=1024, target_bytes=256, body_bytes=200_000, chunks=4, json_depth=3)
    with Daemon([f"m={model}"], sizes) as running:
        yield running


@pytest.fixture(scope="module")
def hasty(model: Path) -> Iterator[Daemon]:
    """A daemon that does not wait for long for the rest of a request."""
    times = limits(header_timeout_s=0.1, body_timeout_s=0.1, body_rate_bytes_per_s=100_000_000)
    with Daemon([f"m={model}"], times) as running:
        yield running


@pytest.fixture(scope="module")
def restless(model: Path) -> Iterator[Daemon]:
    """A daemon that does not wait for long for requests, and for answers to be read."""
    times = limits(idle_timeout_s=0.3, answer_timeout_s=0.3, body_rate_bytes_per_s=100_000_000)
    with Daemon([f"m={model}"], times) as running:
        yield running


def refused(running: Daemon, *parts: bytes) -> tuple[int, str]:
    """Send something bad; the answer, after which the next good request must be answered."""
    with Wire.of(running) as wire:
        with contextlib.suppress(BrokenPipeError):  # refused before its end, and left a bit later
            wire.send(*parts)
        answer = wire.answer()
        assert wire.ends(), "an answer is the last word on what cannot be read on"
    with Wire.of(running) as wire:
        wire.send(INFER)
        assert numbers(wire.answer()) == [1.0, 2.0]
    error: str = answer.json()["error"]
    return answer.status, error


def open_connections(running: Daemon) -> int:
    text = running.request("GET", "/metrics").body.decode()
    found = re.search(r"^edge_runtime_connections (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) - 1  # but the one that asks


# -- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [257, 5_000, 100_000])
def test_a_long_url_is_414(small: Daemon, length: int) -> None:
    status, error = refused(small, request("GET", "/" + "x" * (length - 1)))
    assert status == 414
    assert "256 bytes" in error


def test_a_url_of_exactly_the_limit_is_read(small: Daemon) -> None:
    assert small.request("GET", "/" + "x" * 255).status == 404


@pytest.mark.parametrize("length", [1024, 5_000, 300_000])
def test_large_headers_are_431_however_they_are_cut(small: Daemon, length: int) -> None:
    whole = request("GET", "/v2/health/live", headers={"X-Filler": "x" * length})
    status, error = refused(small, whole[:30], whole[30:])
    assert status == 431
    assert "1024 bytes" in error


def test_many_small_headers_are_431(small: Daemon) -> None:
    many: dict[str, str | int] = {f"X{number}": "" for number in range(300)}
    assert refused(small, request("GET", "/v2/health/live", headers=many))[0] == 431


def test_headers_just_under_the_limit_are_read(small: Daemon) -> None:
    with Wire.of(small) as wire:
        wire.send(request("GET", "/v2/health/live", headers={"X-Filler": "x" * 900}))
        assert wire.answer().status == 200


def test_a_body_over_the_limit_is_413_before_it_was_sent(small: Daemon) -> None:
    head = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 200001\r\n\r\n"
    status, error = refused(small, head)
    assert status == 413
    assert "200000" in error
    assert "limits.body_bytes" in error


def test_who_sends_the_whole_large_body_at_once_still_reads_the_413(small: Daemon) -> None:
    body = b"x" * 5_000_000
    assert refused(small, request("POST", "/v2/models/m/infer", body))[0] == 413


def test_a_chunked_body_over_the_limit_is_413(small: Daemon) -> None:
    part = b"1ffff\r\n" + b" " * 0x1FFFF + b"\r\n"
    assert refused(small, CHUNKED + part + part)[0] == 413


@pytest.mark.parametrize("count", [4, 5])
def test_chunks_are_counted(small: Daemon, count: int) -> None:
    body = INFER.partition(b"\r\n\r\n")[2]
    edges = [len(body) * place // count for place in range(count + 1)]
    parts = [body[edges[place] : edges[place + 1]] for place in range(count)]
    whole = CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    if count > 4:
        assert refused(small, whole + b"0\r\n\r\n")[0] == 413
        return
    with Wire.of(small) as wire:
        wire.send(whole + b"0\r\n\r\n")
        assert numbers(wire.answer()) == [1.0, 2.0]


@pytest.mark.parametrize("framing", [b"1;" + b"e" * 500_000, b"0\r\nX: " + b"t" * 500_000])
def test_endless_chunk_extensions_and_trailers_are_431(small: Daemon, framing: bytes) -> None:
    assert refused(small, CHUNKED, framing)[0] == 431


def test_json_nested_deeper_than_the_limit_is_400(small: Daemon) -> None:
    deep = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[[[[1,2]]]]}]}'
    answer = small.request("POST", "/v2/models/m/infer", deep)
    assert answer.status == 400
    assert "deeper than 3" in answer.json()["error"]


@pytest.mark.parametrize("field", [b'"data"', b'"unknown"', b'"parameters"'])
def test_json_nested_without_end_is_400(small: Daemon, field: bytes) -> None:
    bomb = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32",%s:' % field + b"[" * 190_000
    assert small.request("POST", "/v2/models/m/infer", bomb).status == 400


def test_bodies_being_received_share_a_budget(model: Path) -> None:
    half = request("POST", "/v2/models/m/infer", b"x" * 600_000)[:300_000]
    with daemon(f"m={model}", environment=limits(body_bytes_in_flight=1_000_000)) as running:
        with Wire.of(running) as first:
            first.send(half)
            eventually(lambda: refused(running, half)[0] == 503, "the budget's being full")
        with Wire.of(running) as second:  # the first one's share is free again
            second.send(half, b"x" * 600_000)
            assert second.answer().status == 400


def test_connections_over_the_limit_are_told_503(model: Path) -> None:
    with daemon(f"m={model}", environment=limits(connections=3)) as running, ExitStack() as stack:
        wires = [stack.enter_context(Wire.of(running)) for _ in range(3)]
        for wire in wires:
            wire.send(LIVE)
            assert wire.answer().status == 200
        with Wire.of(running) as excess:
            answer = excess.answer()
            assert answer.status == 503
            assert "3 connections" in answer.json()["error"]
            assert answer.headers["Retry-After"] == "1"
            assert excess.ends()
        wires[0].send(INFER)
        assert numbers(wires[0].answer()) == [1.0, 2.0]
        wires[2].close()

        def one_is_free() -> bool:
            return running.request("GET", "/v2/health/live").status == 200

        eventually(one_is_free, "a place's being free")


def test_a_full_data_door_does_not_lock_the_operator_out(model: Path) -> None:
    with daemon(f"m={model}", environment=limits(connections=2)) as running, ExitStack() as stack:
        for _ in range(2):
            wire = stack.enter_context(Wire.of(running))
            wire.send(LIVE)
            assert wire.answer().status == 200
        assert running.request("GET", "/v2/health/live").status == 503
        assert running.request("GET", "/v2/health/live", admin=True).status == 200


# -- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "part"), [(LIVE[:-3], "head"), (INFER[:-3], "body"), (CHUNKED + b"5\r\nab", "body")]
)
def test_a_request_that_stays_incomplete_is_408(hasty: Daemon, sent: bytes, part: str) -> None:
    status, error = refused(hasty, sent)
    assert status == 408
    assert part in error


def test_a_head_that_drips_is_408_although_bytes_keep_coming(hasty: Daemon) -> None:
    with Wire.of(hasty) as wire:
        wire.send(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n")
        wire.sock.settimeout(0.01)
        for _ in range(1000):
            try:
                with contextlib.suppress(BrokenPipeError):  # it was told, and left a bit later
                    wire.send(b"X: y\r\n")
                answer = wire.answer()
            except TimeoutError:
                continue
            break
        else:
            pytest.fail("dripping kept the connection")
        assert answer.status == 408


def test_a_large_body_that_stops_is_408(hasty: Daemon) -> None:
    whole = request("POST", "/v2/models/m/infer", b"x" * 600_000)
    assert refused(hasty, whole[:400_000])[0] == 408


def test_a_late_request_does_not_cost_the_answer_before_it(hasty: Daemon) -> None:
    with Wire.of(hasty) as wire:
        wire.send(INFER + INFER[:-3])
        assert numbers(wire.answer()) == [1.0, 2.0]
        assert wire.answer().status == 408
        assert wire.ends()


def test_an_idle_connection_is_closed_before_and_after_a_request(restless: Daemon) -> None:
    with Wire.of(restless) as wire:
        assert wire.ends()
    with ExitStack() as stack:
        with restless.paused():  # or it may be closed before anything was sent
            wire = stack.enter_context(Wire.of(restless))
            wire.send(LIVE)
        assert wire.answer().status == 200
        assert wire.ends()


# -- back-pressure -------------------------------------------------------------------------------


def wide(path: Path) -> Path:
    """``y = x`` spread over 1 MiB: a small request, a large answer."""
    shape = numpy_helper.from_array(np.array([1, WIDE], np.int64), "shape")
    node = helper.make_node("Expand", ["x", "shape"], ["y"])
    return save(path, [node], [value("x", shape=(1, 1))], [value("y", shape=(1, WIDE))], [shape])


def peak_bytes(running: Daemon) -> int:
    status = Path(f"/proc/{running.process.pid}/status").read_text("ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.fixture
def flooded(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with large answers, which has time for those who read them late."""
    wide(tmp_path / "wide.onnx")
    answers_within(tmp_path, 600.0)
    with Daemon(["--config", str(tmp_path / "c.toml")]) as running:
        yield running


def answers_within(folder: Path, timeout_s: float) -> None:
    """Configure how long answers may stay unread."""
    (folder / "c.toml").write_text(
        f"""[models.wide]\npath = '{folder / "wide.onnx"}'\n[limits]\npipeline_depth = 8
body_rate_bytes_per_s = 1_000_000_000\nanswer_timeout_s = {timeout_s}\n""",
        "utf-8",
    )


FLOOD = infer_zeros("wide", [1, 1]) * 1000  # answers of 1 GiB


def runs(running: Daemon) -> int:
    stats = running.request("GET", "/v2/models/wide/stats").json()["model_stats"][0]
    count: int = stats["execution_count"]
    return count


def test_a_client_that_never_reads_is_cut_and_costs_little_memory(
    flooded: Daemon, tmp_path: Path
) -> None:
    with Wire.of(flooded) as wire:
        for _ in range(8):  # known to be short from here on: run at once, one after the other
            wire.send(infer_zeros("wide", [1, 1]))
            assert wire.answer().status == 200
    answers_within(tmp_path, 0.3)
    flooded.process.send_signal(signal.SIGHUP)
    eventually(lambda: "configuration read again" in flooded.log(), "the new timeout")
    before, runs_before = peak_bytes(flooded), runs(flooded)
    with Wire.of(flooded) as wire:
        wire.sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
        taken = wire.sock.send(FLOOD)
        assert taken > 100_000
        assert flooded.request("GET", "/v2/health/ready").status == 200  # others are served
        eventually(lambda: runs(flooded) > runs_before, "its answers")
        eventually(lambda: open_connections(flooded) == 0, "its end")
    assert peak_bytes(flooded) - before < 100 * MIB


def test_no_amount_left_unread_keeps_a_connection(restless: Daemon) -> None:
    """Also a little too much for the kernel, and too little to make the transport pause."""

    def are_over() -> bool:
        with contextlib.suppress(ConnectionError):  # who asks was idle for too long itself
            return open_connections(restless) == 0
        return False

    with ExitStack() as stack:
        with restless.paused():  # or some may be closed before anything was sent
            for count in range(1, 17):
                wire = stack.enter_context(Wire.of(restless))
                wire.send(request("GET", "/openapi.json") * count)
        eventually(are_over, "their end")


def test_a_client_that_reads_late_gets_every_answer(flooded: Daemon) -> None:
    with Wire.of(flooded) as wire:
        whole = infer_zeros("wide", [1, 1])
        wire.send(whole * 100 + LIVE)
        assert flooded.request("GET", "/v2/health/ready").status == 200
        for _ in range(100):
            answer = wire.answer()
            assert answer.status == 200
            assert len(answer.body) > MIB
        assert wire.answer().json() == {"live": True}
