"""Sketches of every version's outputs, from a few answers a second of each model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Final

from edge_runtime.observation.sketch import Sketch
from edge_runtime.protocol.sketch_schemas import OutputSketch, VersionSketches
from edge_runtime.routing import LoadedVersion
from edge_runtime.tensors import Array

EVERY_S: Final = 0.25
"""Least time between two answers of one model that are looked at, in seconds."""
VERSIONS_MAX: Final = 64
"""Versions whose sketches are kept; the one that was not seen for longest goes first."""
OUTPUTS_MAX: Final = 16


class Drift:
    """Looks at answers; an ``observer.Observer`` for all models together.

    Args:
        clock: Seconds of a clock that only goes forward.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._due_s: dict[str, float] = {}
        self._versions: dict[tuple[str, str, str], dict[str, Sketch]] = {}

    def wants(self, loaded: LoadedVersion) -> bool:
        """Tell whether to look at the next answer of a version."""
        return self._clock() >= self._due_s.get(loaded.name, 0.0)

    def answered(
        self,
        loaded: LoadedVersion,
        feeds: Mapping[str, Array],  # noqa: ARG002 - the interface
        names: Sequence[str],
        outputs: Sequence[Array],
    ) -> None:
        """Count an answer's outputs."""
        self._due_s[loaded.name] = self._clock() + EVERY_S
        key = loaded.name, loaded.version, loaded.digest
        sketches = self._versions.pop(key, None)
        if sketches is None:
            sketches = {}
            while len(self._versions) >= VERSIONS_MAX:
                (name, _, _) = oldest = next(iter(self._versions))
                del self._versions[oldest]
                if all(each[0] != name for each in self._versions):
                    self._due_s.pop(name, None)
        self._versions[key] = sketches
        for name, output in zip(names[:OUTPUTS_MAX], outputs, strict=False):
            sketches.setdefault(name, Sketch()).add(output)

    def told(self) -> Iterator[VersionSketches]:
        """Give what was counted since the daemon started, for each version seen lately."""
        for (model, version, digest), sketches in self._versions.items():
            yield VersionSketches(
                model=model,
                version=version,
                digest=digest,
                outputs=[
                    OutputSketch(name=name, rows=each.rows, bad=each.bad, counts=each.told())
                    for name, each in sketches.items()
                    if each.rows
                ],
            )
