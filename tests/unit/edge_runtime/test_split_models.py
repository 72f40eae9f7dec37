"""A split between real models, through the real scheduler: no request fails, none is mixed up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import pytest_asyncio
from onnx import TensorProto, helper

from edge_runtime.bundle import Bundle
from edge_runtime.catalog import Catalog
from edge_runtime.datatypes import BY_NAME
from edge_runtime.inference import Inference
from edge_runtime.manifest import Manifest, Variant
from edge_runtime.protocol.messages import InferRequest, InferResponse
from edge_runtime.release.shadow import Shadow
from edge_runtime.release.trial_messages import Compared
from edge_runtime.routing import PERMYRIAD, LoadedVersion, Traffic, bucket
from edge_runtime.scheduling import Scheduler
from edge_runtime.tensors import Tensor
from tests.fakes import WAIT_S
from tests.loads import load
from tests.models import add_constant, save, value

if TYPE_CHECKING:
    from edge_runtime.errors import EdgeRuntimeError

pytestmark = pytest.mark.asyncio

ROWS = 2
REQUESTS = 120


def fails_on_two_rows(path: Path) -> Path:
    """``y = x + 2`` for one row; more of them cannot be brought into its shape."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 2])
    two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["same"]),
        helper.make_node("Add", ["same", "two"], ["y"]),
    ]
    return save(path, nodes, [value("x")], [value("y")], [shape, two])


def bundled(path: Path, version: int) -> Bundle:
    """Give the bundle of a bare model file."""
    manifest = Manifest(name="m", version=version, variants=(Variant("as-is", path.name),))
    return Bundle(manifest, path.parent)


@pytest_asyncio.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    def loader(wanted: Bundle, serving: LoadedVersion | None) -> LoadedVersion:
        return load(wanted, serving=serving)

    made = Catalog(loader)
    await made.apply(
        "m",
        {
            1: bundled(add_constant(tmp_path / "one" / "m.onnx", 1.0), 1),
            2: bundled(fails_on_two_rows(tmp_path / "two" / "m.onnx"), 2),
        },
    )
    yield made
    assert all(each.leases == 0 for each in made.loaded())
    await made.close()


def request(key: int) -> InferRequest:
    rows = 1 + key % ROWS
    tensor = Tensor(BY_NAME["FP32"], np.full((rows, 2), key, np.float32))
    return InferRequest("m", inputs={"x": tensor}, routing_key=str(key))


async def ask(inference: Inference, count: int = REQUESTS) -> list[InferResponse]:
    """Ask many at a time; every answer must be one, and its caller's own."""
    loop = asyncio.get_running_loop()
    answers: list[asyncio.Future[InferResponse | EdgeRuntimeError]] = []
    for key in range(count):
        future = loop.create_future()
        answers.append(future)
        inference.submit(request(key), future.set_result)
    async with asyncio.timeout(WAIT_S):
        found = await asyncio.gather(*answers)
    given = []
    for key, answer in enumerate(found):
        assert isinstance(answer, InferResponse), answer
        (output,) = answer.outputs
        assert output.array.tolist() == [[key + int(answer.model_version)] * 2] * (1 + key % ROWS)
        given.append(answer)
    return given


@pytest.mark.parametrize("inline_limit_ns", [0, 10**9])
async def test_no_caller_of_many_at_once_suffers_for_a_version_that_fails_on_some_inputs(
    catalog: Catalog, inline_limit_ns: int
) -> None:
    loop = asyncio.get_running_loop()
    scheduler = Scheduler(
        loop, threads=2, inline_limit_ns=inline_limit_ns, queue_depth=2 * REQUESTS
    )
    inference = Inference(catalog, scheduler.submit)
    weight = PERMYRIAD // 2
    catalog.direct("m", Traffic(1, {2: weight}))
    for _ in range(3):
        for key, answer in enumerate(await ask(inference)):
            is_on_trial = bucket("m", str(key)) < weight and not key % ROWS
            assert answer.model_version == ("2" if is_on_trial else "1")
    failed = sum(bucket("m", str(key)) < weight and key % ROWS for key in range(REQUESTS))
    statistics = catalog.peek("m", "2").statistics
    assert statistics.failures == {"BACKEND": 3 * failed}
    assert statistics.fallbacks == 3 * failed > 0
    assert catalog.peek("m", "1").statistics.fail.count == 0
    assert await scheduler.close(WAIT_S)


async def test_a_shadow_sees_what_the_default_was_asked(catalog: Catalog) -> None:
    scheduler = Scheduler(
        asyncio.get_running_loop(), threads=1, inline_limit_ns=10**9, queue_depth=2 * REQUESTS
    )
    inference = Inference(catalog, scheduler.submit)
    catalog.direct("m", Traffic(1))
    asked: asyncio.Queue[list[list[float]]] = asyncio.Queue()

    async def compare(feeds: object) -> Compared:
        assert isinstance(feeds, dict)
        await asked.put(feeds["x"].tolist())
        return Compared(skipped="only looked at")

    shadow = Shadow(compare, lambda _seen: None, block_s=60.0, cpu_share=0.5, version="1")
    inference.taps["m"] = shadow
    await ask(inference, 3)
    async with asyncio.timeout(WAIT_S):
        assert await asked.get() == [[0, 0]], "the first one of its block"
    assert shadow.taken == 1
    await shadow.close()
    assert await scheduler.close(WAIT_S)
