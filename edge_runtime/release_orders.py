"""What can be ordered of releases, and asked about them: the seam between the doors and the engine.

``release.releases`` does it, ``api.release_door`` asks for it. Both meet in these calls and in the
structs of ``protocol.release_schemas``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edge_runtime.protocol.release_schemas import (
    Mode,
    ModelReleases,
    Release,
    Releases,
    Transition,
    Trust,
)


class Orders(Protocol):
    """Releases, as the admin door sees them.

    Every change raises ``StorageError`` when the disk takes nothing (and changes nothing then),
    and is written to the history with ``asked_by`` and ``reason`` before it is done. A change
    returns when it is decided and recorded; what takes longer goes on by itself. ``rollback`` and
    ``abort`` wait a while for their end: only a release that they give as ``rolled-back`` is.
    """

    async def stage(
        self,
        source: Path | int,
        *,
        mode: Mode = "automatic",
        again: bool = False,
        rollout: str = "",
        asked_by: str = "",
    ) -> Release:
        """Install a bundle and begin its release.

        Args:
            source: The bundle's folder or tar: its path, or a descriptor of it, which stays the
                caller's.
            mode: ``manual`` waits for ``promote`` after the self-test.
            again: Take a bundle that is remembered as bad.
            rollout: The fleet's rollout that orders it; it respects holds. Empty: a person.
            asked_by: Who, for the history.

        Returns:
            The release, in state ``installed`` or further.

        Raises:
            ArtifactError: The bundle is not what it says, not signed (``managed``), known as bad,
                or contradicts an installed one of the same version.
            ForbiddenError: A hold or a rollback of this device stands against a rollout's order.
        """
        ...

    async def promote(self, model: str, *, reason: str = "", asked_by: str = "") -> Release:
        """Take the release under way to its next decision: all the traffic, or the commit.

        Raises:
            ModelNotFoundError: Releases know no such model.
            InvalidRequestError: No release of it is under way, or not far enough.
            EdgeRuntimeError: The version cannot be loaded; the active one answers on.
        """
        ...

    async def rollback(self, model: str, *, reason: str = "", asked_by: str = "") -> Release:
        """Go back: from the release under way to the active version, else to the previous one.

        It is recorded as an override, which orders of the fleet respect until it is cleared.

        Raises:
            ModelNotFoundError: Releases know no such model.
            InvalidRequestError: There is nothing to go back from.
        """
        ...

    async def abort(self, model: str, *, reason: str = "", asked_by: str = "") -> Release:
        """End the release under way; the active version answers. No override is left.

        Raises:
            ModelNotFoundError: Releases know no such model.
            InvalidRequestError: No release of it is under way.
        """
        ...

    async def hold(self, model: str, *, reason: str = "", asked_by: str = "") -> None:
        """Refuse the fleet's orders for a model until it is cleared; also before its first one.

        A release under way goes no further meanwhile.

        Raises:
            InvalidRequestError: The name cannot be a model's.
        """
        ...

    async def clear(self, model: str, *, reason: str = "", asked_by: str = "") -> None:
        """Remove the hold or the recorded rollback; without one, nothing changes.

        A release that waited for it goes on.

        Raises:
            ModelNotFoundError: Releases know no such model.
        """
        ...

    async def traffic(
        self, model: str, weights: Mapping[int, int], *, reason: str = "", asked_by: str = ""
    ) -> None:
        """Split a model's traffic between versions, for as long as nobody changes it.

        Args:
            model: The model.
            weights: Percent by version, 100 together; empty: no split.
            reason: Why, for the history.
            asked_by: Who, for the history.

        Raises:
            ModelNotFoundError: There is no such model, or no such version of it.
            InvalidRequestError: A release is under way, or a version was never committed.
            NoRoomError: The memory budget does not hold them together.
        """
        ...

    async def accept_keyring(self, data: bytes, *, asked_by: str = "") -> Trust:
        """Replace the keyring by a newer one.

        Args:
            data: The new keyring file's bytes.
            asked_by: Who, for the log.

        Returns:
            What is believed from now on.

        Raises:
            SignatureError: It is older, or too few keys of the present one signed it.
        """
        ...

    async def status(self) -> Releases:
        """Say how every model does that releases know.

        Raises:
            StorageError: What is stored cannot be read.
        """
        ...

    async def status_of(self, model: str) -> ModelReleases:
        """Say how one model does.

        Args:
            model: One that was released, or that an order was taken for.

        Raises:
            ModelNotFoundError: It is none of these.
            StorageError: What is stored cannot be read.
        """
        ...

    async def history(
        self, model: str = "", *, limit: int, before: int = 0
    ) -> Sequence[Transition]:
        """Give what happened, newest first.

        Args:
            model: Of this model only; empty: of all. An unknown one has no history.
            limit: At most so many.
            before: Only rows with a smaller number than this; 0: from the newest on.

        Raises:
            StorageError: It cannot be read.
        """
        ...

    async def explain(self, model: str) -> Sequence[str]:
        """Say in sentences what answers for a model and why, and what comes next.

        Raises:
            ModelNotFoundError: Releases know no such model.
        """
        ...
