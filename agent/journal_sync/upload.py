"""Sends the prediction journal, batch by batch; what was stored there is let go of here.

A row is removed from this device only when the receiver has said that it is stored. Whatever stops
this in between is made good by the next time: it begins with what the receiver has.
"""

import logging
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

import msgspec

from agent.errors import Distrust, RuntimeRefusedError, TrustError
from agent.identity import DeviceKey
from agent.journal_sync.batches import (
    KEY_HEADER,
    SIGNATURE_HEADER,
    Batch,
    Progress,
    first_batch,
    packed,
    signed_text,
)
from agent.trust.https import Https
from edge_runtime.protocol.journal_schemas import JournalRows

_log = logging.getLogger(__name__)


class Source(Protocol):
    """The runtime's journal."""

    def journal(self, after: int) -> JournalRows:
        """Give rows with larger numbers, the oldest first."""
        ...

    def collected(self, journal: str, through: int) -> None:
        """Let go of rows that are safe elsewhere."""
        ...


class Upload:
    """Brings journals to one receiver.

    Args:
        url: Of the receiver.
        fleet: This device's fleet.
        device: Its name.
        key: Signs.
        server: Asks the receiver.
        source: The runtime.
        allows: Whether so many bytes may be sent now: link class and byte budget.
    """

    def __init__(
        self,
        url: str,
        *,
        fleet: str,
        device: str,
        key: DeviceKey,
        server: Https,
        source: Source,
        allows: Callable[[int], bool],
    ) -> None:
        self._url = url.rstrip("/")
        self._fleet = fleet
        self._device = device
        self._key = key
        self._server = server
        self._source = source
        self._allows = allows

    def run(self, is_stopped: Callable[[], bool]) -> int:
        """Send all that there is, or as much as may be.

        Args:
            is_stopped: Asked between batches.

        Returns:
            Rows that were sent and let go of.

        Raises:
            RuntimeAwayError: The runtime does not answer.
            NetworkError: The receiver cannot be reached; later it may work.
            RefusedError: It does not want them.
            TrustError: It is not the fleet's, or answers nonsense.
        """
        page = self._source.journal(0)
        if not page.rows:
            return 0
        journal, sent = page.journal, 0
        # What a lost answer left here although it is stored there.
        through = self._progress(self._server.ask("GET", self._place(journal))).through
        self._let_go(journal, min(through, page.rows[-1].number))
        while page.rows and page.journal == journal and not is_stopped():
            rows = first_batch([row for row in page.rows if row.number > through])
            if rows:
                stored = self._send(
                    Batch(fleet=self._fleet, device=self._device, journal=journal, rows=rows)
                )
                if stored is None:
                    break
                if stored <= through:
                    raise TrustError(
                        Distrust.MALFORMED, f"{self._url} took rows and does not have them"
                    )
                through = stored
                self._let_go(journal, through)
                sent += len(rows)
            page = self._source.journal(through)
        return sent

    def _send(self, batch: Batch) -> int | None:
        """Send a batch; ``None``: it may not be sent now."""
        body = packed(batch)
        if not self._allows(len(body)):
            return None
        signature = self._key.sign(signed_text(batch, body))
        headers = {
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
            SIGNATURE_HEADER: signature.signature,
            KEY_HEADER: signature.key_id,
        }
        last = batch.rows[-1].number
        url = f"{self._place(batch.journal)}/{batch.rows[0].number}-{last}"
        return min(last, self._progress(self._server.ask("PUT", url, body, headers)).through)

    def _let_go(self, journal: str, through: int) -> None:
        if through < 1:
            return
        try:
            self._source.collected(journal, through)
        except RuntimeRefusedError as error:  # it began anew meanwhile: nothing of it is there
            _log.info("the runtime's journal changed while it was collected: %s", error.message)

    def _place(self, journal: str) -> str:
        return f"{self._url}/{quote(self._device, safe='')}/{quote(journal, safe='')}"

    def _progress(self, data: bytes) -> Progress:
        try:
            return msgspec.json.decode(data, type=Progress)
        except msgspec.MsgspecError as error:
            raise TrustError(
                Distrust.MALFORMED, f"{self._url} answers nothing that is understood: {error}"
            ) from error
