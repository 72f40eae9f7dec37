"""What the tests of the cache share: a model of numbers, a clock to turn, a cache on its loop."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from edge_runtime.cache.entry import Entry, entry
from edge_runtime.cache.folder import FILE_MODE
from edge_runtime.cache.life import Clock, Policy
from edge_runtime.cache.migrations import migrate
from edge_runtime.cache.predictions import PredictionCache
from edge_runtime.cache.schema import DATABASE, DIRECTORY
from edge_runtime.cache.store import Row
from edge_runtime.cache.subject import Subject
from edge_runtime.cache.ticket import Hit, Ticket
from edge_runtime.cache.version_cache import VersionCache
from edge_runtime.cache.worker import Opened, Worker
from edge_runtime.datatypes import BY_NAME
from edge_runtime.hardware import CpuFacts
from edge_runtime.settings import Cache, Model
from edge_runtime.tensors import VARIABLE, Array, Signature, Tensor, TensorSpec

CPU = CpuFacts("x86_64", frozenset({"avx2", "fma"}), vnni=False, description="a test's CPU")
NOW_S = 1_800_000_000.0
POLICY = Policy(ttl_s=60, stale_s=40, max_bytes=10**9)
RUN_NS = 10_000_000_000  # of a model that is slower than any disk
SETTLE_S = 60.0
POLL_S = 0.0005
RAM_ONLY = Cache(disk_bytes=0)
DISK_ONLY = Cache(ram_bytes=0)
Make = Callable[..., Worker]
NAMES = ("double", "text")
SIGNATURE = Signature(
    [TensorSpec("number", BY_NAME["FP64"], (VARIABLE,), ("n",), ())],
    [
        TensorSpec("double", BY_NAME["FP64"], (VARIABLE,), ("n",), ()),
        TensorSpec("text", BY_NAME["BYTES"], (1,), (None,), ("a label",)),
    ],
)


def subject(model: str = "m", version: str = "1", digest: str = "d") -> Subject:
    """Make a model version."""
    return Subject(model, version, digest, "engine", SIGNATURE)


def key(number: int) -> bytes:
    """Make the key of a question."""
    return number.to_bytes(8, "little") * 4


def answer(number: int, created_s: float = NOW_S, size: int = 1) -> Entry:
    """Make an answer that tells its number by its run's time and by its elements."""
    array: Array = np.full(size, number % 251, np.uint8)
    return entry({"x": Tensor(BY_NAME["UINT8"], array)}, created_s, number)


def row(number: int, of: Subject | None = None, *, created_s: float = NOW_S, size: int = 1) -> Row:
    """Make a row for the file."""
    return Row(of or subject(), key(number), answer(number, created_s, size))


@dataclass
class TurnableClock:
    """Two clocks that only a test moves."""

    wall_s: float = NOW_S
    monotonic_s: float = 1000.0

    @property
    def clock(self) -> Clock:
        """The clock as the cache takes it."""
        return Clock(lambda: self.wall_s, lambda: self.monotonic_s)

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.wall_s += seconds
        self.monotonic_s += seconds


@lru_cache(maxsize=1)
def empty_database() -> bytes:
    """Give a migrated file without answers: making one takes longer than a test may."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, DATABASE)
        migrate(path)
        return path.read_bytes()


def make_database(state: Path) -> Path:
    """Put an empty file where a cache will look for it."""
    path = state / DIRECTORY / DATABASE
    path.parent.mkdir(mode=0o700, parents=True)
    path.write_bytes(empty_database())
    path.chmod(FILE_MODE)
    return path


def feeds(number: float) -> dict[str, Array]:
    """Ask about a number."""
    return {"number": np.array([number], float)}


def outputs(number: float, names: Sequence[str] = NAMES) -> list[Array]:
    """Answer about a number."""
    every: dict[str, Array] = {
        "double": np.array([2 * number], float),
        "text": np.array([f"is {number}"], object),
    }
    return [every[name] for name in names]


def is_answer(given: Sequence[Array], number: float, names: Sequence[str] = NAMES) -> bool:
    """Tell whether these are the outputs for a number."""
    wanted = outputs(number, names)
    return [each.tolist() for each in given] == [each.tolist() for each in wanted]


class Seen:
    """What a worker told."""

    def __init__(self) -> None:
        self.opened: list[Opened | None] = []

    @property
    def entries(self) -> int:
        """Of the index that was told last."""
        last = self.opened[-1]
        assert last is not None
        return len(last.index)


def kept(worker: Worker, *numbers: int) -> bool:
    """Tell whether all of these answers are there."""
    return all(worker.read(key(number)) is not None for number in numbers)


def write(worker: Worker, *numbers: int, size: int = 1) -> bool:
    """Write these answers; whether that went well."""
    wanted = [row(number, size=size) for number in numbers]
    return worker.write(wanted) is not None


def quarantined(database: Path) -> list[Path]:
    """List the files that were put aside."""
    return sorted(database.parent.glob(f"{DATABASE}.broken-*"))


def entries_on_disk(model: "CachedModel") -> int:
    """Count what is in the file, as far as the thread has told."""
    file = model.cache.status().file
    assert file is not None
    return file.entries


@dataclass
class Asked:
    """What became of a question.

    Attributes:
        hits: Kept answers that were given.
        tickets: Runs that were asked for; ``None`` where nobody wants to know.
    """

    hits: list[Hit] = field(default_factory=list)
    tickets: list[Ticket | None] = field(default_factory=list)

    @property
    def ticket(self) -> Ticket:
        """The only run that was asked for."""
        assert not self.hits
        (ticket,) = self.tickets
        assert ticket is not None
        return ticket

    @property
    def hit(self) -> Hit:
        """The only answer that was given."""
        assert not self.tickets
        (hit,) = self.hits
        return hit


class CachedModel:
    """A prediction cache with the model ``m`` on a loop of its own.

    Args:
        state: The state directory.
        time: The clock.
        settings: Of the cache.
        model: Settings of the model.
        digest: Of what runs; empty: nothing is loaded.
        runtime_version: Of what runs it.

    Attributes:
        loop: The event loop.
        cache: The cache.
        version: Of the model's version 1.
    """

    def __init__(
        self,
        state: Path,
        time: TurnableClock | None = None,
        *,
        settings: Cache | None = None,
        model: Model | None = None,
        digest: str = "first",
        runtime_version: str = "1.0",
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.time = time or TurnableClock()
        self.cache = PredictionCache(
            self.loop,
            settings or Cache(),
            state,
            runtime_version=runtime_version,
            cpu=CPU,
            clock=self.time.clock,
        )
        self.configure(model or Model(cache_ttl_s=60))
        self.version: VersionCache
        if digest:
            self.version = self.open(digest)
        self.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.close()

    def configure(self, model: Model) -> None:
        """Take new settings."""
        self.cache.configure({"m": model})

    def open(self, digest: str = "first", version: str = "1") -> VersionCache:
        """Load a version."""
        opened = self.cache.open("m", version, digest, ("CPUExecutionProvider",), SIGNATURE)
        assert opened is not None
        return opened

    def wait_for(self, begin: Callable[[Callable[[], None]], None]) -> None:
        """Run the loop until something calls back."""
        done = asyncio.Event()
        begin(done.set)
        self.loop.run_until_complete(asyncio.wait_for(done.wait(), SETTLE_S))

    def settle(self) -> None:
        """Write what waits, and take in everything that the disk has to say."""
        for _ in range(3):
            self.wait_for(self.cache.flush)

    def ask(
        self,
        number: float,
        names: Sequence[str] = NAMES,
        uid: int | None = None,
        priority: int = 0,
    ) -> Asked:
        """Ask about a number, and wait for whatever comes of it at once or from disk."""
        asked = self.begin(number, names, uid, priority)
        self.wait_until(lambda: bool(asked.hits or asked.tickets))
        return asked

    def begin(
        self,
        number: float,
        names: Sequence[str] = NAMES,
        uid: int | None = None,
        priority: int = 0,
    ) -> Asked:
        """Ask about a number."""
        asked = Asked()
        self.version.fetch(
            feeds(number), names, uid, asked.hits.append, asked.tickets.append, priority=priority
        )
        return asked

    def predict(self, number: float, names: Sequence[str] = NAMES, uid: int | None = None) -> bool:
        """Ask about a number and run if need be; whether the answer was a kept one."""
        asked = self.ask(number, names, uid)
        if asked.tickets:
            if asked.tickets[0] is not None:
                asked.tickets[0].done(outputs(number, names), RUN_NS)
            return False
        assert is_answer(asked.hit.outputs, number, names)
        return True

    def stale(self, number: float, uid: int | None = None) -> Hit | None:
        """Ask for an answer while the model cannot run."""
        found: list[Hit | None] = []
        self.version.stale(feeds(number), NAMES, uid, found.append)
        self.wait_until(lambda: bool(found))
        return found[0]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Run the loop until something is true."""

        async def poll() -> None:
            async with asyncio.timeout(SETTLE_S):
                while not condition():  # noqa: ASYNC110 - the cache has callbacks, not events
                    await asyncio.sleep(POLL_S)

        self.loop.run_until_complete(poll())

    def close(self) -> bool:
        """Stop as the daemon does; whether everything has ended."""
        ended = self.loop.run_until_complete(self.cache.close(SETTLE_S))
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        return ended

    def crash(self) -> None:
        """Leave as a killed process would: nothing that waits is written."""
        disk = self.cache._parts.disk
        if disk is not None:
            disk._pending = []
        with contextlib.suppress(TimeoutError):
            self.close()
