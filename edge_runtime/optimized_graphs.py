"""The cache of optimised graphs on disk: derived from verified models, checked before every use.

::

    <state directory>/optimized/<key>/graph/   model.onnx, weights.bin, checksums.json
                                     /*.json   facts (``facts``)
                               /.new-*/        being made; locked for as long as its maker lives

A graph that is missing, damaged or too large to keep costs time and nothing else. Several daemons
may share the folder: everything appears and goes by renaming.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.digest import file_sha256
from edge_runtime.errors import ModelLoadError
from edge_runtime.facts import Facts
from edge_runtime.hardware import CpuFacts
from edge_runtime.private_folder import (
    GONE,
    PRIVATE_MODE,
    PrivateFolder,
    remove_tree,
    sync,
)

_log = logging.getLogger(__name__)

FOLDER: Final = "optimized"
"""In the state directory."""
MODEL: Final = "model.onnx"
WEIGHTS: Final = "weights.bin"
MODEL_BYTES_MIN: Final = 8 * 2**20
"""Smaller models load in a few hundredths of a second; keeping their graphs would gain nothing."""

ENCODING: Final = "edge-runtime optimized graph 1"
"""Part of every key: change it when graphs are made in another way."""

_CHECKSUMS: Final = "checksums.json"
_GRAPH: Final = "graph"
_NEW: Final = ".new-"
_ENTRIES_MAX: Final = 256
_VERDICT: Final = "graph"


def graph_key(digest: str, runtime_version: str, cpu: CpuFacts) -> str:
    """Name the optimised graph of a variant: who shares the key shares the graph.

    Args:
        digest: Of the variant: its files and every session option that can change results.
        runtime_version: Of ONNX Runtime, which optimises.
        cpu: All of its instruction sets count: one too many costs one more optimisation, one too
            few would run a graph made for another CPU.

    Returns:
        64 lower-case hexadecimal digits.
    """
    facts = [ENCODING, digest, runtime_version, cpu.arch, sorted(cpu.flags)]
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class OptimizedGraphs:
    """The cache; made and used on the thread that loads.

    Args:
        folder: Its folder; ``None``: nothing is kept.
        limit_bytes: Most that the graphs take on disk; 0: no graph is kept, only facts.
        model_bytes_min: Models smaller than that are not worth it.

    Attributes:
        facts: What else was found out about versions.
    """

    def __init__(
        self, folder: Path | None, limit_bytes: int = 0, model_bytes_min: int = MODEL_BYTES_MIN
    ) -> None:
        self._folder = PrivateFolder(folder, "models load without the cache of optimised graphs")
        self._limit_bytes = limit_bytes
        self._model_bytes_min = model_bytes_min
        self.facts = Facts(self._folder)

    def find(self, key: str) -> Path | None:
        """Give a graph that is whole; one that is damaged is removed.

        Args:
            key: See ``graph_key``.

        Returns:
            The model file; a session that has loaded it does not mind its removal.
        """
        if not self._limit_bytes or not self._folder.is_safe():
            return None
        graph = self._folder.path / key / _GRAPH
        if not graph.is_dir():
            return None
        damaged = _damaged(graph)
        if damaged:
            self.drop(key, damaged)
            return None
        with contextlib.suppress(OSError):
            os.utime(graph.parent)
        return graph / MODEL

    def drop(self, key: str, why: str) -> None:
        """Remove a graph that is of no use.

        Args:
            key: See ``graph_key``.
            why: For the log.
        """
        _log.warning("an optimised graph is removed, and made anew next time: %s", why)
        self._folder.remove(f"{key}/{_GRAPH}")

    def refuse(self, key: str, why: str) -> None:
        """Remember that the graph of a variant cannot be kept, and do not try again."""
        _log.info("an optimised graph is not kept, and will not be made again: %s", why)
        self.facts.remember(key, _VERDICT, refused=why)

    def wants(self, key: str, model_bytes: int) -> bool:
        """Tell whether a graph should be made.

        Args:
            key: See ``graph_key``.
            model_bytes: Size of the files that it would be made of.
        """
        return (
            self._model_bytes_min <= model_bytes <= self._limit_bytes
            and not self.facts.of(key, _VERDICT).get("refused")
            and self._folder.is_writable()
        )

    @contextlib.contextmanager
    def workshop(self) -> Iterator[Path]:
        """Give a folder to make a graph in; what is not kept is removed at the end.

        Raises:
            OSError: It cannot be made.
        """
        self._sweep()
        folder = self._folder.temporary(_NEW)
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(lock)
            remove_tree(folder)

    def keep(self, key: str, made: Path) -> Path | None:
        """Keep a graph that was made and proven, and make room for it.

        Args:
            key: See ``graph_key``.
            made: What ``workshop`` gave, with the graph in it.

        Returns:
            The model file; ``None`` if it is too large to keep.

        Raises:
            OSError: The disk is full, or fails.
        """
        if _size(made) > self._limit_bytes:
            self.refuse(key, "it is larger than engine.graph_cache_bytes")
            return None
        entry = self._folder.path / key
        entry.mkdir(mode=PRIVATE_MODE, exist_ok=True)
        with contextlib.suppress(OSError):  # another daemon was faster: its graph is as good
            made.rename(entry / _GRAPH)
        sync(entry)
        sync(self._folder.path)
        self._prune(key)
        return entry / _GRAPH / MODEL

    def failed(self, error: OSError) -> None:
        """Make no more graphs: the disk is full, or may not be written to."""
        self._folder.cannot_write(f"cannot keep an optimised graph: {error.strerror or error}")

    def _prune(self, newest: str) -> None:
        """Remove the least recently used graphs over the limit, and the oldest facts."""
        used: list[tuple[float, str, int]] = []
        for entry in self._folder.path.iterdir():
            with contextlib.suppress(OSError):
                if entry.is_dir() and not entry.name.startswith("."):
                    used.append((entry.stat().st_mtime, entry.name, _size(entry / _GRAPH)))
        left = self._limit_bytes
        for place, (_, name, size_bytes) in enumerate(sorted(used, reverse=True)):
            left -= size_bytes
            if name == newest:
                continue
            if place >= _ENTRIES_MAX:
                self._folder.remove(name)
            elif size_bytes and left < 0:
                self._folder.remove(f"{name}/{_GRAPH}")
                left += size_bytes

    def _sweep(self) -> None:
        """Remove what daemons that were killed left behind."""
        for left in self._folder.path.glob(f"{GONE}*"):
            remove_tree(left)
        for left in self._folder.path.glob(f"{_NEW}*"):
            with contextlib.suppress(OSError):
                lock = os.open(left, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(left)
                finally:
                    os.close(lock)


def seal(graph: Path) -> None:
    """Write a new graph through to the disk, with the checksums that prove it later.

    Args:
        graph: Folder of the model file and perhaps its weights.

    Raises:
        OSError: The disk is full, or fails.
        ModelLoadError: A file cannot be read.
    """
    files = [path for path in (graph / MODEL, graph / WEIGHTS) if path.exists()]
    for path in files:
        sync(path)
    listed = {path.name: file_sha256(path) for path in files}
    (graph / _CHECKSUMS).write_bytes(msgspec.json.encode(listed))
    sync(graph / _CHECKSUMS)
    sync(graph)


def _damaged(graph: Path) -> str:
    """Say what is wrong with a graph; empty if nothing is."""
    try:
        listed = msgspec.json.decode((graph / _CHECKSUMS).read_bytes(), type=dict[str, str])
        wrong = [name for name, sha256 in listed.items() if file_sha256(graph / name) != sha256]
    except (OSError, msgspec.MsgspecError, ModelLoadError) as error:
        return str(error)
    if MODEL not in listed or not listed.keys() <= {MODEL, WEIGHTS}:
        wrong = [_CHECKSUMS]
    return f"{', '.join(wrong)} is damaged" if wrong else ""


def _size(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except OSError:
        return 0
