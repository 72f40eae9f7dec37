"""Fakes of the lowest seam, the session, and of the loader above it.

``test_session`` runs the same tests on the fake session and on a real one.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.batching import Lane, RowCap, Runnable, Verdict
from edge_runtime.bundle import Bundle
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import ModelFailedError
from edge_runtime.manifest import Manifest, Variant
from edge_runtime.routing import LoadedVersion
from edge_runtime.run_cost import RunCost
from edge_runtime.tensors import VARIABLE, Array, Signature, TensorSpec

WAIT_S = 60.0
VARIANT = Variant("as-is", "model.onnx")
Act = Callable[[], None]


def _spec(name: str) -> TensorSpec:
    return TensorSpec(name, BY_NAME["FP32"], (VARIABLE, 2), ("batch", None), ())


TWO_INPUTS = Signature([_spec("a"), _spec("b")], [_spec("sum"), _spec("difference")])


class FakeSession:
    """What ``tests.models.two_inputs`` computes, without ONNX Runtime.

    Attributes:
        runs: The thread of each run so far.
        closed: Set when the memory would have been freed.
        before: Called at the start of each run, on its thread.
    """

    providers: tuple[str, ...] = ("CPUExecutionProvider",)

    def __init__(self, before: Act | None = None) -> None:
        self.signature = TWO_INPUTS
        self.runs: list[threading.Thread] = []
        self.closed = threading.Event()
        self.terminated = threading.Event()
        self.before = before

    def run(self, names: Sequence[str], feeds: Mapping[str, Array], /) -> list[Array]:
        """Add and subtract."""
        assert not self.closed.is_set(), "a closed session was run"
        self.runs.append(threading.current_thread())
        if self.before is not None:
            self.before()
        if self.terminated.is_set():
            raise ModelFailedError("the model failed while running: told to end")
        a, b = feeds["a"], feeds["b"]
        outputs = {"sum": a + b, "difference": a - b}
        return [outputs[name] for name in names]

    def terminate(self) -> None:
        """Make this and every later run fail."""
        self.terminated.set()

    def close(self) -> None:
        """Note that the memory is free."""
        self.closed.set()


class Gate:
    """Holds threads until it is opened; none waits for ever."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._arrivals = threading.Semaphore(0)

    def __call__(self) -> None:
        """Wait here."""
        self._arrivals.release()
        assert self._open.wait(WAIT_S), "nobody opened the gate"

    def arrived(self) -> bool:
        """Wait until one more thread is at the gate."""
        return self._arrivals.acquire(timeout=WAIT_S)

    def open(self) -> None:
        """Let everybody through from now on."""
        self._open.set()


def known_cost(ns: float, rows: int = 1) -> RunCost:
    """Give the cost of a model that was seen often enough to be known."""
    cost = RunCost()
    for _ in range(20):
        cost.observe(rows, ns)
    return cost


def lane(
    session: Runnable | None = None,
    *,
    cost: RunCost | None = None,
    rows_max: int = 0,
    signature: Signature = TWO_INPUTS,
) -> Lane:
    """Give a version as the scheduler sees it; with ``rows_max``, its requests share runs."""
    made = Lane(
        session or FakeSession(),
        signature,
        verdict=Verdict(joins=rows_max > 0, reason="the test says so"),
        cap=RowCap(1e12, rows_max, rows_max) if rows_max else None,
    )
    made.cost = cost or made.cost
    return made


def bundle(name: str, version: int, digest: str = "first") -> Bundle:
    """Give a bundle that only the fake loader takes; its digest is its folder's name."""
    return Bundle(Manifest(name=name, version=version, variants=(VARIANT,)), Path(digest))


@dataclass
class FakeLoader:
    """Loads fake sessions.

    Attributes:
        signature: What the loaded versions take and give.
        loaded: Everything loaded so far.
        broken: Raised instead, by digest.
        before: Called at the start of each load, on its thread.
        session: Makes the session of each version.
        sizes: Memory that a version holds once loaded, in bytes, by digest or else by model.
        expects: What its files let expect, where that is something else.
        own_bytes: Memory that the process holds without any version.
    """

    signature: Signature = TWO_INPUTS
    loaded: list[LoadedVersion] = field(default_factory=list)
    broken: dict[str, Exception] = field(default_factory=dict)
    before: Act | None = None
    session: Callable[[], FakeSession] = FakeSession
    sizes: dict[str, int] = field(default_factory=dict)
    expects: dict[str, int] = field(default_factory=dict)
    own_bytes: int = 0

    def __call__(self, wanted: Bundle, serving: LoadedVersion | None = None) -> LoadedVersion:
        """Load, unless nothing would change."""
        if self.before is not None:
            self.before()
        digest = wanted.directory.name
        if digest in self.broken:
            raise self.broken[digest]
        if serving is not None and serving.digest == digest:
            return serving
        manifest = wanted.manifest
        version = LoadedVersion(
            name=manifest.name,
            version=str(manifest.version),
            digest=digest,
            manifest=manifest,
            variant=VARIANT,
            variant_reason="the only variant",
            session=self.session(),
            signature=self.signature,
            size_bytes=self._size(wanted),
        )
        self.loaded.append(version)
        return version

    def expected(self, wanted: Bundle) -> int:
        """Say what a version will hold, before it was loaded."""
        digest = wanted.directory.name
        return self.expects.get(digest, self._size(wanted))

    def held_bytes(self) -> int:
        """Say what the process holds."""
        return self.own_bytes + sum(
            version.size_bytes
            for version in self.loaded
            if not self.session_of(version).closed.is_set()
        )

    def _size(self, wanted: Bundle) -> int:
        return self.sizes.get(wanted.directory.name, self.sizes.get(wanted.manifest.name, 0))

    def session_of(self, version: LoadedVersion) -> FakeSession:
        """Give the fake behind a version."""
        assert isinstance(version.session, FakeSession)
        return version.session
