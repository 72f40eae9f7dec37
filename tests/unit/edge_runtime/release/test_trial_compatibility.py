"""What programs would notice of another version."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.manifest import TensorDescription
from edge_runtime.release.compatibility import incompatible

shapes = st.lists(st.sampled_from([-1, 1, 2]), max_size=3).map(tuple)
descriptions = st.lists(
    st.builds(
        TensorDescription,
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["FP32", "INT64"]),
        shapes,
    ),
    max_size=3,
    unique_by=lambda each: each.name,
)


def tensor(shape: Sequence[int], datatype: str = "FP32", name: str = "t") -> TensorDescription:
    return TensorDescription(name, datatype, tuple(shape))


@given(descriptions, descriptions)
def test_version_is_compatible_with_itself(
    inputs: list[TensorDescription], outputs: list[TensorDescription]
) -> None:
    assert not incompatible((inputs, outputs), (inputs[::-1], outputs[::-1]))


@pytest.mark.parametrize(
    ("active", "candidate", "is_input", "is_output"),
    [
        ([-1, 2], [-1, 2], True, True),
        ([1, 2], [-1, 2], True, True),  # it takes more
        ([-1, 2], [1, 2], False, True),  # it takes less; it only says more of what it gives
        ([1, 2], [1, 3], False, False),
        ([1, 2], [1, 2, 1], False, False),
    ],
)
def test_shapes_are_compatible_where_no_request_and_no_answer_is_lost(
    active: list[int], candidate: list[int], *, is_input: bool, is_output: bool
) -> None:
    ours, theirs = [tensor(active)], [tensor(candidate)]
    assert (not incompatible((ours, []), (theirs, []))) is is_input
    assert (not incompatible(([], ours), ([], theirs))) is is_output


def test_differences_are_named() -> None:
    ours = [tensor([1]), tensor([1], name="u")]
    assert incompatible((ours, []), ([tensor([1], "INT64"), ours[1]], [])) == [
        "its input 't' is INT64, that of the active version FP32"
    ]
    assert incompatible(([], ours), ([], ours[:1])) == [
        "its outputs are ['t'], those of the active version ['t', 'u']"
    ]
