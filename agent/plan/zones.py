"""The time on the wall, from the system's time zones: the only file here that asks the system."""

import zoneinfo
from datetime import UTC, datetime, tzinfo
from typing import Final

LOCAL: Final = "local"


class SystemZones:
    """Looks zones up in the system's database; what it does not know is ``None``, never wrong."""

    def wall(self, now_s: float, zone: str) -> datetime | None:
        """Say what the clock on the wall shows, without a zone.

        Args:
            now_s: Seconds since 1970.
            zone: ``local``, ``utc`` or an IANA name.

        Returns:
            ``None``: the zone is not known here, or no calendar has such a moment.
        """
        try:
            if zone == LOCAL:
                return datetime.fromtimestamp(now_s, UTC).astimezone().replace(tzinfo=None)
            found = _zone(zone)
            if found is None:
                return None
            return datetime.fromtimestamp(now_s, found).replace(tzinfo=None)
        except (ValueError, OverflowError, OSError):
            return None

    def moment(self, wall: datetime, zone: str) -> float | None:
        """Say when the clock on the wall shows something, in seconds since 1970.

        A time that is left out when clocks go forward is one hour later; one that comes twice is
        the first.

        Args:
            wall: Without a zone.
            zone: ``local``, ``utc`` or an IANA name.

        Returns:
            ``None``: the zone is not known here, or no calendar has such a moment.
        """
        try:
            if zone == LOCAL:
                return wall.astimezone().timestamp()
            found = _zone(zone)
            return None if found is None else wall.replace(tzinfo=found).timestamp()
        except (ValueError, OverflowError, OSError):
            return None


def _zone(name: str) -> tzinfo | None:
    if name == "utc":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None
