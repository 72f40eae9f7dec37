"""What every group of settings is."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

SECONDS_MAX: Final = 366 * 86_400  # a year; infinity and slips are above it

Seconds = Annotated[float, Meta(gt=0, le=SECONDS_MAX)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Bytes = Annotated[int, Meta(ge=0)]
Port = Annotated[int, Meta(ge=1, le=65_535)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """A group of settings; an unknown key is an error."""
