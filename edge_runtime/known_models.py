"""What is known of the models: which versions there are, what each was last, and why one is not."""

from collections.abc import Callable

from edge_runtime.errors import EdgeRuntimeError, ModelNotReadyError
from edge_runtime.registry import Registry
from edge_runtime.registry_entry import Entry
from edge_runtime.routing import LoadedVersion, Table, Traffic, VersionState


class KnownModels:
    """Looks at the models; ``catalog.Catalog`` changes them.

    Args:
        registry: Every version that is known.
        now_s: A monotonic clock, in seconds.

    Attributes:
        is_settled: Whether every model has been looked for; while not, an unknown one may yet
            come.
    """

    def __init__(self, registry: Registry, now_s: Callable[[], float]) -> None:
        self._registry = registry
        self._now_s = now_s
        self.is_settled = True

    @property
    def table(self) -> Table:
        """Who answers for what, now."""
        return self._registry.table

    def last_known(self, name: str, version: str = "") -> LoadedVersion | None:
        """Give what answers for a name, or what did before it left memory.

        Its signature, digest and manifest can be read; if it left, its session is closed.

        Args:
            name: The model.
            version: A number or an alias; empty: the one that answers by default.
        """
        entry = self._registry.resolve(name, version) or self._registry.last(name, version)
        return entry.last if entry else None

    def number(self, name: str, version: str = "") -> str | None:
        """Say which version a caller means, in memory or not.

        Args:
            name: The model.
            version: A number or an alias; empty: the one that answers by default.

        Returns:
            Its number; empty where the model is there and none of its versions can be told, since
            its files cannot be read; ``None`` where there is no such version.
        """
        entry = self._registry.resolve(name, version)
        if entry is not None:
            return entry.text
        traffic = self._registry.traffic(name)
        if self._registry.is_disabled(name):
            return None
        if traffic is not None and not version:
            return str(traffic.default)
        entries = self._registry.of(name)
        numbers = [each.text for each in entries if each.text]
        if not numbers and entries:
            return version if version.isdecimal() else ""
        return None if version or not numbers else numbers[-1]

    def check_ready(self, name: str, version: str = "") -> None:
        """Make sure that a version answers when asked, at once or after being loaded.

        Raises:
            ModelNotFoundError: No such model or version is known.
            ModelNotReadyError: It is known, but cannot answer.
        """
        entry = self._registry.resolve(name, version)
        is_ready = entry is not None and (
            entry.loaded is not None or (entry.can_load and entry.state.state != "UNAVAILABLE")
        )
        if not is_ready:
            raise self._missing(name, version)

    def answers(self, name: str = "") -> bool:
        """Tell whether a model (empty: any) answers when asked."""
        entries = self._registry.of(name) if name else self._registry
        return any(entry.answers for entry in entries)

    def known(self) -> list[str]:
        """List the models of which anything is known, whether they answer or not."""
        return self._registry.names()

    def names(self) -> list[str]:
        """List the models that answer when asked."""
        return list(dict.fromkeys(entry.name for entry in self._registry if entry.answers))

    def versions(self, name: str) -> list[str]:
        """List the versions of a model that answer when asked."""
        return [entry.text for entry in self._registry.of(name) if entry.answers]

    def index(self) -> list[tuple[str, str, VersionState]]:
        """List every version known: name, version (empty: of the whole model), state."""
        return self._registry.index()

    def loaded(self) -> list[LoadedVersion]:
        """List every version in memory, by name and number."""
        return [entry.loaded for entry in self._registry if entry.loaded is not None]

    def counted(self) -> list[LoadedVersion]:
        """List every version that has counters, in memory or not, by name and number."""
        return [entry.last for entry in self._registry if entry.last is not None]

    def entries(self) -> list[Entry]:
        """List every version known, to be read only: loads, evictions, sizes, what was last."""
        return list(self._registry)

    def traffic(self, name: str) -> Traffic | None:
        """Say how a model's requests are shared out; ``None``: nobody has directed them."""
        return self._registry.traffic(name)

    def _missing(self, name: str, version: str) -> EdgeRuntimeError:
        is_known = self._registry.of(name) or self._registry.is_disabled(name)
        if not (self.is_settled or is_known):
            return ModelNotReadyError(
                "the daemon is starting, and does not know its models yet", retry_after_s=1
            )
        return self._registry.missing(name, version, self._now_s())
