"""The running agent's own socket: one JSON question a connection, one JSON answer.

For commands of the same user alone: the socket's mode is 0600. Nothing here changes what runs: it
shows, has the repository looked at, and takes a person's word that a copy of the device is gone.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.errors import AgentError, RuntimeAwayError, StateError

_log = logging.getLogger(__name__)

QUESTION_BYTES_MAX: Final = 4096
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
SOCKET_MODE: Final = 0o600
_BACKLOG: Final = 64
_TIMEOUT_S: Final = 5.0
_AT_ONCE_MAX: Final = 4

Answer = Callable[[str], Any]
"""Answers a question about a model, or about everything where it is empty."""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked.

    Attributes:
        ask: One of the names that the agent answers.
        model: About which model; empty: about all.
    """

    ask: str
    model: str = ""


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What comes back: an answer, or why there is none."""

    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


class Control:
    """Answers on a socket, on threads of its own.

    Args:
        path: The socket; one that a dead agent left is replaced.
        answers: What can be asked, by name.

    Raises:
        StateError: The socket cannot be made.
    """

    def __init__(self, path: Path, answers: Mapping[str, Answer]) -> None:
        self._path = path
        self._answers = answers
        self._slots = threading.BoundedSemaphore(_AT_ONCE_MAX)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            path.chmod(SOCKET_MODE)
            self._socket.listen(_BACKLOG)
        except OSError as error:
            self._socket.close()
            raise StateError(f"cannot listen on {path}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer nothing any more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._slots.acquire()
            threading.Thread(
                target=self._serve, args=(connection,), name="control-answer", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(_TIMEOUT_S)
                reply = self._reply(_line(connection, QUESTION_BYTES_MAX))
                connection.sendall(msgspec.json.encode(reply) + b"\n")
        except OSError as error:
            _log.debug("a question was not answered: %s", error)
        finally:
            self._slots.release()

    def _reply(self, line: bytes) -> _Reply:
        try:
            question = msgspec.json.decode(line, type=Question)
            answer = self._answers[question.ask]
        except (msgspec.MsgspecError, UnicodeError, KeyError):
            known = ", ".join(sorted(self._answers))
            return _Reply(error=f"the agent understands only questions about {known}")
        try:
            return _Reply(ok=msgspec.Raw(msgspec.json.encode(answer(question.model))))
        except AgentError as error:
            return _Reply(error=error.message)
        except Exception:  # noqa: BLE001 - logged; the one who asks is told
            _log.exception("a question failed in a way nobody foresaw")
            return _Reply(error="the agent failed to answer this; its log says why")


def ask(path: Path, question: Question, timeout_s: float) -> Any:  # noqa: ANN401 - any JSON
    """Ask the running agent.

    Args:
        path: Its socket.
        question: What.
        timeout_s: Most time until the answer.

    Raises:
        RuntimeAwayError: No agent is running there, or it does not answer in time.
        AgentError: It answers that it cannot.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(os.fspath(path))
            sock.sendall(msgspec.json.encode(question) + b"\n")
            line = _line(sock, ANSWER_BYTES_MAX)
    except OSError as error:
        raise RuntimeAwayError(
            f"no agent answers at {path} ({error.strerror or error}); is `edge-agent run` running, "
            "and is this its user?"
        ) from error
    try:
        reply = msgspec.json.decode(line, type=_Reply)
    except msgspec.MsgspecError as error:
        raise RuntimeAwayError(f"{path} does not answer as edge-agent does: {error}") from error
    if reply.error:
        raise AgentError(reply.error)
    return msgspec.json.decode(reply.ok)


def _line(connection: socket.socket, limit_bytes: int) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        part = connection.recv(65_536)
        if not part or len(data) + len(part) > limit_bytes:
            break
        data += part
    return bytes(data)
