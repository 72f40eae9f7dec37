"""A key leads to one version, whichever client, door and connection it comes by."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edge_runtime.client import AsyncBalancedClient, AsyncClient, BalancedClient, Client
from edge_runtime.routing import PERMYRIAD, bucket
from tests.daemons import UnixConnection
from tests.models import add_constant
from tests.release_device import MODEL, Device, bundle

pytestmark = pytest.mark.integration

KEYS = [f"camera-{number:02}" for number in range(16)]
X = np.ones((1, 2), np.float32)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    """A device whose traffic is split between versions 1 and 2."""
    folder = tmp_path_factory.mktemp("split")
    seed = add_constant(folder / "seed.onnx", 1.0)
    # A probation that does not end by itself: what is committed cannot be promoted.
    with Device(folder, seed=seed, probation_s=600.0) as running:
        running.stage(bundle(folder / "v2", 2), mode="manual")
        for state in ("staged", "probation"):
            running.reach(2, state)
            assert running.order("promote").status == 200
        assert running.ended(2).state == "committed"
        body = {"weights": {"1": 50, "2": 50}}
        assert running.post(f"/admin/models/{MODEL}/traffic", body).status == 200
        yield running


def wanted(key: str) -> str:
    return "1" if bucket(MODEL, key) < PERMYRIAD // 2 else "2"


def blocking(make: Callable[[str], Client | BalancedClient]) -> Callable[[str], list[str]]:
    def ask(address: str) -> list[str]:
        with make(address) as client:
            return [client.predict(MODEL, {"x": X}, routing_key=key).model_version for key in KEYS]

    return ask


def awaited(make: Callable[[str], AsyncClient | AsyncBalancedClient]) -> Callable[[str], list[str]]:
    async def ask(address: str) -> list[str]:
        async with make(address) as client:
            found = [await client.predict(MODEL, {"x": X}, routing_key=key) for key in KEYS]
            return [each.model_version for each in found]

    return lambda address: asyncio.run(ask(address))


@pytest.mark.parametrize(
    "ask",
    [
        blocking(Client),
        blocking(lambda address: BalancedClient([address])),
        awaited(AsyncClient),
        awaited(lambda address: AsyncBalancedClient([address])),
    ],
    ids=["blocking", "balanced", "asynchronous", "balanced asynchronous"],
)
def test_every_client_s_key_decides_which_version_answers(
    device: Device, ask: Callable[[str], list[str]]
) -> None:
    assert ask(str(device.daemon.socket)) == [wanted(key) for key in KEYS]
    assert {wanted(key) for key in KEYS} == {"1", "2"}


def test_no_request_inherits_the_key_of_a_body_before_it_on_its_connection(device: Device) -> None:
    connection = UnixConnection(device.daemon.socket)

    def answered_by(body: dict[str, Any], size: int) -> str:
        connection.request("POST", "/predict", json.dumps(body).encode().ljust(size))
        answer = json.loads(connection.getresponse().read())
        version: str = answer["model_version"]
        return version

    plain = {"features": [1.0, 2.0], "model": MODEL}
    size = len(json.dumps({**plain, "routing_key": KEYS[0]}))  # the heads are the same
    try:
        own = answered_by(plain, size)
        for key in KEYS:
            for _ in range(2):
                assert answered_by({**plain, "routing_key": key}, size) == wanted(key)
                assert answered_by(plain, size) == own
    finally:
        connection.close()
