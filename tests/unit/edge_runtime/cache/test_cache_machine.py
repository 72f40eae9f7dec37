"""The whole cache under any order of questions, failures, time, restarts and crashes."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edge_runtime.cache import eviction
from edge_runtime.cache.folder import Folder
from edge_runtime.cache.life import SLACK_S
from edge_runtime.cache.ticket import Hit
from edge_runtime.settings import Cache, Model
from edge_runtime.tensors import Array
from tests.caching import RUN_NS, CachedModel, TurnableClock, empty_database, make_database

TTL_S, STALE_S = 60, 120
NUMBERS = st.integers(0, 5)
DIGESTS = st.sampled_from(["first", "second"])
POLICY = Model(cache_ttl_s=TTL_S, cache_stale_s=STALE_S)
TIGHT = Model(cache_ttl_s=TTL_S, cache_stale_s=STALE_S, cache_max_bytes=4_000)


@dataclass
class Run:
    """One run of the model.

    Attributes:
        created_s: When, by the wall clock.
        born_s: When, by the clock that does not jump.
        process: In which process.
        is_on_disk: Whether it was written for sure.
    """

    created_s: float
    born_s: float
    process: int
    is_on_disk: bool = False


class CacheMachine(RuleBasedStateMachine):
    """Compares the cache with a dictionary of every run that there was."""

    model = POLICY
    cache = Cache()

    def __init__(self) -> None:
        super().__init__()
        self.state = Path(tempfile.mkdtemp(dir="/tmp"))
        make_database(self.state)
        self.time = TurnableClock()
        self.digest = "first"
        self.runs: dict[int, Run] = {}  # by serial number, which every answer holds
        self.latest: dict[tuple[str, int], int] = {}
        self.process = 0
        self._start()

    def _start(self) -> None:
        self.process += 1
        self.model_ = CachedModel(
            self.state, self.time, settings=self.cache, model=self.model, digest=self.digest
        )

    def _outputs(self, serial: int, number: int) -> list[Array]:
        text = f"{self.digest} {number} {serial}"
        return [np.array([2.0 * number]), np.array([text], object)]

    def _check(self, hit: Hit, number: int, life_s: float) -> None:
        """Whatever is given was computed for this question, and not too long ago."""
        double, text = hit.outputs
        digest, asked, serial = text.item().split()
        assert (digest, int(asked), double.item()) == (self.digest, number, 2.0 * number)
        run = self.runs[int(serial)]
        age_s = self.time.wall_s - run.created_s
        assert -SLACK_S <= age_s < life_s + 0.001
        if run.process == self.process and self.cache.disk_bytes == 0:
            assert self.time.monotonic_s - run.born_s < life_s

    def _must_hit(self, number: int) -> bool:
        run = self.runs.get(self.latest.get((self.digest, number), -1))
        if run is None or not 0 <= self.time.wall_s - run.created_s < TTL_S:
            return False
        if run.process == self.process:
            return self.time.monotonic_s - run.born_s < TTL_S
        return run.is_on_disk

    @rule(number=NUMBERS, fails=st.booleans())
    def ask(self, number: int, fails: bool) -> None:  # noqa: FBT001 - hypothesis passes it
        """Ask, and run if need be."""
        asked = self.model_.ask(number)
        if asked.hits:
            self._check(asked.hit, number, TTL_S)
            return
        assert not self._must_hit(number)
        if fails:
            asked.ticket.failed()
            return
        serial = len(self.runs)
        self.runs[serial] = Run(self.time.wall_s, self.time.monotonic_s, self.process)
        self.latest[self.digest, number] = serial
        asked.ticket.done(self._outputs(serial, number), RUN_NS)

    @rule(number=NUMBERS)
    def ask_while_it_cannot_run(self, number: int) -> None:
        """Ask for a stale answer."""
        hit = self.model_.stale(number)
        if hit is None:
            assert not self._must_hit(number)
        else:
            self._check(hit, number, TTL_S + STALE_S)

    @rule(number=NUMBERS)
    def two_ask_at_once(self, number: int) -> None:
        """Ask twice, and let the first one fail."""
        first, second = self.model_.begin(number), self.model_.begin(number)
        self.model_.wait_until(lambda: bool(first.hits or first.tickets))
        if first.tickets:
            first.ticket.failed()
            second.ticket.failed()
            assert not self._must_hit(number)
        else:
            self.model_.wait_until(lambda: bool(second.hits))
            self._check(second.hit, number, TTL_S)

    @rule(seconds=st.sampled_from([1, 20, 59, 61, 130]))
    def time_passes(self, seconds: int) -> None:
        """Let time pass."""
        self.time.pass_(seconds)

    @rule(seconds=st.sampled_from([-86_400, -61, -20, -3, 3, 20, 61, 86_400]))
    def the_clock_jumps(self, seconds: int) -> None:
        """Set the wall clock; what was written may look dead to a batch that comes meanwhile."""
        self.time.wall_s += seconds
        for run in self.runs.values():
            run.is_on_disk = False

    @rule()
    def what_waits_is_written(self) -> None:
        """Write."""
        self.model_.settle()
        self._is_written()

    def _is_written(self) -> None:
        for serial in self.latest.values():
            run = self.runs[serial]
            # An answer of an earlier process may be gone for other reasons.
            if run.process == self.process:
                run.is_on_disk = self.cache.disk_bytes > 0

    @rule()
    def the_daemon_restarts(self) -> None:
        """Stop in order."""
        self._is_written()
        assert self.model_.close()
        self._start()

    @rule()
    def the_daemon_crashes(self) -> None:
        """Stop out of order: what was not written is lost."""
        self.model_.crash()
        self._start()

    @rule(digest=DIGESTS)
    def another_model_file_is_loaded(self, digest: str) -> None:
        """Replace what runs; whatever another digest answered may go."""
        if digest != self.digest:
            self.digest = digest
            self.model_.version = self.model_.open(digest)
            self.latest.clear()

    @rule(name=st.sampled_from(["", "m"]))
    def somebody_clears_the_cache(self, name: str) -> None:
        """Clear: nothing computed before may be given again."""
        cache = self.model_.cache
        self.model_.wait_for(lambda done: cache.clear(name, lambda _: done()))
        self.model_.settle()
        for run in self.runs.values():
            run.created_s = float("-inf")
        self.latest.clear()

    @invariant()
    def limits_hold(self) -> None:
        """Neither memory nor disk takes more than it may."""
        status = self.model_.cache.status()
        assert status.memory.size_bytes <= status.memory.limit_bytes
        assert status.memory.size_bytes <= self.model.cache_max_bytes
        (version,) = status.versions
        assert version.disk_bytes <= self.model.cache_max_bytes
        assert version.errors == 0
        if status.file is not None:
            assert status.file.errors == status.file.quarantined == 0
            assert status.file.entries <= self.cache.disk_answers

    def teardown(self) -> None:
        """Stop and clean up."""
        self.model_.close()
        shutil.rmtree(self.state)


class MemoryMachine(CacheMachine):
    """The same without a disk: nothing survives a restart."""

    cache = Cache(disk_bytes=0)


class TightMachine(CacheMachine):
    """The same with room for a few answers only: any answer may be gone at any time."""

    model = TIGHT
    cache = Cache(ram_bytes=20_000, disk_answers=3)

    def _must_hit(self, number: int) -> bool:
        del number
        return False


class DiskMachine(CacheMachine):
    """The same without memory: every answer comes from disk."""

    cache = Cache(ram_bytes=0)

    def _must_hit(self, number: int) -> bool:
        run = self.runs.get(self.latest.get((self.digest, number), -1))
        return run is not None and run.is_on_disk and super()._must_hit(number)

    @precondition(lambda self: bool(self.latest))
    @rule()
    def what_is_on_disk_is_found(self) -> None:
        """Write and read at once."""
        self.what_waits_is_written()
        for digest, number in self.latest:
            if digest == self.digest:
                self.ask_while_it_cannot_run(number)


@pytest.mark.parametrize("machine", [CacheMachine, MemoryMachine, TightMachine, DiskMachine])
def test_the_cache_gives_only_what_was_computed_and_is_young(
    machine: type[CacheMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def migrate(folder: Folder) -> None:
        folder.database.write_bytes(empty_database())  # the process of its own takes too long

    monkeypatch.setattr(Folder, "migrate", migrate)
    monkeypatch.setattr(eviction, "CHUNK", 2)  # so that what is done bit by bit takes some bits
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=40, deadline=None)
    )
