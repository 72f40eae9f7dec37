"""A split request path: answers that cannot be sent, refusals, the cache, and taps."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from msgspec.structs import replace

from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.errors import InvalidRequestError, InvalidTensorError
from edge_runtime.protocol.messages import InferRequest
from edge_runtime.routing import LoadedVersion, Traffic
from edge_runtime.settings import Model
from edge_runtime.tensors import Array, Signature, Tensor, TensorSpec
from tests.caching import CPU, RAM_ONLY
from tests.fakes import TWO_INPUTS, bundle
from tests.splits import FAILED, FP32, Split, request, split_at_rest

pytestmark = pytest.mark.asyncio

BLAMED = InvalidTensorError("the model refused the input: an index")
NARROW = Signature(
    [TensorSpec(name, FP32, (1, 2), (), ()) for name in ("a", "b")],
    list(TWO_INPUTS.outputs.values()),
)


path = pytest_asyncio.fixture(split_at_rest)


# -- what cannot be sent, or is refused ----------------------------------------------------------


async def test_an_answer_that_json_cannot_carry_comes_from_the_proven_version(path: Split) -> None:
    await path.serve()
    path.submit()
    path.end("2", value=float("nan"))
    path.end("1")
    assert path.answered_by() == "1"
    assert path.counts(2) == (0, {"BACKEND": 1}, 1)
    ((version, error),) = path.noted
    assert version == "2"
    assert "NaN or infinity" in error.message


async def test_a_nan_that_both_give_is_nobodys_fault(path: Split) -> None:
    await path.serve()
    path.submit()
    path.end("2", value=float("inf"))
    path.end("1", value=float("inf"))
    assert isinstance(path.answer(), InvalidRequestError)
    assert path.counts(2) == (0, {"OTHER": 1}, 0)
    assert path.counts(1) == (0, {"OTHER": 1}, 0)
    assert path.noted == []


async def test_a_nan_in_a_binary_answer_is_sent(path: Split) -> None:
    await path.serve()
    path.submit(replace(request(), binary_outputs=True))
    path.end("2", value=float("nan"))
    assert path.answered_by() == "2"
    assert path.counts(2) == (1, {}, 0)


async def test_what_only_the_version_on_trial_refuses_the_proven_one_answers(path: Split) -> None:
    path.loader.signature = TWO_INPUTS
    await path.catalog.apply("m", {1: bundle("m", 1, "one")})
    path.loader.signature = NARROW
    await path.serve()
    path.submit(request(rows=2))
    path.end("1")
    assert path.answered_by() == "1"
    assert path.counts(2) == (0, {"BACKEND": 1}, 1)


async def test_what_both_refuse_is_the_callers_fault(path: Split) -> None:
    await path.serve()
    path.submit(InferRequest("m", inputs={"a": Tensor(FP32, np.ones((1, 2), np.float32))}))
    assert isinstance(path.answer(), InvalidTensorError)
    assert path.counts(2) == (0, {"OTHER": 1}, 0)
    assert path.counts(1) == (0, {}, 0)


async def test_what_only_the_version_on_trial_blames_on_the_input_the_proven_one_answers(
    path: Split,
) -> None:
    await path.serve()
    path.submit()
    path.end("2", BLAMED)
    assert path.counts(2) == (0, {}, 0), "nobody knows yet whose fault it is"
    path.end("1")
    assert path.answered_by() == "1"
    assert path.counts(2) == (0, {"BACKEND": 1}, 1)
    assert path.noted == [("2", BLAMED)]


async def test_what_both_blame_on_the_input_is_the_callers_fault(path: Split) -> None:
    await path.serve()
    path.submit()
    path.end("2", BLAMED)
    path.end("1", BLAMED)
    assert path.answer() is BLAMED
    assert path.counts(2) == (0, {"OTHER": 1}, 0)
    assert path.noted == []


# -- with a cache --------------------------------------------------------------------------------


async def test_a_cached_model_answers_from_the_proven_version_and_not_from_older_answers(
    tmp_path: Path,
) -> None:
    settings = Model(cache_ttl_s=60, cache_stale_s=600)
    loop = asyncio.get_running_loop()
    cache = PredictionCache(loop, RAM_ONLY, tmp_path, runtime_version="1", cpu=CPU)
    path = Split(cache)
    path.inference.take_cache_settings({"m": settings})
    await path.serve()
    path.submit()
    path.end("2", FAILED)
    path.end("1")
    assert path.answered_by() == "1"
    path.answers.clear()
    path.submit()
    path.end("2")
    assert path.answered_by() == "2", "what the proven version answered is not the other's answer"
    assert path.counts(2) == (1, {"BACKEND": 1}, 1)
    await path.catalog.close()


# -- taps ----------------------------------------------------------------------------------------


class Bucket:
    """A tap that takes one request of the default version."""

    def __init__(self) -> None:
        self.taken: list[Mapping[str, Array]] = []

    def wants(self, loaded: LoadedVersion) -> bool:
        """Want the first one of version 1."""
        return loaded.version == "1" and not self.taken

    def take(self, loaded: LoadedVersion, feeds: Mapping[str, Array]) -> None:
        """Copy."""
        assert loaded.version == "1"
        self.taken.append({name: array.copy() for name, array in feeds.items()})


async def test_a_tap_gets_checked_inputs_of_its_model_before_anything_runs(path: Split) -> None:
    await path.serve(Traffic(1))
    await path.catalog.apply("other", {1: bundle("other", 1)})
    tap = path.inference.taps["m"] = Bucket()
    path.submit(replace(request(), model_name="other"))
    path.end("1")
    path.submit(InferRequest("m"))
    path.submit(replace(request(), model_version="2"))
    path.end("2")
    assert tap.taken == []
    asked = request(2)
    path.submit(asked)
    asked.inputs["a"].array[:] = 7  # a client that writes on
    path.end("1")
    path.submit()
    path.end("1")
    (feeds,) = tap.taken
    assert feeds["a"].tolist() == [[1, 1], [1, 1]]
