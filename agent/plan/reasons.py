"""Why a device does what it does: words that are stored and reported, so they are frozen."""

from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """The finding that decided; the values are stored and sent."""

    INSTALL = "install"
    """Nothing speaks against it."""
    REVERT = "revert"
    ABORT = "abort"
    ORDER_HOLD = "order-hold"
    NO_PLAN = "no-plan"
    WRONG_FLEET = "wrong-fleet"
    WRONG_CHANNEL = "wrong-channel"
    PLAN_TOO_OLD = "plan-too-old"
    PLAN_FROM_FUTURE = "plan-from-future"
    RELEASE_UNKNOWN = "release-unknown"
    ALREADY_ACTIVE = "already-active"
    LOCAL_HOLD = "local-hold"
    LOCAL_ROLLBACK = "local-rollback"
    LOCAL_RELEASE = "local-release"
    PAUSED = "paused"
    CLONED = "cloned"
    ARCHITECTURE = "architecture"
    CPU_FLAGS = "cpu-flags"
    MEMORY = "memory"
    LABELS = "labels"
    AGENT_TOO_OLD = "agent-too-old"
    BELOW_MIN_COUNTER = "below-min-counter"
    DOWNGRADE = "downgrade"
    CHANNEL_NOT_ALLOWED = "channel-not-allowed"
    CHANGES_PER_DAY = "changes-per-day"
    FILTERED_OUT = "filtered-out"
    NOT_IN_COHORT = "not-in-cohort"
    STAGE_TOO_EARLY = "stage-too-early"
    ABOVE_CEILING = "above-ceiling"
    REMEMBERED_AS_BAD = "remembered-as-bad"
    ALREADY_TRIED = "already-tried"
    WINDOW_CLOSED = "window-closed"
    WINDOW_UNKNOWN = "window-unknown"
    DISK = "disk"
    BATTERY = "battery"
    METERED = "metered"
    NOTHING_UNDER_WAY = "nothing-under-way"
    NOT_ON_VERSION = "not-on-version"
    NO_WAY_BACK = "no-way-back"


REFUSALS: Final = frozenset(
    {
        Reason.RELEASE_UNKNOWN,
        Reason.ARCHITECTURE,
        Reason.CPU_FLAGS,
        Reason.MEMORY,
        Reason.LABELS,
        Reason.AGENT_TOO_OLD,
        Reason.BELOW_MIN_COUNTER,
        Reason.DOWNGRADE,
        Reason.CHANNEL_NOT_ALLOWED,
        Reason.REMEMBERED_AS_BAD,
        Reason.NO_WAY_BACK,
    }
)
"""The device is meant and will not: the fleet hears of it as ``rejected``."""
