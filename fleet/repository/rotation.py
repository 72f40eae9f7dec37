"""Gives a role new keys: old ones that were lost, stolen, or used for long enough.

A new root is signed by the keys of the old one and by its own, so that every device that knew the
old one believes it. What was signed with the keys that go is signed again with the new ones. Plans
that are dated after now, as a thief of online keys does, are issued anew if their key is here.
"""

import contextlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from fleet.documents.errors import DocumentError
from fleet.errors import BadInputError, FleetError
from fleet.repository.disk import check_outside, locked, uninterrupted
from fleet.repository.draft import Draft, Signed
from fleet.repository.key_files import Keys, NewKey, new_key, write_keys
from fleet.repository.layout import Layout
from fleet.repository.plans import are_ahead, issue, plans_in
from fleet.repository.roles import ROOT, RULES, SNAPSHOT, TARGETS, TIMESTAMP
from fleet.repository.settings import read_settings
from fleet.repository.state import State, read_state

_AT_ONCE: Final = (TARGETS, SNAPSHOT, TIMESTAMP)
"""Their keys are in root, which clients believe at once: what they sign cannot wait."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """What became of it.

    Attributes:
        made: The new keys.
        gone: Ids of the keys that are believed no more.
        signed: What was written.
    """

    made: tuple[NewKey, ...]
    gone: tuple[str, ...]
    signed: Signed


def rotate(
    layout: Layout,
    role: str,
    keys: Keys,
    new_folder: Path,
    *,
    passphrase: bytes | None,
    now: datetime,
) -> Rotated:
    """Replace the keys of a role by as many new ones.

    Args:
        layout: The repository.
        role: The role.
        keys: With the keys of the role above it; for root, those of the old root.
        new_folder: Where the new private keys go.
        passphrase: Encrypts them; ``None``: they are not encrypted.
        now: The time, with whole seconds.

    Raises:
        FleetError: The role is not one, or a key is not here; nothing changed.
        OSError: The disk refused; clients see what they saw before.
    """
    if role not in RULES:
        raise BadInputError(f"there is no role {role!r}; the roles are {', '.join(RULES)}")
    check_outside(new_folder, layout.folder)
    with locked(layout):
        state = read_state(layout)
        draft = Draft(layout, state, read_settings(layout), keys, now)
        authority = state.authority(role)
        above = RULES[role].authority
        draft.check_keys(above)
        gone = tuple(authority.get_delegated_role(role).keyids)
        version = authority.version + 1
        names = [f"{role}-{version}-{number}" for number in range(1, len(gone) + 1)]
        if len(names) == 1:
            names = [f"{role}-{version}"]
        made = tuple(new_key(new_folder / f"{name}.pem") for name in names)
        for keyid in gone:
            authority.revoke_key(keyid, role)
        for key in made:
            authority.add_key(key.public, role)
        draft.use([key.signer for key in made])
        draft.renew(above)
        if role != ROOT:
            draft.renew(role)
        if RULES[role].is_online:
            _issue_if_ahead(layout, state, draft, now)
        draft.sign(publish=role in _AT_ONCE)
        with uninterrupted():  # keys that sign nothing would be in the way of the next try
            write_keys(made, passphrase)
            return Rotated(made, gone, draft.write())


def _issue_if_ahead(layout: Layout, state: State, draft: Draft, now: datetime) -> None:
    """Give plans the present time that are dated after it; nothing here stops a rotation."""
    with contextlib.suppress(FleetError, DocumentError):  # `repo refresh` says what is wrong
        every = plans_in(layout, state.rollouts.signed)
        if are_ahead(every, now):
            issue(layout, state, draft, every.values(), now)
