"""Every version that is known: in memory, to be loaded when asked, or out and why.

The catalog changes the entries; the routing table follows from them. No I/O, no clock.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from math import ceil
from types import MappingProxyType
from typing import Final

from edge_runtime.errors import EdgeRuntimeError, ModelNotFoundError, ModelNotReadyError
from edge_runtime.registry_entry import UNKNOWN_VERSION, Entry
from edge_runtime.routing import (
    EMPTY,
    LoadedVersion,
    Routes,
    Split,
    State,
    Table,
    Traffic,
    VersionState,
)

LATEST: Final = "latest"
STABLE: Final = "stable"
_LOADING_RETRY_S: Final = 1.0  # nobody knows how long a load takes


class Registry:
    """The entries, and the table made of those in memory.

    Attributes:
        table: Who answers for what; replaced, never changed.
    """

    def __init__(self) -> None:
        self._models: dict[str, dict[int, Entry]] = {}
        self._aliases: dict[str, Mapping[str, int]] = {}
        self._traffic: dict[str, Traffic] = {}
        self._disabled: dict[str, str] = {}
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
        if version not in {"", LATEST, STABLE} or name in self._disabled:
            return None
        return self._first(name, lambda entry: entry.last is not None)

    def index(self) -> list[tuple[str, str, VersionState]]:
        """List every version: name, version (empty: of the whole model), state."""
        rows = []
        for entry in self:
            state = entry.state
            if entry.name in self._disabled and entry.loaded is None:
                word: State = "UNLOADING" if state.state == "UNLOADING" else "UNAVAILABLE"
                state = VersionState(word, f"disabled: {self._disabled[entry.name]}")
            problems = self.alias_problems(entry.name)
            if problems and entry is self.resolve(entry.name, ""):
                reason = "; ".join([*filter(None, [state.reason]), *problems])
                state = VersionState(state.state, reason)
            rows.append((entry.name, entry.text, state))
        rows += [
            (name, "", VersionState("UNAVAILABLE", f"disabled: {why}"))
            for name, why in self._disabled.items()
            if name not in self._models
        ]
        return sorted(rows, key=lambda row: row[0])

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
        if not self._models.get(name):
            self._models.pop(name, None)
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

    # -- what releases say ---------------------------------------------------------------------

    def direct(self, name: str, traffic: Traffic | None) -> None:
        """Share out a model's requests from the next one on; it is not disabled any more.

        Args:
            name: The model.
            traffic: The shares; ``None``: the highest version that answers gets all, as ever.
        """
        self._disabled.pop(name, None)
        if traffic is None:
            self._traffic.pop(name, None)
        else:
            self._traffic[name] = traffic
        self.refresh(name)

    def disable(self, name: str, reason: str) -> None:
        """Let nothing answer for a model until its traffic is directed again."""
        self._traffic.pop(name, None)
        self._disabled[name] = reason
        self.refresh(name)

    def traffic(self, name: str) -> Traffic | None:
        """Say how a model's requests are shared out; ``None``: nobody has directed them."""
        return self._traffic.get(name)

    def is_disabled(self, name: str) -> bool:
        """Tell whether a model must not answer, whatever is there of it."""
        return name in self._disabled

    def is_kept(self, key: tuple[str, int]) -> bool:
        """Tell whether a version stays in memory because requests are sent to it."""
        traffic = self._traffic.get(key[0])
        return traffic is not None and key[1] in traffic.kept

    # -- who answers ---------------------------------------------------------------------------

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
        if name in self._disabled:
            return None
        if version.isdecimal():
            return next((each for each in self.of(name) if each.text == version), None)
        is_default = version in {"", LATEST, STABLE}
        if not (is_default and name in self._traffic):
            number = self._aliases.get(name, {}).get(version)
            if number is not None:
                return self._models.get(name, {}).get(number)
        if not is_default:
            return None
        return (
            self._first(name, lambda entry: entry.answers)
            or self._first(name, lambda entry: entry.can_load)
            or self._first(name, lambda entry: entry.is_changing)
        )

    def refresh(self, name: str) -> None:
        """Make the table say what the entries of a model say."""
        table = dict(self.table)
        versions = {entry.text: entry.loaded for entry in self.of(name) if entry.loaded is not None}
        traffic = self._traffic.get(name)
        for loaded in versions.values():
            loaded.on_trial = traffic is not None and loaded.version != str(traffic.proven)
        if versions and name not in self._disabled:
            names = {LATEST, STABLE, *self._aliases.get(name, {})}
            led = {alias: self._loaded(name, alias) for alias in sorted(names)}
            table[name] = Routes(
                self._loaded(name, ""),
                MappingProxyType(versions),
                MappingProxyType({alias: loaded for alias, loaded in led.items() if loaded}),
                Split.of(name, traffic, versions) if traffic and traffic.weights else None,
                versions.get(str(traffic.proven)) if traffic else None,
                traffic,
            )
        else:
            table.pop(name, None)
        self.table = MappingProxyType(table)

    def missing(self, name: str, version: str, now_s: float) -> EdgeRuntimeError:
        """Say why a version does not answer, and what there is."""
        entries = self._models.get(name, {})
        if name in self._disabled:
            return ModelNotReadyError(f"model {name!r} is disabled: {self._disabled[name]}")
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
            entry = self.resolve(name, "") or self._unanswered(name)
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

    def _first(self, name: str, wanted: Callable[[Entry], bool]) -> Entry | None:
        """Find the version that answers by default among those wanted.

        It is the highest. While traffic is directed it is the default, and where that is not
        among them the highest that gets no share: what is on trial never answers everything.
        """
        entries = self._models.get(name, {})
        traffic = self._traffic.get(name)
        if traffic is None:
            return _highest(entries.values(), wanted)
        default = entries.get(traffic.default)
        if default is not None and wanted(default):
            return default
        others = [each for each in entries.values() if each.version not in traffic.weights]
        return _highest(others, wanted)

    def _unanswered(self, name: str) -> Entry:
        """Give the version whose state says why a model does not answer."""
        entries, traffic = self._models[name], self._traffic.get(name)
        default = entries.get(traffic.default) if traffic is not None else None
        return default or entries[max(entries)]


#: How a message goes on from "model 'm' is"; READY but not in memory is the one odd case.
_PLAIN: Final = {"READY": "not loaded"}


def _highest(entries: Collection[Entry], wanted: Callable[[Entry], bool]) -> Entry | None:
    return max(
        (entry for entry in entries if wanted(entry)),
        key=lambda entry: entry.version,
        default=None,
    )
