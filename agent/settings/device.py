"""Settings of the device itself, its daemon and its downloads."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from agent.settings.group import Bytes, Seconds, SecondsOrNone, Settings

Label = Annotated[str, Meta(max_length=200)]
LABELS_BYTES_MAX: Final = 16_384
"""Of all labels as JSON: they are in every birth, whose models need room too."""
LinkClass = Literal["unmetered", "metered"]


class Device(Settings, frozen=True):
    """Who this device is, in ``[device]``; enrolment writes what is empty here."""

    id: Annotated[
        str,
        Meta(
            pattern=r"^([a-z0-9][a-z0-9._-]{0,63})?$",
            description="Name of the device in its fleet. Empty: the enrolment's, else one made of "
            "the machine's id.",
        ),
    ] = ""
    fleet: Annotated[
        str,
        Meta(
            pattern=r"^([a-z0-9][a-z0-9-]{0,63})?$",
            description="Name of the fleet. Empty: the enrolment's.",
        ),
    ] = ""
    channel: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
            description="Which plans it follows: the repository's `rollouts/CHANNEL.json`.",
        ),
    ] = "stable"
    labels: Annotated[
        dict[Label, Label],
        Meta(
            max_length=64,
            description="Facts by which plans and releases choose devices; as JSON at most 16 KiB.",
        ),
    ] = msgspec.field(default_factory=dict)
    link: Annotated[
        Literal["auto", "unmetered", "metered"],
        Meta(
            description="Whether bytes cost money. `auto`: metered when the default route goes "
            "over a mobile modem (its interface is called wwan, ppp or rmnet)."
        ),
    ] = "auto"
    clock_is_trusted: Annotated[
        Literal["auto", "yes", "no"],
        Meta(
            description="Whether the system clock can be believed. `auto`: when the kernel says "
            "that it is synchronised. If not, the newest time known to be past counts instead."
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        """Refuse labels that no message could hold."""
        check_labels(self.labels)


def check_labels(labels: Mapping[str, str]) -> None:
    """Check that labels fit into what a device says about itself.

    Raises:
        ValueError: They do not.
    """
    size = len(msgspec.json.encode(labels))
    if size > LABELS_BYTES_MAX:
        raise ValueError(
            f"device.labels have {size} bytes as JSON, more than {LABELS_BYTES_MAX}: give fewer or "
            "shorter ones"
        )


class Runtime(Settings, frozen=True):
    """Where the daemon of this device is, in ``[runtime]``."""

    socket: Annotated[str, Meta(description="Its data socket. Empty: the default place.")] = ""
    admin_socket: Annotated[str, Meta(description="Its admin socket. Empty: beside it.")] = ""
    handover_socket: Annotated[
        str, Meta(description="Its hand-over socket. Empty: beside the admin socket.")
    ] = ""
    timeout_s: Annotated[
        Seconds, Meta(description="Most time of one answer but for a hand-over.")
    ] = 10.0
    handover_s: Annotated[Seconds, Meta(description="Most time of a hand-over.")] = 3600.0
    poll_s: Annotated[Seconds, Meta(description="How often a release under way is looked at.")] = (
        5.0
    )


class Repository(Settings, frozen=True):
    """Where signed releases and plans come from, in ``[repository]``."""

    url: Annotated[
        str,
        Meta(
            description="Folder with `metadata/` and `artifacts/`: `https://`, `http://` (trust is "
            "in the signatures) or `file://`. Empty: the enrolment's, or no updates."
        ),
    ] = ""
    root: Annotated[
        str,
        Meta(description="File of the first TUF root. Empty: the enrolment's."),
    ] = ""
    mirrors: Annotated[
        tuple[str, ...],
        Meta(
            max_length=16,
            description="Other places of `artifacts/`, tried first, such as a plain-HTTP host in "
            "the local network.",
        ),
    ] = ()
    ca: Annotated[
        str, Meta(description="File of certificates to believe instead of the system's.")
    ] = ""
    proxy: Annotated[
        str, Meta(description="HTTP proxy. Empty: `$HTTPS_PROXY` and `$HTTP_PROXY`.")
    ] = ""
    poll_s: Annotated[
        Seconds,
        Meta(description="Longest time between two looks when nothing is announced; jittered."),
    ] = 21_600.0
    doorbell_jitter_s: Annotated[
        SecondsOrNone,
        Meta(description="An announcement is followed after a random part of this time."),
    ] = 30.0
    connect_s: Annotated[Seconds, Meta(description="Most time to connect.")] = 15.0
    read_s: Annotated[Seconds, Meta(description="Most silence of a server.")] = 30.0
    metadata_s: Annotated[Seconds, Meta(description="Most time of one metadata file.")] = 120.0
    low_speed_bytes_per_s: Annotated[
        Bytes, Meta(description="A server that is slower for a minute is given up.")
    ] = 128


class Downloads(Settings, frozen=True):
    """How artifacts come, in ``[downloads]``."""

    bytes_per_s: Annotated[Bytes, Meta(description="Most bandwidth; 0: no limit.")] = 0
    reserve_bytes: Annotated[Bytes, Meta(description="Disk space that a download leaves free.")] = (
        67_108_864
    )
    month_bytes: Annotated[
        Bytes,
        Meta(
            description="Most bytes of metadata, artifacts and telemetry in a calendar month (UTC) "
            "over an unmetered link; 0: no limit."
        ),
    ] = 0
    metered_month_bytes: Annotated[
        Bytes, Meta(description="The same over a metered link; 0: no limit.")
    ] = 104_857_600
    retry_first_s: Annotated[
        Seconds, Meta(description="Pause after a failure; twice as long each time, and jittered.")
    ] = 2.0
    retry_most_s: Annotated[Seconds, Meta(description="Longest pause after failures.")] = 900.0


class Updates(Settings, frozen=True):
    """When models may change, in ``[updates]``."""

    on_battery: Annotated[
        bool, Meta(description="Whether updates begin while the device runs on its battery.")
    ] = False
    battery_percent_min: Annotated[
        int, Meta(ge=0, le=100, description="Least charge for that.")
    ] = 30
    on_metered: Annotated[
        bool, Meta(description="Whether artifacts are downloaded over a metered link.")
    ] = True
    download_s: Annotated[Seconds, Meta(description="Most time awake of a download.")] = 604_800.0
    handover_s: Annotated[
        Seconds, Meta(description="Most time awake until the daemon took a bundle.")
    ] = 86_400.0
    verdict_s: Annotated[
        Seconds, Meta(description="Most time awake until the daemon's verdict.")
    ] = 604_800.0


class JournalUpload(Settings, frozen=True):
    """Where predictions go that the daemon keeps for retraining, in ``[journal]``."""

    url: Annotated[
        str, Meta(description="Receiver, `https://`. Empty: the enrolment's, or nowhere.")
    ] = ""
    on_metered: Annotated[bool, Meta(description="Whether they are sent over a metered link.")] = (
        False
    )
    on_battery: Annotated[
        bool, Meta(description="Whether they are sent while the device runs on its battery.")
    ] = False
    interval_s: Annotated[Seconds, Meta(description="Time between two uploads.")] = 900.0
