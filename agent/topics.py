"""Names of MQTT topics: built for one device, and read back; pure.

Everything is below ``edge/v1/FLEET/``. What comes from a broker is anybody's text: ``parse`` gives
``None`` for all that is not one of these names, spelled exactly so.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ROOT: Final = "edge/v1"
TOPIC_BYTES_MAX: Final = 512
DEVICE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FLEET: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
WORD: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
"""A rollout, an order of a command, or a command's own name."""


class Kind(StrEnum):
    """What is said on a topic; part of what is signed, so the words are frozen."""

    ANNOUNCEMENT = "announcement"
    STATE = "state"
    BIRTH = "birth"
    REPORTED = "reported"
    JOB = "job"
    METRICS = "metrics"
    COMMAND = "command"
    RESULT = "result"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, understood.

    Attributes:
        kind: What is said there.
        fleet: Name of the fleet.
        device: The device's name; empty: the whole fleet.
        rollout: Of a job.
        op: What a command orders, such as ``check-now``.
        id: The command's own name.
    """

    kind: Kind
    fleet: str
    device: str = ""
    rollout: str = ""
    op: str = ""
    id: str = ""


class Topics:
    """The topics of one device.

    Args:
        fleet: Name of its fleet.
        device: Its name.

    Raises:
        ValueError: One of them is no such name; settings and enrolment check them before.
    """

    def __init__(self, fleet: str, device: str) -> None:
        if FLEET.fullmatch(fleet) is None or DEVICE.fullmatch(device) is None:
            raise ValueError(f"{fleet!r} and {device!r} are not names of a fleet and a device")
        self.fleet = fleet
        self.device = device
        self._own = f"{ROOT}/{fleet}/d/{device}"
        self.announcement = f"{ROOT}/{fleet}/announce/timestamp"
        self.state = f"{self._own}/state"
        self.birth = f"{self._own}/birth"
        self.reported = f"{self._own}/reported"
        self.metrics = f"{self._own}/m"
        self.commands = f"{self._own}/cmd/+/+"

    @property
    def own(self) -> str:
        """What each topic of this device begins with."""
        return f"{self._own}/"

    @property
    def client_id(self) -> str:
        """Name of the device at a broker, which several fleets may share: no fleet has a dot."""
        return f"{self.fleet}.{self.device}"

    def job(self, rollout: str) -> str:
        """Where the device says how far it is with a rollout."""
        return f"{self._own}/jobs/{_word(rollout)}"

    def command(self, op: str, command_id: str) -> str:
        """Where a command to the device is."""
        return f"{self._own}/cmd/{_word(op)}/{_word(command_id)}"

    def result(self, op: str, command_id: str) -> str:
        """Where the device answers a command."""
        return f"{self.command(op, command_id)}/result"


def parse(topic: str) -> Topic | None:
    """Read a topic's name.

    Returns:
        What it is, or ``None`` where it is none of ours.
    """
    if len(topic) > TOPIC_BYTES_MAX:
        return None
    match topic.split("/"):
        case ["edge", "v1", fleet, "announce", "timestamp"] if FLEET.fullmatch(fleet):
            return Topic(Kind.ANNOUNCEMENT, fleet)
        case ["edge", "v1", fleet, "d", device, *levels] if FLEET.fullmatch(
            fleet
        ) and DEVICE.fullmatch(device):
            return _of_device(fleet, device, levels)
        case _:
            return None


def _of_device(fleet: str, device: str, levels: list[str]) -> Topic | None:
    match levels:
        case ["state" | "birth" | "reported" as word]:
            return Topic(Kind(word), fleet, device)
        case ["m"]:
            return Topic(Kind.METRICS, fleet, device)
        case ["jobs", rollout] if WORD.fullmatch(rollout):
            return Topic(Kind.JOB, fleet, device, rollout=rollout)
        case ["cmd", op, name] if WORD.fullmatch(op) and WORD.fullmatch(name):
            return Topic(Kind.COMMAND, fleet, device, op=op, id=name)
        case ["cmd", op, name, "result"] if WORD.fullmatch(op) and WORD.fullmatch(name):
            return Topic(Kind.RESULT, fleet, device, op=op, id=name)
        case _:
            return None


def _word(text: str) -> str:
    if WORD.fullmatch(text) is None:
        raise ValueError(f"{text!r} cannot be part of a topic: [a-z0-9][a-z0-9-]*, at most 64")
    return text
