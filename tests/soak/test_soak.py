"""Everything at once, for long: good clients, bad clients and swaps, seeded.

``make soak`` runs it for ``SOAK_S`` seconds (600 by default); every test run takes a short sample.
"""

import contextlib
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.client import Client
from tests.daemons import Daemon
from tests.models import add_constant

SECONDS = float(os.environ.get("SOAK_S", "6"))
SEED = int(os.environ.get("SOAK_SEED", "20261123"))
WARM_UP_SHARE = 0.4
GROWTH_MAX_BYTES = 24 * 2**20
DESCRIPTORS_MAX = 16

pytestmark = [pytest.mark.integration, pytest.mark.soak]


class RepositoryDaemon(Daemon):
    """A daemon that remembers the repository it serves."""

    repository: Path


Act = Callable[[RepositoryDaemon, random.Random, "Counter[str]"], None]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RepositoryDaemon]:
    for version in (1, 2, 3):
        add_constant(tmp_path / "adder" / str(version) / "model.onnx", float(version))
    config = tmp_path / "config.toml"
    config.write_text(
        f'repositories = ["{tmp_path}"]\n[models.adder.version_policy]\nlatest = 2\n'
        "[limits]\nheader_timeout_s = 0.5\nbody_timeout_s = 0.5\n"
    )
    with RepositoryDaemon(["--config", str(config)]) as daemon:
        daemon.repository = tmp_path
        yield daemon


def _memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _ask_well(daemon: RepositoryDaemon, rng: random.Random, counts: "Counter[str]") -> None:
    with Client(str(daemon.socket), timeout_s=20) as client:
        rows = rng.choice((1, 2, 7, 100))
        sent = np.full((rows, 2), rng.random(), np.float32)
        version = rng.choice(("", "2", "3"))
        got = client.infer("adder", {"x": sent}, version=version, binary=rng.random() < 0.5)["y"]
        wanted = sent + np.float32(3 if version == "" else int(version))
        np.testing.assert_allclose(got, wanted, rtol=1e-6)
        counts["answered"] += 1


def _ask_badly(daemon: RepositoryDaemon, rng: random.Random, counts: "Counter[str]") -> None:
    """Send something broken, and leave, sometimes without reading the answer."""
    body = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
    head = b"POST /v2/models/adder/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    request = head % len(body) + body
    broken = [
        rng.randbytes(rng.randrange(1, 400)),
        request[: rng.randrange(1, len(request))],
        request.replace(b"FP32", b"FP64"),
        request.replace(b"[1,2]", b"[9,9]"),
        head % (10**9),
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        request * 40,
    ]
    with daemon.connect() as sock, contextlib.suppress(OSError):
        sock.sendall(rng.choice(broken))
        if rng.random() < 0.5:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65_536):
                pass
        counts["bothered"] += 1


def _swap(daemon: RepositoryDaemon, rng: random.Random, counts: "Counter[str]") -> None:
    """Put other files with the same function in place of a version, and have them loaded."""
    version = rng.choice((2, 3))
    path = daemon.repository / "adder" / str(version) / "model.onnx"
    add_constant(path, float(version), note=str(rng.random()))
    answer = daemon.request("POST", "/v2/repository/models/adder/load", admin=True)
    assert answer.status == 200, answer.body
    counts["swapped"] += 1


def test_serves_rightly_and_does_not_grow_under_everything_at_once(
    running: RepositoryDaemon,
) -> None:
    counts: Counter[str] = Counter()
    failures: list[BaseException] = []
    over = threading.Event()

    def work(act: Act, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - a sequence that can be repeated
        while not over.is_set():
            try:
                act(running, rng, counts)
            except BaseException as error:  # noqa: BLE001 - the test's own thread reports it
                failures.append(error)
                over.set()

    acts: list[Act] = [_ask_well, _ask_well, _ask_well, _ask_badly, _swap]
    threads = [
        threading.Thread(target=work, args=(act, SEED + number)) for number, act in enumerate(acts)
    ]
    for thread in threads:
        thread.start()
    over.wait(SECONDS * WARM_UP_SHARE)
    before = _memory_bytes(running.process.pid)
    started = time.monotonic()
    over.wait(SECONDS * (1 - WARM_UP_SHARE))
    over.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    grown = _memory_bytes(running.process.pid) - before
    print(f"\n{dict(counts)}; grown {grown / 2**20:.1f} MiB in {time.monotonic() - started:.0f} s")  # noqa: T201
    assert min(counts["answered"], counts["bothered"], counts["swapped"]) > 0
    assert grown < GROWTH_MAX_BYTES
    assert _descriptors(running.process.pid) < DESCRIPTORS_MAX + len(threads)
    assert "nobody foresaw" not in running.log()
    assert "Traceback" not in running.log()
