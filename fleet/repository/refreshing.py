"""Keeps metadata from expiring: signs again what is old, and publishes what waits."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from fleet.errors import BadInputError
from fleet.repository.disk import locked
from fleet.repository.draft import Draft, Signed
from fleet.repository.key_files import Keys
from fleet.repository.layout import Layout
from fleet.repository.plans import are_ahead, issue, plans_in
from fleet.repository.releases import releases_of
from fleet.repository.roles import ROLLOUTS, ROOT, RULES, SNAPSHOT, TIMESTAMP
from fleet.repository.settings import RepositorySettings, read_settings
from fleet.repository.state import State, read_state


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What became of it.

    Attributes:
        signed: What was written.
        warnings: What an operator must do that these keys could not.
    """

    signed: Signed
    warnings: tuple[str, ...]


def publish(layout: Layout, keys: Keys, *, now: datetime) -> Refreshed:
    """Let clients see what was signed where the online keys are not.

    Args:
        layout: The repository.
        keys: With the keys of snapshot and timestamp.
        now: The time, with whole seconds.

    Raises:
        FleetError: Their keys are not here; nothing changed.
        OSError: The disk refused; clients see what they saw before.
    """
    with locked(layout):
        state = read_state(layout)
        draft = Draft(layout, state, read_settings(layout), keys, now)
        return Refreshed(draft.write(publish=True), ())


def refresh(
    layout: Layout, keys: Keys, *, older_than: timedelta | None, now: datetime
) -> Refreshed:
    """Sign again what is old, and publish what waits.

    Plans that are signed again are issued anew: devices may hold when a plan is too old. So are
    plans that are dated after now: a thief's, or of a machine whose clock was wrong.

    Args:
        layout: The repository.
        keys: With the online keys; offline ones are used if they are here.
        older_than: Age from which metadata are signed again; ``None``: half of their time. Plans
            are issued anew at half of the age that a release allows them, too.
        now: The time, with whole seconds.

    Raises:
        FleetError: The online keys are not here; nothing changed.
        DocumentError: Plans cannot be written.
        OSError: The disk refused; clients see what they saw before.
    """
    with locked(layout):
        state, settings = read_state(layout), read_settings(layout)
        draft = Draft(layout, state, settings, keys, now)
        for role in (SNAPSHOT, TIMESTAMP):
            draft.check_keys(role)
        warnings: list[str] = []
        for role in RULES:
            is_due = _is_due(role, state, settings, older_than, now)
            if not is_due and not (role == ROLLOUTS and _plans_are_old(layout, state, now)):
                continue
            if role == ROOT:
                warnings.append(_warning(role, state, now, "`edge-fleet repo rotate root` does it"))
            elif RULES[role].is_online:
                _renew(role, layout, state, draft, now)
            else:
                try:
                    draft.check_keys(role)
                    draft.renew(role)
                except BadInputError:
                    # Its key is in a safe: half of its time is left to fetch it.
                    warnings.append(_warning(role, state, now, "bring its key with --keys"))
        return Refreshed(draft.write(publish=True), tuple(warnings))


def _renew(role: str, layout: Layout, state: State, draft: Draft, now: datetime) -> None:
    every = plans_in(layout, state.rollouts.signed).values() if role == ROLLOUTS else ()
    if every:
        issue(layout, state, draft, every, now)
    else:
        draft.check_keys(role)
        draft.renew(role)


def _is_due(
    role: str,
    state: State,
    settings: RepositorySettings,
    older_than: timedelta | None,
    now: datetime,
) -> bool:
    if role in {SNAPSHOT, TIMESTAMP} and not state.is_signed(role):
        return True  # its key was changed, and the command that did it was stopped
    lifetime = timedelta(days=settings.days(role))
    age = now - (state.of(role).signed.expires - lifetime)
    offline = not RULES[role].is_online
    # An offline role is never signed again only because the online ones are asked for.
    return age >= (lifetime / 2 if older_than is None or offline else older_than)


def _plans_are_old(layout: Layout, state: State, now: datetime) -> bool:
    """Tell whether devices would soon hold because of the date of their plans."""
    releases = releases_of(state.releases.signed)
    every = plans_in(layout, state.rollouts.signed)
    if are_ahead(every, now):
        return True
    for plans in every.values():
        for plan in plans.plans:
            facts = releases.get(plan.model, {}).get(plan.version)
            most_s = 0.0 if facts is None else facts.guard_rails.plan_age_s_max
            if most_s and now.timestamp() - plans.issued_s >= most_s / 2:
                return True
    return False


def _warning(role: str, state: State, now: datetime, advice: str) -> str:
    left = state.of(role).signed.expires - now
    when = f"expires in {left.days} days" if left > timedelta() else "has expired"
    return f"{role} {when}, and was not signed again: {advice}"
