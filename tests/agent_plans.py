"""Plans, releases and device facts for tests, and strategies that make any of them."""

import dataclasses
from typing import Any, Final

from hypothesis import strategies as st

from agent.plan.decision import Decision, decide
from agent.plan.facts import DeviceFacts, ModelFacts
from fleet.documents.plan import Plan, Plans, Stage, Window
from fleet.documents.release import GuardRails, ReleaseFacts, Requires

NOW_S: Final = 1_800_000_000.0  # Fri 2027-01-15 08:00 UTC
DAY_S: Final = 86_400.0
SHA: Final = "a" * 64
ZONES: Final = ("utc", "local", "Europe/Berlin", "America/New_York", "No/Where", "../etc")


def device(**changes: object) -> DeviceFacts:
    model: dict[str, Any] = {
        key: changes.pop(key)
        for key in [field.name for field in dataclasses.fields(ModelFacts)]
        if key in changes
    }
    values: dict[str, Any] = {
        "device": "gate-7",
        "fleet": "farm",
        "channel": "stable",
        "labels": {"site": "north"},
        "arch": "x86_64",
        "cpu_flags": frozenset({"avx2", "fma"}),
        "memory_bytes": 1 << 30,
        "disk_free_bytes": 1 << 30,
        "disk_reserve_bytes": 1 << 26,
        "now_s": NOW_S,
        "elapsed_s": changes.get("now_s", NOW_S),
        "agent_version": "0.1.0.dev0",
        "models": {"digits": ModelFacts(**({"active": 1} | model))},
    }
    return DeviceFacts(**(values | changes))


def plan(**changes: object) -> Plan:
    values: dict[str, Any] = {
        "rollout": "digits-2",
        "sequence": 1,
        "model": "digits",
        "version": 2,
        "salt": "salt",
        "stages": (Stage(permyriad=10_000),),
    }
    return Plan(**(values | changes))


def plans(*each: Plan, **changes: object) -> Plans:
    values: dict[str, Any] = {"fleet": "farm", "channel": "stable", "issued_s": NOW_S - 60}
    return Plans(**(values | changes), plans=each)


def release(**changes: object) -> ReleaseFacts:
    rails: dict[str, Any] = {
        key: changes.pop(key) for key in GuardRails.__struct_fields__ if key in changes
    }
    values: dict[str, Any] = {"model": "digits", "version": 2, "counter": 2, "created_s": 0.0}
    return ReleaseFacts(**(values | {"guard_rails": GuardRails(**rails)} | changes))


def decided(
    facts: DeviceFacts | None = None,
    order: Plan | None = None,
    signed: ReleaseFacts | None = None,
    *,
    document: Plans | None = None,
    is_signed: bool = True,
    back: ReleaseFacts | None = None,
    needed_bytes: int = 0,
) -> Decision:
    """Decide about a plan, by defaults that speak for installing."""
    given = plan() if order is None else order
    known = release() if signed is None else signed
    return decide(
        device() if facts is None else facts,
        given,
        document or plans(given),
        known if is_signed else None,
        SHA,
        back=back,
        needed_bytes=needed_bytes,
    )


any_float = st.floats(allow_nan=True, allow_infinity=True)
any_count = st.integers(-(2**70), 2**70)
names = st.text("abcdefgh0123456789-", min_size=1, max_size=12)
short_labels = st.dictionaries(names, names, max_size=3)
accepted = st.dictionaries(names, st.lists(names, max_size=3).map(tuple), max_size=3)
versions = st.integers(-2, 6)

windows = st.builds(
    Window,
    days=st.lists(st.sampled_from(("mon", "tue", "fri", "sun", "noday")), max_size=3).map(tuple),
    begin=st.one_of(st.sampled_from(("00:00", "22:30", "23:59")), st.text(max_size=6)),
    end=st.one_of(st.sampled_from(("00:00", "04:00", "23:59")), st.text(max_size=6)),
    zone=st.one_of(st.sampled_from(ZONES), st.text(max_size=6)),
)
stages = st.lists(
    st.builds(
        Stage,
        permyriad=st.integers(-5, 20_000),
        duration_s=any_float,
        begun_s=st.none() | any_float,
    ),
    max_size=4,
).map(tuple)
any_plans = st.builds(
    Plan,
    rollout=names,
    sequence=versions,
    model=st.sampled_from(("digits", "other")),
    version=versions,
    order=st.sampled_from(("install", "install", "hold", "abort", "revert")),
    revert_to=st.none() | versions,
    salt=st.text("xyz", max_size=3),
    stages=stages,
    stage=st.integers(-3, 6),
    devices=st.lists(st.sampled_from(("gate-7", "gate-8")), max_size=2).map(tuple),
    filter=accepted,
    window=st.none() | windows,
    again=st.booleans(),
    bytes_max=any_count,
)
any_rails = st.builds(
    GuardRails,
    channels=st.lists(st.sampled_from(("stable", "beta")), max_size=2).map(tuple),
    first_stage_permyriad_max=st.integers(-5, 20_000),
    stage_s_min=any_float,
    changes_per_day_max=any_count,
    plan_age_s_max=any_float,
)
any_releases = st.none() | st.builds(
    ReleaseFacts,
    model=st.sampled_from(("digits", "other")),
    version=versions,
    counter=any_count,
    min_counter=any_count,
    requires=st.builds(
        Requires,
        arch=st.lists(names, max_size=2).map(tuple),
        cpu_flags=st.lists(names, max_size=2).map(tuple),
        memory_bytes=any_count,
        labels=accepted,
        agent_min=st.text(max_size=6),
    ),
    guard_rails=any_rails,
    created_s=any_float,
)
any_models = st.builds(
    ModelFacts,
    active=st.none() | versions,
    previous=st.none() | versions,
    under_way=st.none() | versions,
    under_way_state=names,
    under_way_rollout=st.just("") | names,
    is_handed_over=st.booleans(),
    is_downloaded=st.booleans(),
    is_way_back=st.booleans(),
    override=st.sampled_from(("", "hold", "rollback", "newer-word")),
    bad=st.frozensets(st.just(SHA)),
    min_counter=any_count,
    stages_seen=st.dictionaries(st.integers(0, 4), any_float, max_size=3),
    tried=st.dictionaries(st.tuples(names, versions), versions, max_size=2),
)
any_devices = st.builds(
    DeviceFacts,
    device=st.sampled_from(("gate-7", "gate-9")),
    fleet=st.sampled_from(("farm", "")),
    channel=st.sampled_from(("stable", "beta")),
    labels=short_labels,
    arch=names,
    cpu_flags=st.frozensets(names, max_size=2),
    memory_bytes=any_count,
    disk_free_bytes=any_count,
    disk_reserve_bytes=any_count,
    on_battery=st.none() | st.booleans(),
    battery_percent=st.none() | any_float,
    allows_battery=st.booleans(),
    battery_percent_min=st.integers(0, 100),
    metered=st.booleans(),
    allows_metered=st.booleans(),
    now_s=any_float,
    is_clock_trusted=st.booleans(),
    elapsed_s=any_float,
    plan_known_s=any_float,
    agent_version=st.text(max_size=6),
    models=st.dictionaries(st.just("digits"), any_models, max_size=1),
    changes=st.dictionaries(
        st.just("digits"), st.lists(any_float, max_size=3).map(tuple), max_size=1
    ),
    paused_until_s=any_float,
    is_cloned=st.booleans(),
)
any_documents = st.builds(
    Plans,
    fleet=st.sampled_from(("farm", "barn")),
    channel=st.sampled_from(("stable", "beta")),
    issued_s=any_float,
    plans=st.just(()),
)
