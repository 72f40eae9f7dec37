"""One version that is known: in memory, to be loaded when asked, or out and why."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.fairness import User
from edge_runtime.metrics import LoadDurations
from edge_runtime.protocol.schemas import LOADS_WHEN_ASKED
from edge_runtime.routing import LoadedVersion, VersionState
from edge_runtime.settings import Model

#: What a bundle's files look like from outside: equal ones need no second look inside.
Look = tuple[Bundle, tuple[tuple[int, int, int] | None, ...]]
UNKNOWN_VERSION: Final = 0  # of a problem that concerns a whole model
_NOT_OF_LOADS: Final = frozenset(
    {"path", "version_policy", "load", "idle_unload_s", "aliases", "callers", "release"}
)
_RETRY_S: Final = 10.0  # after a failed load that a request asked for; doubled by each further one
_RETRY_MAX_S: Final = 640.0
_NS: Final = 1e9
_folders: Final = re.compile(r"(?<![^\s'\"(=])/(?:[^/\s'\"]+/)+")


@dataclass(slots=True, eq=False)
class Entry:
    """One version that is known.

    Attributes:
        name: The model.
        version: Its number; ``UNKNOWN_VERSION``: a problem of the whole model.
        state: What the index says.
        bundle: What is loaded when it is asked for.
        settings: Of its model.
        loaded: What answers, while it is in memory.
        served: What ``loaded`` was made from.
        last: What answered last, before it left memory.
        can_load: Whether a request may bring it into memory.
        is_changing: Whether a change that was not asked for by a request is loading it: requests
            wait for that, and load nothing.
        need_bytes: Memory that it needs: measured, else expected; ``None``: not known yet.
        files: What the files looked like whose need that is.
        loaded_as: The settings of loads at that time.
        failures: Loads that failed since the last good one.
        retry_at_s: Before this a request makes no new try.
        arrived_ns: When it was loaded last, in monotonic nanoseconds.
        loaded_for: The users whose requests had it loaded last; none: the operator did.
        loads: Times it was loaded.
        load_failures: Times that failed or could not be tried, since the start.
        load_durations: How long the others took.
        unloads: Times it left because it was idle.
        evictions: Times it left for another.
    """

    name: str
    version: int
    state: VersionState = field(default_factory=lambda: VersionState("UNAVAILABLE"))
    bundle: Bundle | None = None
    settings: Model = field(default_factory=Model)
    loaded: LoadedVersion | None = None
    served: Bundle | None = None
    last: LoadedVersion | None = None
    can_load: bool = False
    is_changing: bool = False
    need_bytes: int | None = None
    files: Look | None = None
    loaded_as: tuple[object, ...] = ()
    failures: int = 0
    retry_at_s: float = 0.0
    arrived_ns: int = 0
    loaded_for: Collection[User] = ()
    loads: int = 0
    load_failures: int = 0
    load_durations: LoadDurations = field(default_factory=LoadDurations)
    unloads: int = 0
    evictions: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """Name and number."""
        return self.name, self.version

    @property
    def text(self) -> str:
        """Its number as callers write it; empty for a problem of the whole model."""
        return str(self.version or "")

    @property
    def answers(self) -> bool:
        """Whether it answers when asked, at once or after a load that should succeed."""
        return self.loaded is not None or (self.can_load and not self.failures)

    @property
    def is_over(self) -> bool:
        """Whether it is out of memory, its last request was answered, and nothing loads it."""
        is_wanted = self.loaded is not None or self.can_load or self.is_changing
        return not is_wanted and self.state.state != "UNLOADING"

    def know(self, files: Look, need_bytes: int) -> None:
        """Keep what a version of these files needs, in bytes."""
        self.files, self.loaded_as, self.need_bytes = files, self.loads_as, need_bytes

    @property
    def loads_as(self) -> tuple[object, ...]:
        """The settings that a version is loaded by; a change of the others moves no memory."""
        settings = self.settings
        return tuple(
            getattr(settings, name)
            for name in settings.__struct_fields__
            if name not in _NOT_OF_LOADS and not name.startswith("cache_")
        )

    def may_load(self, now_s: float) -> bool:
        """Tell whether a request may wait for it: to be loaded for that, or by a change."""
        if self.is_changing:
            return True
        return self.can_load and not (self.failures and now_s < self.retry_at_s)

    def sleep(self, why: str = "") -> None:
        """Leave it to the next request to load it."""
        self.can_load = True
        self.failures = 0
        self.state = VersionState(
            "READY", f"{LOADS_WHEN_ASKED} ({why})" if why else LOADS_WHEN_ASKED
        )

    def arrive(self, loaded: LoadedVersion, bundle: Bundle, now_ns: int) -> None:
        """Take in what was loaded: it answers from now on."""
        before = self.loaded or self.last
        if before is not None and before is not loaded and before.digest == loaded.digest:
            loaded.lane.statistics = before.statistics  # counters never go backwards
        loaded.last_used_ns = self.arrived_ns = now_ns
        self.loaded, self.served, self.last = loaded, bundle, loaded
        self.bundle = bundle
        self.can_load = True
        self.failures = 0
        self.loads += 1
        self.load_durations.add(round(loaded.load_s * _NS))
        self.state = VersionState("READY")

    def leave(self) -> LoadedVersion:
        """Take it out of memory's books; the caller lets go of what it returns."""
        loaded, self.loaded = self.loaded, None
        assert loaded is not None  # noqa: S101 - callers look first
        return loaded

    def fail(self, error: EdgeRuntimeError, now_s: float) -> None:
        """Note a load that failed."""
        self.load_failures += 1
        if self.loaded is not None:
            self.state = still_serving(error)
            return
        self.failures += 1
        self.retry_at_s = now_s + min(_RETRY_S * 2 ** (self.failures - 1), _RETRY_MAX_S)
        self.state = VersionState("UNAVAILABLE", public(error))

    def refuse(self, error: EdgeRuntimeError) -> None:
        """Note that there is no room for it, or that its files cannot be tried."""
        self.load_failures += 1
        if self.loaded is not None:
            self.state = still_serving(error)
        else:
            self.state = VersionState("UNAVAILABLE", public(error))

    def forget(self, why: str) -> None:
        """Nothing may bring it back by itself."""
        self.can_load = False
        self.bundle = None
        self.failures = 0
        self.state = VersionState("UNAVAILABLE", why)


def still_serving(error: EdgeRuntimeError) -> VersionState:
    """Say that new files are no good, and that the old ones answer."""
    return VersionState("READY", f"still the earlier files; the new ones failed: {public(error)}")


def public(error: EdgeRuntimeError) -> str:
    """Take the folders out of a message: where files lie is the operator's business."""
    return _folders.sub("", error.message)
