"""The clients against a real daemon, and against servers that misbehave on a real socket."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.client import Client, Endpoint, connection, deadline
from edge_runtime.errors import (
    DeadlineExceededError,
    ForbiddenError,
    InvalidRequestError,
    InvalidTensorError,
    ModelNotFoundError,
    ProtocolError,
    RequestTooLargeError,
    TransportError,
    UnavailableError,
)
from tests.conftest import DIGITS
from tests.daemons import Daemon, daemon, eventually
from tests.models import identity, slow
from tests.scripted_server import LIVE, WAIT_S, Caller, answering, scripted_server

pytestmark = pytest.mark.integration

IMAGES = np.load(DIGITS / "test.npz")["image"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with an identity for each sort of tensor, and a slow model."""
    folder = tmp_path_factory.mktemp("models")
    arguments = [
        f"{name.lower()}={identity(folder / f'{name}.onnx', name, ('batch', 'n'))}"
        for name in ("FP32", "FP16", "BF16", "BYTES", "INT64", "BOOL")
    ]
    arguments.append(f"slow={slow(folder / 'slow.onnx', 1024, 24)}")
    with daemon(*arguments) as running:
        yield running


@pytest.mark.parametrize("binary", [True, False])
def test_a_prediction_is_arrays_in_and_arrays_out(digits: Daemon, binary: bool) -> None:  # noqa: FBT001
    labels = np.load(DIGITS / "test.npz")["labels"][:20]
    with Client(digits.socket) as client:
        outputs = client.infer("digits", {"image": IMAGES[:20]}, binary=binary)
    assert outputs["scores"].shape == (20, 10)
    assert outputs["scores"].dtype == np.float32
    assert (outputs["label"] == labels).mean() > 0.9
    outputs["scores"][0] = 0  # yours to write to


def test_unix_socket_and_tcp_give_the_same(digits: Daemon) -> None:
    addresses = [f"unix:{digits.socket}", f"http://127.0.0.1:{digits.http_port()}"]
    answers = []
    for address in addresses:
        with Client(address) as client:
            answers.append(client.infer("digits", {"image": IMAGES[:3]})["scores"])
    assert np.array_equal(answers[0], answers[1])


def test_the_environment_names_the_default_socket(
    digits: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_RUNTIME_SOCKET", str(digits.socket))
    with Client() as client:
        assert client.live()
        assert str(digits.socket) in repr(client)


def test_a_prediction_tells_who_answered(digits: Daemon) -> None:
    with Client(digits.socket) as client:
        prediction = client.predict(
            "digits", {"image": IMAGES[:1]}, version="1", id="mine", outputs=["label"]
        )
        ranked = client.predict("digits", {"image": IMAGES[:1]}, outputs=["scores"], classes=2)
    assert (prediction.model_name, prediction.model_version) == ("digits", "1")
    assert prediction.id == "mine"
    assert list(prediction.outputs) == ["label"]
    assert prediction.datatypes == {"label": "INT64"}
    assert ranked.outputs["scores"].shape == (1, 2)


def test_every_question_about_the_daemon_is_answered(digits: Daemon) -> None:
    with Client(digits.socket) as client:
        assert client.live()
        assert client.ready()
        assert client.model_ready("digits")
        assert client.metadata().name == "edge-runtime"
        assert client.model_metadata("digits", "1").inputs[0].shape == (-1, 1, 8, 8)
        assert client.statistics("digits").model_stats[0].name == "digits"
        assert client.statistics().model_stats
        assert [entry.state for entry in client.index(only_ready=True)] == ["READY"]
        with pytest.raises(ModelNotFoundError):
            client.model_ready("nobody")


def test_loading_belongs_to_the_admin_socket() -> None:
    with (
        daemon(f"digits={DIGITS / 'digits-int8.onnx'}") as running,
        Client(running.socket) as client,
        Client(Endpoint(path=running.admin)) as admin,
    ):
        with pytest.raises(ForbiddenError, match="admin"):
            client.unload("digits")
        admin.unload("digits")
        assert not client.model_ready("digits")
        with pytest.raises(UnavailableError):
            client.infer("digits", {"image": IMAGES[:1]})
        admin.load("digits")
        assert client.model_ready("digits")


@pytest.mark.parametrize(
    ("model", "array"),
    [
        ("fp32", np.array([[np.nan, np.inf, -0.0]], ">f4")),
        ("fp32", np.zeros((0, 3), np.float32)),
        ("fp16", np.array([[1.5, -2.0]], np.float16)),
        ("int64", np.arange(12).reshape(3, 4)[:, ::2]),
        ("bool", np.array([[True, False]])),
        ("bytes", np.array([["", "grün", "\0"]], object)),
    ],
)
def test_every_sort_of_array_comes_back_from_an_identity(
    models: Daemon, model: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    with Client(models.socket) as client:
        answer = client.infer(model, {"x": array})["y"]
    assert answer.shape == array.shape
    assert answer.dtype == array.dtype.newbyteorder("=")
    assert answer.tolist() == array.tolist() or np.array_equal(answer, array, equal_nan=True)


def test_bfloat16_comes_back_as_bfloat16(models: Daemon) -> None:
    import ml_dtypes  # noqa: PLC0415 - only here

    array = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    with Client(models.socket) as client:
        answer = client.infer("bf16", {"x": array})["y"]
    assert answer.dtype == array.dtype
    assert answer.tolist() == array.tolist()


def test_large_answers_are_views_of_the_memory_they_were_received_in(models: Daemon) -> None:
    array = np.random.default_rng(0).random((7, 300_000), np.float32)
    with Client(models.socket) as client:
        first = client.infer("fp32", {"x": array})["y"]
        second = client.infer("fp32", {"x": array + 1})["y"]
    assert np.array_equal(first, array)  # and not what the next answer brought
    assert np.array_equal(second, array + 1)
    assert first.base is not None
    assert first.ctypes.data % 64 == 0


def test_wrong_input_is_the_daemon_s_clear_error(digits: Daemon) -> None:
    with Client(digits.socket) as client:
        with pytest.raises(InvalidRequestError, match=r"FP64.*astype\('float32'\)"):
            client.infer("digits", {"image": IMAGES[:1].astype(np.float64)})
        with pytest.raises(ModelNotFoundError, match="nobody"):
            client.infer("nobody", {"image": IMAGES[:1]})
        with pytest.raises(InvalidTensorError):
            client.infer("digits", {"image": np.zeros(1, complex)})
        assert client.live()  # on the same connection


def test_a_request_over_the_limit_is_told_so_although_it_was_cut_off() -> None:
    limit = {"EDGE_RUNTIME__LIMITS__BODY_BYTES": "1000000"}
    with (
        daemon(f"digits={DIGITS / 'digits-int8.onnx'}", environment=limit) as running,
        Client(running.socket) as client,
        pytest.raises(RequestTooLargeError, match="1000000"),
    ):
        client.infer("digits", {"image": np.zeros((200_000, 1, 8, 8), np.float32)})


def test_many_threads_share_one_client_and_get_their_own_answers(models: Daemon) -> None:
    with Client(models.socket, connections=4) as client:

        def ask(number: int) -> bool:
            array = np.full((1, 1 + number * 97 % 40_000), number, np.float32)
            return np.array_equal(client.infer("fp32", {"x": array})["y"], array)

        with ThreadPoolExecutor(12) as threads:
            assert all(threads.map(ask, range(400)))


def test_a_connection_is_kept_for_the_next_call() -> None:
    with scripted_server(answering(LIVE, LIVE, LIVE)) as server, Client(server.path) as client:
        assert [client.live() for _ in range(3)] == [True] * 3
        assert server.connections == 1


def test_a_connection_the_server_closed_is_replaced_without_a_second_send() -> None:
    requests: list[bytes] = []
    closed = threading.Event()

    def once(caller: Caller) -> None:
        requests.append(caller.read_request())
        caller.write(LIVE)
        caller.socket.close()
        closed.set()

    with scripted_server(once, once) as server, Client(server.path) as client:
        assert client.live()
        assert closed.wait(WAIT_S)
        assert client.ready()
        assert server.connections == 2
        assert [request.split()[1] for request in requests] == [
            b"/v2/health/live",
            b"/v2/health/ready",
        ]


def test_a_connection_found_closed_only_when_writing_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As if the server had closed between the look and the write.
    monkeypatch.setattr(connection.Connection, "is_stale", lambda _: False)
    with scripted_server(answering(LIVE), answering(LIVE)) as server:
        with Client(server.path) as client:
            assert client.live()
            eventually(lambda: server.finished == 1, "the server's closing")
            assert client.live()
        assert server.connections == 2


def test_a_request_that_may_have_run_is_never_sent_again() -> None:
    requests: list[bytes] = []

    def leave(caller: Caller) -> None:
        requests.append(caller.read_request())

    with scripted_server(leave, leave) as server, Client(server.path) as client:
        with pytest.raises(TransportError, match="may have run") as raised:
            client.infer("m", {"x": np.zeros(1)})
        assert raised.value.request_sent
        assert len(requests) == 1
        assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", TransportError),
        (LIVE[:-1], TransportError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + bytes(500_000), TransportError),
        (b"what?\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]", ProtocolError),
    ],
)
def test_a_wrong_answer_is_one_error_and_the_next_call_is_unharmed(
    answer: bytes, error: type[Exception]
) -> None:
    good = b'{"name":"n","version":"1","extensions":[]}'
    good = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(good), good)
    with (
        scripted_server(answering(answer), answering(good)) as server,
        Client(server.path) as client,
    ):
        with pytest.raises(error):
            client.metadata()
        assert client.metadata().name == "n"


def test_the_timeout_is_for_the_whole_call_however_slowly_bytes_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [0.0]  # goes on with the bytes: the call is sent before its time is over
    monkeypatch.setattr(deadline, "monotonic", lambda: now_s[0])

    def drip(caller: Caller) -> None:
        caller.read_request()
        caller.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            now_s[0] += 0.02
            caller.write(b"x")
            if gone.wait(0.02):
                return

    gone = threading.Event()
    with scripted_server(drip) as server, Client(server.path, timeout_s=0.3) as client:
        with pytest.raises(DeadlineExceededError, match="may have run"):
            client.live()
        gone.set()


def test_a_call_may_have_a_timeout_of_its_own() -> None:
    def silent(caller: Caller) -> None:
        caller.read_request()
        caller.socket.recv(1)  # until the client leaves

    with (
        scripted_server(silent) as server,
        Client(server.path, timeout_s=None) as client,
        pytest.raises(DeadlineExceededError, match=r"0\.05 s"),
    ):
        client.live(timeout_s=0.05)


def test_calls_beyond_the_connections_wait_within_their_timeout() -> None:
    release = threading.Event()

    def hold(caller: Caller) -> None:
        caller.read_request()
        release.wait(WAIT_S)
        caller.write(LIVE)

    with (
        scripted_server(hold) as server,
        Client(server.path, connections=1) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(client.live)
        eventually(lambda: server.connections == 1, "the first call")
        with pytest.raises(DeadlineExceededError, match="nothing was sent"):
            client.live(timeout_s=0.05)
        release.set()
        assert first.result(WAIT_S)


def test_a_daemon_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "no.sock"
    with Client(path) as client, pytest.raises(TransportError) as raised:
        client.live()
    assert str(path) in raised.value.message
    assert "edge-runtime serve" in raised.value.message
    assert not raised.value.request_sent


def test_a_full_backlog_is_waited_for() -> None:
    ready = threading.Event()

    def wait(caller: Caller) -> None:
        ready.wait(WAIT_S)
        answering(LIVE)(caller)

    with (
        scripted_server(*[wait] * 8, backlog=0) as server,
        Client(server.path) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        answers = [threads.submit(client.live) for _ in range(8)]
        ready.set()
        assert all(answer.result(WAIT_S) for answer in answers)


def test_a_closed_client_says_so(digits: Daemon) -> None:
    client = Client(digits.socket)
    assert client.live()
    client.close()
    client.close()
    with pytest.raises(InvalidRequestError, match="closed"):
        client.live()


def test_a_forked_child_does_not_share_its_parent_s_connection(digits: Daemon) -> None:
    # In a process of its own: pytest has threads, and forking with those is not for tests.
    code = f"""
import os
from edge_runtime.client import Client
client = Client({str(digits.socket)!r})
assert client.live()
kept = client._pool._idle[0]
pid = os.fork()
if not pid:
    client.live()
    os._exit(0 if client._pool._idle[0] is not kept else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert client.live() and client._pool._idle[0] is kept
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


def test_the_blocking_client_loads_neither_onnxruntime_nor_asyncio() -> None:
    code = "import sys, edge_runtime.client; print({'onnxruntime', 'asyncio'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    assert output.strip() == b"set()"
