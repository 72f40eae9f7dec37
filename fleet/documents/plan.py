"""What the fleet wants of the devices of a channel, signed online: ``rollouts/CHANNEL.json``.

At most one plan per model. A device decides by itself, from this text alone, whether it is meant;
so a plan works while everything of the fleet is down.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from fleet.documents import codec
from fleet.documents.errors import DocumentError
from fleet.documents.names import (
    SALT,
    Count,
    Device,
    Labels,
    ModelName,
    Permyriad,
    Seconds,
    Version,
    Word,
)

PLANS_BYTES_MAX: Final = 1_048_576
PLANS_MAX: Final = 1024
STAGES_MAX: Final = 64
DEVICES_MAX: Final = 10_000

_END: Final = r"$(?!\n)"
_TIME: Final = rf"^([01][0-9]|2[0-3]):[0-5][0-9]{_END}"
_ZONE: Final = rf"^[A-Za-z0-9][A-Za-z0-9_+/-]{{0,63}}{_END}"

Order = Literal["install", "hold", "abort", "revert"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A share of the devices, and how long it is looked at before the next one."""

    permyriad: Annotated[Permyriad, Meta(description="Devices of the stage, in 1/10,000.")]
    duration_s: Annotated[
        Seconds, Meta(description="How long it lasts before the next may begin.")
    ] = 0.0
    begun_s: Annotated[
        Seconds | None,
        Meta(description="When it began, seconds since 1970 by the fleet's clock; null: not yet."),
    ] = None


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """When devices may change versions."""

    days: Annotated[
        tuple[Day, ...],
        Meta(max_length=7, description="Days on which it begins; empty: every day."),
    ] = ()
    begin: Annotated[str, Meta(pattern=_TIME, description="`HH:MM`.")]
    end: Annotated[
        str, Meta(pattern=_TIME, description="`HH:MM`; before `begin`: on the next day.")
    ]
    zone: Annotated[
        str,
        Meta(pattern=_ZONE, description="`local`, `utc`, or a name such as `Europe/Berlin`."),
    ] = "local"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What devices do with one model."""

    rollout: Annotated[Word, Meta(description="Name of the rollout.")]
    sequence: Annotated[Version, Meta(description="Rises with each change of the model's plan.")]
    model: Annotated[ModelName, Meta(description="The model.")]
    version: Annotated[Version, Meta(description="The version that is rolled out.")]
    order: Annotated[
        Order,
        Meta(
            description="`install`; `hold`: nobody begins or goes further; `abort`: what is under "
            "way ends, devices that committed stay; `revert`: devices on `version` go back to "
            "`revert_to`."
        ),
    ] = "install"
    revert_to: Annotated[
        Version | None, Meta(description="Version that `revert` goes back to; null: none.")
    ] = None
    salt: Annotated[str, Meta(pattern=SALT, description="Mixed into the bucket of each device.")]
    stages: Annotated[
        tuple[Stage, ...],
        Meta(min_length=1, max_length=STAGES_MAX, description="Shares that only grow."),
    ]
    stage: Annotated[
        int, Meta(ge=0, lt=STAGES_MAX, description="The present one: an index of `stages`.")
    ] = 0
    devices: Annotated[
        tuple[Device, ...],
        Meta(max_length=DEVICES_MAX, description="Always in, whatever their bucket: canaries."),
    ] = ()
    filter: Annotated[
        Labels, Meta(description="Accepted values by label; a device must match all.")
    ] = {}
    window: Annotated[
        Window | None, Meta(description="When devices may change; null: at any time.")
    ] = None
    again: Annotated[
        bool, Meta(description="Whether a version that a device found bad may be tried again.")
    ] = False
    bytes_max: Annotated[
        Count, Meta(description="Most bytes one device downloads for the rollout; 0: no limit.")
    ] = 0


class Plans(msgspec.Struct, frozen=True, kw_only=True):
    """Every plan of a channel."""

    schema_version: codec.SchemaVersion = codec.SCHEMA_VERSION
    required_features: codec.Features = ()
    fleet: Annotated[Word, Meta(description="The fleet; devices of another refuse it.")]
    channel: Annotated[Word, Meta(description="The channel; devices of another refuse it.")]
    issued_s: Annotated[
        Seconds, Meta(description="When it was signed, seconds since 1970 by the fleet's clock.")
    ]
    plans: Annotated[
        tuple[Plan, ...], Meta(max_length=PLANS_MAX, description="At most one per model.")
    ] = ()

    def of(self, model: str) -> Plan | None:
        """Give the plan of a model, if there is one."""
        return next((plan for plan in self.plans if plan.model == model), None)


def read_plans(data: bytes, origin: str) -> Plans:
    """Read the plans of a channel.

    Args:
        data: JSON text, at most ``PLANS_BYTES_MAX``.
        origin: Where it comes from, for messages.

    Raises:
        DocumentError: Not plans that this program understands.
    """
    plans = codec.decode(data, Plans, origin, PLANS_BYTES_MAX)
    for plan in plans.plans:
        check_plan(plan, f"{origin}: plan {plan.rollout}")
    models = [plan.model for plan in plans.plans]
    twice = next((model for model in models if models.count(model) > 1), None)
    if twice is not None:
        raise DocumentError(f"{origin}: two plans for {twice}; a model has one plan at a time")
    return plans


def write_plans(plans: Plans) -> bytes:
    """Write the plans of a channel: the same bytes for the same plans.

    Raises:
        DocumentError: ``read_plans`` would refuse the result.
    """
    origin = f"plans of channel {plans.channel}"
    data = codec.encode(plans, origin)
    read_plans(data, origin)
    return data


def plan_of(value: object, origin: str) -> Plan:
    """Read one plan that was parsed from JSON or TOML.

    Args:
        value: Dictionaries, lists, texts and numbers.
        origin: Where they come from, for messages.

    Raises:
        DocumentError: Not a plan that this program understands.
    """
    plan = codec.convert(value, Plan, origin)
    check_plan(plan, origin)
    return plan


def check_plan(plan: Plan, origin: str) -> None:
    """Refuse a plan whose parts contradict each other.

    Args:
        plan: The plan.
        origin: What it is called in messages.

    Raises:
        DocumentError: It contradicts itself.
    """
    if plan.stage >= len(plan.stages):
        raise DocumentError(
            f"{origin}: stage {plan.stage} is not there; the stages are 0 to {len(plan.stages) - 1}"
        )
    shares = [stage.permyriad for stage in plan.stages]
    if shares != sorted(shares):
        raise DocumentError(
            f"{origin}: the shares {shares} do not grow; a later stage holds all of the earlier"
        )
    if plan.order == "revert" and plan.revert_to is None:
        raise DocumentError(f"{origin}: the order is revert; say which version in revert_to")
    if plan.revert_to == plan.version:
        raise DocumentError(f"{origin}: revert_to is the version itself, {plan.version}")
    if plan.window is not None and plan.window.begin == plan.window.end:
        raise DocumentError(f"{origin}: the window begins and ends at {plan.window.begin}")


def schema_text() -> str:
    """Give the JSON Schema of the plans of a channel."""
    return codec.schema_text(
        Plans, "Plans", "What the fleet wants of a channel's devices: rollouts/CHANNEL.json."
    )
