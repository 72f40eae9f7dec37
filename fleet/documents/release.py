"""What the offline key says of a release, beside its files: who may run it, and how fast.

Signed as the TUF ``custom`` of ``models/NAME/VERSION/manifest.json``. Signed metadata holds no
fractions (canonical JSON has none), so seconds are whole there.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from fleet.documents import codec
from fleet.documents.errors import DocumentError
from fleet.documents.names import (
    RELEASE,
    Count,
    Label,
    Labels,
    ModelName,
    Permyriad,
    Seconds,
    Version,
    Word,
)

RELEASE_BYTES_MAX: Final = 65_536


class Requires(msgspec.Struct, frozen=True, kw_only=True):
    """What a device must be to take the release; what is empty or 0 demands nothing."""

    arch: Annotated[
        tuple[Label, ...],
        Meta(max_length=16, description="Accepted `uname -m`: `x86_64`, `aarch64`; empty: any."),
    ] = ()
    cpu_flags: Annotated[
        tuple[Label, ...],
        Meta(max_length=64, description="Instruction sets as Linux spells them; all are needed."),
    ] = ()
    memory_bytes: Annotated[Count, Meta(description="Least total memory of the device.")] = 0
    labels: Annotated[Labels, Meta(description="Accepted values by label; all must match.")] = {}
    agent_min: Annotated[
        str, Meta(pattern=RELEASE, description="Oldest agent, such as `0.3.0`; empty: any.")
    ] = ""


class GuardRails(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of every plan for the release; devices enforce them whatever the online key signs."""

    channels: Annotated[
        tuple[Word, ...],
        Meta(max_length=64, description="Only these channels may carry it; empty: any."),
    ] = ()
    first_stage_permyriad_max: Annotated[
        Permyriad, Meta(description="Most devices of the first stage, in 1/10,000.")
    ] = 10_000
    stage_s_min: Annotated[Seconds, Meta(description="A stage lasts at least so long.")] = 0.0
    changes_per_day_max: Annotated[
        Count,
        Meta(description="Most version changes of the model on one device in a day; 0: no limit."),
    ] = 0
    plan_age_s_max: Annotated[
        Seconds, Meta(description="An older plan means hold; 0: no limit.")
    ] = 0.0


class ReleaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One release of one model, as the offline key describes it."""

    schema_version: codec.SchemaVersion = codec.SCHEMA_VERSION
    required_features: codec.Features = ()
    model: Annotated[ModelName, Meta(description="The model's name.")]
    version: Annotated[Version, Meta(description="The model's version.")]
    counter: Annotated[Count, Meta(description="Rises with every release of the model.")]
    min_counter: Annotated[
        Count, Meta(description="No device goes below this counter any more.")
    ] = 0
    requires: Annotated[Requires, Meta(description="What a device must be.")] = Requires()
    guard_rails: Annotated[GuardRails, Meta(description="Bounds of every plan for it.")] = (
        GuardRails()
    )
    created_s: Annotated[Seconds, Meta(description="When it was released, seconds since 1970.")]


def read_release(data: bytes, origin: str) -> ReleaseFacts:
    """Read the facts of a release from JSON text.

    Args:
        data: At most ``RELEASE_BYTES_MAX``.
        origin: Where they come from, for messages.

    Raises:
        DocumentError: Not facts that this program understands.
    """
    return _checked(codec.decode(data, ReleaseFacts, origin, RELEASE_BYTES_MAX), origin)


def write_release(facts: ReleaseFacts) -> bytes:
    """Write the facts of a release as JSON text: the same bytes for the same facts.

    Raises:
        DocumentError: ``read_release`` would refuse the result.
    """
    origin = _origin(facts)
    data = codec.encode(facts, origin)
    read_release(data, origin)
    return data


def release_of(custom: object, origin: str) -> ReleaseFacts:
    """Read the facts from the ``custom`` of signed metadata.

    Args:
        custom: JSON values as the TUF library gives them; ``None``: there is none.
        origin: Where they come from, for messages.

    Raises:
        DocumentError: Not facts that this program understands.
    """
    if custom is None:
        raise DocumentError(f"{origin}: no facts of a release are signed with it; {codec.ADVICE}")
    return _checked(codec.convert(custom, ReleaseFacts, origin), origin)


def custom_of(facts: ReleaseFacts) -> dict[str, Any]:
    """Give the facts as the ``custom`` of signed metadata.

    Raises:
        DocumentError: A number of seconds is not whole, or ``release_of`` would refuse the result.
    """
    origin = _origin(facts)
    custom: dict[str, Any] = msgspec.json.decode(write_release(facts))
    rails = custom["guard_rails"]
    for part, name in ((rails, "stage_s_min"), (rails, "plan_age_s_max"), (custom, "created_s")):
        if part[name] != int(part[name]):
            raise DocumentError(
                f"{origin}: {name} is {part[name]}; signed metadata holds whole seconds only"
            )
        part[name] = int(part[name])
    return custom


def _checked(facts: ReleaseFacts, origin: str) -> ReleaseFacts:
    if facts.min_counter > facts.counter:
        raise DocumentError(
            f"{origin}: min_counter {facts.min_counter} is above its own counter {facts.counter}: "
            "no device could take it"
        )
    return facts


def _origin(facts: ReleaseFacts) -> str:
    return f"release of {facts.model} version {facts.version}"


def schema_text() -> str:
    """Give the JSON Schema of the facts of a release."""
    return codec.schema_text(
        ReleaseFacts,
        "Release facts",
        "What the offline key says of a release: the TUF custom of its manifest.json.",
    )
