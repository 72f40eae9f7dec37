"""The Python client: ``Client`` for threads, ``AsyncClient`` for asyncio, one protocol below both.

::

    from edge_runtime.client import Client

    with Client() as client:
        outputs = client.infer("digits", {"image": image})

``BalancedClient`` and ``AsyncBalancedClient`` are the same for several daemons at once. Loads
numpy, msgspec and httptools; never ONNX Runtime, and asyncio only for the clients that need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge_runtime.client.blocking import Client
from edge_runtime.client.calls import Prediction
from edge_runtime.client.endpoint import Endpoint

if TYPE_CHECKING:
    from edge_runtime.client.asynchronous import AsyncClient
    from edge_runtime.client.balanced import BalancedClient
    from edge_runtime.client.balanced_async import AsyncBalancedClient
    from edge_runtime.client.balancing import EndpointState
    from edge_runtime.client.ejection import Ejection

__all__ = [
    "AsyncBalancedClient",
    "AsyncClient",
    "BalancedClient",
    "Client",
    "Ejection",
    "Endpoint",
    "EndpointState",
    "Prediction",
]

# Imported when they are asked for: asyncio takes longer than all the rest here.
_LATER = {
    "AsyncBalancedClient": "balanced_async",
    "AsyncClient": "asynchronous",
    "BalancedClient": "balanced",
    "Ejection": "ejection",
    "EndpointState": "balancing",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class of the table
    """Import what only some programs need."""
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
