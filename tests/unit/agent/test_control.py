"""The agent's own socket, where those who ask are slow, many, or no friends."""

import contextlib
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent.control import QUESTION_BYTES_MAX, Control, Question, ask
from agent.errors import AgentError, ConfigError, RuntimeAwayError

ANSWER_S = 60.0


def _fails(_model: str) -> str:
    raise ConfigError("there is no repository: enrol the device")


def _bug(_model: str) -> str:
    raise ZeroDivisionError


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A socket that answers."""
    path = tmp_path / "agent.sock"
    control = Control(
        path,
        {"echo": lambda model: {"model": model}, "fails": _fails, "bug": _bug},
    )
    control.start()
    yield path
    control.stop()
    assert not path.exists()


def raw(path: Path, data: bytes, *, is_ended: bool = True) -> bytes:
    """Send bytes, and give what comes back."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_S)
        sock.connect(str(path))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        if is_ended:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65_536):
                answer += part
        return answer


def test_only_the_agents_user_may_ask(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_question_is_answered_about_its_model(path: Path) -> None:
    assert ask(path, Question("echo", "digits"), ANSWER_S) == {"model": "digits"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\0\xff\n",
        b"[]\n",
        b'{"ask":"fly"}\n',
        b'{"ask":7}\n',
        b'{"ask":"echo","more":1}\n',
        b"x" * (QUESTION_BYTES_MAX + 1),
        b'{"ask":"echo","model":"' + b"m" * QUESTION_BYTES_MAX + b'"}\n',
    ],
    ids=["nothing", "empty", "binary", "list", "unknown", "number", "field", "long", "model"],
)
def test_garbage_is_told_what_can_be_asked_and_hurts_nobody(path: Path, data: bytes) -> None:
    answer = raw(path, data)
    assert answer == b"" or b"bug, echo, fails" in answer
    assert ask(path, Question("echo"), ANSWER_S) == {"model": ""}


def test_a_sentence_comes_back_as_an_error_and_a_fault_without_its_insides(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AgentError, match="enrol the device"):
        ask(path, Question("fails"), ANSWER_S)
    with pytest.raises(AgentError, match="its log says why") as raised:
        ask(path, Question("bug"), ANSWER_S)
    assert "ZeroDivision" not in raised.value.message
    assert "ZeroDivisionError" in caplog.text


def test_who_asks_slowly_and_who_says_nothing_keep_nobody_waiting(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # one slot fewer than there are
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(str(path))
            idle.sendall(b'{"ask"')
        assert ask(path, Question("echo", "m"), ANSWER_S) == {"model": "m"}


def test_more_who_say_nothing_than_there_are_slots_are_let_go_in_time(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.connect(str(path))
        assert ask(path, Question("echo", "m"), ANSWER_S) == {"model": "m"}


def test_many_may_ask_at_once(path: Path) -> None:
    found: list[str] = []

    def one(number: int) -> None:
        found.append(ask(path, Question("echo", str(number)), ANSWER_S)["model"])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found, key=int) == [str(number) for number in range(12)]


def test_where_no_agent_is_or_something_else_answers_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeAwayError, match="no agent answers"):
        ask(tmp_path / "none.sock", Question("status"), ANSWER_S)
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RuntimeAwayError, match="does not answer as edge-agent does"):
            ask(path, Question("status"), ANSWER_S)
        thread.join()


def test_a_question_is_one_line_of_json() -> None:
    assert msgspec.json.encode(Question("status")) == b'{"ask":"status","model":""}'
