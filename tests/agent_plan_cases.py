"""Every reason by which a device does or does not do what a plan says, with facts that lead to it.

A case is what ``tests.agent_plans.decided`` is given, the action's kind, and its reason.
"""

from typing import Any

from agent.plan.reasons import Reason
from fleet.documents.plan import Stage, Window
from fleet.documents.release import Requires
from tests.agent_plans import DAY_S, NOW_S, SHA, device, plan, plans, release

CASES: dict[str, tuple[dict[str, Any], str, Reason]] = {
    "nothing speaks against it": ({}, "install", Reason.INSTALL),
    "no version is active": ({"facts": device(active=None)}, "install", Reason.INSTALL),
    "another fleet": (
        {"document": plans(plan(), fleet="barn")},
        "none",
        Reason.WRONG_FLEET,
    ),
    "another channel": (
        {"document": plans(plan(), channel="beta")},
        "none",
        Reason.WRONG_CHANNEL,
    ),
    "the fleet holds": ({"order": plan(order="hold")}, "hold", Reason.ORDER_HOLD),
    "another fleet holds": (
        {"order": plan(order="hold"), "document": plans(fleet="barn")},
        "none",
        Reason.WRONG_FLEET,
    ),
    "nobody signed the release": ({"is_signed": False}, "none", Reason.RELEASE_UNKNOWN),
    "another release is signed": (
        {"signed": release(version=3)},
        "none",
        Reason.RELEASE_UNKNOWN,
    ),
    "active already": ({"facts": device(active=2)}, "none", Reason.ALREADY_ACTIVE),
    "an old plan": (
        {
            "document": plans(plan(), issued_s=NOW_S - DAY_S - 1),
            "signed": release(plan_age_s_max=DAY_S),
        },
        "hold",
        Reason.PLAN_TOO_OLD,
    ),
    "a plan of next year": (
        {"document": plans(plan(), issued_s=NOW_S + 300 * DAY_S)},
        "hold",
        Reason.PLAN_FROM_FUTURE,
    ),
    "a plan of next year where the clock is behind": (
        {
            "facts": device(is_clock_trusted=False),
            "document": plans(plan(), issued_s=NOW_S + 300 * DAY_S),
        },
        "install",
        Reason.INSTALL,
    ),
    "a local hold": ({"facts": device(override="hold")}, "hold", Reason.LOCAL_HOLD),
    "a local rollback": (
        {"facts": device(override="rollback")},
        "hold",
        Reason.LOCAL_ROLLBACK,
    ),
    "cloned": ({"facts": device(is_cloned=True)}, "hold", Reason.CLONED),
    "paused": ({"facts": device(paused_until_s=NOW_S + 60)}, "hold", Reason.PAUSED),
    "paused until a moment ago": (
        {"facts": device(paused_until_s=NOW_S - 1)},
        "install",
        Reason.INSTALL,
    ),
    "a person's release is under way": (
        {"facts": device(under_way=7)},
        "hold",
        Reason.LOCAL_RELEASE,
    ),
    "another rollout is under way": (
        {"facts": device(under_way=7, under_way_rollout="digits-7")},
        "install",
        Reason.INSTALL,
    ),
    "another processor": (
        {"signed": release(requires=Requires(arch=("aarch64",)))},
        "none",
        Reason.ARCHITECTURE,
    ),
    "fewer instructions": (
        {"signed": release(requires=Requires(cpu_flags=("avx2", "avx512f")))},
        "none",
        Reason.CPU_FLAGS,
    ),
    "too little memory": (
        {"signed": release(requires=Requires(memory_bytes=1 << 31))},
        "none",
        Reason.MEMORY,
    ),
    "labels of the release": (
        {"signed": release(requires=Requires(labels={"site": ("south",)}))},
        "none",
        Reason.LABELS,
    ),
    "an old agent": (
        {"signed": release(requires=Requires(agent_min="0.2.0"))},
        "none",
        Reason.AGENT_TOO_OLD,
    ),
    "an agent that is just right": (
        {"signed": release(requires=Requires(agent_min="0.1"))},
        "install",
        Reason.INSTALL,
    ),
    "below what was seen": (
        {"facts": device(min_counter=3)},
        "none",
        Reason.BELOW_MIN_COUNTER,
    ),
    "older than what is active": ({"facts": device(active=3)}, "none", Reason.DOWNGRADE),
    "a channel that the offline key does not allow": (
        {"signed": release(channels=("beta",))},
        "none",
        Reason.CHANNEL_NOT_ALLOWED,
    ),
    "enough changes for a day": (
        {
            "facts": device(changes={"digits": (NOW_S - 60, NOW_S - 30)}),
            "signed": release(changes_per_day_max=2),
        },
        "hold",
        Reason.CHANGES_PER_DAY,
    ),
    "changes of the day before": (
        {
            "facts": device(changes={"digits": (NOW_S - DAY_S, NOW_S - 30)}),
            "signed": release(changes_per_day_max=2),
        },
        "install",
        Reason.INSTALL,
    ),
    "filtered by a label": (
        {"order": plan(filter={"site": ("south",)})},
        "none",
        Reason.FILTERED_OUT,
    ),
    "filtered by a label that is not set": (
        {"order": plan(filter={"line": ("4",)})},
        "none",
        Reason.FILTERED_OUT,
    ),
    "not in the cohort": (
        {"order": plan(stages=(Stage(permyriad=0),))},
        "none",
        Reason.NOT_IN_COHORT,
    ),
    "named": (
        {"order": plan(stages=(Stage(permyriad=0),), devices=("gate-7",))},
        "install",
        Reason.INSTALL,
    ),
    "the second stage, seen a moment ago": (
        {
            "facts": device(stages_seen={0: NOW_S - 60, 1: NOW_S}),
            "order": plan(stages=(Stage(permyriad=0), Stage(permyriad=10_000)), stage=1),
            "signed": release(stage_s_min=3600),
        },
        "hold",
        Reason.STAGE_TOO_EARLY,
    ),
    "the second stage after the first one's time": (
        {
            "facts": device(stages_seen={0: NOW_S - 3600, 1: NOW_S}),
            "order": plan(stages=(Stage(permyriad=0), Stage(permyriad=10_000)), stage=1),
            "signed": release(stage_s_min=3600),
        },
        "install",
        Reason.INSTALL,
    ),
    "above the ceiling": (
        {"signed": release(first_stage_permyriad_max=0, stage_s_min=3600)},
        "hold",
        Reason.ABOVE_CEILING,
    ),
    "named, above the ceiling": (
        {
            "order": plan(devices=("gate-7",)),
            "signed": release(first_stage_permyriad_max=0, stage_s_min=3600),
        },
        "hold",
        Reason.ABOVE_CEILING,
    ),
    "above the ceiling after the first stage's time": (
        {
            "facts": device(stages_seen={0: NOW_S - 3600}),
            "signed": release(first_stage_permyriad_max=0, stage_s_min=3600),
        },
        "install",
        Reason.INSTALL,
    ),
    "remembered as bad": (
        {"facts": device(bad=frozenset({SHA}))},
        "none",
        Reason.REMEMBERED_AS_BAD,
    ),
    "remembered as bad, again": (
        {"facts": device(bad=frozenset({SHA})), "order": plan(again=True)},
        "install",
        Reason.INSTALL,
    ),
    "came to nothing before": (
        {"facts": device(tried={("digits-2", 2): 1})},
        "none",
        Reason.ALREADY_TRIED,
    ),
    "came to nothing before, the plan has changed": (
        {"facts": device(tried={("digits-2", 2): 1}), "order": plan(sequence=2)},
        "install",
        Reason.INSTALL,
    ),
    "the window is closed": (
        {"order": plan(window=Window(begin="22:00", end="04:00", zone="utc"))},
        "hold",
        Reason.WINDOW_CLOSED,
    ),
    "nobody knows the time": (
        {
            "facts": device(is_clock_trusted=False),
            "order": plan(window=Window(begin="00:00", end="23:59", zone="utc")),
        },
        "hold",
        Reason.WINDOW_UNKNOWN,
    ),
    "nobody knows the time, and there is no window": (
        {"facts": device(is_clock_trusted=False)},
        "install",
        Reason.INSTALL,
    ),
    "a zone that is not known": (
        {"order": plan(window=Window(begin="00:00", end="23:59", zone="No/Where"))},
        "hold",
        Reason.WINDOW_UNKNOWN,
    ),
    "a full disk": ({"needed_bytes": 1 << 30}, "hold", Reason.DISK),
    "a full disk, and everything is there": (
        {
            "facts": device(
                under_way=2, under_way_rollout="digits-2", is_downloaded=True, metered=True
            ),
            "needed_bytes": 1 << 30,
        },
        "install",
        Reason.INSTALL,
    ),
    "on battery": ({"facts": device(on_battery=True)}, "hold", Reason.BATTERY),
    "on a good battery": (
        {
            "facts": device(
                on_battery=True, battery_percent=80, allows_battery=True, battery_percent_min=50
            )
        },
        "install",
        Reason.INSTALL,
    ),
    "on a low battery": (
        {
            "facts": device(
                on_battery=True, battery_percent=20, allows_battery=True, battery_percent_min=50
            )
        },
        "hold",
        Reason.BATTERY,
    ),
    "metered": (
        {"facts": device(metered=True, allows_metered=False)},
        "hold",
        Reason.METERED,
    ),
    "abort what is under way": (
        {
            "order": plan(order="abort"),
            "facts": device(under_way=2, under_way_rollout="digits-2"),
        },
        "abort",
        Reason.ABORT,
    ),
    "abort a person's": (
        {"order": plan(order="abort"), "facts": device(under_way=2)},
        "none",
        Reason.NOTHING_UNDER_WAY,
    ),
    "abort what is committed": (
        {"order": plan(order="abort"), "facts": device(active=2)},
        "none",
        Reason.NOTHING_UNDER_WAY,
    ),
    "abort a download in spite of a hold": (
        {
            "order": plan(order="abort"),
            "facts": device(under_way=2, under_way_rollout="digits-2", override="hold"),
        },
        "abort",
        Reason.ABORT,
    ),
    "abort what a person holds": (
        {
            "order": plan(order="abort"),
            "facts": device(
                under_way=2, under_way_rollout="digits-2", override="hold", is_handed_over=True
            ),
        },
        "hold",
        Reason.LOCAL_HOLD,
    ),
    "revert": (
        {"order": plan(order="revert", revert_to=1), "facts": device(active=2, previous=1)},
        "revert",
        Reason.REVERT,
    ),
    "revert on one more change than allowed": (
        {
            "order": plan(order="revert", revert_to=1),
            "facts": device(active=2, previous=1, changes={"digits": (NOW_S - 9,)}),
            "signed": release(changes_per_day_max=1),
        },
        "revert",
        Reason.REVERT,
    ),
    "revert on two more changes than allowed": (
        {
            "order": plan(order="revert", revert_to=1),
            "facts": device(active=2, previous=1, changes={"digits": (NOW_S - 9, NOW_S - 5)}),
            "signed": release(changes_per_day_max=1),
        },
        "hold",
        Reason.CHANGES_PER_DAY,
    ),
    "revert in no window": (
        {
            "order": plan(
                order="revert", revert_to=1, window=Window(begin="22:00", end="23:00", zone="utc")
            ),
            "facts": device(active=2, previous=1, on_battery=True),
        },
        "revert",
        Reason.REVERT,
    ),
    "revert what is not there": (
        {"order": plan(order="revert", revert_to=1), "facts": device(active=1)},
        "none",
        Reason.NOT_ON_VERSION,
    ),
    "revert to what the runtime does not have": (
        {"order": plan(order="revert", revert_to=1), "facts": device(active=2, previous=None)},
        "none",
        Reason.NO_WAY_BACK,
    ),
    "revert what is under way": (
        {
            "order": plan(order="revert", revert_to=1),
            "facts": device(under_way=2, under_way_rollout="digits-2"),
        },
        "abort",
        Reason.ABORT,
    ),
    "revert below the lowest counter": (
        {
            "order": plan(order="revert", revert_to=1),
            "facts": device(active=2, previous=1, min_counter=2),
            "back": release(version=1, counter=1),
        },
        "none",
        Reason.BELOW_MIN_COUNTER,
    ),
    "revert to what nobody signed, with a lowest counter": (
        {
            "order": plan(order="revert", revert_to=1),
            "facts": device(active=2, previous=1, min_counter=2),
        },
        "none",
        Reason.BELOW_MIN_COUNTER,
    ),
    "revert against a local hold": (
        {
            "order": plan(order="revert", revert_to=1),
            "facts": device(active=2, previous=1, override="hold"),
        },
        "hold",
        Reason.LOCAL_HOLD,
    ),
    "revert by an old plan": (
        {
            "order": plan(order="revert", revert_to=1),
            "facts": device(active=2, previous=1),
            "signed": release(plan_age_s_max=10),
        },
        "hold",
        Reason.PLAN_TOO_OLD,
    ),
}
