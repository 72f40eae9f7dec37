"""A rollout has a plain name, which is read back from the history as it was written."""

import msgspec
import pytest

from edge_runtime.protocol.release_schemas import AbortRequest, RevertRequest, StageOptions

TAKERS = (AbortRequest, RevertRequest, StageOptions)


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("name", ["", "r", "R.1_a-2", "x" * 64])
def test_a_plain_name_is_taken(name: str, taker: type[AbortRequest]) -> None:
    assert msgspec.convert({"rollout": name}, taker).rollout == name


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("name", ["x" * 65, "r 1", "r-1\n", "\n", " uid=0", "-r", "r/1", "r\u00e9"])
def test_any_other_is_refused(name: str, taker: type[AbortRequest]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"rollout": name}, taker)
