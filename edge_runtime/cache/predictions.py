"""The prediction cache as the daemon sees it: opened for versions, told the settings, cleared.

Everything runs on the event loop's thread. Without a model that opted in there is no thread, no
file and no SQLite in memory.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from edge_runtime.cache.counters import Counters
from edge_runtime.cache.flights import Flights
from edge_runtime.cache.front import Front
from edge_runtime.cache.hashing import Hasher
from edge_runtime.cache.key import engine, is_same_machine
from edge_runtime.cache.life import Clock, Policy
from edge_runtime.cache.schema import DIRECTORY
from edge_runtime.cache.status import File, Memory, Status, Version
from edge_runtime.cache.subject import Identity, Subject
from edge_runtime.cache.version_cache import Parts, VersionCache
from edge_runtime.hardware import CpuFacts
from edge_runtime.settings import Cache, Model
from edge_runtime.tensors import Signature


class PredictionCache:
    """Every kept answer.

    Args:
        loop: The event loop whose thread everything is called on.
        settings: Limits.
        state_directory: The cache has a folder of its own in it.
        runtime_version: Of ONNX Runtime.
        cpu: Of this device.
        clock: What time it is.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Cache,
        state_directory: Path,
        *,
        runtime_version: str,
        cpu: CpuFacts,
        clock: Clock | None = None,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._path = state_directory / DIRECTORY
        self._runtime_version = runtime_version
        self._cpu = cpu
        self._parts = Parts(
            Front(settings.ram_bytes),
            Hasher(loop),
            Flights(loop.call_later),
            clock=clock or Clock(),
        )
        self._policies: dict[str, Policy] = {}
        self._caches: dict[tuple[str, str], VersionCache] = {}

    @property
    def memory_bytes(self) -> int:
        """What the answers in memory take."""
        return self._parts.front.size_bytes

    def configure(self, models: Mapping[str, Model]) -> None:
        """Take the models' settings, at the start and whenever they change.

        Args:
            models: Settings by name. Of a model that opts out every answer is forgotten.
        """
        policies = {name: Policy.of(model) for name, model in models.items()}
        self._policies = {name: policy for name, policy in policies.items() if policy is not None}
        for (model, version), cache in list(self._caches.items()):
            policy = self._policies.get(model)
            if policy is None:
                self.forget(model, version)
            else:
                self._take(cache, cache.subject, policy)
        if self._policies:
            self._begin()

    def open(
        self,
        model: str,
        version: str,
        digest: str,
        providers: Sequence[str],
        signature: Signature,
        *,
        ttl_max_s: float = 0,
        max_bytes: int = 0,
    ) -> VersionCache | None:
        """Give the cache of a version that is loaded; the same one if nothing changed.

        Whatever another digest or engine answered for this version is forgotten.

        Args:
            model: The model's name.
            version: As on the wire.
            digest: Of what runs.
            providers: Execution providers that run it, in order.
            signature: What it takes and gives.
            ttl_max_s: Most seconds that its bundle lets an answer be given again; 0: not stated.
            max_bytes: Most that its bundle lets them take; 0: not stated.

        Returns:
            ``None`` if the model did not opt in.
        """
        policy = self._policies.get(model)
        if policy is None:
            return None
        runs_on = engine(self._runtime_version, providers, self._cpu)
        subject = Subject(model, version, digest, runs_on, signature, ttl_max_s, max_bytes)
        old = self._caches.get((model, version))
        if old is not None:
            if old.subject.identity == subject.identity:
                self._take(old, subject, policy)
                return old
            self._close(old)
        return self._open(subject, policy)

    def find(self, model: str, version: str = "") -> VersionCache | None:
        """Give the cache of a version that may not be loaded now, for answers while it cannot run.

        Args:
            model: The model's name.
            version: As on the wire; empty: the highest one known.
        """
        if not version:
            versions = [number for name, number in self._caches if name == model]
            version = max(versions, key=_number, default="")
        return self._caches.get((model, version))

    def caches(self) -> list[VersionCache]:
        """List the cache of every version, by name and number."""
        return [
            self._caches[identity]
            for identity in sorted(self._caches, key=lambda it: (it[0], _number(it[1])))
        ]

    def forget(self, model: str, version: str) -> None:
        """Forget every answer of a version that was let go for good."""
        cache = self._caches.pop((model, version), None)
        if cache is None:
            return
        self._close(cache)
        if all(name != model for name, _ in self._caches):
            self._parts.front.close_room(model)  # new names may come for ever

    def clear(self, model: str = "", done: Callable[[str], None] = lambda _: None) -> None:
        """Remove every answer of a model, or of all; from now on none of them is given.

        Args:
            model: Empty: all, and the file with them.
            done: Called with an empty text when it is done on disk too, and with the reason if
                that cannot be done now; then it is tried again and again.
        """
        self._parts.generation += 1
        disk = self._parts.disk
        if model:
            self._clear_model(model, done)
            return
        self._parts.front.clear()
        if disk is None:
            self._loop.call_soon(done, "")
        else:
            disk.clear(done)

    def _clear_model(self, model: str, done: Callable[[str], None]) -> None:
        identities: set[Identity] = set()
        for cache in self._caches.values():
            if cache.subject.model == model:
                self._drop_from_memory(cache)
                identities.add(cache.subject.identity)
        disk = self._parts.disk
        if disk is None:
            self._loop.call_soon(done, "")
            return
        every: Identity = (model, "", "", "")  # with what is on disk and not known here
        left = {every, *identities}
        problems: list[str] = []

        def forgot(identity: Identity, problem: str) -> None:
            left.discard(identity)
            if problem:
                problems.append(problem)
            if not left:
                self._after(partial(done, problems[0] if problems else ""))

        for identity in [every, *identities]:
            disk.forget(identity, for_good=False, done=partial(forgot, identity))

    def flush(self, done: Callable[[], None] | None = None) -> None:
        """Write what waits to be written without waiting for more.

        Args:
            done: Called when it is written.
        """
        disk = self._parts.disk
        if disk is not None:
            disk.flush()
        self._after(done)

    async def close(self, within_s: float) -> bool:
        """Write what waits and end the thread.

        Args:
            within_s: Time for it, in seconds.

        Returns:
            Whether it has ended; a disk that hangs cannot be cut from outside.
        """
        self._parts.hasher.close()
        disk = self._parts.disk
        return True if disk is None else await disk.close(within_s)

    def status(self) -> Status:
        """Say how the cache does."""
        front, disk = self._parts.front, self._parts.disk
        memory = Memory(
            entries=sum(cache.counters.ram_entries for cache in self._caches.values()),
            size_bytes=front.size_bytes,
            limit_bytes=front.limit_bytes,
        )
        file = None
        if disk is not None:
            worker = disk.worker
            file = File(
                path=str(self._path),
                problem=worker.problem,
                entries=sum(held.entries for held in worker.held.values()),
                used_bytes=worker.used_bytes,
                limit_bytes=self._settings.disk_bytes,
                pending_bytes=disk.pending_bytes,
                written_bytes_this_hour=worker.wear.spent_bytes,
                quarantined=worker.quarantined,
                errors=worker.errors,
            )
        versions = [self._version(cache) for cache in self.caches()]
        return Status(memory=memory, file=file, versions=versions)

    def _after(self, done: Callable[[], None] | None) -> None:
        if done is None:
            return
        if self._parts.disk is None:
            self._loop.call_soon(done)
        else:
            self._parts.disk.after(done)

    def _version(self, cache: VersionCache) -> Version:
        counters, disk = cache.counters, self._parts.disk
        held = disk.worker.held.get(cache.subject.identity) if disk is not None else None
        return Version(
            name=cache.subject.model,
            version=cache.subject.version,
            verdict=cache.worth.text,
            hits=counters.hits,
            disk_hits=counters.disk_hits,
            joined=counters.joined,
            misses=counters.misses,
            stale=counters.stale,
            bypassed=counters.bypassed,
            evicted=counters.evicted,
            disk_evicted=counters.disk_evicted,
            dropped=counters.dropped,
            errors=counters.errors,
            memory_entries=counters.ram_entries,
            memory_bytes=counters.ram_bytes,
            disk_entries=held.entries if held else 0,
            disk_bytes=held.size_bytes if held else 0,
        )

    def _begin(self) -> None:
        """Start the thread and open the file; SQLite is loaded here and not before."""
        if self._parts.disk is not None or not self._settings.disk_bytes:
            return
        from edge_runtime.cache.disk import Disk  # noqa: PLC0415 - a megabyte that few need

        self._parts.disk = Disk(
            self._loop,
            self._path,
            self._settings,
            self._parts.clock,
            known=self._known,
            evicted=self._count_evicted,
            dropped=self._count_dropped,
        )

    def _known(self, subjects: Sequence[Subject]) -> None:
        """Take back what an earlier daemon kept, for models that are not loaded yet."""
        here = engine(self._runtime_version, (), self._cpu)
        for subject in subjects:
            policy = self._policies.get(subject.model)
            is_new = (subject.model, subject.version) not in self._caches
            if policy is not None and is_new and is_same_machine(subject.engine, here):
                self._open(subject, policy)

    def _take(self, cache: VersionCache, subject: Subject, policy: Policy) -> None:
        """Take what may have changed of a version that stays the same."""
        policy = policy.within(subject.ttl_max_s, subject.max_bytes)
        if policy != cache.policy or subject.describe() != cache.subject.describe():
            cache.subject, cache.policy = subject, policy
            self._apply(cache)

    def _open(self, subject: Subject, policy: Policy) -> VersionCache:
        policy = policy.within(subject.ttl_max_s, subject.max_bytes)
        cache = VersionCache(self._parts, subject, policy)
        self._caches[subject.model, subject.version] = cache
        self._apply(cache)
        return cache

    def _apply(self, cache: VersionCache) -> None:
        room = self._parts.front.room(cache.subject.model)
        room.limit_bytes = cache.policy.max_bytes
        self._parts.front.shrink(room)
        if self._parts.disk is not None:
            self._parts.disk.describe(cache.subject, cache.policy)

    def _close(self, cache: VersionCache) -> None:
        cache.is_open = False
        self._drop_from_memory(cache)
        if self._parts.disk is not None:
            self._parts.disk.forget(cache.subject.identity)

    def _drop_from_memory(self, cache: VersionCache) -> None:
        front = self._parts.front
        front.drop_owner(front.room(cache.subject.model), cache.counters)

    def _count_evicted(self, numbers: Mapping[Identity, int]) -> None:
        for identity, number in numbers.items():
            if (counters := self._counters(identity)) is not None:
                counters.disk_evicted += number

    def _count_dropped(self, numbers: Mapping[Identity, int]) -> None:
        for identity, number in numbers.items():
            if (counters := self._counters(identity)) is not None:
                counters.dropped += number

    def _counters(self, identity: Identity) -> Counters | None:
        cache = self._caches.get(identity[:2])
        return cache.counters if cache is not None and cache.subject.identity == identity else None


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0
