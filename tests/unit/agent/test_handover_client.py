"""The agent's side of the hand-over socket, whoever answers there."""

import contextlib
import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from agent.errors import RuntimeAwayError, RuntimeRefusedError
from agent.runtime_client.handover import Handover
from tests.handover_packets import closed, memory

WAIT_S = 60.0
SHA = "0" * 64
ANSWER = 1 << 16


def _open() -> set[tuple[str, str]]:
    """Give this process's descriptors and what each is of; an earlier test's may go meanwhile."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of looking itself, or of another thread
            found.add((path.name, str(path.readlink())))
    return found


def test_without_a_daemon_the_client_says_that_it_is_away(tmp_path: Path) -> None:
    client = Handover(tmp_path / "handover.sock")
    for act in (
        lambda: client.needs(b"x"),
        lambda: client.open(SHA),
        lambda: client.stage(tmp_path, rollout="r"),
    ):
        with pytest.raises(RuntimeAwayError, match="is edge-runtime running"):
            act()


def test_a_bundle_that_is_not_there_is_no_reason_to_try_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeRefusedError, match="download it again"):
        Handover(tmp_path / "handover.sock").stage(tmp_path / "none", rollout="r")


@pytest.mark.parametrize(
    ("answer", "descriptors"),
    [
        (b"", 0),
        (b"x", 1),
        (b"[]", 0),
        (b"{}", 1),
        (b'{"error":"x"}', 0),
        (b'{"error":"x","status":"y"}', 0),
        (b'{"ok":{"size":7}}', 0),
        (b'{"ok":[1]}', 3),
        (b'{"attached":7}', 0),
        (b'{"attached":7}', 1),
        (b"[" * 60_000, 1),
    ],
    ids=str,
)
def test_whatever_answers_there_leaves_no_descriptor_in_the_client(
    answer: bytes, descriptors: int, tmp_path: Path
) -> None:
    path = Path(tempfile.mkdtemp(prefix="er-", dir="/tmp")) / "s"
    before = _open()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening, memory(b"?") as file:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            for _ in range(3):
                sock, _ = listening.accept()
                with sock:
                    closed(socket.recv_fds(sock, ANSWER, 4)[1])
                    if answer:
                        socket.send_fds(sock, [answer], [file] * descriptors)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        client = Handover(path, timeout_s=WAIT_S, stage_s=WAIT_S)
        with pytest.raises(RuntimeAwayError, match="as edge-runtime does"):
            client.needs(b"x")
        with contextlib.suppress(RuntimeAwayError):
            assert client.stage(tmp_path, rollout="r") == {"size": 7}
        with contextlib.suppress(RuntimeAwayError):
            found = client.open(SHA)
            assert found is not None
            os.close(found)
        thread.join(WAIT_S)
    shutil.rmtree(path.parent)
    assert not _open() - before
