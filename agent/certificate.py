"""Renews the device's certificate in the last third of its time, and after its end."""

import logging
import time
from typing import Final

from agent.assembly import Assembly
from agent.enrolment.joining import renew
from agent.enrolment.membership import unpack, write_membership
from agent.errors import AgentError

_log = logging.getLogger(__name__)

LOOK_S: Final = 21_600.0
RETRY_S: Final = 900.0
_THIRD: Final = 3


class CertificateRenewal:
    """Looks at the certificate now and then, from the agent's loop.

    Args:
        parts: Of the agent.

    Attributes:
        due_s: When to look next, in seconds of the awake clock.
    """

    def __init__(self, parts: Assembly) -> None:
        self._parts = parts
        self._membership = parts.member.membership
        self._problem = ""
        self.due_s = float("inf") if self._membership is None else time.monotonic()

    def run_if_due(self) -> None:
        """Renew the certificate, if it is time."""
        known = self._membership
        if known is None or time.monotonic() < self.due_s:
            return
        self.due_s = time.monotonic() + LOOK_S
        now_s = self._parts.clock.wall_s()
        if now_s < known.not_after_s - (known.not_after_s - known.not_before_s) / _THIRD:
            return
        try:
            renewed = renew(known, key=self._parts.key.private_key, clock=self._parts.clock)
            write_membership(self._parts.member.state, renewed)
            unpack(self._parts.member.state, renewed)
        except AgentError as error:
            if error.message != self._problem:
                _log.warning("the device's certificate cannot be renewed now: %s", error.message)
            self._problem = error.message
            self.due_s = time.monotonic() + RETRY_S
            return
        self._membership, self._problem = renewed, ""
        _log.info("the device's certificate was renewed")
        self._parts.messaging.try_now()
