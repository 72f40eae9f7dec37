"""Settings of releases: trust at the door, the trial, and how long each step may take."""

from typing import Annotated, Literal

from msgspec import Meta

from edge_runtime.settings.group import SECONDS_MAX, Settings

_Step = Annotated[float, Meta(gt=0, le=SECONDS_MAX)]


class Release(Settings, frozen=True):
    """How releases are judged on this device, in ``[release]``."""

    managed: Annotated[
        bool,
        Meta(
            description="Take only bundles whose manifest is signed by keys of the keyring. "
            "Without it anybody who may open the admin socket decides what runs, and `status` "
            "says so."
        ),
    ] = False
    keyring: Annotated[
        str,
        Meta(
            description="File of the first keyring, for `managed`; newer ones are accepted when "
            "enough keys of the present one signed them."
        ),
    ] = ""
    admins: Annotated[
        tuple[str, ...],
        Meta(
            description="Who may change what is served through the admin socket: `user:NAME`, "
            "`uid:NUMBER`, `group:NAME` or `gid:NUMBER`. Empty: whoever may open it."
        ),
    ] = ()
    fleet: Annotated[
        tuple[str, ...],
        Meta(
            description="Who always counts as the fleet, whatever a request says, in the same "
            "words: the agent's user. It may stage, revert and abort what the fleet staged, and "
            "holds keep it out; it may decide nothing else. Empty: a request that names a "
            "`rollout` is the fleet's."
        ),
    ] = ()
    reserve_bytes: Annotated[
        int, Meta(ge=0, description="Disk space that an installation leaves free, in bytes.")
    ] = 67_108_864
    bundle_bytes: Annotated[
        int, Meta(ge=1, description="Largest bundle that is installed, in bytes.")
    ] = 4_294_967_296
    self_test_s: Annotated[
        _Step, Meta(description="Most time of the self-test, in seconds awake.")
    ] = 120.0
    self_test_cpu_s: Annotated[
        _Step, Meta(description="Most CPU time of the self-test, in seconds.")
    ] = 120.0
    trial_memory_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Most resident memory of the process that tries a candidate out; 0: half "
            "of the device's memory.",
        ),
    ] = 0
    shadow_s: Annotated[
        float,
        Meta(
            ge=0,
            le=SECONDS_MAX,
            description="Most time in the shadow of the active version, in seconds awake; "
            "0: no shadow.",
        ),
    ] = 600.0
    shadow_cpu_share: Annotated[
        float,
        Meta(gt=0, le=1, description="Share of one CPU that comparisons may take."),
    ] = 0.1
    weights: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=100)], ...],
        Meta(description="Percent of the traffic that the canary gets, step by step."),
    ] = (5, 25, 50, 100)
    canary_s: Annotated[
        _Step, Meta(description="Most time of one canary step, in seconds awake.")
    ] = 300.0
    probation_s: Annotated[
        float,
        Meta(
            ge=0,
            le=SECONDS_MAX,
            description="Time for which a version that answers everything is still watched before "
            "it is committed, in seconds awake.",
        ),
    ] = 600.0
    block_s: Annotated[
        _Step,
        Meta(
            description="Length of a time block, in seconds: requests within one count once, "
            "because they are much alike."
        ),
    ] = 1.0
    blocks_min: Annotated[
        int, Meta(ge=4, le=4096, description="Blocks needed before a step can pass.")
    ] = 16
    on_inconclusive: Annotated[
        Literal["proceed", "roll-back"],
        Meta(
            description="What happens when a step's time is over and there was too little traffic "
            "to tell."
        ),
    ] = "proceed"
    error_rate_max: Annotated[
        float,
        Meta(
            gt=0,
            lt=1,
            description="Share of requests on which a version may fail while there is no other "
            "version to compare it with; one that surely fails more often is rolled back.",
        ),
    ] = 0.1
    alpha: Annotated[
        float,
        Meta(
            gt=0,
            le=0.5,
            description="Chance of one step to reject a version that is as good as the active one; "
            "shared by all its looks and measures.",
        ),
    ] = 0.05
    crashes_max: Annotated[
        int,
        Meta(
            ge=1,
            description="Times the daemon may die while a version is in canary or probation, and "
            "in memory, before it is rolled back; a power cut does not count.",
        ),
    ] = 1
    committed_crashes_max: Annotated[
        int,
        Meta(
            ge=0,
            description="Times in a row that the daemon may die soon after its start (see "
            "`crash_window_s`) with a committed version in memory before that version is rolled "
            "back; of several, the one that was committed last. 0: never.",
        ),
    ] = 3
    crash_window_s: Annotated[
        _Step,
        Meta(
            description="A death of the daemon counts against a committed version if the daemon "
            "was started this many seconds before, or less; deaths that lie further apart than "
            "this are not in a row. In seconds awake."
        ),
    ] = 600.0
    crash_suspect_s: Annotated[
        _Step,
        Meta(
            description="For how long after its commit a version is blamed for deaths of the "
            "daemon, in seconds awake."
        ),
    ] = 604_800.0
    keep_versions: Annotated[
        int,
        Meta(
            ge=0,
            description="Versions kept on disk besides the active, the previous and those under "
            "way.",
        ),
    ] = 1


class Thresholds(Settings, frozen=True):
    """What a release of one model must reach, in ``[models.NAME.release]``.

    What is set here wins over the bundle's ``acceptance.comparison``.
    """

    agreement_floor: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Least share of comparisons whose outputs agree; not set: the bundle's."),
    ] = None
    cosine_floor: Annotated[
        Annotated[float, Meta(ge=-1, le=1)] | None,
        Meta(description="Outputs this similar (cosine) agree; not set: the bundle's."),
    ] = None
    latency_ratio_max: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Most time of a run, over the active version's; not set: the bundle's."),
    ] = None
    error_rate_max: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(
            description="Share of requests on which it may fail while there is no other version to "
            "compare it with; not set: `release.error_rate_max`."
        ),
    ] = None
