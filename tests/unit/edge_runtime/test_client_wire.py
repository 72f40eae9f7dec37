"""Requests are put together without copies; answers are read however the network cuts them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.client import Endpoint, wire
from edge_runtime.client.wire import Answer, AnswerReader, advance, request_buffers
from edge_runtime.errors import ProtocolError

UNIX = Endpoint.parse("/run/a.sock")
JSON = b'{"live":true}'
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n" + JSON
BINARY = (
    b"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: 13\r\nContent-Length: 21\r\n\r\n"
    + JSON
    + bytes(range(8))
)
CHUNKED = (
    b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\nRetry-After: 7\r\n\r\n"
    b"6\r\n" + JSON[:6] + b"\r\n7\r\n" + JSON[6:] + b"\r\n0\r\n\r\n"
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN


def _read(pieces: list[bytes]) -> tuple[Answer | None, AnswerReader]:
    """Feed pieces, each perhaps in several reads, as a socket would."""
    reader = AnswerReader(memoryview(bytearray(64)))
    answer = None
    for piece in pieces:
        rest = piece
        while rest:
            assert answer is None
            buffer = reader.buffer()
            count = min(len(buffer), len(rest))
            buffer[:count] = rest[:count]
            rest = rest[count:]
            answer = reader.received(count)
    return answer, reader


@settings(deadline=None)
@given(st.sampled_from([PLAIN, BINARY, CHUNKED, INTERIM]), st.data())
def test_an_answer_is_the_same_however_it_is_cut(data: bytes, draw: st.DataObject) -> None:
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=6))
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    answer, reader = _read(pieces)
    assert answer is not None
    assert reader.keep_alive
    assert answer.status == (503 if data is CHUNKED else 200)
    assert answer.retry_after_s == (7 if data is CHUNKED else None)
    if data is BINARY:
        assert answer.json_length == 13
        assert bytes(answer.body) == JSON + bytes(range(8))
    else:
        assert bytes(answer.body) == JSON


@pytest.mark.parametrize("cut", [len(BINARY), len(BINARY) - 5])
def test_the_first_tensor_is_aligned_and_may_be_written_to(cut: int) -> None:
    answer, _ = _read([BINARY[:cut], BINARY[cut:]])
    assert answer is not None
    tensor = np.frombuffer(answer.body, np.uint8)[13:]
    assert tensor.ctypes.data % 64 == 0
    assert tensor.flags.writeable


@pytest.mark.parametrize("length", [0, 10, len(PLAIN) - 1])
def test_a_cut_answer_is_a_connection_error(length: int) -> None:
    _, reader = _read([PLAIN[:length]])
    with pytest.raises(ConnectionError):
        reader.received(0)


def test_a_cut_chunked_answer_is_a_connection_error() -> None:
    _, reader = _read([CHUNKED[:-3]])
    with pytest.raises(ConnectionError):
        reader.received(0)


def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    answer, reader = _read([b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"])
    assert answer is None
    answer = reader.received(0)
    assert answer is not None
    assert bytes(answer.body) == b"hello"
    assert not reader.keep_alive


def test_a_connection_that_says_close_is_not_kept() -> None:
    answer, reader = _read([PLAIN.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)])
    assert answer is not None
    assert not reader.keep_alive


def test_an_answer_nobody_asked_for_ends_the_connection() -> None:
    reader = AnswerReader(memoryview(bytearray(256)))
    data = PLAIN + PLAIN
    reader.buffer()[: len(data)] = data
    answer = reader.received(len(data))
    assert answer is not None
    assert bytes(answer.body) == JSON
    assert not reader.keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        _read([data])


def test_a_length_over_the_limit_is_refused_before_memory_is_taken() -> None:
    size = wire.RESPONSE_BYTES_MAX + 1
    with pytest.raises(ProtocolError, match=str(wire.RESPONSE_BYTES_MAX)):
        _read([f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()])


def test_a_chunked_body_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "RESPONSE_BYTES_MAX", 10)
    with pytest.raises(ProtocolError, match="more than 10 bytes"):
        _read([CHUNKED])


def test_headers_without_end_are_refused() -> None:
    many = b"x: y\r\n" * wire.RESPONSE_HEAD_BYTES_MAX
    with pytest.raises(ProtocolError, match="headers"):
        _read([b"HTTP/1.1 200 OK\r\n", many])


@pytest.mark.parametrize("digits", [b"9" * 5000, b"-1", b"x"])
def test_a_senseless_json_length_is_no_length(digits: bytes) -> None:
    answer, _ = _read([BINARY.replace(b": 13", b": " + digits)])
    assert answer is not None
    assert answer.json_length is None


def test_a_small_request_is_one_buffer() -> None:
    [data] = request_buffers(UNIX, "POST", "/v2/x", [b"{}", b"1234"], 2)
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    assert body == b"{}1234"
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v2/x HTTP/1.1"
    assert {b"Host: localhost", b"Content-Length: 6", b"Inference-Header-Content-Length: 2"} <= set(
        lines
    )


def test_a_large_tensor_is_sent_from_where_it_is() -> None:
    array = np.zeros(100_000, np.uint8)
    buffers = request_buffers(UNIX, "POST", "/v2/x", [b"{}", array.data], 2)
    assert np.shares_memory(np.frombuffer(buffers[-1], np.uint8), array)


def test_the_base_path_comes_before_every_target() -> None:
    endpoint = Endpoint.parse("http://gateway:8000/models")
    [data] = request_buffers(endpoint, "GET", "/v2", (), None)
    assert bytes(data).startswith(b"GET /models/v2 HTTP/1.1\r\nHost: gateway:8000\r\n")


@settings(deadline=None)
@given(st.lists(st.binary(max_size=5), max_size=6), st.data())
def test_what_was_written_is_never_written_again(parts: list[bytes], draw: st.DataObject) -> None:
    whole = b"".join(parts)
    buffers: wire.Buffers = list(parts)
    count = draw.draw(st.integers(0, len(whole)))
    advance(buffers, count)
    assert b"".join(buffers) == whole[count:]
