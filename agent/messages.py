"""What is said over MQTT: one struct for every payload; pure.

All is JSON. A reader ignores fields it does not know and refuses a ``schema_version`` newer than
its own. Times are epoch seconds by the device's own clock, sizes are bytes, and names say so.
Birth, reported, jobs and results travel signed, metrics unsigned, in an envelope
(``agent.envelope``) that carries ``boot_id`` and ``seq``.
"""

from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

SCHEMA_VERSION: Final = 1
REPORT_BYTES_MAX: Final = 65_536
"""Bytes of one payload that a device sends; a batch of metrics is cut before."""
MESSAGE_BYTES_MAX: Final = 2 * REPORT_BYTES_MAX + 4096
"""Bytes of an envelope around it: text in text may double."""
COMMAND_BYTES_MAX: Final = 16_384
ANNOUNCEMENT_BYTES_MAX: Final = 65_536
"""Bytes of a signed timestamp; one of ours has 400."""
GAPS_MAX: Final = 64
"""Gaps in one message."""
CHALLENGES_MAX: Final = 8
"""Challenges that one birth answers."""

Text = Annotated[str, Meta(max_length=4096)]
ShortText = Annotated[str, Meta(max_length=256)]
Schema = Annotated[int, Meta(ge=1, le=SCHEMA_VERSION)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
_T = TypeVar("_T")


class State(StrEnum):
    """How a device is there, in Homie's words.

    Homie's ``sleeping`` is none of them: the agent stays connected between its measurements, and a
    device that is suspended cannot say so any more and is ``lost``.
    """

    INIT = "init"
    """Connected; its birth, and how its models do, are still to come."""
    READY = "ready"
    DISCONNECTED = "disconnected"
    LOST = "lost"


class JobState(StrEnum):
    """How far a device is with a rollout, in the words of AWS IoT."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every payload has."""

    schema_version: Schema = SCHEMA_VERSION


class Presence(Message, frozen=True, kw_only=True):
    """``state``: retained; the broker itself says ``lost`` as the last will.

    Attributes:
        state: How the device is there.
        boot_id: Which run of the agent says so: a will that comes late is known by it.
    """

    state: State
    boot_id: ShortText = ""


class Slots(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which versions of a model are where.

    Attributes:
        active: The version that a release made active; ``None``: the runtime's configuration, or
            a first release that is still tried, or nothing answers. The digest says which.
        active_digest: Of what really answers, as the runtime says; empty: nothing is in memory.
        previous: The version to go back to.
        under_way: The version that is being tried.
        under_way_digest: Of what its release runs; empty: not chosen yet.
        phase: Where that one is, such as ``canary``.
        since_s: When it came into that phase; without one, when its last release ended. By the
            runtime's clock; ``None``: no release was ever ordered.
        reason: Why it is so, in a word.
    """

    active: int | None = None
    active_digest: ShortText = ""
    previous: int | None = None
    under_way: int | None = None
    under_way_digest: ShortText = ""
    phase: ShortText = ""
    since_s: float | None = None
    reason: Text = ""


class Birth(Message, frozen=True, kw_only=True):
    """``birth``: retained; what a device is, said at every start and when it changed.

    Attributes:
        boot_id: Which run of the agent says so.
        started_s: When it began.
        software: Versions by the name of the program.
        arch: Such as ``aarch64``.
        cpu_flags: What the processor can do.
        memory_bytes: Total memory.
        labels: Facts by which plans choose devices.
        channel: Which plans it follows.
        runtime: ``away`` where the runtime does not answer; empty: it does.
        known_s: While it is away: when ``models`` were so; ``None``: nothing was ever known.
        models: By their name, as the runtime says or said last.
        left_out: How many models more there are than a message can hold.
        conditions: What is wrong with the device as a whole: ``clone``, ``records-lost``.
        challenge: Random, and new with each run: see ``agent.transport.clones``.
        answers: Challenges of births with this device's signature that another run said.
    """

    boot_id: ShortText
    started_s: float = 0.0
    software: dict[ShortText, ShortText] = {}
    arch: ShortText = ""
    cpu_flags: tuple[ShortText, ...] = ()
    memory_bytes: Count = 0
    labels: dict[ShortText, ShortText] = {}
    channel: ShortText = ""
    runtime: ShortText = ""
    known_s: float | None = None
    models: dict[ShortText, Slots] = {}
    left_out: Count = 0
    conditions: tuple[ShortText, ...] = ()
    challenge: ShortText = ""
    answers: Annotated[tuple[ShortText, ...], Meta(max_length=CHALLENGES_MAX)] = ()


class Reported(Message, frozen=True, kw_only=True):
    """``reported``: retained; how every model does, said when it changed.

    Attributes:
        at_s: When this was said.
        runtime: ``away`` where the runtime does not answer; empty: it does.
        known_s: While it is away: when ``models`` were so; ``None``: nothing was ever known.
        models: By their name, as the runtime says or said last.
        left_out: How many models more there are than a message can hold.
    """

    at_s: float = 0.0
    runtime: ShortText = ""
    known_s: float | None = None
    models: dict[ShortText, Slots] = {}
    left_out: Count = 0


class JobStatus(Message, frozen=True, kw_only=True):
    """``jobs/ROLLOUT``: one step of a rollout on this device.

    Attributes:
        rollout: Which.
        model: Of what.
        version: To which version.
        state: How far it is.
        step: State of the update machine, such as ``downloading``.
        reason: A frozen word; empty: nothing to say.
        text: The same for people.
        running_version: What answers requests now, as the runtime says.
        running_digest: Of what really answers, as the runtime says; empty: nothing is in memory.
        at_s: When it happened.
        details: More facts of this step.
    """

    rollout: ShortText
    model: ShortText = ""
    version: int | None = None
    state: JobState
    step: ShortText = ""
    reason: ShortText = ""
    text: Text = ""
    running_version: int | None = None
    running_digest: ShortText = ""
    at_s: float = 0.0
    details: dict[str, Any] = {}


class Loss(StrEnum):
    """Why messages never come; stored and sent, so the words are frozen."""

    QUOTA = "quota"
    SUPERSEDED = "superseded"
    TOO_LARGE = "too-large"
    DISK = "disk"


class Gap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Messages that were numbered and never come.

    Attributes:
        boot_id: Whose numbers.
        first_seq: The first that is gone.
        last_seq: The last that is gone.
        count: How many are gone from the one to the other, both included; where it is less than
            all, the rest came or still comes.
        reason: Why.
    """

    boot_id: ShortText
    first_seq: Annotated[int, Meta(ge=1)]
    last_seq: Annotated[int, Meta(ge=1)]
    count: Annotated[int, Meta(ge=1)]
    reason: Loss


class Ended(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An earlier run of the agent that ended without a word: killed, or the power was cut.

    Also one that ended before the broker had said whether it has a birth, or the like.

    Attributes:
        boot_id: Its numbers.
        last_seq: The last one it gave. What is neither received nor in a gap once everything that
            waits has come was in its memory and is lost.
        is_exact: False after a power cut: it may have given a few more.
    """

    boot_id: ShortText
    last_seq: Annotated[int, Meta(ge=0)]
    is_exact: bool = True


class MetricsBatch(Message, frozen=True, kw_only=True):
    """``m``: measurements, or what became of some.

    Attributes:
        batch: The telemetry's; how it looks is said in ``agent.telemetry``.
        gaps: What never comes.
        ended: Runs that ended without a word.
    """

    batch: dict[str, Any] | None = None
    gaps: Annotated[tuple[Gap, ...], Meta(max_length=GAPS_MAX)] = ()
    ended: Annotated[tuple[Ended, ...], Meta(max_length=GAPS_MAX)] = ()


class Command(Message, frozen=True, kw_only=True):
    """``cmd/OP/ID``: a signed order.

    Attributes:
        fleet: Whose device.
        device: Which.
        op: What to do.
        id: Its own name.
        counter: Above that of every earlier command to this device.
        expires_s: After this moment it is refused.
        arguments: Of the order.
    """

    fleet: ShortText
    device: ShortText
    op: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$(?!\n)")]
    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$(?!\n)")]
    counter: Annotated[int, Meta(ge=1, le=2**53)]
    expires_s: float
    arguments: dict[str, Any] = {}


class CommandResult(Message, frozen=True, kw_only=True):
    """``cmd/OP/ID/result``: what became of a command.

    Attributes:
        id: Its name.
        state: ``succeeded``, ``failed`` where it could not be done, ``rejected`` where its
            arguments are wrong.
        text: Why, for people.
        data: What was asked for.
    """

    id: ShortText
    state: Literal["succeeded", "failed", "rejected"]
    text: Text = ""
    data: dict[str, Any] = {}


def write(message: Message) -> bytes:
    """Write a payload: compact, and the same bytes for the same message."""
    return msgspec.json.encode(message, order="deterministic")


def read(data: bytes | str, kind: type[_T], limit_bytes: int = REPORT_BYTES_MAX) -> _T:
    """Read a payload that came from anywhere.

    Args:
        data: JSON text.
        kind: What it must be.
        limit_bytes: Most it may have.

    Raises:
        ValueError: It is too large, or anything but that.
    """
    if len(data) > limit_bytes:
        raise ValueError(f"{len(data)} bytes are more than {limit_bytes}, the limit")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
