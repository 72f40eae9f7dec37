"""The blocking client of several endpoints, against servers that misbehave on real sockets."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.client import AsyncBalancedClient, BalancedClient, Endpoint, deadline
from edge_runtime.errors import (
    ConfigError,
    DeadlineExceededError,
    InvalidRequestError,
    TransportError,
    UnavailableError,
)
from tests.daemons import eventually
from tests.scripted_predictions import AT_ONCE, BUSY, PATIENT, Seen, answer, http, many, number
from tests.scripted_server import WAIT_S, scripted_server

pytestmark = pytest.mark.integration


def test_what_cannot_be_sent_is_answered_by_another_endpoint(tmp_path: Path) -> None:
    seen = Seen(answer(1))
    with (
        scripted_server(*many(seen.answering)) as server,
        BalancedClient([tmp_path / "no.sock", server.path], policy="round_robin") as client,
    ):
        assert [number(client) for _ in range(10)] == [1.0] * 10
    assert len(seen.requests) == 10


def test_never_means_that_an_unreachable_endpoint_is_an_error(tmp_path: Path) -> None:
    with (
        scripted_server(*many(Seen(answer(1)).answering)) as server,
        BalancedClient(
            [tmp_path / "no.sock", server.path], policy="round_robin", retry="never"
        ) as client,
    ):
        told = []
        for _ in range(2):
            try:
                number(client)
            except TransportError as error:
                told.append(error.message)
    assert len(told) == 1
    assert "no.sock" in told[0]


def test_by_default_no_request_is_sent_twice() -> None:
    leaves, answers = Seen(), Seen(answer(1))
    answered = 0
    errors = []
    with (
        scripted_server(*many(leaves.leaving)) as bad,
        scripted_server(*many(answers.answering)) as good,
        BalancedClient([bad.path, good.path], policy="round_robin", ejection=PATIENT) as client,
    ):
        for name in range(20):
            try:
                assert number(client, id=f"<{name}>") == 1
                answered += 1
            except TransportError as error:
                errors.append(error)
    assert answered == 10
    assert [error.request_sent for error in errors] == [True] * 10
    ids = [request.partition(b"<")[2].partition(b">")[0] for request in leaves.requests]
    ids += [request.partition(b"<")[2].partition(b">")[0] for request in answers.requests]
    assert sorted(ids) == sorted(b"%d" % name for name in range(20))


def test_at_least_once_answers_what_a_server_read_and_dropped() -> None:
    leaves, answers = Seen(), Seen(answer(1))
    with (
        scripted_server(*many(leaves.leaving)) as bad,
        scripted_server(*many(answers.answering)) as good,
        BalancedClient(
            [bad.path, good.path], policy="round_robin", retry="at_least_once", ejection=PATIENT
        ) as client,
    ):
        assert [number(client) for _ in range(10)] == [1.0] * 10
    assert leaves.requests
    assert len(answers.requests) == 10


def test_without_budget_nothing_that_was_sent_is_sent_again() -> None:
    leaves = Seen()
    with (
        scripted_server(*many(leaves.leaving)) as server,
        BalancedClient([server.path], retry="at_least_once", retry_budget=0) as client,
    ):
        for _ in range(3):
            with pytest.raises(TransportError):
                number(client)
    assert len(leaves.requests) == 3


def test_a_refusal_is_answered_by_another_endpoint() -> None:
    refuses, answers = Seen(BUSY), Seen(answer(1))
    with (
        scripted_server(*many(refuses.answering)) as busy,
        scripted_server(*many(answers.answering)) as idle,
        BalancedClient([busy.path, idle.path], policy="round_robin", ejection=PATIENT) as client,
    ):
        assert [number(client) for _ in range(6)] == [1.0] * 6
    assert refuses.requests
    assert len(answers.requests) == 6


def test_when_all_refuse_the_caller_is_told_at_once_and_when_to_come_back() -> None:
    servers = [Seen(BUSY), Seen(BUSY)]
    with (
        scripted_server(*many(servers[0].answering)) as first,
        scripted_server(*many(servers[1].answering)) as second,
        BalancedClient([first.path, second.path], retry="at_least_once") as client,
    ):
        with pytest.raises(UnavailableError, match="full") as raised:
            number(client)
        assert raised.value.retry_after_s == 7
        assert raised.value.__notes__ == ["an earlier attempt: full"]
    assert [len(seen.requests) for seen in servers] == [1, 1]


@pytest.mark.parametrize("retry", ["unsent", "at_least_once"])
@pytest.mark.parametrize("status", [400, 403, 404, 413, 500, 501])
def test_what_the_caller_must_mend_is_asked_once_and_ejects_nobody(
    status: int,
    retry: Any,  # noqa: ANN401 - one of the names
) -> None:
    servers = [Seen(http(status, b'{"error":"no"}')) for _ in range(2)]
    with (
        scripted_server(*many(servers[0].answering)) as first,
        scripted_server(*many(servers[1].answering)) as second,
        BalancedClient([first.path, second.path], retry=retry, ejection=AT_ONCE) as client,
    ):
        for _ in range(4):
            with pytest.raises(Exception, match=r"^no$"):
                number(client)
        assert not any(state.is_ejected for state in client.endpoint_states())
    assert [len(seen.requests) for seen in servers] == [2, 2]


def test_a_proxy_s_503_may_have_run() -> None:
    servers = [Seen(http(503, b"<html>"), answer(1)) for _ in range(2)]
    with (
        scripted_server(*many(servers[0].answering)) as first,
        scripted_server(*many(servers[1].answering)) as second,
    ):
        paths = [first.path, second.path]
        with BalancedClient(paths) as client, pytest.raises(TransportError, match="html") as raised:
            number(client)
        assert raised.value.request_sent
        with BalancedClient(paths, retry="at_least_once") as client:
            assert number(client) == 1


def test_one_timeout_is_for_all_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    # What a call does before it waits takes no time; waits last as long as they may.
    monkeypatch.setattr(deadline, "monotonic", lambda: 0.0)
    servers = [Seen(), Seen()]
    with (
        scripted_server(*many(servers[0].hanging)) as first,
        scripted_server(*many(servers[1].hanging)) as second,
        BalancedClient([first.path, second.path], retry="at_least_once", timeout_s=0.1) as client,
    ):
        with pytest.raises(DeadlineExceededError, match=r"0\.1 s"):
            number(client)
        assert [state.outstanding for state in client.endpoint_states()] == [0, 0]
        eventually(lambda: any(seen.requests for seen in servers), "the attempt's being read")
    assert sum(len(seen.requests) for seen in servers) == 1


def test_an_attempt_may_have_a_timeout_of_its_own() -> None:
    hangs, answers = Seen(), Seen(answer(1))
    with (
        scripted_server(*many(hangs.hanging)) as hung,
        scripted_server(*many(answers.answering)) as good,
        BalancedClient(
            [hung.path, good.path],
            policy="round_robin",
            retry="at_least_once",
            retries=20,  # the good one may be slow now and then
            attempt_timeout_s=0.1,
            ejection=PATIENT,
        ) as client,
    ):
        assert [number(client) for _ in range(4)] == [1.0] * 4
        eventually(lambda: bool(hangs.requests), "the attempts' being read")


def test_an_endpoint_that_accepts_nobody_is_given_up_while_there_is_time() -> None:
    seen = Seen(answer(1))
    with (
        socket.socket(socket.AF_UNIX) as full,
        socket.socket(socket.AF_UNIX) as first,
        scripted_server(*many(seen.answering)) as server,
    ):
        path = server.path.with_name("full.sock")
        full.bind(str(path))
        full.listen(0)
        first.connect(str(path))  # and now the backlog is full
        with BalancedClient(
            [path, server.path],
            policy="round_robin",
            retries=20,  # so little time may be over before the good one is asked
            connect_timeout_s=0.05,
            ejection=PATIENT,
        ) as client:
            assert [number(client) for _ in range(4)] == [1.0] * 4
        with (
            BalancedClient([path], retry="never", connect_timeout_s=0.05) as client,
            pytest.raises(TransportError, match=r"connecting took longer than 0\.05 s") as raised,
        ):
            number(client)
        assert not raised.value.request_sent


def test_many_threads_share_one_client() -> None:
    servers = [Seen(answer(index)) for index in range(3)]
    with (
        scripted_server(*many(servers[0].answering)) as first,
        scripted_server(*many(servers[1].answering)) as second,
        scripted_server(*many(servers[2].answering)) as third,
        BalancedClient([first.path, second.path, third.path], connections=2) as client,
        ThreadPoolExecutor(12) as threads,
    ):
        answers = list(threads.map(lambda _: number(client), range(600)))
        assert [state.outstanding for state in client.endpoint_states()] == [0, 0, 0]
    assert len(answers) == 600
    for index, seen in enumerate(servers):
        assert answers.count(index) == len(seen.requests)


def test_a_forked_child_shares_neither_connections_nor_locks() -> None:
    seen = Seen(answer(1))
    with scripted_server(*many(seen.answering)) as server:
        # In a process of its own: pytest has threads, and forking with those is not for tests.
        code = f"""
import os, numpy as np
from edge_runtime.client import BalancedClient
client = BalancedClient([{str(server.path)!r}])
ask = lambda: client.infer("m", {{"x": np.zeros(1, np.float32)}})
ask()
kept = client._pools[0]._idle[0]
client._balancer.begin().next(0.0)  # as if another thread were in the middle of a call,
client._lock.acquire()              # with the lock
pid = os.fork()
if not pid:
    assert client.endpoint_states()[0].outstanding == 0
    ask()
    os._exit(0 if client._pools[0]._idle[0] is not kept else 1)
client._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
ask()
assert client._pools[0]._idle[0] is kept
client.close()
"""
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=WAIT_S)
    assert len(seen.requests) == 3


@pytest.mark.parametrize(
    ("addresses", "message"),
    [
        ("/run/a.sock", "is a list"),
        (Path("/run/a.sock"), "is a list"),
        (Endpoint(path=Path("/run/a.sock")), "is a list"),
        ([], "empty"),
        (["/run/a.sock", "unix:/run/a.sock"], "twice"),
        (["/run/a.sock", "127.0.0.1:8000"], "http://"),
        (None, "addresses is a list"),
        (7, "addresses is a list"),
        (["/run/a.sock", None], "addresses: None"),
        ([b"/run/a.sock"], "addresses: b'/run"),
    ],
)
def test_addresses_that_make_no_sense_are_refused(
    addresses: Any,  # noqa: ANN401 - also what is no list
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        BalancedClient(addresses)


@pytest.mark.parametrize(
    "arguments",
    [
        {"policy": "random"},
        {"weights": [1]},
        {"weights": ["1"], "policy": "weighted"},
        {"retry": "always"},
        {"retries": -1},
        {"retries": 1.5},
        {"retries": True},
        {"retry_budget": 2},
        {"retry_budget": "0.2"},
        {"connections": 0},
        {"connections": 2.5},
        {"connections": True},
        {"connections": "2"},
    ],
)
@pytest.mark.parametrize("kind", [BalancedClient, AsyncBalancedClient])
def test_arguments_that_make_no_sense_are_refused_by_name(
    kind: Callable[..., object], arguments: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        kind(["/run/a.sock"], **arguments)


def test_numbers_of_numpy_are_numbers() -> None:
    with BalancedClient(
        ["/run/a.sock", "/run/b.sock"],
        policy="weighted",
        weights=np.array([1.0, 2.0]),  # type: ignore[arg-type]
        retries=np.int64(1),  # type: ignore[arg-type]
        connections=np.int64(2),  # type: ignore[arg-type]
    ) as client:
        assert len(client.endpoint_states()) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"timeout_s": 0},
        {"attempt_timeout_s": 1},
        {"attempt_timeout_s": 0, "retry": "at_least_once"},
        {"connect_timeout_s": 0},
    ],
)
def test_timeouts_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        BalancedClient(["/run/a.sock"], **arguments)


def test_it_loads_neither_onnxruntime_nor_asyncio() -> None:
    code = (
        "import sys; from edge_runtime.client import BalancedClient, Ejection, EndpointState; "
        "print({'onnxruntime', 'asyncio'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert output.strip() == b"set()"
