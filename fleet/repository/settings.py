"""What the operator chose for a repository, in ``repository.json``. Nothing there is signed."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fleet.documents.names import Word
from fleet.errors import BadInputError, RepositoryError
from fleet.repository.layout import Layout
from fleet.repository.roles import RULES

DAYS_MAX = 36_500

Days = Annotated[int, Meta(ge=1, le=DAYS_MAX)]


class RepositorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a repository.

    Attributes:
        schema_version: Of this file.
        fleet: The fleet it is for.
        expires_days: How long metadata last, by role; others last as ``roles.RULES`` says.
    """

    schema_version: Annotated[int, Meta(ge=1, le=1)] = 1
    fleet: Word
    expires_days: dict[str, Days] = {}

    def days(self, role: str) -> int:
        """Tell how long the metadata of a role last."""
        return self.expires_days.get(role, RULES[role].expires_days)


def make_settings(fleet: str, expires_days: dict[str, int]) -> RepositorySettings:
    """Check what an operator chose.

    Raises:
        BadInputError: A name, a role or a number cannot be used.
    """
    for role, days in expires_days.items():
        if role not in RULES:
            raise BadInputError(f"there is no role {role!r}; the roles are {', '.join(RULES)}")
        if not 1 <= days <= DAYS_MAX:
            raise BadInputError(f"{role} cannot last {days} days; write 1 to {DAYS_MAX}")
    try:
        return msgspec.convert({"fleet": fleet, "expires_days": expires_days}, RepositorySettings)
    except msgspec.ValidationError as error:
        raise BadInputError(
            f"{fleet!r} is no name of a fleet: small letters, digits and -, at most 64, no - in "
            "front"
        ) from error


def read_settings(layout: Layout) -> RepositorySettings:
    """Read the settings of a repository.

    Raises:
        RepositoryError: They cannot be read.
    """
    try:
        return msgspec.json.decode(layout.settings.read_bytes(), type=RepositorySettings)
    except (OSError, msgspec.MsgspecError) as error:
        raise RepositoryError(f"{layout.settings}: {error}; restore it from a copy") from error


def settings_text(settings: RepositorySettings) -> bytes:
    """Write settings as their file holds them."""
    return msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"
