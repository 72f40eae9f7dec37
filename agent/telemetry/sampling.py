"""When to measure next, and measuring once: thin I/O around the pure neighbours."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.runtime_client.admin import Admin
from agent.settings.messaging import Telemetry
from agent.telemetry.batches import batches
from agent.telemetry.host import Host, read_host
from agent.telemetry.runtime_numbers import RuntimeNumbers, read_runtime

if TYPE_CHECKING:
    from edge_runtime.protocol.sketch_schemas import VersionSketches


class Sampling:
    """Measures this device and its daemon.

    Args:
        settings: How often, and what.
        state: The agent's folder, for its file system.
        link: ``device.link`` of the configuration.
        admin: The daemon.
        wall_s: Seconds since the epoch, as far as the device knows.
    """

    def __init__(
        self,
        settings: Telemetry,
        *,
        state: Path,
        link: str,
        admin: Admin,
        wall_s: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._state = state
        self._link = link
        self._admin = admin
        self._wall_s = wall_s
        self._is_slow = False

    @property
    def interval_s(self) -> float:
        """Time to the next measurement: longer on battery or where bytes cost money; 0: never."""
        stretch = self._settings.stretch if self._is_slow else 1.0
        return self._settings.interval_s * stretch

    def host(self) -> Host:
        """Measure the device alone."""
        host = read_host(self._state, self._link, self._wall_s())
        self._is_slow = host.is_metered or bool(host.on_battery)
        return host

    def sample(self) -> list[dict[str, Any]]:
        """Measure everything; a daemon that is away is left out."""
        host = self.host()
        runtime: RuntimeNumbers | None = None
        sketches: list[VersionSketches] = []
        try:
            runtime = read_runtime(self._admin.metrics())
            if self._settings.sketches:
                sketches = self._admin.sketches().versions
        except (AgentError, ValueError):
            pass  # it is away, or just starting: what was read until then is told
        found = batches(host, runtime, sketches, at_s=self._wall_s(), interval_s=self.interval_s)
        return list(found)
