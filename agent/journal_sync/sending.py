"""When predictions are sent: where bytes are cheap, there is power, and it is due."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from agent.assembly import Assembly
from agent.errors import AgentError, CanceledError, ConfigError
from agent.journal_sync.upload import Upload
from agent.troubles import Troubles
from agent.trust.https import Https

_log = logging.getLogger(__name__)

RETRY_S: Final = 600.0
NEVER: Final = float("inf")
NOT_SENT: Final = "predictions are not sent"


class JournalSending:
    """Sends the prediction journal now and then, on a thread of its own: a slow link takes long.

    Args:
        parts: Of the agent.

    Attributes:
        due_s: When to try next, in seconds of the awake clock.
    """

    def __init__(self, parts: Assembly) -> None:
        self._parts = parts
        self._settings = parts.member.config.journal
        self._troubles = Troubles(parts.clock.wall_s)
        self._asking: Https | None = None
        self._is_called_off = False
        self.due_s = time.monotonic() + self._settings.interval_s if self._settings.url else NEVER

    def run(self, ended: threading.Event) -> None:
        """Go on until it is over.

        Args:
            ended: Set when it is.
        """
        while not ended.wait(min(max(0.0, self.due_s - time.monotonic()), threading.TIMEOUT_MAX)):
            self.run_if_due(ended.is_set)

    def call_off(self) -> None:
        """End what is being sent, from another thread: the rest is sent at the next start."""
        self._is_called_off = True
        asking = self._asking
        if asking is not None:
            asking.abort()

    def run_if_due(self, is_stopping: Callable[[], bool]) -> None:
        """Send what there is, if it is time and allowed."""
        if time.monotonic() < self.due_s:
            return
        self.due_s = time.monotonic() + self._settings.interval_s
        host = self._parts.conditions.host()
        if host.is_metered and not self._settings.on_metered:
            return
        if host.on_battery and not self._settings.on_battery:
            return
        try:
            sent = self._upload().run(is_stopping)
        except CanceledError:
            return
        except AgentError as error:
            self._troubles.note(NOT_SENT, error.message, level=logging.WARNING)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
            self._troubles.note(NOT_SENT, f"{type(error).__name__}: {error}", fault=True)
        else:
            self._troubles.settle(NOT_SENT)
            if sent:
                _log.info("%d kept predictions were sent", sent)
            return
        self.due_s = time.monotonic() + max(RETRY_S, self._settings.interval_s)

    def _upload(self) -> Upload:
        parts = self._parts
        device = parts.member.config.device
        return Upload(
            self._settings.url,
            fleet=device.fleet,
            device=device.id,
            key=parts.key,
            server=self._server(),
            source=parts.admin,
            allows=self._allows,
        )

    def _server(self) -> Https:
        membership = self._parts.member.membership
        if membership is None:
            raise ConfigError(
                "predictions are only sent by an enrolled device: its fleet's CA says to whom"
            )
        self._asking = asking = Https.believing(membership.ca, self._parts.clock)
        if self._is_called_off:
            asking.abort()
        return asking

    def _allows(self, size: int) -> bool:
        if not self._parts.budget.allows("telemetry", size):
            return False
        self._parts.budget.spend("telemetry", size)
        return True
