"""What every group of settings is."""

from typing import Final

import msgspec

SECONDS_MAX: Final = 366 * 86_400  # a year; infinity and slips are above it


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """A group of settings; an unknown key is an error."""
