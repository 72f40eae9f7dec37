"""A daemon's releases, asked for on its admin socket."""

import argparse
from typing import Final, Self
from urllib.parse import quote, urlencode

import msgspec

from edge_runtime.client import Client, Endpoint
from edge_runtime.client.blocking import TIMEOUT_DEFAULT_S
from edge_runtime.client.calls import document, order
from edge_runtime.protocol import release_schemas as schemas

CHANGE_TIMEOUT_S: Final = 3600.0  # a large bundle is copied, or a large model loaded, meanwhile


class ReleaseClient(Client):
    """Asks a daemon about its releases, and for changes of them.

    Every call raises what ``Client`` says, and what the daemon answers.
    """

    change_timeout_s: float = CHANGE_TIMEOUT_S

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Make the client that the options ask for; nothing is sent yet.

        Args:
            options: With ``socket`` and ``timeout``.

        Raises:
            ConfigError: ``--socket`` is no address.
            SocketError: The default folder of the sockets is not private.
        """
        address = options.socket or Endpoint.default_admin()
        client = cls(address, timeout_s=options.timeout or TIMEOUT_DEFAULT_S)
        client.change_timeout_s = options.timeout or CHANGE_TIMEOUT_S
        return client

    def stage(self, wanted: schemas.StageRequest) -> schemas.Release:
        """Have the bundle at a path installed and released."""
        body = msgspec.json.encode(wanted)
        return self._perform(order("/admin/releases", body, schemas.Release), self.change_timeout_s)

    def send(self, tar: bytes, wanted: schemas.StageQuery) -> schemas.Release:
        """Have the bundle in a tar installed and released."""
        query = urlencode({"mode": wanted.mode, "again": str(wanted.again).lower()})
        return self._perform(
            order(f"/admin/bundles?{query}", tar, schemas.Release), self.change_timeout_s
        )

    def decide(self, model: str, verb: str, reason: str) -> schemas.ModelReleases:
        """Give an order about one model: promote, abort, hold or clear."""
        body = msgspec.json.encode(schemas.ReasonRequest(reason))
        target = f"{_of(model)}/{verb}"
        return self._perform(order(target, body, schemas.ModelReleases), self.change_timeout_s)

    def rollback(self, model: str, wanted: schemas.RollbackRequest) -> schemas.ModelReleases:
        """Go back, and keep the fleet's orders out."""
        body = msgspec.json.encode(wanted)
        call = order(f"{_of(model)}/rollback", body, schemas.ModelReleases)
        return self._perform(call, self.change_timeout_s)

    def revert(self, model: str, to: int | None, reason: str) -> schemas.ModelReleases:
        """Go back to the previous version, which must be the one named, if one is."""
        body = msgspec.json.encode(schemas.RevertRequest(reason, to=to))
        call = order(f"{_of(model)}/revert", body, schemas.ModelReleases)
        return self._perform(call, self.change_timeout_s)

    def traffic(self, model: str, wanted: schemas.TrafficRequest) -> schemas.ModelReleases:
        """Split a model's traffic, or end the split."""
        target = f"/admin/models/{quote(model, safe='')}/traffic"
        body = msgspec.json.encode(wanted)
        return self._perform(order(target, body, schemas.ModelReleases), self.change_timeout_s)

    def install_keyring(self, data: bytes, *, force: bool) -> schemas.Trust:
        """Have a newer keyring take the place of the present one."""
        target = "/admin/keyring?force=true" if force else "/admin/keyring"
        return self._perform(order(target, data, schemas.Trust), self.change_timeout_s)

    def releases(self) -> schemas.Releases:
        """Ask how every model does."""
        return self._perform(document("/admin/releases", schemas.Releases), None)

    def releases_of(self, model: str) -> schemas.ModelReleases:
        """Ask how one model does."""
        return self._perform(document(_of(model), schemas.ModelReleases), None)

    def history(self, model: str, limit: int, before: int = 0) -> list[schemas.Transition]:
        """Ask what happened, newest first.

        Args:
            model: Of this model; empty: of all.
            limit: At most so many rows, however many answers that takes.
            before: Only rows with a smaller id; 0: from the newest on.
        """
        path = f"{_of(model)}/history" if model else "/admin/history"
        rows: list[schemas.Transition] = []
        while len(rows) < limit:
            wanted = min(limit - len(rows), schemas.HISTORY_MAX)
            query = urlencode({"limit": wanted, "before": before})
            call = document(f"{path}?{query}", schemas.History)
            found = self._perform(call, None).transitions
            rows += found
            if len(found) < wanted:
                break
            before = found[-1].id
        return rows

    def explain(self, model: str) -> schemas.Explanation:
        """Ask why it is so."""
        return self._perform(document(f"{_of(model)}/explain", schemas.Explanation), None)


def _of(model: str) -> str:
    return f"/admin/releases/{quote(model, safe='')}"
