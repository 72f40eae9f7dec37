"""One bad byte, in a small file of the agent or in an answer, ends neither the agent nor its start.

msgspec raises three kinds of errors: its own, ``UnicodeDecodeError`` in a text that is no UTF-8,
and ``RecursionError`` where brackets have no end.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from agent.device.known_models import FILE as MODELS
from agent.device.known_models import Known, KnownModels
from agent.device.remarks import FILE as REMARKS
from agent.device.remarks import Remarks
from agent.enrolment import joining, membership
from agent.enrolment.token import PREFIX, read_token
from agent.errors import ConfigError, Distrust, RuntimeAwayError, RuntimeRefusedError, TrustError
from agent.pause import FILE as PAUSE
from agent.pause import Pause
from agent.runtime_client.admin import Admin

DEEP: Final = b"[" * 200_000
RUBBISH: Final = {
    "no UTF-8": b"\xff\xfe",
    "no UTF-8 in a key": b'{"models":{"\xff":{}}}',
    "no UTF-8 in a known name": b'{"models":{"\xff\xff":{}},"fleet":"\xff","error":"\xff"}',
    "no UTF-8 in a list": b'[{"model":"\xff"}]',
    "deep": DEEP,
    "deep where it is read": b'{"models":' + DEEP,
    "empty": b"",
}

each_rubbish = pytest.mark.parametrize("data", RUBBISH.values(), ids=RUBBISH)


@each_rubbish
def test_a_damaged_file_of_what_is_only_nice_to_know_is_as_none(
    tmp_path: Path, data: bytes
) -> None:
    for name in (MODELS, REMARKS, PAUSE):
        (tmp_path / name).write_bytes(data)
    assert KnownModels(tmp_path).away() == Known(is_away=True)
    assert Remarks(tmp_path).of("m", 1, "r") == ()
    assert Pause(tmp_path).until_s() == 0.0


@each_rubbish
def test_a_damaged_enrolment_says_to_enrol_again(tmp_path: Path, data: bytes) -> None:
    (tmp_path / membership.FILE).write_bytes(data)
    with pytest.raises(ConfigError, match="enrol the device again"):
        membership.read_membership(tmp_path)


@each_rubbish
def test_an_answer_of_an_enrolment_server_that_is_none_is_not_believed(data: bytes) -> None:
    with pytest.raises(TrustError, match="answers nothing that") as caught:
        joining._enrolment(data, "https://fleet.example")
    assert caught.value.reason is Distrust.MALFORMED


def test_a_ca_with_more_in_it_than_text_is_not_believed() -> None:
    with pytest.raises(TrustError, match="more in it than a certificate"):
        joining._text(b"\xff-----BEGIN CERTIFICATE-----", "https://fleet.example/ca.pem")


def test_a_token_of_brackets_is_none() -> None:
    with pytest.raises(ConfigError, match="not whole"):
        read_token(PREFIX + "W1tb" * 500)


@contextmanager
def answering(path: Path, status: int, body: bytes) -> Iterator[Admin]:
    """Give a client of a socket that answers every request so."""
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(head.encode() + body)

        thread = Thread(target=serve)
        thread.start()
        yield Admin(path, 10.0)
        thread.join()


@each_rubbish
def test_a_daemon_whose_answer_is_rubbish_is_away(tmp_path: Path, data: bytes) -> None:
    with (
        answering(tmp_path / "s", 200, data) as admin,
        pytest.raises(RuntimeAwayError, match="does not answer as edge-runtime does"),
    ):
        admin.releases()


@each_rubbish
def test_a_refusal_that_is_rubbish_is_a_refusal(tmp_path: Path, data: bytes) -> None:
    with (
        answering(tmp_path / "s", 503, data) as admin,
        pytest.raises(RuntimeRefusedError, match="answered 503 to /admin/releases"),
    ):
        admin.releases()
