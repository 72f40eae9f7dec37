"""Who may change what is served: the allow-lists of the admin door, by the kernel's word."""

from typing import Literal

from edge_runtime.access import Peer
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers, Names
from edge_runtime.api.routes import Handler
from edge_runtime.errors import ForbiddenError

Rank = Literal["person", "fleet", "reader"]
"""``person`` may change everything, ``fleet`` may give the fleet's orders, ``reader`` may look."""


def rank(handlers: Handlers, peer: Peer) -> Rank:
    """Say what a caller may do.

    Whoever is on ``release.fleet`` is the fleet, also when ``release.admins`` names it too or is
    empty: what an agent may do is not for the agent to say.

    Args:
        handlers: Know the lists; they are looked at with every request, because SIGHUP may change
            them.
        peer: The caller.
    """
    if handlers.fleet is not None and handlers.fleet.admit(peer):
        return "fleet"
    if handlers.admins is None or handlers.admins.admit(peer):
        return "person"
    return "reader"


def check_may_order(handlers: Handlers, peer: Peer, *, fleet_too: bool = True) -> Rank:
    """Refuse a caller who may not give an order.

    Args:
        handlers: Know the lists.
        peer: The caller.
        fleet_too: Whether the order is one that the fleet may give.

    Returns:
        ``person`` or ``fleet``.

    Raises:
        ForbiddenError: The caller may not.
    """
    found = rank(handlers, peer)
    who = "a caller without a user" if peer.uid is None else f"the user with uid {peer.uid}"
    if found == "reader":
        raise ForbiddenError(
            f"{who} may look here but change nothing: release.admins in the daemon's "
            "configuration lists who may"
        )
    if found == "fleet" and not fleet_too:
        raise ForbiddenError(
            f"{who} counts as the fleet (release.fleet in the daemon's configuration): it may "
            "stage, revert and abort what the fleet staged; this is for people at the device"
        )
    return found


def only_admins(handlers: Handlers, handler: Handler, *, fleet_too: bool = False) -> Handler:
    """Let a handler be reached by those of ``release.admins`` only.

    Args:
        handlers: Know the lists.
        handler: Changes something.
        fleet_too: Whether those of ``release.fleet`` may reach it too.
    """

    def guarded(exchange: Exchange, names: Names) -> None:
        check_may_order(handlers, exchange.connection.peer, fleet_too=fleet_too)
        handler(exchange, names)

    return guarded
