"""32-bit floats have the shortest text that reads back as the same number."""

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_runtime.protocol.shortest import shortest


def text(number: float) -> str:
    return msgspec.json.encode(shortest(np.array([number], np.float32))[0].item()).decode()


def digits(written: str) -> str:
    """Give the digits that count."""
    return written.partition("e")[0].replace(".", "").replace("-", "").strip("0")


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0.1, "0.1"),
        (0.2, "0.2"),
        (-0.3, "-0.3"),
        (1 / 3, "0.33333334"),
        (3.5, "3.5"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (100.0, "100.0"),
        (16777216.0, "16777216.0"),
        (1e30, "1e30"),
        (1e-7, "1e-7"),
        (1e-30, "1e-30"),
        (1e-45, "1e-45"),
    ],
)
def test_a_number_is_written_as_people_write_it(number: float, written: str) -> None:
    assert text(number) == written


@given(st.lists(st.floats(width=32), min_size=1))
@example([0.1, 1e-40, float("nan"), float("inf"), 3.4028235e38, 1e-14, 16777217.0])
def test_every_number_reads_back_as_itself(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    with np.errstate(all="raise"):
        widened = shortest(array)
    assert widened.astype(np.float32).tobytes() == array.tobytes()


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_no_text_that_reads_back_is_shorter(number: float) -> None:
    best = np.format_float_scientific(np.float32(number), unique=True, trim="-")
    assert len(digits(text(number))) <= len(digits(best))


def test_the_shape_stays() -> None:
    assert shortest(np.ones((2, 0, 3), np.float32)).shape == (2, 0, 3)
    assert shortest(np.array([[0.1], [0.2]], np.float32)).tolist() == [[0.1], [0.2]]
    assert shortest(np.array(0.1, np.float32)).tolist() == 0.1
