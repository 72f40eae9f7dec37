"""Releases on the admin door: from an exchange to an order, and back."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypedDict

import msgspec

from edge_runtime.access import Peer
from edge_runtime.api.admins import rank
from edge_runtime.api.bodies import body_of, query_of
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers, Names
from edge_runtime.errors import (
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
    UnavailableError,
    UnsupportedError,
)
from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.release_orders import FLEET, Answers, Orders, asked_by, split

_log = logging.getLogger(__name__)

_Order = Callable[..., Awaitable[object]]
_Decision = Callable[[Orders], _Order]
_WayBack = Callable[[Orders], Callable[..., Awaitable[schemas.Release]]]

_STANDS: Final = {"rollback": "recorded"}  # an override is; the others leave none


class StageOrder(TypedDict):
    """The arguments of ``Orders.stage`` besides the bundle."""

    mode: schemas.Mode
    again: bool
    rollout: str
    asked_by: str


class ReleaseDoor:
    """What the routes of releases call.

    Args:
        handlers: Know who takes the orders.
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    # -- orders ----------------------------------------------------------------------------------

    def stage(self, exchange: Exchange, _: Names) -> None:
        """Install the bundle at a path of this device, and begin its release."""
        wanted = body_of(exchange, schemas.StageRequest)
        path = Path(wanted.path)
        if not path.is_absolute() or "\0" in wanted.path:
            raise InvalidRequestError(
                f"path {wanted.path!r} is not absolute: the daemon has a working directory of its "
                "own; begin with /"
            )
        order = self.stage_order(exchange.connection.peer, wanted)

        async def work(orders: Orders) -> schemas.Release:
            _note("stage", wanted.path, order["asked_by"])
            return await orders.stage(path, **order)

        self._answer(exchange, work)

    def stage_tar(self, exchange: Exchange, _: Names) -> None:
        """Install the bundle that is the body, a tar, and begin its release."""
        wanted = query_of(exchange, schemas.StageQuery)
        if not exchange.body:
            raise InvalidRequestError(
                "the body is empty; send a bundle as tar, or POST its path to /admin/releases"
            )
        order = self.stage_order(exchange.connection.peer, wanted)

        async def work(orders: Orders) -> schemas.Release:
            _note("stage", f"a tar of {len(exchange.body)} bytes", order["asked_by"])
            # Memory that looks like a file: only the store writes bundles to disk, and counts them.
            descriptor = os.memfd_create("bundle")
            try:
                await asyncio.to_thread(_fill, descriptor, exchange.body)
                return await orders.stage(descriptor, **order)
            finally:
                os.close(descriptor)

        self._answer(exchange, work)

    def stage_order(self, peer: Peer, wanted: schemas.StageOptions) -> StageOrder:
        """Say how a bundle is staged for a caller: who is on ``release.fleet`` is the fleet.

        Args:
            peer: The caller, who may stage.
            wanted: What it asks for.

        Returns:
            The arguments of ``Orders.stage`` besides the bundle.

        Raises:
            ForbiddenError: The fleet insists without naming a rollout.
        """
        rollout = self._rollout(peer, wanted.rollout)
        if wanted.again and rollout == FLEET:
            raise ForbiddenError(
                "the fleet may take a bundle `again` for a rollout only: name the rollout whose "
                "plan says so"
            )
        return StageOrder(
            mode=wanted.mode,
            again=wanted.again,
            rollout=rollout,
            asked_by=asked_by(peer.uid, rollout),
        )

    def _rollout(self, peer: Peer, named: str) -> str:
        """Name the rollout that orders something; empty: a person does."""
        return named or (FLEET if rank(self._handlers, peer) == "fleet" else "")

    def promote(self, exchange: Exchange, names: Names) -> None:
        """Take the release under way to its next decision."""
        self._decide(exchange, names, lambda orders: orders.promote)

    def rollback(self, exchange: Exchange, names: Names) -> None:
        """Go back."""
        wanted = body_of(exchange, schemas.RollbackRequest)
        more = msgspec.structs.asdict(wanted)
        self._go_back(exchange, names, lambda orders: orders.rollback, "", **more)

    def revert(self, exchange: Exchange, names: Names) -> None:
        """Go back as the fleet does it: without an override, and only where none stands."""
        wanted = body_of(exchange, schemas.RevertRequest)
        rollout = self._rollout(exchange.connection.peer, wanted.rollout)
        more = {"to": wanted.to, "reason": wanted.reason}
        self._go_back(exchange, names, lambda orders: orders.revert, rollout, **more)

    def abort(self, exchange: Exchange, names: Names) -> None:
        """End the release under way."""
        wanted = body_of(exchange, schemas.AbortRequest)
        rollout = self._rollout(exchange.connection.peer, wanted.rollout)
        more = {"rollout": rollout, "reason": wanted.reason}
        self._go_back(exchange, names, lambda orders: orders.abort, rollout, **more)

    def hold(self, exchange: Exchange, names: Names) -> None:
        """Refuse the fleet's orders until cleared."""
        self._decide(exchange, names, lambda orders: orders.hold)

    def clear(self, exchange: Exchange, names: Names) -> None:
        """Let the fleet's orders in again."""
        self._decide(exchange, names, lambda orders: orders.clear)

    def _decide(self, exchange: Exchange, names: Names, decision: _Decision) -> None:
        """Give an order about a model, and answer with how the model does then."""
        wanted = body_of(exchange, schemas.ReasonRequest)
        model = names["name"]
        who = asked_by(exchange.connection.peer.uid)

        async def work(orders: Orders) -> schemas.ModelReleases:
            order = decision(orders)
            _note(order.__name__, model, who)
            await order(model, reason=wanted.reason, asked_by=who)
            try:
                return await orders.status_of(model)
            except ModelNotFoundError:  # a hold before the first release was all there was
                return schemas.ModelReleases(model=model)

        self._answer(exchange, work)

    def _go_back(
        self,
        exchange: Exchange,
        names: Names,
        decision: _WayBack,
        ordered_by: str,
        /,
        **order: Any,  # noqa: ANN401 - the arguments of the order
    ) -> None:
        """Give an order that is no success before it is done: 503 if it takes longer."""
        model = names["name"]
        who = asked_by(exchange.connection.peer.uid, ordered_by)

        async def work(orders: Orders) -> schemas.ModelReleases:
            go_back = decision(orders)
            verb = go_back.__name__
            _note(verb, model, who)
            release = await go_back(model, **order, asked_by=who)
            if release.state != schemas.ROLLED_BACK:
                why = f" ({release.reason})" if release.reason else ""
                raise UnavailableError(
                    f"the {verb} of {model!r} is {_STANDS.get(verb, 'taken')} and not done yet: "
                    f"version {release.version} is {release.state}{why}; `release status` shows "
                    "how it goes on"
                )
            return await orders.status_of(model)

        self._answer(exchange, work)

    def traffic(self, exchange: Exchange, names: Names) -> None:
        """Split a model's traffic between versions, or end the split."""
        wanted = body_of(exchange, schemas.TrafficRequest)
        weights = split(wanted.weights)
        model = names["name"]
        who = asked_by(exchange.connection.peer.uid)

        async def work(orders: Orders) -> schemas.ModelReleases:
            _note("traffic", model, who)
            await orders.traffic(model, weights, reason=wanted.reason, asked_by=who)
            return await orders.status_of(model)

        self._answer(exchange, work)

    def keyring(self, exchange: Exchange, _: Names) -> None:
        """Replace the keyring by a newer one that enough keys of the present one signed."""
        wanted = query_of(exchange, schemas.KeyringQuery)
        data = bytes(exchange.body)
        peer = exchange.connection.peer
        who = asked_by(peer.uid, self._rollout(peer, ""))

        async def work(orders: Orders) -> schemas.Trust:
            _note("keyring", f"{len(data)} bytes", who)
            return await orders.accept_keyring(data, force=wanted.force, asked_by=who)

        self._answer(exchange, work)

    # -- questions -------------------------------------------------------------------------------

    def status(self, exchange: Exchange, _: Names) -> None:
        """Say how every model does."""
        self._tell(exchange, lambda answers: answers.status())

    def status_of(self, exchange: Exchange, names: Names) -> None:
        """Say how one model does."""
        self._tell(exchange, lambda answers: answers.status_of(names["name"]))

    def history(self, exchange: Exchange, names: Names) -> None:
        """Say what happened, newest first."""
        wanted = query_of(exchange, schemas.HistoryQuery)
        model = names.get("name", "")

        async def work(answers: Answers) -> schemas.History:
            rows = await answers.history(model, limit=wanted.limit, before=wanted.before)
            return schemas.History(transitions=list(rows))

        self._tell(exchange, work)

    def explain(self, exchange: Exchange, names: Names) -> None:
        """Say in sentences what answers and why."""
        model = names["name"]

        async def work(answers: Answers) -> schemas.Explanation:
            return schemas.Explanation(model=model, sentences=list(await answers.explain(model)))

        self._tell(exchange, work)

    def _tell(self, exchange: Exchange, ask: Callable[[Answers], Awaitable[object]]) -> None:
        """Answer a question; on a device without releases that makes nothing."""
        open_answers = self._handlers.open_answers or self._open_orders

        async def work() -> None:
            exchange.json(await ask(await open_answers()))

        self._handlers.later(exchange, work())

    def _answer(self, exchange: Exchange, ask: Callable[[Orders], Awaitable[object]]) -> None:
        """Answer with what comes of an order, which is a struct."""
        open_orders = self._open_orders

        async def work() -> None:
            exchange.json(await ask(await open_orders()))

        self._handlers.later(exchange, work())

    @property
    def _open_orders(self) -> Callable[[], Awaitable[Orders]]:
        open_orders = self._handlers.open_orders
        if open_orders is None:
            raise UnsupportedError("this daemon takes no releases; its log says why")
        return open_orders


def _note(order: str, what: str, asked_by: str) -> None:
    _log.info("%s of %r ordered by %r", order, what, asked_by)


def _fill(descriptor: int, body: bytes | memoryview) -> None:
    rest = memoryview(body)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
