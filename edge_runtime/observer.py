"""Where answers of real requests can be looked at, after the run and before they are written."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from edge_runtime.routing import LoadedVersion
from edge_runtime.tensors import Array


class Observer(Protocol):
    """Looks at some answers of one model.

    Both methods are called on the request path: neither may wait, and neither raises.
    """

    def wants(self, loaded: LoadedVersion) -> bool:
        """Tell whether to look at the answer that a version is about to give."""
        ...

    def answered(
        self,
        loaded: LoadedVersion,
        feeds: Mapping[str, Array],
        names: Sequence[str],
        outputs: Sequence[Array],
    ) -> None:
        """Look at an answer that ``wants`` has just said yes to.

        Args:
            loaded: The version that ran.
            feeds: Its inputs by name. They may be views of memory that the client goes on writing
                to: what is kept has to be copied here.
            names: Names of the outputs that were asked for.
            outputs: Their arrays, in that order; nobody changes them.
        """
        ...
