"""The asyncio client: the same answers as the blocking one, for many tasks, on both loops."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

from edge_runtime.client import AsyncClient, Client, Endpoint, asynchronous, deadline
from edge_runtime.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    ProtocolError,
    RequestTooLargeError,
    TransportError,
)
from tests.conftest import DIGITS
from tests.daemons import Daemon, daemon, eventually
from tests.models import identity
from tests.scripted_server import LIVE, WAIT_S, Caller, answering, scripted_server

Run = Callable[[Coroutine[Any, Any, None]], None]

IMAGES = np.load(DIGITS / "test.npz")["image"]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"]),
]


def _silent(caller: Caller) -> None:
    """Never answer."""
    caller.read_request()
    caller.socket.recv(1)  # until the client leaves


def test_both_clients_give_the_same(digits: Daemon, run: Run) -> None:
    with Client(digits.socket) as client:
        expected = client.infer("digits", {"image": IMAGES[:5]})

    async def main(address: str) -> None:
        async with AsyncClient(address) as client:
            answer = await client.infer("digits", {"image": IMAGES[:5]})
            as_json = await client.infer("digits", {"image": IMAGES[:5]}, binary=False)
        for name, array in expected.items():
            assert np.array_equal(answer[name], array)
            assert np.allclose(as_json[name], array)

    run(main(str(digits.socket)))
    run(main(f"http://127.0.0.1:{digits.http_port()}"))


def test_every_question_about_the_daemon_is_answered(digits: Daemon, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(digits.socket) as client:
            assert await client.live()
            assert await client.ready()
            assert await client.model_ready("digits")
            assert (await client.metadata()).name == "edge-runtime"
            assert (await client.model_metadata("digits", "1")).name == "digits"
            assert (await client.statistics("digits")).model_stats
            assert [entry.name for entry in await client.index()] == ["digits"]
            prediction = await client.predict("digits", {"image": IMAGES[:1]}, id="mine")
            assert prediction.id == "mine"
            with pytest.raises(ModelNotFoundError):
                await client.infer("nobody", {})

    run(main())


def test_models_are_loaded_and_unloaded_on_the_admin_socket(run: Run) -> None:
    async def main(running: Daemon) -> None:
        async with AsyncClient(Endpoint(path=running.admin)) as admin:
            await admin.unload("digits")
            assert [entry.state for entry in await admin.index()] == ["UNAVAILABLE"]
            await admin.load("digits")
            assert [entry.state for entry in await admin.index()] == ["READY"]

    with daemon(f"digits={DIGITS / 'digits-int8.onnx'}") as running:
        run(main(running))


def test_many_tasks_share_one_client_and_get_their_own_answers(run: Run, tmp_path: Path) -> None:
    model = identity(tmp_path / "identity.onnx", shape=("batch", "n"))

    async def main(running: Daemon) -> None:
        async with AsyncClient(running.socket, connections=8) as client:

            async def ask(number: int) -> bool:
                array = np.full((1, 1 + number * 97 % 40_000), number, np.float32)
                answer = await client.infer("identity", {"x": array})
                return np.array_equal(answer["y"], array)

            assert all(await asyncio.gather(*map(ask, range(400))))
            large = np.random.default_rng(0).random((7, 300_000), np.float32)
            answer = await client.infer("identity", {"x": large})
            assert np.array_equal(answer["y"], large)

    with daemon(f"identity={model}") as running:
        run(main(running))


def test_a_cancelled_call_closes_its_connection(run: Run) -> None:
    left = threading.Event()

    def script(caller: Caller) -> None:
        _silent(caller)
        left.set()

    async def main(path: Path) -> None:
        async with AsyncClient(path) as client:
            task = asyncio.create_task(client.live())
            while not server.connections:  # noqa: ASYNC110 - another thread's progress
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.live()

    with scripted_server(script, answering(LIVE)) as server:
        run(main(server.path))
        assert left.wait(WAIT_S)


def test_the_timeout_is_for_the_whole_call(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a call does before it waits takes no time; waits last as long as they may.
    monkeypatch.setattr(deadline, "monotonic", lambda: 0.0)

    async def main(path: Path) -> None:
        async with AsyncClient(path, timeout_s=None, connections=1) as client:
            first = asyncio.create_task(client.live())
            while not server.connections:  # noqa: ASYNC110 - another thread's progress
                await asyncio.sleep(0)
            with pytest.raises(DeadlineExceededError, match="nothing was sent"):
                await client.live(timeout_s=0.05)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            with pytest.raises(DeadlineExceededError, match="may have run"):
                await client.live(timeout_s=0.1)

    with scripted_server(_silent, _silent) as server:
        run(main(server.path))


def test_a_connection_the_server_closed_is_replaced(run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.path) as client:
            assert await client.live()
            eventually(lambda: server.finished == 1, "the server's closing")
            assert await client.live()

    with scripted_server(answering(LIVE), answering(LIVE)) as server:
        run(main())
        assert server.connections == 2


def test_a_connection_found_closed_only_when_writing_is_replaced(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asynchronous._Connection, "is_stale", lambda _: False)

    async def main() -> None:
        async with AsyncClient(server.path) as client:
            assert await client.live()
            eventually(lambda: server.finished == 1, "the server's closing")
            assert await client.live()

    with scripted_server(answering(LIVE), answering(LIVE)) as server:
        run(main())
        assert server.connections == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", TransportError), (LIVE[:-1], TransportError), (b"what?\r\n\r\n", ProtocolError)],
)
def test_a_wrong_answer_is_one_error_and_is_not_asked_for_again(
    run: Run, answer: bytes, error: type[Exception]
) -> None:
    async def main() -> None:
        async with AsyncClient(server.path) as client:
            with pytest.raises(error):
                await client.live()
            assert server.connections == 1
            assert await client.live()

    with scripted_server(answering(answer), answering(LIVE)) as server:
        run(main())


def test_a_request_over_the_limit_is_told_so_although_it_was_cut_off(run: Run) -> None:
    async def main(running: Daemon) -> None:
        async with AsyncClient(running.socket) as client:
            with pytest.raises(RequestTooLargeError, match="1000000"):
                await client.infer("digits", {"image": np.zeros((200_000, 1, 8, 8), np.float32)})

    limit = {"EDGE_RUNTIME__LIMITS__BODY_BYTES": "1000000"}
    with daemon(f"digits={DIGITS / 'digits-int8.onnx'}", environment=limit) as running:
        run(main(running))


@pytest.mark.parametrize("address", ["/nowhere/r.sock", "http://127.0.0.1:1"])
def test_a_daemon_that_is_not_there_is_named_with_what_to_do(run: Run, address: str) -> None:
    async def main() -> None:
        async with AsyncClient(address) as client:
            with pytest.raises(TransportError, match="edge-runtime serve") as raised:
                await client.live()
            assert not raised.value.request_sent

    run(main())


def test_a_full_backlog_is_waited_for(run: Run) -> None:
    ready = threading.Event()

    def wait(caller: Caller) -> None:
        ready.wait(WAIT_S)
        answering(LIVE)(caller)

    async def main() -> None:
        async with AsyncClient(server.path) as client:
            tasks = [asyncio.create_task(client.live()) for _ in range(8)]
            await asyncio.sleep(0)
            ready.set()
            assert all(await asyncio.gather(*tasks))

    with scripted_server(*[wait] * 8, backlog=0) as server:
        run(main())


def test_a_closed_client_says_so(digits: Daemon, run: Run) -> None:
    async def main() -> None:
        client = AsyncClient(digits.socket)
        assert await client.live()
        await client.close()
        with pytest.raises(InvalidRequestError, match="closed"):
            await client.live()

    run(main())
