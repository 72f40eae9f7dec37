"""Where inputs of real requests can be copied from, before anything runs on them."""

from collections.abc import Mapping
from typing import Protocol

from edge_runtime.routing import LoadedVersion
from edge_runtime.tensors import Array


class Tap(Protocol):
    """Takes the inputs of some requests of one model.

    Both methods are called on the request path: neither may wait, and neither raises.
    """

    def wants(self, loaded: LoadedVersion) -> bool:
        """Tell whether to take the inputs of the next request of a version."""
        ...

    def take(self, loaded: LoadedVersion, feeds: Mapping[str, Array]) -> None:
        """Take the inputs of a request that ``wants`` has just said yes to.

        Args:
            loaded: The version that will run on them.
            feeds: Arrays by input name, checked against its signature. They may be views of memory
                that the client goes on writing to: what is kept has to be copied here.
        """
        ...
