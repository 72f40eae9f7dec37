"""How long a server wants to be left alone; pure.

Source:
    RFC 9110, section 10.2.3.
"""

import re
from typing import Final

RETRY_AFTER_MAX_S: Final = 3600.0
"""Longest pause that a server may ask for."""

_SECONDS: Final = re.compile(r"[0-9]{1,9}")


def retry_after_s(text: str) -> float:
    """Read a ``Retry-After`` header, in seconds; 0 where it gives a date, or nothing of use.

    A date would need both clocks to be right, and that of a device need not be.

    Args:
        text: The header's value.
    """
    if not _SECONDS.fullmatch(text.strip()):
        return 0.0
    return min(float(text), RETRY_AFTER_MAX_S)
