"""What the device says about itself at every connection, and when it changed; pure."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from agent import __version__
from agent.device.known_models import Known
from agent.messages import REPORT_BYTES_MAX, Birth, Message, Reported, Slots, write
from agent.settings.device import Device
from agent.transport.clones import Suspicion
from agent.update.standing import Standing
from edge_runtime.hardware import CpuFacts

AWAY: Final = "away"
"""Said of the runtime while it does not answer."""
CLONE: Final = "clone"
RECORDS_LOST: Final = "records-lost"
MODELS_BYTES_MAX: Final = 40_960
"""Of all models in one message; hundreds of them fit."""
_REASON_CHARS: Final = 200
_AROUND_BYTES: Final = 256  # names and braces around the models
_FLAGS_TOLD: Final = 256  # characters each; more than any processor has


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
            since_s=standing.since_s,
            reason=_reason(standing),
        )
    return found


def birth(
    device: Device,
    cpu: CpuFacts,
    *,
    boot_id: str,
    started_s: float,
    memory_bytes: int,
    known: Known,
    suspicion: Suspicion,
    is_anew: bool,
    challenge: str,
    answers: tuple[str, ...],
) -> Birth:
    """Say what the device is.

    Args:
        device: Its name, its fleet, its labels, its channel.
        cpu: Its processor.
        boot_id: Which run of the agent says so.
        started_s: When that began.
        memory_bytes: All of its memory.
        known: Of its models.
        suspicion: Whether another device lives under its name.
        is_anew: Whether its records had to begin anew, and the fleet has not heard of it.
        challenge: What another one of its name would answer.
        answers: What it answers another one.
    """
    message = Birth(
        boot_id=boot_id,
        started_s=started_s,
        software={"edge-agent": __version__},
        arch=cpu.arch,
        cpu_flags=_told(cpu.flags),
        memory_bytes=memory_bytes,
        labels=dict(device.labels),
        channel=device.channel,
        runtime=AWAY if known.is_away else "",
        known_s=_known_s(known),
        conditions=_conditions(suspicion, is_anew=is_anew),
        challenge=challenge,
        answers=answers,
    )
    told = _fitting(known.models, message)
    left_out = len(known.models) - len(told)
    return msgspec.structs.replace(message, models=told, left_out=left_out)


def reported(known: Known, at_s: float) -> Reported:
    """Say how every model does.

    Args:
        known: Of the models.
        at_s: Seconds since 1970.
    """
    message = Reported(at_s=at_s, runtime=AWAY if known.is_away else "", known_s=_known_s(known))
    told = _fitting(known.models, message)
    left_out = len(known.models) - len(told)
    return msgspec.structs.replace(message, models=told, left_out=left_out)


def _fitting(models: dict[str, Slots], rest: Message) -> dict[str, Slots]:
    """Give as many as a message can hold: a device with too many must stay reachable."""
    told: dict[str, Slots] = {}
    left_bytes = min(MODELS_BYTES_MAX, REPORT_BYTES_MAX - _AROUND_BYTES - len(write(rest)))
    for name, each in models.items():
        left_bytes -= len(msgspec.json.encode({name: each}))
        if left_bytes < 0:
            break
        told[name] = each
    return told


def _conditions(suspicion: Suspicion, *, is_anew: bool) -> tuple[str, ...]:
    told = {CLONE: suspicion is Suspicion.CLONED, RECORDS_LOST: is_anew}
    return tuple(condition for condition, is_so in told.items() if is_so)


def _reason(standing: Standing) -> str:
    """Say why a model is as it is: what keeps it from answering before what a person decided."""
    why = standing.disabled or standing.active_problem or standing.override_reason
    return why[:_REASON_CHARS]


def _known_s(known: Known) -> float | None:
    return known.known_s if known.is_away else None


def _told(flags: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(flags))[:_FLAGS_TOLD]
