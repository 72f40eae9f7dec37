"""Where an order to roll an active version back leads, and when it is refused. Pure."""

from collections.abc import Collection, Iterable

import msgspec

from edge_runtime.errors import ConflictError, InvalidRequestError
from edge_runtime.release.records import STORE, Override, Release, Slots
from edge_runtime.release.states import State


def check_under_way(model: str, to: int | None, *, disable: bool) -> None:
    """Refuse to choose a way back from a release under way: it leads to the active version.

    Raises:
        ConflictError: Something was chosen.
    """
    if to is not None or disable:
        raise ConflictError(
            f"a release of {model!r} is under way, and a rollback ends it: the active version "
            "answers; leave `to` and `disable` out, or abort it first"
        )


def too_late(release: Release, *, is_going_back: bool) -> InvalidRequestError:
    """Say why an order to go back is refused: another one came first, or it is over."""
    if is_going_back:
        return InvalidRequestError(f"the release of {release.model!r} is being rolled back already")
    return InvalidRequestError(f"the release of {release.model!r} is {release.state} already")


def way_back(
    slots: Slots,
    ran: Iterable[Release],
    installed: Collection[int],
    override: Override | None,
    *,
    to: int | None,
    disable: bool,
) -> Slots | None:
    """Say where a rollback of the active version leads.

    Without a previous version it leads to nothing. That is what the order means where no release
    came after the active one. Else the active version is what another rollback left, and the order
    may be the same one again.

    Args:
        slots: Of the model, whose active version a release made active.
        ran: Its releases, the newest first.
        installed: Its versions in the store.
        override: The local decision about it.
        to: The version that is to answer; ``None``: the previous one.
        disable: Whether nothing is to answer.

    Returns:
        What the slots become before the rollback; ``None``: they stay.

    Raises:
        InvalidRequestError: Both were asked for, or it was rolled back already.
        ConflictError: It would leave nothing, or the version cannot answer.
    """
    model, ran = slots.model, list(ran)
    if disable:
        if to is not None:
            raise InvalidRequestError("a rollback leads `to` a version, or is to `disable`")
        return None if slots.previous is None else _before(slots, None)
    if to is not None:
        return None if slots.previous == to else _before(slots, _chosen(slots, ran, installed, to))
    if slots.previous is not None:
        return None
    if override is not None and override.kind == "rollback":
        raise InvalidRequestError(
            f"{model!r} was rolled back already ({override.reason}), and before version "
            f"{slots.active} there is none; `release rollback --disable` if nothing is to answer"
        )
    newest = ran[0] if ran else None
    if newest is None or (newest.state, newest.version) == (State.COMMITTED, slots.active):
        return None
    others = sorted({each.version for each in _usable(slots, ran, installed)})
    there = "; `--to` takes " + " or ".join(map(str, others)) if others else ""
    raise ConflictError(
        f"version {slots.active} of {model!r} answers since version {newest.version} was not kept "
        "or not committed, and before it there is none: a rollback would leave nothing; release "
        "another version, or order `release rollback` with `--to VERSION`, or with `--disable` if "
        f"nothing is to answer{there}"
    )


def _usable(slots: Slots, ran: Iterable[Release], installed: Collection[int]) -> list[Release]:
    """List the releases whose versions were committed here and are in the store still."""
    return [
        each
        for each in ran
        if each.state == State.COMMITTED
        and each.version != slots.active
        and each.version in installed
    ]


def _chosen(slots: Slots, ran: Iterable[Release], installed: Collection[int], to: int) -> Release:
    usable = _usable(slots, ran, installed)
    found = next((each for each in usable if each.version == to), None)
    if found is not None:
        return found
    others = " or ".join(str(each) for each in sorted({each.version for each in usable}))
    raise ConflictError(
        f"version {to} of {slots.model!r} cannot answer: it is active already, was not committed "
        f"here, was rolled back, or is not in the store; "
        + (f"`to` takes {others}" if others else "release it, or another one")
    )


def _before(slots: Slots, release: Release | None) -> Slots:
    return msgspec.structs.replace(
        slots,
        previous=None if release is None else release.version,
        previous_source="" if release is None else STORE,
        previous_digest="" if release is None else release.digest,
    )
