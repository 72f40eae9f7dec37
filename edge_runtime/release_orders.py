"""What can be ordered of releases, and asked about them: the seam between the doors and the engine.

``release.releases`` does it, ``api.release_door`` asks for it. Both meet in these calls and in the
structs of ``protocol.release_schemas``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from edge_runtime.errors import InvalidRequestError
from edge_runtime.protocol.handover_schemas import Needs
from edge_runtime.protocol.release_schemas import (
    Mode,
    ModelReleases,
    Release,
    Releases,
    Transition,
    Trust,
)

FLEET: Final = "fleet"
"""Stands for the rollout where the fleet orders something and names none."""

_PERSON: Final = "operator"
_VERSION_DIGITS_MAX: Final = 18  # more is no version, and slow to read
_WHOLE: Final = 100


def asked_by(uid: int | None, rollout: str = "") -> str:
    """Name who orders, for the history: a process's number would mean nothing there.

    Args:
        uid: The caller's user; ``None``: the kernel does not say.
        rollout: The fleet's rollout that orders it; ``FLEET``: the fleet names none; empty: a
            person orders it.
    """
    user = "" if uid is None else f" uid={uid}"
    if not rollout:
        return f"{_PERSON}{user}"
    return f"{FLEET}{user}" if rollout == FLEET else f"{FLEET} {rollout}{user}"


def rollout_of(source: str) -> str:
    """Read which rollout ordered something.

    Args:
        source: As ``asked_by`` gave it.

    Returns:
        Its name; ``FLEET``: the fleet named none; empty: a person ordered it.
    """
    who, _, user = source.rpartition(" uid=")
    if not user.isdecimal():
        who = source
    if who == FLEET:
        return FLEET
    return who.removeprefix(f"{FLEET} ") if who.startswith(f"{FLEET} ") else ""


def split(weights: Mapping[str, int]) -> dict[int, int]:
    """Read a split of the traffic.

    Args:
        weights: Percent by version.

    Raises:
        InvalidRequestError: A version is no positive number or there twice (``1`` and ``01``), or
            the weights are not 100 together.
    """
    numbers: dict[int, int] = {}
    for text, weight in weights.items():
        is_number = text.isascii() and text.isdecimal() and len(text) <= _VERSION_DIGITS_MAX
        version = int(text) if is_number else 0
        if version < 1 or version in numbers:
            raise InvalidRequestError(
                f"weights: {text[:40]!r} is no version, or there twice; versions are 1, 2, 3, ..."
            )
        numbers[version] = weight
    total = sum(numbers.values())
    if numbers and total != _WHOLE:
        raise InvalidRequestError(f"the weights are {total} % together; make them 100 %")
    return numbers


class Answers(Protocol):
    """What can be asked about releases; nothing changes by it, and nothing is made."""

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

    async def needs(self, manifest: bytes, signature: bytes | None) -> Needs:
        """Say which files of a bundle would have to come, before they do. Changes nothing.

        Args:
            manifest: The exact bytes of the bundle's manifest.
            signature: Of its signature; ``None``: it has none.

        Returns:
            The files of the variants that this CPU can run, and of the goldens.

        Raises:
            ArtifactError: Such a bundle would not be taken: the manifest is none, not signed
                (``managed``), too large, or no variant runs on this CPU.
        """
        ...

    async def content(self, sha256: str) -> int | None:
        """Open a content of the store for reading; nobody will ever change it.

        Args:
            sha256: 64 lower-case hexadecimal digits.

        Returns:
            Its descriptor, which is the caller's; ``None``: it is not in the store.

        Raises:
            StorageError: The store cannot be read.
        """
        ...


class Orders(Answers, Protocol):
    """Releases, as the admin door sees them.

    Every change raises ``StorageError`` when the disk takes nothing (and changes nothing then),
    and is written to the history with ``asked_by`` and ``reason`` before it is done. A change
    returns when it is decided and recorded; what takes longer goes on by itself. ``rollback``,
    ``revert`` and ``abort`` wait a while for their end: only a release that they give as
    ``rolled-back`` is.
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

    async def rollback(
        self,
        model: str,
        *,
        to: int | None = None,
        disable: bool = False,
        reason: str = "",
        asked_by: str = "",
    ) -> Release:
        """Go back: from the release under way to the active version, else to the previous one.

        It is recorded as an override, which orders of the fleet respect until it is cleared.

        Args:
            model: The model.
            to: Version that is to answer, where no release is under way; ``None``: the previous
                one. Without a previous one a model's first release is disabled.
            disable: Whether nothing is to answer, where no release is under way.
            reason: Why, for the history.
            asked_by: Who, for the history.

        Raises:
            ModelNotFoundError: Releases know no such model.
            InvalidRequestError: There is nothing to go back from.
            ConflictError: It would leave nothing although the active version is not what was
                released last, or ``to`` cannot answer.
        """
        ...

    async def revert(
        self, model: str, *, to: int | None = None, reason: str = "", asked_by: str = ""
    ) -> Release:
        """Go back from the active version to the previous one, as the fleet does it.

        Unlike ``rollback`` it leaves no override, respects those that stand, and touches no
        release under way.

        Args:
            model: The model.
            to: Version that must be the previous one; ``None``: whichever it is. Without a
                previous one the model is disabled.
            reason: Why, for the history.
            asked_by: Who, for the history.

        Raises:
            ModelNotFoundError: Releases know no such model.
            ForbiddenError: A hold or a rollback of this device stands against it.
            ConflictError: The previous version is another one, a release is under way, or it was
                reverted before.
            InvalidRequestError: There is nothing to go back from.
        """
        ...

    async def abort(
        self, model: str, *, rollout: str = "", reason: str = "", asked_by: str = ""
    ) -> Release:
        """End the release under way; the active version answers. No override is left.

        Args:
            model: The model.
            rollout: The fleet's rollout that orders it, ``FLEET`` for the fleet without a name:
                it ends only what that rollout, or the fleet, ordered. Empty: a person.
            reason: Why, for the history.
            asked_by: Who, for the history.

        Raises:
            ModelNotFoundError: Releases know no such model.
            InvalidRequestError: No release of it is under way.
            ConflictError: The one under way was ordered by a person, or by another rollout.
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

    async def accept_keyring(
        self, data: bytes, *, force: bool = False, asked_by: str = ""
    ) -> Trust:
        """Replace the keyring by a newer one.

        Args:
            data: The new keyring file's bytes.
            force: Take it although versions that are needed could not be loaded any more.
            asked_by: Who, for the log.

        Returns:
            What is believed from now on, and which versions that costs.

        Raises:
            SignatureError: It is older, or too few keys of the present one signed it.
            ConflictError: Too few of its keys signed a version that is active, previous or under
                way, and nobody insists.
        """
        ...
