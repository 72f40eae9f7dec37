"""The clients of several endpoints against real daemons, one of which is killed."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Self

import numpy as np
import pytest

from edge_runtime.client import AsyncBalancedClient, BalancedClient, Client, Ejection
from edge_runtime.errors import EdgeRuntimeError, ModelNotFoundError, TransportError
from edge_runtime.tensors import Array
from tests.conftest import DIGITS, ROOT
from tests.daemons import POLL_S, Daemon, daemon, eventually
from tests.models import add_constant

pytestmark = pytest.mark.integration

THREADS = 8
NUMBERS = 1_000 * THREADS  # ten times which float32 has exactly
SOON = Ejection(first_s=0.05, most_s=0.2)
WAIT_S = 60.0


@dataclass
class Pair:
    """Two daemons whose answers tell who gave them: one adds 1, the other 2."""

    daemons: list[Daemon]

    @property
    def sockets(self) -> list[Path]:
        """Where they listen."""
        return [each.socket for each in self.daemons]

    def executed(self, index: int) -> int:
        """Count the predictions of one."""
        with Client(self.sockets[index]) as client:
            return client.statistics("m").model_stats[0].inference_count

    def kill(self) -> None:
        """Kill the first with SIGKILL."""
        self.daemons[0].process.kill()
        self.daemons[0].process.wait()

    def restart(self) -> None:
        """Start the first one again, on the same socket."""
        self.daemons[0].restart(signal.SIGKILL)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two daemons of their own for a test."""
    models = [add_constant(tmp_path / f"{number}.onnx", number) for number in (1, 2)]
    with daemon(f"m={models[0]}") as first, daemon(f"m={models[1]}") as second:
        yield Pair([first, second])


def rows(number: int) -> Array:
    """Make an input that no other request has."""
    return np.full((1, 2), 10 * number, np.float32)


def who(number: int, answer: Array) -> int:
    """Tell who answered, and that it is the answer to this request."""
    difference = answer - rows(number)
    assert difference.min() == difference.max()
    return int(difference[0, 0])


def test_results_are_those_of_a_client(pair: Pair) -> None:
    with Client(pair.sockets[0]) as single, BalancedClient(pair.sockets[:1]) as client:
        prediction = client.predict("m", {"x": rows(1)}, id="mine", outputs=["y"])
        expected = single.predict("m", {"x": rows(1)}, id="mine", outputs=["y"])
        assert np.array_equal(prediction.outputs["y"], expected.outputs["y"])
        assert (prediction.id, prediction.model_version) == (expected.id, expected.model_version)
        assert np.array_equal(client.infer("m", {"x": rows(1)})["y"], expected.outputs["y"])
        body = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
        assert client.infer_raw("m", body).status == single.infer_raw("m", body).status == 200
        assert client.metadata() == single.metadata()
        assert client.model_metadata("m") == single.model_metadata("m")
        assert client.index() == single.index()
        assert client.statistics("m").model_stats[0].name == "m"
        assert client.live()
        assert client.ready()
        assert client.model_ready("m")
        with pytest.raises(ModelNotFoundError):
            client.model_ready("nobody")
        with pytest.raises(ModelNotFoundError):
            client.infer("nobody", {"x": rows(1)})


@pytest.mark.parametrize(
    ("arguments", "shares"),
    [
        ({"policy": "round_robin"}, [30, 30]),
        ({"policy": "least_outstanding"}, [30, 30]),
        ({"policy": "weighted", "weights": [3, 1]}, [45, 15]),
    ],
)
def test_load_is_shared_as_the_policy_says(
    pair: Pair, arguments: dict[str, Any], shares: list[int]
) -> None:
    with BalancedClient(pair.sockets, **arguments) as client:
        counts = Counter(
            who(number, client.infer("m", {"x": rows(number)})["y"]) for number in range(60)
        )
    assert [counts[1], counts[2]] == shares
    assert [pair.executed(0), pair.executed(1)] == shares


class Load:
    """Threads that ask one prediction after the other, each for what no other asks.

    Args:
        client: Whom they ask.
    """

    def __init__(self, client: BalancedClient) -> None:
        self.errors: list[EdgeRuntimeError] = []
        self._client = client
        self._stop = Event()
        self._answers = [Counter[int]() for _ in range(THREADS)]
        self._threads = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> Self:
        self._ends = [self._threads.submit(self._ask, thread) for thread in range(THREADS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads.shutdown()

    def answers(self, answerer: int) -> int:
        """Count the answers of one of the daemons."""
        return sum(each[answerer] for each in self._answers)

    def grow(self, answerer: int) -> None:
        """Wait for more answers of one of the daemons."""
        before = self.answers(answerer)
        eventually(lambda: self.answers(answerer) > before + 50, f"load on {answerer}")

    def check(self) -> None:
        """Raise what a thread found wrong."""
        for end in self._ends:
            end.result(WAIT_S)

    def _ask(self, thread: int) -> None:
        number = thread
        while not self._stop.is_set():
            number = (number + THREADS) % NUMBERS
            try:
                answer = self._client.infer("m", {"x": rows(number)})["y"]
            except EdgeRuntimeError as error:
                self.errors.append(error)
            else:
                self._answers[thread][who(number, answer)] += 1


def test_a_killed_daemon_costs_no_answer_with_at_least_once_and_comes_back(pair: Pair) -> None:
    with BalancedClient(pair.sockets, retry="at_least_once", ejection=SOON) as client:
        with Load(client) as load:
            load.grow(1)
            load.grow(2)
            pair.kill()
            eventually(lambda: client.endpoint_states()[0].is_ejected, "the ejection")
            load.grow(2)
            pair.restart()
            load.grow(1)
        load.check()
        assert load.errors == []
        assert [state.outstanding for state in client.endpoint_states()] == [0, 0]


def test_a_killed_daemon_makes_nothing_run_twice_by_default(pair: Pair) -> None:
    with BalancedClient(pair.sockets, ejection=SOON) as client:
        with Load(client) as load:
            load.grow(1)
            load.grow(2)
            pair.kill()
            eventually(lambda: client.endpoint_states()[0].is_ejected, "the ejection")
            load.grow(2)
        load.check()
    lost = [error for error in load.errors if isinstance(error, TransportError)]
    assert lost == load.errors
    assert all(error.request_sent for error in lost)
    assert len(lost) <= THREADS  # what was on its way when it died, and nothing after
    assert pair.executed(1) == load.answers(2)  # the other ran nothing but what it answered


def test_the_example_in_the_documentation_runs() -> None:
    page = (ROOT / "docs" / "predict.md").read_text("utf-8")
    section = page.partition("## Several daemons")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    model = f"digits={DIGITS / 'digits-int8.onnx'}"
    with daemon(model) as first, daemon(model) as second:
        for path, running in [("/tmp/a/r.sock", first), ("/tmp/b/r.sock", second)]:  # noqa: S108 - as written there
            assert path in code
            code = code.replace(path, str(running.socket))
        command = [sys.executable, "-c", code]
        output = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert output.stdout.startswith(f"[{np.load(DIGITS / 'test.npz')['labels'][0]}]")


def test_tasks_get_every_answer_while_a_daemon_is_killed_and_comes_back(pair: Pair) -> None:
    async def main() -> None:
        answerers: Counter[int] = Counter()
        stop = asyncio.Event()

        async def load(task: int, client: AsyncBalancedClient) -> None:
            number = task
            while not stop.is_set():
                answer = await client.infer("m", {"x": rows(number)})
                answerers[who(number, answer["y"])] += 1
                number = (number + THREADS) % NUMBERS

        async def grow(answerer: int) -> None:
            before = answerers[answerer]
            while answerers[answerer] <= before + 20:  # noqa: ASYNC110 - progress of other tasks
                await asyncio.sleep(POLL_S)

        async with (
            AsyncBalancedClient(pair.sockets, retry="at_least_once", ejection=SOON) as client,
            asyncio.timeout(WAIT_S),
            asyncio.TaskGroup() as group,
        ):
            for task in range(THREADS):
                group.create_task(load(task, client))
            await grow(1)
            await grow(2)
            pair.kill()
            await grow(2)
            await asyncio.to_thread(pair.restart)
            await grow(1)
            stop.set()

    asyncio.run(main())
