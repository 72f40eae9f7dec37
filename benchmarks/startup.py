"""How long it takes from starting a process to the first right prediction."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.servers import READY_S, Command, ServerError, environment, spawned
from benchmarks.wire import Address, Answer, connect, head, receive
from benchmarks.workload import Workload, check

_POLL_S: Final = 0.001


def first_prediction_s(command: Command, workload: Workload, scratch: Path) -> float:
    """Start a server, and ask until it predicts.

    Args:
        command: How to start it.
        workload: What to ask; the first request is sent.
        scratch: Folder for its log.

    Returns:
        Seconds from before the start to the answer.

    Raises:
        ServerError: There is no prediction in time.
        WrongAnswerError: The prediction is not what the model answers.
    """
    body = workload.bodies[0].read_bytes()
    request = head("POST", workload.target, workload.headers, len(body)) + body
    log = scratch / f"{command.name}-{command.port}.log"
    began = time.perf_counter()
    with spawned(command, log) as server:
        while (answer := _ask(command.address, request)) is None:
            ended = server.process.poll() is not None
            if ended or time.perf_counter() - began > READY_S:
                tail = log.read_text("utf-8", "replace")[-2000:]
                raise ServerError(f"{command.name} gives no prediction: {tail}")
            time.sleep(_POLL_S)
        elapsed_s = time.perf_counter() - began
    check(answer, workload.expected[0], workload.model)
    return elapsed_s


def import_s() -> float:
    """Time ``python -c 'import onnxruntime'``, in seconds."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import onnxruntime"],
        env=environment(),
        start_new_session=True,
        check=True,
    )
    return time.perf_counter() - began


def _ask(address: Address, request: bytes) -> Answer | None:
    """Ask once; ``None`` while nobody listens or the model is not ready."""
    try:
        with connect(address) as stream:
            stream.sendall(request)
            answer = receive(stream)
    except OSError:
        return None
    return answer if answer.status == 200 else None
