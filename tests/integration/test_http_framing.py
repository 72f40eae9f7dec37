"""HTTP/1.1 on one connection: however the bytes arrive, the right answers in the right order."""

import json
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.daemons import Daemon
from tests.models import identity
from tests.wire import Wire, infer, numbers, request

pytestmark = pytest.mark.integration

LIVE = request("GET", "/v2/health/live")
INFER = infer("m", [[1.5, -2.0]])
CHUNKED = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    model = identity(tmp_path_factory.mktemp("models") / "m.onnx")
    with Daemon([f"m={model}", f"a@b:c={model}", "--http", "127.0.0.1:0"]) as running:
        yield running


@pytest.fixture
def wire(daemon: Daemon) -> Iterator[Wire]:
    with Wire.of(daemon) as connected:
        yield connected


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def body_of(whole: bytes) -> bytes:
    return whole.partition(b"\r\n\r\n")[2]


BODY = body_of(INFER)


@pytest.mark.parametrize(
    "whole", [INFER, CHUNKED + chunks(BODY, 7)], ids=["content-length", "chunked"]
)
def test_a_request_cut_in_two_at_any_byte_is_answered(wire: Wire, whole: bytes) -> None:
    for cut in range(1, len(whole)):
        wire.send(whole[:cut], whole[cut:])
        assert numbers(wire.answer()) == [1.5, -2.0], f"cut at {cut}"


def test_a_request_that_comes_byte_by_byte_is_answered(wire: Wire) -> None:
    wire.send(*(INFER[place : place + 1] for place in range(len(INFER))))
    assert numbers(wire.answer()) == [1.5, -2.0]


@pytest.mark.parametrize("seed", range(10))
def test_pipelined_requests_cut_anywhere_are_answered_in_order(wire: Wire, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    values = [[float(number), chance.random()] for number in range(20)]
    requests = []
    for value in values:
        whole = infer("m", [value])
        if chance.random() < 0.5:
            whole = CHUNKED + chunks(body_of(whole), chance.randint(1, 60))
        requests.append(whole)
        if chance.random() < 0.3:
            requests.append(b"\r\n")  # RFC 9112 2.2: an empty line before a request is ignored
    stream = b"".join(requests)
    cuts = sorted(chance.sample(range(1, len(stream)), chance.randint(1, 60)))
    edges = [0, *cuts, len(stream)]
    wire.send(*(stream[start:end] for start, end in pairwise(edges)))
    for value in values:
        assert numbers(wire.answer()) == pytest.approx(value, rel=1e-6)


def test_the_same_bytes_over_tcp_give_the_same_answers(daemon: Daemon) -> None:
    with Wire(socket.create_connection(("127.0.0.1", daemon.http_port()), 10)) as wire:
        wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(1, len(INFER), 5):
            wire.send(INFER[:cut], INFER[cut:])
            assert numbers(wire.answer()) == [1.5, -2.0]


def test_more_requests_than_the_pipeline_holds_are_all_answered_in_order(wire: Wire) -> None:
    values = [[float(number), 0.0] for number in range(500)]
    wire.send(b"".join(infer("m", [value]) for value in values))
    assert [numbers(wire.answer()) for _ in values] == values


def test_different_requests_pipelined_together_keep_their_order(wire: Wire) -> None:
    wire.send(LIVE + INFER + request("GET", "/nowhere") + request("DELETE", "/v2") + INFER)
    assert [wire.answer().status for _ in range(5)] == [200, 200, 404, 405, 200]


@pytest.mark.parametrize("rows", [1, 9000, 100_000])
def test_a_binary_body_of_any_size_comes_back_unchanged(wire: Wire, rows: int) -> None:
    data = random.Random(rows).randbytes(rows * 8)  # noqa: S311
    head = (
        b'{"inputs":[{"name":"x","shape":[%d,2],"datatype":"FP32","parameters":'
        b'{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}' % (rows, len(data))
    )
    path = "/v2/models/m/infer"
    whole = request("POST", path, head + data, {"Inference-Header-Content-Length": len(head)})
    for _ in range(2):  # and the connection goes on after it
        wire.send(whole + LIVE)
        answer = wire.answer()
        assert answer.body[int(answer.headers["Inference-Header-Content-Length"]) :] == data
        assert wire.answer().status == 200


def test_a_large_body_may_begin_in_the_read_that_ends_another_request(wire: Wire) -> None:
    values = [[float(number), -1.0] for number in range(30_000)]
    wire.send(LIVE + infer("m", values) + LIVE)
    assert wire.answer().status == 200
    assert numbers(wire.answer())[-2:] == values[-1]
    assert wire.answer().status == 200


# -- Expect: 100-continue ------------------------------------------------------------------------

EXPECTING = INFER.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
EXPECTING_HEAD = EXPECTING.removesuffix(BODY)


def test_who_expects_100_continue_gets_it_and_then_the_answer(wire: Wire) -> None:
    wire.send(EXPECTING_HEAD)
    assert wire.answer().status == 100
    wire.send(BODY)
    assert numbers(wire.answer()) == [1.5, -2.0]


def test_the_100_does_not_overtake_the_answer_before_it(wire: Wire) -> None:
    wire.send(LIVE + EXPECTING_HEAD)
    assert wire.answer().json() == {"live": True}
    assert wire.answer().status == 100
    wire.send(BODY)
    assert numbers(wire.answer()) == [1.5, -2.0]


def test_a_body_that_came_along_needs_no_100(wire: Wire) -> None:
    wire.send(EXPECTING + LIVE)
    assert numbers(wire.answer()) == [1.5, -2.0]
    assert wire.answer().json() == {"live": True}


def test_no_100_for_a_body_that_will_be_refused(wire: Wire) -> None:
    length = b"Content-Length: %d\r\n" % len(BODY)
    wire.send(EXPECTING_HEAD.replace(length, b"Content-Length: 999999999\r\n"))
    assert wire.answer().status == 413
    assert wire.ends()


def test_any_other_expectation_is_refused(wire: Wire) -> None:
    wire.send(EXPECTING.replace(b"100-continue", b"tea"))
    assert wire.answer().status == 417


# -- HEAD, names, versions of HTTP ---------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/models/m", "/metrics", "/nowhere"])
def test_head_answers_like_get_without_the_body(wire: Wire, path: str) -> None:
    wire.send(request("HEAD", path) + request("GET", path))
    head = wire.answer(head_only=True)
    whole = wire.answer()
    assert head.status == whole.status
    assert head.headers["Content-Type"] == whole.headers["Content-Type"]
    if path != "/metrics":  # counted on between the two
        assert head.headers == whole.headers


def test_names_are_percent_decoded_once(daemon: Daemon) -> None:
    assert daemon.request("GET", "/v2/models/a%40b%3ac").json()["name"] == "a@b:c"
    assert daemon.request("GET", "/v2/models/%6D?x=1").json()["name"] == "m"
    assert daemon.request("GET", "/v2/models/%256D").status == 404
    unknown = daemon.request("GET", "/v2/models/%C3%A4%20b%2Fc")
    assert unknown.status == 404
    assert "'ä b/c'" in unknown.json()["error"]


def test_a_name_that_is_not_utf_8_is_refused(daemon: Daemon) -> None:
    answer = daemon.request("GET", "/v2/models/%ff")
    assert answer.status == 400
    assert "UTF-8" in answer.json()["error"]


def test_the_absolute_form_of_a_target_is_understood(wire: Wire) -> None:
    for scheme in ("http", "HTTP", "Http"):
        wire.send(request("GET", f"{scheme}://localhost/v2/health/live"))
        assert wire.answer().status == 200


def test_http_1_0_closes_unless_it_asks_to_stay(wire: Wire) -> None:
    stay = b"GET /v2/health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    wire.send(stay)
    assert wire.answer().headers["Connection"] == "keep-alive"
    wire.send(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
    assert wire.answer().status == 200
    assert wire.ends()


def test_connection_close_is_obeyed_and_what_follows_is_ignored(wire: Wire) -> None:
    wire.send(request("GET", "/v2/health/live", headers={"Connection": "close"}) + b"garbage")
    answer = wire.answer()
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    assert wire.ends()


def test_an_upgrade_is_ignored_however_often_it_is_asked_for(wire: Wire) -> None:
    wish = request("GET", "/v2/health/live", headers={"Connection": "Upgrade", "Upgrade": "h2c"})
    wire.send(wish * 2000)
    assert {wire.answer().status for _ in range(2000)} == {200}


WISH = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAA"}
WISHING = request("POST", "/v2/models/m/infer", BODY, WISH)
WISHING_CHUNKED = CHUNKED.replace(
    b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)


@pytest.mark.parametrize(
    "whole", [WISHING, WISHING_CHUNKED + chunks(BODY, 7)], ids=["content-length", "chunked"]
)
def test_a_body_behind_the_wish_to_upgrade_is_read_however_it_is_cut(
    wire: Wire, whole: bytes
) -> None:
    for cut in range(1, len(whole)):
        wire.send(whole[:cut], whole[cut:] + LIVE)
        assert numbers(wire.answer()) == [1.5, -2.0], f"cut at {cut}"
        assert wire.answer().json() == {"live": True}


def test_a_body_behind_the_wish_to_upgrade_is_no_second_request(wire: Wire) -> None:
    hidden = request("GET", "/metrics")
    wire.send(request("POST", "/v2/repository/index", hidden, WISH) + LIVE)
    assert wire.answer().status == 400, "the body is no JSON"
    assert wire.answer().json() == {"live": True}
    chunked = WISHING_CHUNKED.replace(b"/v2/models/m/infer", b"/v2/repository/index")
    wire.send(chunked + chunks(hidden, 1000) + LIVE)
    assert wire.answer().status == 400
    assert wire.answer().json() == {"live": True}


def test_a_large_body_behind_the_wish_to_upgrade_is_read(wire: Wire) -> None:
    values = [[float(number), -1.0] for number in range(30_000)]
    whole = body_of(infer("m", values))
    wire.send(request("POST", "/v2/models/m/infer", whole, WISH) + LIVE)
    assert numbers(wire.answer())[-2:] == values[-1]
    assert wire.answer().status == 200


def test_the_wish_to_upgrade_does_not_undo_the_wish_to_close(wire: Wire) -> None:
    close = {**WISH, "Connection": "close, Upgrade"}
    wire.send(request("POST", "/v2/models/m/infer", BODY, close) + LIVE)
    assert numbers(wire.answer()) == [1.5, -2.0]
    assert wire.ends()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_that_wishes_for_http_2_is_answered(daemon: Daemon) -> None:
    url = "http://localhost/v2/models/m/infer"
    command = ["curl", "--http2", "-sS", "--unix-socket", str(daemon.socket), "-d", "@-", url]
    done = subprocess.run(command, input=BODY, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["outputs"][0]["data"] == [1.5, -2.0]


def test_http_1_0_with_chunks_closes_after_the_answer(wire: Wire) -> None:
    head = CHUNKED.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n")
    wire.send(head + chunks(BODY, 7) + LIVE)
    assert numbers(wire.answer()) == [1.5, -2.0]
    assert wire.ends()


def test_a_client_that_only_closed_its_sending_side_is_answered_and_then_left(wire: Wire) -> None:
    wire.send(LIVE + INFER)
    wire.sock.shutdown(socket.SHUT_WR)
    assert wire.answer().status == 200
    assert numbers(wire.answer()) == [1.5, -2.0]
    assert wire.ends()


@pytest.mark.parametrize("cut", [5, 40, len(INFER) - len(BODY) + 3, len(INFER) - 1])
def test_a_request_that_is_cut_off_disturbs_nobody(daemon: Daemon, cut: int) -> None:
    with Wire.of(daemon) as wire:
        wire.send(INFER[:cut])
    with Wire.of(daemon) as wire:
        wire.send(INFER[:cut])
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.ends()
    with Wire.of(daemon) as wire:
        wire.send(INFER)
        assert numbers(wire.answer()) == [1.5, -2.0]
