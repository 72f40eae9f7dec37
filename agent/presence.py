"""What the device says about itself at every connection, and when it changed; pure."""

from collections.abc import Iterable, Mapping

from agent import __version__
from agent.messages import Birth, Reported, Slots
from agent.settings.device import Device
from agent.transport.clones import Suspicion
from agent.update.standing import Standing
from edge_runtime.hardware import CpuFacts

_FLAGS_TOLD = 256  # characters each; more than any processor has


def slots(standings: Mapping[str, Standing]) -> dict[str, Slots]:
    """Say which versions of each model are where."""
    found = {}
    for model, standing in sorted(standings.items()):
        passage = standing.under_way()
        found[model] = Slots(
            active=standing.active,
            active_digest=standing.running_digest,
            previous=standing.previous,
            under_way=None if passage is None else passage.version,
            under_way_digest="" if passage is None else passage.digest,
            phase="" if passage is None else passage.state,
            reason=standing.disabled or standing.override_reason or "",
        )
    return found


def birth(
    device: Device,
    cpu: CpuFacts,
    *,
    boot_id: str,
    started_s: float,
    memory_bytes: int,
    standings: Mapping[str, Standing],
    suspicion: Suspicion,
) -> Birth:
    """Say what the device is.

    Args:
        device: Its name, its fleet, its labels, its channel.
        cpu: Its processor.
        boot_id: Which run of the agent says so.
        started_s: When that began.
        memory_bytes: All of its memory.
        standings: Of its models.
        suspicion: Whether another device lives under its name.
    """
    return Birth(
        boot_id=boot_id,
        started_s=started_s,
        software={"edge-agent": __version__},
        arch=cpu.arch,
        cpu_flags=_told(cpu.flags),
        memory_bytes=memory_bytes,
        labels=dict(device.labels),
        channel=device.channel,
        models=slots(standings),
        conditions=("clone",) if suspicion is Suspicion.CLONED else (),
    )


def reported(standings: Mapping[str, Standing], at_s: float) -> Reported:
    """Say how every model does."""
    return Reported(at_s=at_s, models=slots(standings))


def _told(flags: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(flags))[:_FLAGS_TOLD]
