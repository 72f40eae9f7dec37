"""Reads and changes the plans of a channel, and has them signed by the online key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from zoneinfo import available_timezones

import msgspec
from tuf.api.metadata import TargetFile, Targets

from edge_runtime.digest import file_sha256
from edge_runtime.errors import ModelLoadError
from fleet.documents.codec import ADVICE
from fleet.documents.cohort import default_salt
from fleet.documents.errors import DocumentError
from fleet.documents.names import Word
from fleet.documents.paths import ROLLOUTS_PATHS, artifact_file_path, plans_path
from fleet.documents.plan import Plan, Plans, check_plan, plan_of, read_plans, write_plans
from fleet.errors import BadInputError, RepositoryError
from fleet.repository.disk import locked, put, staging
from fleet.repository.draft import Draft, Signed
from fleet.repository.key_files import Keys
from fleet.repository.layout import Layout
from fleet.repository.plan_checks import check_plan_for, with_begun
from fleet.repository.releases import releases_of
from fleet.repository.roles import ROLLOUTS
from fleet.repository.settings import read_settings
from fleet.repository.state import State, read_state

_CALLED_OFF: Final = ("abort", "revert")


@dataclass(frozen=True, slots=True)
class SetPlan:
    """What became of a plan.

    Attributes:
        channel: Its channel.
        plan: As it is signed.
        is_new: Whether anything changed.
        signed: What was written.
    """

    channel: str
    plan: Plan
    is_new: bool
    signed: Signed


def set_plan(
    layout: Layout, channel: str, wanted: Mapping[str, Any], keys: Keys, *, now: datetime
) -> SetPlan:
    """Give a channel a plan, in place of the one for the same model.

    Args:
        layout: The repository.
        channel: The channel.
        wanted: The plan's fields; without ``sequence`` it is one more than before, without
            ``salt`` it is ``default_salt``, without ``stage`` the rollout stays at its stage, and
            stages begin now.
        keys: With the key of the role rollouts.
        now: The time, with whole seconds.

    Raises:
        FleetError: It may not be signed, or the key is not here; nothing changed.
        DocumentError: It is not a plan; nothing changed.
        OSError: The disk refused; clients see what they saw before.
    """
    _check_channel(channel)
    with locked(layout):
        state, settings = read_state(layout), read_settings(layout)
        model = wanted.get("model")
        plans = plans_in(layout, state.rollouts.signed).get(channel) or Plans(
            fleet=settings.fleet, channel=channel, issued_s=0.0
        )
        before = plans.of(model) if isinstance(model, str) else None
        plan = _completed(wanted, before, now.timestamp())
        draft = Draft(layout, state, settings, keys, now)
        if before is not None and _same(plan, before, wanted):
            return SetPlan(channel, before, is_new=False, signed=draft.write())
        releases = releases_of(state.releases.signed).get(plan.model, {})
        check_plan_for(plan, channel, before, releases, now.timestamp())
        others = [each for each in plans.plans if each.model != plan.model]
        every = tuple(sorted([*others, plan], key=lambda each: each.model))
        issue(layout, state, draft, [msgspec.structs.replace(plans, plans=every)], now)
        return SetPlan(channel, plan, is_new=True, signed=draft.write())


def issue(
    layout: Layout, state: State, draft: Draft, every: Iterable[Plans], now: datetime
) -> None:
    """Put plans into the repository with the present time, to be signed by a draft.

    Args:
        layout: The repository.
        state: Its metadata.
        draft: Signs the role rollouts.
        every: Plans of some channels.
        now: The time, with whole seconds.

    Raises:
        FleetError: The key is not here; nothing changed.
        DocumentError: They cannot be written.
        OSError: The disk refused.
    """
    draft.check_keys(ROLLOUTS)
    texts = {
        plans_path(plans.channel): write_plans(
            msgspec.structs.replace(plans, issued_s=now.timestamp())
        )
        for plans in every
    }
    with staging(layout) as folder:
        for path, text in texts.items():
            digest = sha256(text).hexdigest()
            staged = folder / digest
            staged.write_bytes(text)
            put(staged, layout.artifacts / artifact_file_path(path, digest))
            target = TargetFile(len(text), {"sha256": digest}, path)
            state.rollouts.signed.targets[path] = target
    draft.renew(ROLLOUTS)


def are_ahead(every: Mapping[str, Plans], now: datetime) -> bool:
    """Tell whether any plans are dated after now.

    Args:
        every: Plans by channel.
        now: The time, with whole seconds.
    """
    return any(plans.issued_s > now.timestamp() for plans in every.values())


def plans_in(layout: Layout, targets: Targets) -> dict[str, Plans]:
    """Read the plans of every channel, as they are signed.

    Args:
        layout: The repository.
        targets: What the role rollouts says.

    Raises:
        RepositoryError: A file is missing, or is not the one that was signed.
    """
    every: dict[str, Plans] = {}
    for path, target in sorted(targets.targets.items()):
        file = layout.artifacts / artifact_file_path(path, target.hashes.get("sha256", ""))
        try:
            if file_sha256(file) != target.hashes.get("sha256"):
                raise RepositoryError(f"{file} was changed; restore it from a copy")
            plans = read_plans(file.read_bytes(), str(file))
        except (DocumentError, ModelLoadError) as error:
            raise RepositoryError(f"rollouts: {error.message}") from error
        if plans_path(plans.channel) != path:
            raise RepositoryError(f"rollouts: {path} has the plans of channel {plans.channel}")
        every[plans.channel] = plans
    return every


def _check_channel(channel: str) -> None:
    try:
        msgspec.convert(channel, Word)
    except msgspec.ValidationError as error:
        raise BadInputError(
            f"{channel!r} is no channel: small letters, digits and -, at most 64 "
            f"({ROLLOUTS_PATHS[0]})"
        ) from error


def _completed(wanted: Mapping[str, Any], before: Plan | None, now_s: float) -> Plan:
    """Fill in what a plan need not say."""
    known = set(Plan.__struct_fields__)
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise BadInputError(
            f"the plan has {unknown[0]!r}, which means nothing; its fields are "
            f"{', '.join(sorted(known))}"
        )
    fields = dict(wanted)
    fields.setdefault("sequence", 1 if before is None else before.sequence + 1)
    if before is not None and before.rollout == fields.get("rollout"):
        fields.setdefault("salt", before.salt)
        # A rollout that was called off begins anew, a hold goes on where it was.
        if before.order not in _CALLED_OFF or fields.get("order") in _CALLED_OFF:
            fields.setdefault("stage", before.stage)
    fields.setdefault(
        "salt", default_salt(str(fields.get("model")), _number(fields.get("version")))
    )
    try:
        plan = plan_of(fields, "the plan")
    except DocumentError as error:
        if not error.message.endswith(ADVICE):
            raise
        what = error.message.removesuffix(ADVICE)
        raise BadInputError(f"{what}the schema of plans says what each field may be") from error
    _check_zone(plan)
    plan = with_begun(plan, before, now_s)
    check_plan(plan, "the plan")
    return plan


def _check_zone(plan: Plan) -> None:
    """Refuse a time zone that no device would know; one without a list of them knows them all."""
    zone = "local" if plan.window is None else plan.window.zone
    known = available_timezones()
    if known and zone not in known | {"local", "utc"}:
        raise BadInputError(
            f"the plan: there is no time zone {zone!r}; write local, utc, or a name such as "
            "Europe/Berlin"
        )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _same(plan: Plan, before: Plan, wanted: Mapping[str, Any]) -> bool:
    """Tell whether a plan says what the one before says, under the same number or none."""
    sequence = wanted.get("sequence", before.sequence)
    return msgspec.structs.replace(plan, sequence=sequence) == before
