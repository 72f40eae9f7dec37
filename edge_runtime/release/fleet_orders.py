"""What keeps orders of the fleet out: local decisions, others' releases, being late. Pure."""

from edge_runtime.errors import ConflictError, ForbiddenError
from edge_runtime.release.records import Override, Release, Slots
from edge_runtime.release_orders import FLEET, rollout_of


def check_no_override(model: str, override: Override | None) -> None:
    """Let nothing of the fleet in while a local decision stands.

    Args:
        model: The model's name.
        override: The local decision about it.

    Raises:
        ForbiddenError: There is one.
    """
    if override is not None:
        raise ForbiddenError(
            f"a local {override.kind} of {model!r} stands ({override.reason}); clear it on the "
            "device before the fleet may release"
        )


def check_own(release: Release, rollout: str) -> None:
    """Let a rollout end what it ordered, and the fleet without a name what any rollout did.

    Args:
        release: Under way.
        rollout: That orders its end; ``FLEET``: none is named; empty: a person, who may.

    Raises:
        ConflictError: A person, or another rollout, ordered the release.
    """
    ordered_by = rollout_of(release.source)
    if not rollout or (ordered_by and (FLEET in {rollout, ordered_by} or rollout == ordered_by)):
        return
    who = f"rollout {ordered_by!r}" if ordered_by else "a person at the device"
    raise ConflictError(
        f"the release of {release.model!r} under way was ordered by {who}, and not by rollout "
        f"{rollout!r}; it goes on"
    )


def check_revertible(slots: Slots, to: int | None, *, is_newest: bool) -> None:
    """Refuse to go back to another version than was meant, or twice for one order.

    Args:
        slots: Of the model, whose active version a release made active.
        to: Version that must be the previous one; ``None``: whichever it is.
        is_newest: Whether no release of the model came after the one that is taken back.

    Raises:
        ConflictError: It would go elsewhere, or might be done already.
    """
    if to is not None and slots.previous != to:
        there = f"version {slots.previous}" if slots.previous is not None else "none"
        raise ConflictError(
            f"before version {slots.active} of {slots.model!r} comes {there}, and not version "
            f"{to}; nothing changed"
        )
    if slots.previous is None and not is_newest:
        raise ConflictError(
            f"before version {slots.active} of {slots.model!r} there is none, and another release "
            "came after it, so this may be done already; `release rollback` if nothing is to answer"
        )
