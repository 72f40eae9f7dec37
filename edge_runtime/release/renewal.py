"""A newer signature for a version that answers already: no release, and nothing else changes."""

import asyncio
from typing import Final

from edge_runtime.errors import ArtifactError, InvalidRequestError, ModelNotFoundError
from edge_runtime.release.fleet_orders import check_no_override
from edge_runtime.release.machines import Machines
from edge_runtime.release.records import STORE
from edge_runtime.release.steps import Means
from edge_runtime.store.store import Store

RENEWED: Final = (
    "its signature is renewed, and no release began: it answers already; load it if it is not in "
    "memory"
)


class Newcomer:
    """Refuses a version before anything of it is copied, or takes its signature only.

    Args:
        means: What the releases share.
        machines: Those under way.
        rollout: That orders it; empty: a person.

    Attributes:
        is_renewed: Whether the version answers, and brings another signature of its manifest.
    """

    def __init__(self, means: Means, machines: Machines, rollout: str) -> None:
        self._means = means
        self._machines = machines
        self._rollout = rollout
        self._loop = asyncio.get_running_loop()
        self.is_renewed = False

    def check(self, name: str, version: int, head: tuple[bytes, bytes | None]) -> None:
        """Refuse a version that must not come in now; on another thread than the loop's.

        Args:
            name: The model.
            version: Its version.
            head: The bytes of its manifest, and of its signature if there is one.

        Raises:
            ForbiddenError: A local decision keeps the fleet out.
            InvalidRequestError: It answers already, and brings nothing new.
        """
        is_newly_signed = renews(self._means.store, name, version, head)
        work = self._check(name, version, is_newly_signed=is_newly_signed)
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _check(self, name: str, version: int, *, is_newly_signed: bool) -> None:
        if self._rollout:
            check_no_override(name, self._machines.overrides.get(name))
        serving = self._means.serving
        if version not in serving.answering(name):
            return
        slots = serving.slots(name)
        is_active = (slots.active, slots.active_source) == (version, STORE)
        if not (is_newly_signed and is_active):
            raise InvalidRequestError(
                f"version {version} of {name!r} answers already; a release needs another number"
            )
        self.is_renewed = True


def renews(store: Store, name: str, version: int, head: tuple[bytes, bytes | None]) -> bool:
    """Tell whether a bundle is an installed version with another signature.

    Args:
        store: Installed versions.
        name: The model.
        version: Its version.
        head: The bytes of its manifest, and of its signature if there is one.
    """
    manifest, signature = head
    try:
        there = store.head(name, version)
    except (ArtifactError, ModelNotFoundError):
        return False
    return there[0] == manifest and signature is not None and there[1] != signature
