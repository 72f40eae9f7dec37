"""Bytes that a device downloads for an update, over what the whole file would be.

Real downloads of the agent from a real static server. The old version is there, as it is on a
device; what changes is a share of the weights of a model of random float32 matrices.
"""

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from agent.download.bundle_files import BundleFiles, OlderFile
from agent.download.downloads import Downloads, Order
from agent.download.indexes import ChunkIndexes
from agent.records import budget as budget_records
from agent.records.budget import Budget
from agent.records.file import RecordsFile
from agent.settings.device import Downloads as DownloadSettings
from agent.settings.device import Repository as RepositorySettings
from agent.trust.http import open_http
from benchmarks.bench import Bench
from benchmarks.results import Cell, Entry, Outcome, at_most, spread
from fleet.documents.chunks import write_chunks
from fleet.repository.chunking import AVERAGE_BYTES, chunk_index
from fleet.repository.server import PublicFiles, bind

SEED: Final = 20_261_123
LAYERS: Final = 40
ROWS: Final = 256
COLUMNS: Final = 1024
CHANGED: Final = 0.05
TABLE: Final = "Bytes of an update"
LAYER: Final = "one layer in twenty trained again"
SCATTERED: Final = "one row in twenty of every layer"
PREPENDED: Final = "100 bytes more at the front, weights as before"
ALL: Final = "every weight changed a little"
_RATIO_MAX: Final = 0.07
_START_S: Final = 20.0

Weights = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Published:
    """A file that is served."""

    size: int
    sha256: str
    url_path: str


class _SystemClock:
    """The system's clock, believed."""

    own_floor_s: float = 0.0

    def wall_s(self) -> float:
        return time.time()

    def is_trusted(self) -> bool:
        return True


def download_row(bench: Bench) -> Outcome:
    """Update from one version of a model to the next, in several ways."""
    generator = np.random.default_rng(SEED)
    old = generator.standard_normal((LAYERS, ROWS, COLUMNS), dtype=np.float32)
    outcome = Outcome()
    for name, change in WAYS.items():
        folder = bench.scratch / f"download-{len(outcome.entries)}"
        folder.mkdir()
        try:
            data = change(old.copy(), generator)
            cells = _updated(folder, old.tobytes(), data)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        outcome.entries.append(Entry(TABLE, {"what changed": name, **cells}))
        if name == LAYER:
            ratio = cells["bytes over the whole file's"]
            assert isinstance(ratio, float)
            what = "bytes of an update that changes 5 % of the weights (whole layers)"
            outcome.targets.append(at_most(what, ratio, _RATIO_MAX, "of the file"))
        bench.tick()
    outcome.notes.append(
        f"Bytes are those of bodies, chunk index included. A chunk has about "
        f"{AVERAGE_BYTES // 1024} KiB, a row of these layers 4 KiB: changes that are scattered "
        "finer than chunks touch most of them."
    )
    return outcome


def _one_layer(weights: Weights, generator: np.random.Generator) -> bytes:
    for layer in range(0, LAYERS, int(1 / CHANGED)):
        weights[layer] = generator.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    return weights.tobytes()


def _scattered(weights: Weights, generator: np.random.Generator) -> bytes:
    for layer in weights:
        rows = generator.choice(ROWS, int(ROWS * CHANGED), replace=False)
        layer[rows] = generator.standard_normal((len(rows), COLUMNS), dtype=np.float32)
    return weights.tobytes()


def _prepended(weights: Weights, generator: np.random.Generator) -> bytes:
    return generator.bytes(100) + weights.tobytes()


def _all(weights: Weights, generator: np.random.Generator) -> bytes:
    noise = generator.standard_normal(weights.shape, dtype=np.float32)
    return (weights + np.float32(1e-3) * noise).tobytes()


WAYS: Final[Mapping[str, Callable[[Weights, np.random.Generator], bytes]]] = {
    LAYER: _one_layer,
    SCATTERED: _scattered,
    PREPENDED: _prepended,
    ALL: _all,
}
"""What may change from one version to the next."""


def _updated(folder: Path, old: bytes, new: bytes) -> dict[str, Cell]:
    """Serve both versions, be a device that has the old one, and fetch the new one."""
    web = folder / "web"
    old_file, old_index = _publish(web, "old", old)
    new_file, new_index = _publish(web, "new", new)
    records = RecordsFile(folder / "agent.db", [budget_records.SCHEMA])
    budget = Budget(records, time.time, lambda: "unmetered", {})
    order = Order("update", 0, lambda _: None, lambda _: None, threading.Event())
    http = open_http(RepositorySettings(), _SystemClock())

    def have(digest: str) -> int | None:
        path = web / old_file.url_path
        return os.open(path, os.O_RDONLY) if digest == old_file.sha256 else None

    with serving(web) as url:
        downloads = Downloads(
            folder / "blobs", http, [url], settings=DownloadSettings(), budget=budget, have=have
        )
        indexes = ChunkIndexes(folder / "indexes")
        indexes.keep(old_file.sha256, (web / old_index.url_path).read_bytes())
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        files = BundleFiles(downloads, indexes)
        files.fetch(new_file, new_index, [OlderFile(old_file.sha256)], order)
        seconds = time.monotonic() - began_s
        cpu_s = time.process_time() - began_cpu_s
    http.close()
    spent = budget.spent("artifact")
    records.close()
    return {
        "file, MB": new_file.size / 1e6,
        "downloaded, MB": spent / 1e6,
        "of that the index, MB": new_index.size / 1e6,
        "bytes over the whole file's": spent / new_file.size,
        "s": spread([seconds]),
        "CPU s, server included": spread([cpu_s]),
    }


def _publish(web: Path, name: str, data: bytes) -> tuple[_Published, _Published]:
    """Serve a file and its chunk index."""
    file = _put(web, name, data)
    index = chunk_index(web / file.url_path, file.sha256)
    return file, _put(web, f"{name}.chunks", write_chunks(index))


def _put(web: Path, name: str, data: bytes) -> _Published:
    web.mkdir(exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()
    file = _Published(len(data), digest, f"{digest}.{name}")
    (web / file.url_path).write_bytes(data)
    return file


@contextmanager
def serving(web: Path) -> Iterator[str]:
    """Serve a folder as ``edge-fleet repo serve`` does."""
    listening = bind("127.0.0.1", 0)
    app = Starlette(routes=[Mount("/", PublicFiles(directory=web))])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        deadline = time.monotonic() + _START_S
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
