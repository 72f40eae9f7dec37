"""A head that is remembered changes nothing but the time it takes."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.api.exchange import Exchange
from edge_runtime.api.http import Budget, Reception
from edge_runtime.api.known_head import KnownHead
from edge_runtime.api.timeouts import Timeouts
from edge_runtime.settings import Limits

Seen = tuple[bytes, bytes, int | None, bytes, bool, str]

HEADS = (
    b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
    (
        b"POST /a HTTP/1.1\r\nHost: x\r\n"
        b"Inference-Header-Content-Length: 2\r\nContent-Length: %d\r\n\r\n"
    ),
    b"PUT /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n",
    b"POST /a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\nEdge-Routing-Key: one\r\nContent-Length: %d\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\nEdge-Routing-Key: two\r\nContent-Length: %d\r\n\r\n",
)
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


class Recorder(Reception):
    """A receiving half that notes what it received."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(Limits(), Timeouts(loop), Budget())
        self.seen: list[Seen] = []
        self.refused: list[int] = []

    @property
    def knows_a_head(self) -> bool:
        """Whether the next request may go past the parser."""
        return self._known is not None

    def read(self, data: bytes) -> None:
        """Receive these bytes, in one read unless the memory given is smaller."""
        while data:
            memory = self.get_buffer(-1)
            size = min(len(memory), len(data))
            memory[:size] = data[:size]
            self.buffer_updated(size)
            data = data[size:]

    def _received(self, exchange: Exchange) -> None:
        body = bytes(exchange.body)
        self.seen.append(
            (
                exchange.method,
                exchange.target,
                exchange.json_length,
                body,
                exchange.is_http_1_0,
                exchange.routing_key,
            )
        )

    def _refuse(self, status: int, message: str) -> None:  # noqa: ARG002 - the interface
        self._abandon()
        self.refused.append(status)

    def _invite(self) -> None:
        self._expects = False


def _record(reads: list[bytes]) -> Recorder:
    async def run() -> Recorder:
        recorder = Recorder(asyncio.get_running_loop())
        for data in reads:
            recorder.read(data)
        return recorder

    return asyncio.run(run())


def _request(head: bytes, body: bytes) -> bytes:
    return head % len(body) + body


bodies = st.sampled_from([b"", b"ab", b"cd", b"\r\n", b"\r\n\r\n", b"POST"])
requests = st.one_of(st.builds(_request, st.sampled_from(HEADS), bodies), st.just(GET))
# Blank lines between requests are allowed (RFC 9112 2.2), and move every border.
alone = st.builds(bytes.__add__, requests, st.sampled_from([b"", b"", b"\r\n"]))


def _twins(head: bytes, more: bytes) -> list[bytes]:
    """Two reads of one size: an end of the first one's head is found two bytes late too."""
    return [_request(head, body) + more for body in (b"\r\n\r\n", b"\r\nab")]


twins = st.builds(_twins, st.sampled_from(HEADS), st.sampled_from([b"\r\n", b"\r\n\r\n"]))
streams = st.lists(st.one_of(alone.map(lambda each: [each]), twins)).map(
    lambda groups: [each for group in groups for each in group]
)


@given(streams, st.data())
def test_any_way_to_cut_a_stream_gives_the_same_requests(
    stream: list[bytes], data: st.DataObject
) -> None:
    joined = b"".join(stream)
    cuts = data.draw(st.lists(st.integers(0, len(joined)), max_size=5))
    edges = [0, *sorted(cuts), len(joined)]
    pieces = [joined[start:end] for start, end in pairwise(edges)]
    one_by_one = [_record([request]).seen for request in stream]
    expected = [seen for recorded in one_by_one for seen in recorded]
    for reads in (stream, pieces, [joined] if joined else []):
        recorder = _record([piece for piece in reads if piece])
        assert not recorder.refused
        assert recorder.seen == expected


def test_a_repeated_head_with_another_body_goes_past_the_parser() -> None:
    recorder = _record([_request(HEADS[0], b"ab"), _request(HEADS[0], b"cd")])
    assert recorder.knows_a_head
    assert [seen[3] for seen in recorder.seen] == [b"ab", b"cd"]


def test_nothing_is_remembered_of_a_request_whose_border_is_not_certain() -> None:
    blank_after = _request(HEADS[0], b"ab") + b"\r\n"
    ends_everywhere = _request(HEADS[0], b"\r\n\r\n") + b"\r\n"
    blank_before = b"\r\n" + _request(HEADS[0], b"ab")
    uncertain = (GET, blank_after, ends_everywhere, blank_before)
    for request in (*uncertain, _request(HEADS[3], b"ab"), _request(HEADS[4], b"ab")):
        assert not _record([request]).knows_a_head


def test_a_body_behind_a_body_of_line_ends_is_not_cut_elsewhere() -> None:
    recorder = _record(_twins(HEADS[0], b"\r\n"))
    assert [seen[3] for seen in recorder.seen] == [b"\r\n\r\n", b"\r\nab"]


def test_a_defect_of_ours_is_logged_and_answered_500(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def on_header(self, name: bytes, value: bytes) -> None:  # noqa: ARG002 - the interface
            raise ValueError("broken")

    async def run() -> list[int]:
        recorder = Broken(asyncio.get_running_loop())
        recorder.read(GET)
        return recorder.refused

    assert asyncio.run(run()) == [500]
    assert "ValueError: broken" in caplog.text


def test_a_remembered_head_holds_neither_body_nor_answer() -> None:
    head = HEADS[0] % 2

    async def run() -> KnownHead | None:
        exchange = Exchange(Recorder(asyncio.get_running_loop()))
        exchange.body = b"ab"
        return KnownHead.of(memoryview(head + b"ab"), exchange)

    known = asyncio.run(run())
    assert known is not None
    assert known.head == head
    assert not any(isinstance(field, Exchange) for field in known)
