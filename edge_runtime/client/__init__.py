"""The Python client: ``Client`` for threads, ``AsyncClient`` for asyncio, one protocol below both.

::

    from edge_runtime.client import Client

    with Client() as client:
        outputs = client.infer("digits", {"image": image})

Loads numpy, msgspec and httptools; never ONNX Runtime, and asyncio only for ``AsyncClient``.
"""

from typing import TYPE_CHECKING

from edge_runtime.client.blocking import Client
from edge_runtime.client.calls import Prediction
from edge_runtime.client.endpoint import Endpoint

if TYPE_CHECKING:
    from edge_runtime.client.asynchronous import AsyncClient

__all__ = ["AsyncClient", "Client", "Endpoint", "Prediction"]


def __getattr__(name: str) -> type["AsyncClient"]:
    """Import ``AsyncClient`` when it is asked for: asyncio takes longer than all the rest here."""
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edge_runtime.client.asynchronous import AsyncClient  # noqa: PLC0415 - see above

    return AsyncClient
