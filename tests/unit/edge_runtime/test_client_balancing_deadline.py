"""A part of a call may have less time than the call, never more."""

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.client.deadline import Deadline
from edge_runtime.client.endpoint import Endpoint
from edge_runtime.errors import DeadlineExceededError, TransportError

SOMEWHERE = Endpoint(path=Path("/run/s.sock"))
LONG_S = 1e6  # so that the time that passes in a test does not matter
seconds = st.floats(0.001, 1000)


def test_without_a_limit_a_part_has_the_call_s_own_deadline() -> None:
    deadline = Deadline(None)
    assert deadline.within(None, "the attempt") is deadline
    assert deadline.left_s() == math.inf


@given(seconds)
def test_a_limit_beyond_the_call_s_end_is_the_call_s_end(timeout_s: float) -> None:
    deadline = Deadline(timeout_s)
    assert deadline.within(timeout_s + LONG_S, "the attempt") is deadline
    assert isinstance(deadline.exceeded(SOMEWHERE, request_sent=True), DeadlineExceededError)


@given(seconds, st.booleans())
def test_the_end_of_a_part_is_not_the_end_of_the_call(
    limit_s: float,
    sent: bool,  # noqa: FBT001 - a strategy fills it
) -> None:
    deadline = Deadline(limit_s + LONG_S)
    part = deadline.within(limit_s, "the attempt")
    assert part.left_s() <= limit_s
    error = part.exceeded(SOMEWHERE, request_sent=sent)
    assert isinstance(error, TransportError)
    assert error.request_sent is sent
    assert "the attempt took longer than" in error.message
    assert part.within(limit_s + 1, "connecting") is part
