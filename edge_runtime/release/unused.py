"""What is told of releases on a device where nothing was ever released: asking makes no file."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from edge_runtime.errors import ModelNotFoundError
from edge_runtime.hardware import cpu_facts
from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.protocol.handover_schemas import Needs
from edge_runtime.release.admission import Admission
from edge_runtime.release.disk_thread import aside
from edge_runtime.settings import Config
from edge_runtime.store.layout import FOLDER
from edge_runtime.store.store import Store


class Unused:
    """The half of ``release_orders.Orders`` that changes nothing, of an empty journal.

    Args:
        state: The state directory.
        settings: The configuration; asked anew each time.
    """

    def __init__(self, state: Path, settings: Callable[[], Config]) -> None:
        release = settings().release
        store = Store(
            state / FOLDER, reserve_bytes=release.reserve_bytes, bundle_bytes=release.bundle_bytes
        )
        self._admission = Admission(store, lambda: settings().release, state, cpu_facts())

    async def needs(self, manifest: bytes, signature: bytes | None) -> Needs:
        """Say that all of a bundle that this CPU can run would have to come."""
        return await aside(partial(self._admission.needs, manifest, signature))

    async def content(self, sha256: str) -> int | None:
        """Give what an earlier journal may have left in the store."""
        return await aside(partial(self._admission.content, sha256))

    async def status(self) -> schemas.Releases:
        """Say that there is nothing, and that unsigned bundles are taken."""
        return schemas.Releases()

    async def status_of(self, model: str) -> schemas.ModelReleases:
        """Say that a model was never released.

        Raises:
            ModelNotFoundError: Always.
        """
        raise _never(model)

    async def history(
        self,
        model: str = "",  # noqa: ARG002 - there is none of any
        *,
        limit: int,  # noqa: ARG002
        before: int = 0,  # noqa: ARG002
    ) -> Sequence[schemas.Transition]:
        """Give no row."""
        return ()

    async def explain(self, model: str) -> Sequence[str]:
        """Say that a model was never released.

        Raises:
            ModelNotFoundError: Always.
        """
        raise _never(model)


def _never(model: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"no release of a model {model!r} was ever ordered here")
