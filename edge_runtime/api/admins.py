"""Who may change what is served: the allow-list of the admin door, by the kernel's word."""

from edge_runtime.api.exchange import Exchange
from edge_runtime.api.handlers import Handlers, Names
from edge_runtime.api.routes import Handler
from edge_runtime.errors import ForbiddenError


def only_admins(handlers: Handlers, handler: Handler) -> Handler:
    """Let a handler be reached by the users and groups of ``release.admins`` only.

    Args:
        handlers: Know the list; it is looked at with every request, because SIGHUP may change it.
        handler: Changes something.
    """

    def guarded(exchange: Exchange, names: Names) -> None:
        admins = handlers.admins
        peer = exchange.connection.peer
        if admins is not None and not admins.admit(peer):
            who = "a caller without a user" if peer.uid is None else f"the user with uid {peer.uid}"
            raise ForbiddenError(
                f"{who} may look here but change nothing: release.admins in the daemon's "
                "configuration lists who may"
            )
        handler(exchange, names)

    return guarded
