"""Who is left alone and who comes back: the blocking client of several endpoints."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge_runtime.client import BalancedClient, Ejection
from edge_runtime.errors import (
    InvalidRequestError,
    ModelNotFoundError,
    TransportError,
    UnavailableError,
)
from tests.daemons import eventually
from tests.scripted_predictions import AT_ONCE, BUSY, CHECK, READY, Seen, answer, http, many, number
from tests.scripted_server import WAIT_S, Caller, scripted_server

pytestmark = pytest.mark.integration


def no_check_goes_on() -> bool:
    return all("edge-runtime" not in thread.name for thread in threading.enumerate())


def test_a_hung_endpoint_gets_no_more_while_it_hangs() -> None:
    hangs, answers = Seen(), Seen(answer(1))
    over = threading.Event()

    def hang(caller: Caller) -> None:
        hangs.leaving(caller)
        assert over.wait(WAIT_S)

    with (
        scripted_server(*many(hang)) as hung,
        scripted_server(*many(answers.answering)) as good,
        ThreadPoolExecutor(1) as threads,
        BalancedClient([hung.path, good.path], timeout_s=None) as client,
    ):
        # Whoever begins, the second of two calls goes to the other one.
        waiting = threads.submit(number, client, timeout_s=WAIT_S)
        eventually(lambda: bool(hangs.requests or answers.requests), "the first call")
        if answers.requests:
            waiting.result(WAIT_S)
            waiting = threads.submit(number, client, timeout_s=WAIT_S)
            eventually(lambda: bool(hangs.requests), "the second call")
        before = len(answers.requests)
        assert [number(client) for _ in range(10)] == [1.0] * 10
        assert len(answers.requests) == before + 10
        assert client.endpoint_states()[0].outstanding == 1
        over.set()
        with pytest.raises(TransportError):
            waiting.result(WAIT_S)
        assert client.endpoint_states()[0].outstanding == 0


def test_an_ejected_endpoint_is_asked_when_somebody_calls_and_admitted_when_it_is_ready() -> None:
    comes_back, answers = Seen(answer(2)), Seen(answer(1))
    with (
        scripted_server(*many(answers.answering)) as good,
        scripted_server(*many(comes_back.answering)) as later,
    ):
        away = later.path.with_suffix(".away")
        later.path.rename(away)
        with BalancedClient(
            [later.path, good.path], policy="round_robin", ejection=AT_ONCE
        ) as client:
            while not client.endpoint_states()[0].is_ejected:
                assert number(client) == 1
            eventually(no_check_goes_on, "the end of the checks that the calls began")
            away.rename(later.path)
            assert later.connections == 0  # nobody asked
            eventually(lambda: number(client) == 2, "the return of the ejected one")
            assert not client.endpoint_states()[0].is_ejected
            assert sorted(number(client) for _ in range(4)) == [1, 1, 2, 2]


def test_an_endpoint_that_is_not_ready_stays_ejected() -> None:
    asked: list[bytes] = []

    def unready(caller: Caller) -> None:
        while request := caller.read_request():
            asked.append(request)
            caller.write(http(400, b'{"ready":false}') if request.startswith(CHECK) else BUSY)

    answers = Seen(answer(1))
    with (
        scripted_server(*many(unready)) as starting,
        scripted_server(*many(answers.answering)) as good,
        BalancedClient([starting.path, good.path], ejection=AT_ONCE) as client,
    ):

        def checked() -> bool:
            assert number(client) == 1
            return sum(request.startswith(CHECK) for request in asked) >= 3

        eventually(checked, "three checks")
        assert client.endpoint_states()[0].is_ejected
        predictions = sum(request.startswith(b"POST") for request in asked)
        assert [number(client) for _ in range(10)] == [1.0] * 10
        assert sum(request.startswith(b"POST") for request in asked) == predictions


def test_a_daemon_without_one_of_the_models_keeps_answering_for_the_others() -> None:
    checks = 0

    def lacks_one(caller: Caller) -> None:
        nonlocal checks
        while request := caller.read_request():
            checks += request.startswith(CHECK)
            caller.write(READY if request.startswith(CHECK) else BUSY)

    # Not by models but by calls: one refusal makes a doubt here, so every call raises one.
    with (
        scripted_server(*many(lacks_one)) as server,
        BalancedClient([server.path], ejection=AT_ONCE) as client,
    ):

        def is_asked() -> bool:
            with pytest.raises(UnavailableError):
                number(client)
            assert not client.endpoint_states()[0].is_ejected
            return checks >= 3

        eventually(is_asked, "three checks")


def test_to_say_that_it_is_not_ready_admits_no_endpoint() -> None:
    hours = Ejection(failures=1, first_s=3600, most_s=3600)
    with (
        scripted_server(
            Seen(BUSY).leaving,  # with a request that may have been carried out
            *many(Seen(BUSY).answering),
        ) as server,
        BalancedClient([server.path], ejection=hours) as client,
    ):
        with pytest.raises(TransportError):
            number(client)
        assert client.endpoint_states()[0].is_ejected
        assert not client.model_ready("m")
        assert client.endpoint_states()[0].is_ejected
        assert client.ready()  # which a check would have found too
        assert not client.endpoint_states()[0].is_ejected


def test_when_all_are_ejected_they_are_tried_all_the_same(tmp_path: Path) -> None:
    seen = Seen(answer(1))
    hours = Ejection(failures=1, first_s=3600, most_s=3600)
    with scripted_server(*many(seen.answering)) as server:
        away = server.path.with_suffix(".away")
        server.path.rename(away)
        addresses = [server.path, tmp_path / "no.sock"]
        with BalancedClient(addresses, ejection=hours) as client:
            with pytest.raises(TransportError) as raised:
                number(client)
            assert not raised.value.request_sent
            assert any("no.sock" in note for note in [str(raised.value), *raised.value.__notes__])
            assert all(state.is_ejected for state in client.endpoint_states())
            away.rename(server.path)
            assert number(client) == 1
            assert [state.is_ejected for state in client.endpoint_states()] == [False, True]


def test_ready_anywhere_is_ready(tmp_path: Path) -> None:
    def serving(status: int) -> Callable[[Caller], None]:
        return Seen(http(status, b'{"error":"x"}')).answering

    nowhere = tmp_path / "no.sock"
    with (
        scripted_server(*many(serving(503))) as loading,
        scripted_server(*many(serving(404))) as ignorant,
        scripted_server(*many(serving(200))) as good,
    ):
        with BalancedClient([nowhere, loading.path, ignorant.path, good.path]) as client:
            assert [client.model_ready("m") for _ in range(4)] == [True] * 4
            assert client.live()
            assert client.ready()
        with BalancedClient([nowhere, loading.path, ignorant.path]) as client:
            assert [client.model_ready("m") for _ in range(4)] == [False] * 4
        with BalancedClient([nowhere, ignorant.path]) as client, pytest.raises(TransportError):
            client.model_ready("m")
        with BalancedClient([ignorant.path]) as client, pytest.raises(ModelNotFoundError):
            client.model_ready("m")


def test_a_closed_client_says_so_and_leaves_no_thread(tmp_path: Path) -> None:
    client = BalancedClient([tmp_path / "a.sock", tmp_path / "b.sock"], ejection=AT_ONCE)
    for _ in range(3):
        with pytest.raises(TransportError):
            number(client)
    client.close()
    client.close()
    with pytest.raises(InvalidRequestError, match="closed"):
        number(client)
    eventually(no_check_goes_on, "the end of the checks")
