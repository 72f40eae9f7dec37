"""By which time python-tuf judges expiry: the only place that touches a private part of it.

``Updater`` takes the system's clock when it is made, and has no parameter for another. A test
fails should a version of it keep that time elsewhere.
"""

import datetime as dt

from tuf.ngclient import Updater


def judge_expiry_by(updater: Updater, now_s: float) -> None:
    """Let an updater that did nothing yet judge expiry by another clock.

    Args:
        updater: Just made.
        now_s: The time, seconds since 1970.

    Raises:
        AttributeError: This version of python-tuf keeps its time elsewhere.
    """
    trusted = updater._trusted_set  # noqa: SLF001 - see above
    if not hasattr(trusted, "reference_time"):
        raise AttributeError("this version of python-tuf keeps its reference time elsewhere")
    trusted.reference_time = dt.datetime.fromtimestamp(now_s, tz=dt.UTC)
