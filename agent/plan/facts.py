"""What is known of this device when a plan is looked at.

Everything is given: nothing here reads a disk, a clock or a socket, and a decision that is taken
twice with the same facts is the same. Moments are seconds since 1970 by the agent's clock, but for
those that guard-rails count from: they are of ``elapsed_s``, which nobody outside can move.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from agent.plan.zones import SystemZones


class Zones(Protocol):
    """Tells the time on the wall."""

    def wall(self, now_s: float, zone: str) -> datetime | None:
        """Say what the clock on the wall shows, without a zone; ``None``: nobody knows.

        Args:
            now_s: The moment.
            zone: ``local``, ``utc`` or an IANA name.
        """
        ...

    def moment(self, wall: datetime, zone: str) -> float | None:
        """Say when the clock on the wall shows something; ``None``: nobody knows.

        Args:
            wall: What it shows.
            zone: As above.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One model on this device.

    Attributes:
        active: Version that answers requests; ``None``: there is none.
        active_digest: Of what really answers; empty: nothing is in memory.
        previous: Version that the runtime can go back to; ``None``: there is none.
        under_way: Version on its way, in the agent or the runtime; ``None``: there is none.
        under_way_state: The agent's word for its state; empty: only the runtime knows it.
        under_way_rollout: Rollout that ordered it; empty: a person did.
        is_handed_over: Whether the runtime has, or may have, what is under way.
        is_downloaded: Whether what is under way needs no byte from the network any more.
        is_way_back: Whether what is under way is the way back from that version.
        disabled: Why the model answers nobody; empty: it answers.
        override: ``hold`` or ``rollback``: what a person decided here; empty: nothing.
        override_reason: Why.
        bad: SHA-256 of the manifests that are remembered as bad.
        installed: Versions that the runtime has.
        min_counter: Highest ``min_counter`` of any release of the model seen so far.
        stages_seen: When this device first saw each stage of the plan at hand, by index; moments
            of the elapsed time.
        tried: Sequences of plans that ended here without success, by ``(rollout, version)``.
    """

    active: int | None = None
    active_digest: str = ""
    previous: int | None = None
    under_way: int | None = None
    under_way_state: str = ""
    under_way_rollout: str = ""
    is_handed_over: bool = False
    is_downloaded: bool = False
    is_way_back: bool = False
    disabled: str = ""
    override: str = ""
    override_reason: str = ""
    bad: frozenset[str] = frozenset()
    installed: frozenset[int] = frozenset()
    min_counter: int = 0
    stages_seen: Mapping[int, float] = field(default_factory=dict)
    tried: Mapping[tuple[str, int], int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """This device.

    Attributes:
        device: Its name.
        fleet: Its fleet's name.
        channel: The channel whose plans it follows.
        labels: By which plans and releases choose devices.
        arch: As ``uname -m`` says.
        cpu_flags: Instruction sets as Linux spells them.
        memory_bytes: All of its memory.
        disk_free_bytes: Free where downloads lie.
        disk_reserve_bytes: Of which so much stays free.
        on_battery: Whether it runs on its battery; ``None``: it has none, or nobody knows.
        battery_percent: Its charge; ``None``: nobody knows.
        allows_battery: Whether its owner allows updates on battery.
        battery_percent_min: Least charge for that.
        metered: Whether bytes cost money.
        allows_metered: Whether its owner allows downloads then.
        now_s: Now.
        is_clock_trusted: Whether ``now_s`` is the time; else it is only known not to be later.
        elapsed_s: Now, in seconds of a counter that only this device moves, and never too fast.
        plan_known_s: For how long, by that counter, it has known the plans at hand.
        agent_version: Of this program.
        models: By name; a model that is not there is not on this device.
        changes: When versions changed by order of the fleet, by model; moments of the elapsed time.
        paused_until_s: Until when a command paused updates; 0: it is not.
        is_cloned: Whether another device was seen with this one's key.
        zones: Knows the time on the wall.
    """

    device: str
    fleet: str
    channel: str
    labels: Mapping[str, str] = field(default_factory=dict)
    arch: str = ""
    cpu_flags: frozenset[str] = frozenset()
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    disk_reserve_bytes: int = 0
    on_battery: bool | None = None
    battery_percent: float | None = None
    allows_battery: bool = False
    battery_percent_min: int = 0
    metered: bool = False
    allows_metered: bool = True
    now_s: float
    is_clock_trusted: bool = True
    elapsed_s: float
    plan_known_s: float = 0.0
    agent_version: str = ""
    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    changes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    paused_until_s: float = 0.0
    is_cloned: bool = False
    zones: Zones = field(default_factory=SystemZones)

    def model(self, name: str) -> ModelFacts:
        """Give what is known of a model; nothing where it is not on this device."""
        return self.models.get(name, ModelFacts())
