"""Whether bytes cost money here; pure but for one small file of the kernel."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

_ROUTES: Final = Path("/proc/net/route")
_MOBILE: Final = ("wwan", "ppp", "rmnet", "wwp", "usb_modem")
_DEFAULT: Final = "00000000"
_COLUMNS_MIN: Final = 8


def default_interfaces(routes: Path = _ROUTES) -> tuple[str, ...]:
    """Name the interfaces of default routes, the preferred one first; none: offline."""
    try:
        lines = routes.read_text("ascii", "replace").splitlines()[1:]
    except OSError:
        return ()
    found = []
    for line in lines:
        columns = line.split()
        if len(columns) >= _COLUMNS_MIN and columns[1] == _DEFAULT == columns[7]:
            metric = int(columns[6]) if columns[6].isdecimal() else 0
            found.append((metric, columns[0]))
    return tuple(name for _, name in sorted(found))


def is_metered(link: str, interfaces: Iterable[str]) -> bool:
    """Tell whether bytes cost money.

    Args:
        link: ``device.link``: ``auto``, ``metered`` or ``unmetered``.
        interfaces: See ``default_interfaces``.
    """
    if link != "auto":
        return link == "metered"
    first = next(iter(interfaces), "")
    return first.startswith(_MOBILE)
