"""Answers to requests for a part of a file: only the bytes that were asked for are taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.download.ranges import (
    Asked,
    Placed,
    UnusableAnswerError,
    WrongFileError,
    place,
    strong_tag,
)

PART = Asked(10, 20, 100, '"t"')
WHOLE = Asked(0, 100, 100)


def test_a_part_is_asked_for_by_range_and_tag() -> None:
    headers = {"Accept-Encoding": "identity", "Range": "bytes=10-19", "If-Range": '"t"'}
    assert PART.headers() == headers
    assert WHOLE.headers() == {"Accept-Encoding": "identity"}


def test_the_part_that_was_asked_for_is_taken() -> None:
    headers = {"Content-Range": "bytes 10-19/100", "ETag": '"t"'}
    assert place(206, headers, PART) == Placed(10, 20, '"t"')


def test_less_than_was_asked_for_is_taken() -> None:
    assert place(206, {"content-range": "bytes 10-14/*"}, PART) == Placed(10, 15, "")


def test_the_whole_file_is_taken_when_it_was_asked_for() -> None:
    assert place(200, {"Content-Length": "100"}, WHOLE) == Placed(0, 100, "")
    assert place(200, {}, WHOLE) == Placed(0, 100, "")


@pytest.mark.parametrize(
    ("status", "headers", "asked"),
    [
        (200, {}, PART),
        (204, {}, WHOLE),
        (206, {}, PART),
        (206, {"content-range": "bytes 11-19/100"}, PART),
        (206, {"content-range": "bytes 10-20/100"}, PART),
        (206, {"content-range": "bytes 10-9/100"}, PART),
        (206, {"content-range": "bytes */100"}, PART),
        (206, {"content-range": "items 10-19/100"}, PART),
        (206, {"content-range": "bytes 10-19/100", "etag": '"u"'}, PART),
        (206, {"content-type": "multipart/byteranges; boundary=x"}, PART),
        (200, {"content-encoding": "gzip"}, WHOLE),
    ],
)
def test_anything_else_is_not_used(status: int, headers: dict[str, str], asked: Asked) -> None:
    with pytest.raises(UnusableAnswerError) as error:
        place(status, headers, asked)
    assert not isinstance(error.value, WrongFileError)


@pytest.mark.parametrize(
    ("status", "headers", "asked"),
    [
        (206, {"content-range": "bytes 10-19/99"}, PART),
        (200, {"content-length": "99"}, WHOLE),
        (200, {"content-length": "-1"}, WHOLE),
        (416, {"content-range": "bytes */5"}, PART),
    ],
)
def test_another_size_is_another_file(status: int, headers: dict[str, str], asked: Asked) -> None:
    with pytest.raises(WrongFileError):
        place(status, headers, asked)


@given(
    status=st.integers(200, 599),
    headers=st.dictionaries(
        st.sampled_from(["content-range", "content-length", "etag", "content-encoding"]),
        st.one_of(
            st.text(max_size=30),
            st.tuples(st.integers(0, 120), st.integers(0, 120), st.integers(0, 120)).map(
                lambda said: f"bytes {said[0]}-{said[1]}/{said[2]}"
            ),
        ),
    ),
)
def test_whatever_a_server_says_no_byte_gets_to_another_place(
    status: int, headers: dict[str, str]
) -> None:
    try:
        placed = place(status, headers, PART)
    except UnusableAnswerError:
        return
    assert placed.begin == PART.begin < placed.end <= PART.end


@pytest.mark.parametrize(
    ("text", "is_strong"),
    [('"a"', True), ('"a-1f"', True), ('W/"a"', False), ("a", False), ('""', False), ("", False)],
)
def test_only_strong_tags_join_parts(text: str, *, is_strong: bool) -> None:
    assert strong_tag(text) == (text if is_strong else "")


def test_a_tag_is_no_way_into_the_request() -> None:
    assert strong_tag('"a\r\nX: y"') == ""
