"""The asyncio client of several endpoints keeps the same promises, for tasks, on both loops."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from edge_runtime.client import AsyncBalancedClient, Ejection
from edge_runtime.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    InvalidTensorError,
    TransportError,
    UnavailableError,
)
from tests.daemons import POLL_S, eventually
from tests.scripted_predictions import AT_ONCE, BUSY, PATIENT, Seen, X, answer, http, many
from tests.scripted_server import WAIT_S, Caller, scripted_server

Run = Callable[[Coroutine[Any, Any, None]], None]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"]),
]


async def number(client: AsyncBalancedClient, **more: Any) -> float:  # noqa: ANN401 - see predict
    """Ask for a prediction, and give the number in it."""
    prediction = await client.predict("m", X, **more)
    return float(prediction.outputs["y"][0])


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition while the loop goes on."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(POLL_S)


def test_what_cannot_be_sent_is_answered_by_another_endpoint(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        addresses = [tmp_path / "no.sock", server.path]
        async with AsyncBalancedClient(addresses, policy="round_robin") as client:
            assert [await number(client) for _ in range(10)] == [1.0] * 10

    seen = Seen(answer(1))
    with scripted_server(*many(seen.answering)) as server:
        run(main())
    assert len(seen.requests) == 10


def test_only_at_least_once_sends_again_what_may_have_run(run: Run) -> None:
    async def main() -> None:
        addresses = [bad.path, good.path]
        async with AsyncBalancedClient(addresses, ejection=PATIENT) as client:
            calls = [number(client) for _ in range(10)]
            results = await asyncio.gather(*calls, return_exceptions=True)
        lost = [result for result in results if isinstance(result, TransportError)]
        assert [error.request_sent for error in lost] == [True] * len(leaves.requests)
        assert results.count(1.0) == len(answers.requests) == 10 - len(lost)
        async with AsyncBalancedClient(addresses, retry="at_least_once") as client:
            assert [await number(client) for _ in range(10)] == [1.0] * 10

    leaves, answers = Seen(), Seen(answer(1))
    with (
        scripted_server(*many(leaves.leaving)) as bad,
        scripted_server(*many(answers.answering)) as good,
    ):
        run(main())
    assert leaves.requests


def test_a_refusal_is_answered_by_another_endpoint_if_there_is_one(run: Run) -> None:
    async def main() -> None:
        addresses = [busy.path, idle.path]
        async with AsyncBalancedClient(addresses, ejection=PATIENT) as client:
            assert [await number(client) for _ in range(4)] == [1.0] * 4
        async with AsyncBalancedClient([busy.path]) as client:
            with pytest.raises(UnavailableError, match="full") as raised:
                await number(client)
        assert raised.value.retry_after_s == 7

    with (
        scripted_server(*many(Seen(BUSY).answering)) as busy,
        scripted_server(*many(Seen(answer(1)).answering)) as idle,
    ):
        run(main())


def test_what_the_caller_must_mend_is_asked_once(run: Run) -> None:
    async def main() -> None:
        addresses = [first.path, second.path]
        async with AsyncBalancedClient(addresses, retry="at_least_once") as client:
            with pytest.raises(InvalidRequestError, match=r"^no$"):
                await number(client)
            with pytest.raises(InvalidTensorError):
                await client.infer("m", {"x": 1j})

    servers = [Seen(http(400, b'{"error":"no"}')) for _ in range(2)]
    with (
        scripted_server(*many(servers[0].answering)) as first,
        scripted_server(*many(servers[1].answering)) as second,
    ):
        run(main())
    assert sum(len(seen.requests) for seen in servers) == 1


def test_one_timeout_is_for_all_attempts_and_an_attempt_may_have_its_own(run: Run) -> None:
    async def main() -> None:
        addresses = [hung.path, good.path]
        async with AsyncBalancedClient(
            addresses,
            retry="at_least_once",
            retries=20,  # the good one may be slow now and then
            attempt_timeout_s=0.1,
            ejection=PATIENT,
        ) as client:
            assert [await number(client) for _ in range(4)] == [1.0] * 4
            await until(lambda: bool(hangs.requests), "the attempts' being read")
        async with AsyncBalancedClient([hung.path], retry="at_least_once") as client:
            with pytest.raises(DeadlineExceededError, match=r"0\.1 s"):
                await number(client, timeout_s=0.1)
            assert client.endpoint_states()[0].outstanding == 0

    hangs = Seen()
    with (
        scripted_server(*many(hangs.hanging)) as hung,
        scripted_server(*many(Seen(answer(1)).answering)) as good,
    ):
        run(main())


def test_an_endpoint_that_accepts_nobody_is_given_up_while_there_is_time(run: Run) -> None:
    async def main(path: Path) -> None:
        async with AsyncBalancedClient(
            [path, good.path], retries=20, connect_timeout_s=0.05, ejection=PATIENT
        ) as client:
            assert [await number(client) for _ in range(4)] == [1.0] * 4
        async with AsyncBalancedClient([path], retry="never", connect_timeout_s=0.05) as client:
            with pytest.raises(TransportError, match=r"connecting took longer") as raised:
                await number(client)
            assert not raised.value.request_sent

    with (
        socket.socket(socket.AF_UNIX) as full,
        socket.socket(socket.AF_UNIX) as first,
        scripted_server(*many(Seen(answer(1)).answering)) as good,
    ):
        path = good.path.with_name("full.sock")
        full.bind(str(path))
        full.listen(0)
        first.connect(str(path))  # and now the backlog is full
        run(main(path))


def test_a_cancelled_call_closes_its_connection_and_goes_nowhere_else(run: Run) -> None:
    left = threading.Event()

    def hang(caller: Caller) -> None:
        seen.hanging(caller)
        left.set()

    async def main() -> None:
        async with AsyncBalancedClient([first.path, second.path], retry="at_least_once") as client:
            task = asyncio.create_task(number(client))
            await until(lambda: bool(seen.requests), "the call")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [state.outstanding for state in client.endpoint_states()] == [0, 0]
            assert not any(state.is_ejected for state in client.endpoint_states())

    seen = Seen()
    with scripted_server(*many(hang)) as first, scripted_server(*many(hang)) as second:
        run(main())
        assert left.wait(WAIT_S)
    assert len(seen.requests) == 1


def test_an_ejected_endpoint_is_asked_when_somebody_calls_and_comes_back(run: Run) -> None:
    async def main() -> None:
        async with AsyncBalancedClient([later.path, good.path], ejection=AT_ONCE) as client:
            while not client.endpoint_states()[0].is_ejected:
                assert await number(client) == 1
            away.rename(later.path)
            assert later.connections == 0  # nobody asked
            while client.endpoint_states()[0].is_ejected:
                assert await number(client) == 1
            assert sorted([await number(client) for _ in range(4)]) == [1, 1, 2, 2]

    with (
        scripted_server(*many(Seen(answer(1)).answering)) as good,
        scripted_server(*many(Seen(answer(2)).answering)) as later,
    ):
        away = later.path.with_suffix(".away")
        later.path.rename(away)
        run(main())


def test_closing_ends_the_checks(run: Run) -> None:
    async def main() -> None:
        hours = Ejection(failures=1, first_s=0.001, most_s=0.001, check_timeout_s=3600)
        client = AsyncBalancedClient([hung.path, good.path], retry="at_least_once", ejection=hours)
        while not hangs.requests:  # it leaves the first, and then has the check wait
            assert await number(client) == 1
        assert len(asyncio.all_tasks()) == 2
        await client.close()
        assert len(asyncio.all_tasks()) == 1
        with pytest.raises(InvalidRequestError, match="closed"):
            await number(client)

    hangs = Seen()
    with (
        scripted_server(Seen().leaving, *many(hangs.hanging)) as hung,
        scripted_server(*many(Seen(answer(1)).answering)) as good,
    ):
        run(main())
        eventually(lambda: hung.finished == hung.connections, "the end of the check")


def test_ready_anywhere_is_ready(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        nowhere = tmp_path / "no.sock"
        async with AsyncBalancedClient([nowhere, loading.path, good.path]) as client:
            assert [await client.model_ready("m") for _ in range(3)] == [True] * 3
            assert await client.live()
            assert await client.ready()
        async with AsyncBalancedClient([nowhere, loading.path]) as client:
            assert [await client.model_ready("m") for _ in range(3)] == [False] * 3
        async with AsyncBalancedClient([nowhere]) as client:
            with pytest.raises(TransportError):
                await client.ready()

    with (
        scripted_server(*many(Seen(http(503, b'{"error":"loading"}')).answering)) as loading,
        scripted_server(*many(Seen(http(200, b"")).answering)) as good,
    ):
        run(main())


def test_many_tasks_share_one_client(run: Run) -> None:
    async def main() -> None:
        addresses = [first.path, second.path]
        async with AsyncBalancedClient(addresses, connections=3) as client:
            answers = await asyncio.gather(*(number(client) for _ in range(400)))
            assert [state.outstanding for state in client.endpoint_states()] == [0, 0]
        assert [answers.count(index) for index in range(2)] == [
            len(seen.requests) for seen in servers
        ]

    servers = [Seen(answer(index)) for index in range(2)]
    with (
        scripted_server(*many(servers[0].answering)) as first,
        scripted_server(*many(servers[1].answering)) as second,
    ):
        run(main())
    assert sum(len(seen.requests) for seen in servers) == 400
