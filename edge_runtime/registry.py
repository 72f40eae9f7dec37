"""Every version that is known: in memory, to be loaded when asked, or out and why.

The catalog changes the entries; the routing table follows from them. No I/O, no clock.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from types import MappingProxyType
from typing import Final

from edge_runtime.bundle import Bundle
from edge_runtime.errors import EdgeRuntimeError, ModelNotFoundError, ModelNotReadyError
from edge_runtime.fairness import User
from edge_runtime.metrics import LoadDurations
from edge_runtime.protocol.schemas import LOADS_WHEN_ASKED
from edge_runtime.routing import EMPTY, LoadedVersion, Routes, Table, VersionState
from edge_runtime.settings import Model

#: What a bundle's files look like from outside: equal ones need no second look inside.
Look = tuple[Bundle, tuple[tuple[int, int, int] | None, ...]]
UNKNOWN_VERSION: Final = 0  # of a problem that concerns a whole model
_NOT_OF_LOADS: Final = frozenset(
    {"path", "version_policy", "load", "idle_unload_s", "aliases", "callers"}
)
LATEST: Final = "latest"
STABLE: Final = "stable"
_RETRY_S: Final = 10.0  # after a failed load that a request asked for; doubled by each further one
_RETRY_MAX_S: Final = 640.0
_LOADING_RETRY_S: Final = 1.0  # nobody knows how long a load takes
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


class Registry:
    """The entries, and the table made of those in memory.

    Attributes:
        table: Who answers for what; replaced, never changed.
    """

    def __init__(self) -> None:
        self._models: dict[str, dict[int, Entry]] = {}
        self._aliases: dict[str, Mapping[str, int]] = {}
        self.table: Table = EMPTY

    def __iter__(self) -> Iterator[Entry]:
        for name in sorted(self._models):
            yield from self.of(name)

    def of(self, name: str) -> list[Entry]:
        """List the versions of a model by number; a problem of the whole model comes first."""
        entries = self._models.get(name, {})
        return [entries[version] for version in sorted(entries)]

    def entry(self, name: str, version: int) -> Entry:
        """Give the entry of a version, a new one if need be."""
        entries = self._models.setdefault(name, {})
        entry = entries.get(version)
        if entry is None:
            entry = entries[version] = Entry(name, version)
        return entry

    def find(self, key: tuple[str, int]) -> Entry | None:
        """Give the entry of a version, if there is one."""
        return self._models.get(key[0], {}).get(key[1])

    def last(self, name: str, version: str) -> Entry | None:
        """Find the newest version that was once in memory, where none is named."""
        if version not in {"", LATEST, STABLE}:
            return None
        return _highest(self.of(name), lambda entry: entry.last is not None)

    def index(self) -> list[tuple[str, str, VersionState]]:
        """List every version: name, version (empty: of the whole model), state."""
        rows = []
        for entry in self:
            state = entry.state
            problems = self.alias_problems(entry.name)
            if problems and entry is self.resolve(entry.name, ""):
                reason = "; ".join([*filter(None, [state.reason]), *problems])
                state = VersionState(state.state, reason)
            rows.append((entry.name, entry.text, state))
        return rows

    def drop_problem(self, name: str) -> None:
        """Forget a problem of the whole model: one of its versions is all right."""
        self._models.get(name, {}).pop(UNKNOWN_VERSION, None)

    def names(self) -> list[str]:
        """List the models of which anything is known."""
        return sorted(self._models)

    def prune(self, name: str, there: Collection[int]) -> list[Entry]:
        """Forget versions that are out of memory for good and not at their source any more.

        Args:
            name: The model.
            there: Its versions that the source still has.

        Returns:
            The versions that were forgotten.
        """
        gone = [each for each in self.of(name) if each.version not in there and each.is_over]
        for entry in gone:
            del self._models[name][entry.version]
        if name in self._models and not self._models[name]:
            del self._models[name]
            self._aliases.pop(name, None)
        return [each for each in gone if each.version != UNKNOWN_VERSION]

    def announce(self, name: str, aliases: Mapping[str, int]) -> None:
        """Set the names of a new model's versions: requests use them while it is loaded."""
        if name not in self._models:
            self._aliases[name] = aliases

    def configure(self, name: str, aliases: Mapping[str, int]) -> None:
        """Set the names of a model's versions."""
        self._aliases[name] = aliases
        self.refresh(name)

    def alias_problems(self, name: str) -> list[str]:
        """Say which names of a model's versions lead nowhere, one sentence each."""
        versions = {entry.version: entry for entry in self.of(name)}
        return [
            f"alias {alias!r} leads to version {version}, which is not served"
            for alias, version in sorted(self._aliases.get(name, {}).items())
            if version not in versions or not versions[version].answers
        ]

    def resolve(self, name: str, version: str) -> Entry | None:
        """Find what a caller means, in memory or not.

        Args:
            name: The model.
            version: A number or an alias; empty: the version that answers by default.
        """
        entries = self._models.get(name, {})
        if version.isdecimal():
            return next((each for each in self.of(name) if each.text == version), None)
        number = self._aliases.get(name, {}).get(version)
        if number is not None:
            return entries.get(number)
        if version and version not in {LATEST, STABLE}:
            return None
        return (
            _highest(entries.values(), lambda entry: entry.answers)
            or _highest(entries.values(), lambda entry: entry.can_load)
            or _highest(entries.values(), lambda entry: entry.is_changing)
        )

    def refresh(self, name: str) -> None:
        """Make the table say what the entries of a model say."""
        table = dict(self.table)
        versions = {entry.text: entry.loaded for entry in self.of(name) if entry.loaded is not None}
        if versions:
            names = {LATEST, STABLE, *self._aliases.get(name, {})}
            led = {alias: self._loaded(name, alias) for alias in sorted(names)}
            table[name] = Routes(
                self._loaded(name, ""),
                MappingProxyType(versions),
                MappingProxyType({alias: loaded for alias, loaded in led.items() if loaded}),
            )
        else:
            table.pop(name, None)
        self.table = MappingProxyType(table)

    def missing(self, name: str, version: str, now_s: float) -> EdgeRuntimeError:
        """Say why a version does not answer, and what there is."""
        entries = self._models.get(name, {})
        if not entries:
            return ModelNotFoundError(
                f"there is no model {name!r}; POST /v2/repository/index lists what there is"
            )
        numbers = [entry.text for entry in self.of(name) if entry.text]
        has = f"it has {', '.join(numbers)}"
        served = [entry.text for entry in self.of(name) if entry.text and entry.answers]
        aliases = self._aliases.get(name, {})
        which = f"model {name!r}"
        entry = self.resolve(name, version) if version else None
        if version and numbers and entry is None:
            if version in aliases:
                return ModelNotFoundError(
                    f"{which} has no version {aliases[version]}, to which the alias {version!r} "
                    f"leads (models.{name}.aliases); served: {', '.join(served) or 'none'}"
                )
            names = sorted({LATEST, STABLE, *aliases})
            more = "" if version.isdecimal() else f", also as {', '.join(names)}"
            return ModelNotFoundError(f"{which} has no version {version!r}; {has}{more}")
        if entry is not None:
            which += f" version {version}"
            if not version.isdecimal():
                which += f" ({entry.version})"
        else:
            entry = self.resolve(name, "") or entries[max(entries)]
        state = entry.state
        reason = f" ({state.reason})" if state.reason else ""
        if state.state == "LOADING":
            wait_s = _LOADING_RETRY_S
        else:
            wait_s = entry.retry_at_s - now_s if entry.can_load and entry.failures else 0.0
        return ModelNotReadyError(
            f"{which} is {_PLAIN.get(state.state, state.state.lower())}{reason}",
            retry_after_s=max(1, ceil(wait_s)) if wait_s > 0 else None,
        )

    def _loaded(self, name: str, version: str) -> LoadedVersion | None:
        entry = self.resolve(name, version)
        return entry.loaded if entry else None


#: How a message goes on from "model 'm' is"; READY but not in memory is the one odd case.
_PLAIN: Final = {"READY": "not loaded"}


def still_serving(error: EdgeRuntimeError) -> VersionState:
    """Say that new files are no good, and that the old ones answer."""
    return VersionState("READY", f"still the earlier files; the new ones failed: {public(error)}")


def public(error: EdgeRuntimeError) -> str:
    """Take the folders out of a message: where files lie is the operator's business."""
    return _folders.sub("", error.message)


def _highest(entries: Collection[Entry], wanted: Callable[[Entry], bool]) -> Entry | None:
    return max(
        (entry for entry in entries if wanted(entry)),
        key=lambda entry: entry.version,
        default=None,
    )
