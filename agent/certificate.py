"""Renews the device's certificate in the last third of its time, and after its end."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from agent.assembly import Assembly
from agent.enrolment.joining import renew
from agent.enrolment.membership import Membership, unpack, write_membership
from agent.errors import AgentError, CanceledError
from agent.troubles import Troubles
from agent.trust.https import WHOLE_S, Https

_log = logging.getLogger(__name__)

LOOK_S: Final = 60.0
"""How often the end is compared with the time: a clock that is set moves it at once."""
RETRY_S: Final = 900.0
NOT_RENEWED: Final = "the device's certificate cannot be renewed now"
_THIRD: Final = 3
#: What of an enrolment is taken up at the start only.
_HELD: Final = ("repository", "mirrors", "brokers", "command_key", "journal")


class CertificateRenewal:
    """Looks at the certificate now and then, on a thread of its own: a server may take long.

    Args:
        parts: Of the agent.
        whole_s: Most time of a renewal, in seconds.
        on_moved: Told, on that thread, that the agent has to begin anew: see ``moved``.

    Attributes:
        moved: What a renewal brought that only the next start of the agent takes up.
        due_s: When to look next, in seconds of the awake clock.
    """

    def __init__(
        self,
        parts: Assembly,
        whole_s: float = WHOLE_S,
        on_moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._parts = parts
        self._whole_s = whole_s
        self._on_moved = on_moved
        self.moved: tuple[str, ...] = ()
        self._membership = parts.member.membership
        self._troubles = Troubles(parts.clock.wall_s)
        self._server: Https | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificate", daemon=True)
        self.due_s = float("inf") if self._membership is None else time.monotonic()

    def start(self) -> None:
        """Begin, where there is a certificate."""
        if self._membership is not None:
            self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Call off what is under way; whether it ended in time.

        Either the new certificate is whole on the disk, or the old one is.
        """
        self._ended.set()
        server = self._server
        if server is not None:
            server.abort()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def run_if_due(self) -> None:
        """Renew the certificate, if it is time."""
        known = self._membership
        if known is None or time.monotonic() < self.due_s:
            return
        self.due_s = time.monotonic() + LOOK_S
        now_s = self._parts.clock.wall_s()
        if now_s < known.not_after_s - (known.not_after_s - known.not_before_s) / _THIRD:
            return
        # Also after a success: whatever a server gives, it is not asked every minute.
        self.due_s = time.monotonic() + RETRY_S
        try:
            renewed = self._renewed(known)
        except CanceledError:
            return
        except AgentError as error:
            self._troubles.note(NOT_RENEWED, error.message, level=logging.WARNING)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            self._troubles.note(NOT_RENEWED, f"{type(error).__name__}: {error}", fault=True)
        else:
            self._membership = renewed
            self._troubles.settle(NOT_RENEWED)
            _log.info("the device's certificate was renewed")
            self._take_up(known, renewed)

    def _take_up(self, known: Membership, renewed: Membership) -> None:
        before, now = known.enrolment, renewed.enrolment
        moved = tuple(each for each in _HELD if getattr(before, each) != getattr(now, each))
        if moved:
            self.moved = moved
            self._on_moved()
        else:
            self._parts.messaging.try_now()

    def _run(self) -> None:
        while not self._ended.wait(
            min(max(0.0, self.due_s - time.monotonic()), threading.TIMEOUT_MAX)
        ):
            self.run_if_due()

    def _renewed(self, known: Membership) -> Membership:
        self._server = server = Https.believing(known.ca, self._parts.clock, self._whole_s)
        if self._ended.is_set():
            raise CanceledError("the agent stops")
        try:
            renewed = renew(known, key=self._parts.key.private_key, server=server)
        finally:
            self._server = None
        if self._ended.is_set():
            raise CanceledError("the agent stops")
        write_membership(self._parts.member.state, renewed)
        unpack(self._parts.member.state, renewed)
        return renewed
