"""The JSON bodies of releases on the admin socket, as structs.

What is asked is checked strictly: an order with a misspelt field is refused, not half obeyed. What
is answered may get more fields in later versions.

Times that end in ``_s`` and are named for a moment (``created_s``) are seconds since the epoch by
the device's clock, for people; durations (``remaining_s``) count awake time.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

REASON_CHARS_MAX: Final = 200
PATH_CHARS_MAX: Final = 4096
ROLLOUT: Final = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$(?!\n)"
"""A rollout's name, or none; Python's ``$`` would let a newline follow."""
HISTORY_DEFAULT: Final = 50
HISTORY_MAX: Final = 1000
"""Rows of history in one answer; older ones are asked for with ``before``."""

COMMITTED: Final = "committed"
STAGED: Final = "staged"
ROLLED_BACK: Final = "rolled-back"
ENDINGS: Final = frozenset({COMMITTED, ROLLED_BACK, "failed"})
"""States that a release does not leave by itself."""

Mode = Literal["automatic", "manual"]
Reason = Annotated[str, Meta(max_length=REASON_CHARS_MAX)]
Rollout = Annotated[
    str,
    Meta(
        pattern=ROLLOUT,
        description="Name of the fleet's rollout that orders it, which respects holds; empty: a "
        "person does.",
    ),
]
Again = Annotated[
    bool, Meta(description="Take it even if this very bundle was rolled back here before.")
]
WaitsForPerson = Annotated[
    Mode, Meta(description="`manual`: after the self-test, wait until somebody promotes it.")
]
Percent = Annotated[int, Meta(ge=1, le=100)]


class StageOptions(Struct, kw_only=True, forbid_unknown_fields=True):
    """What can be asked of a release, however its bundle comes."""

    mode: WaitsForPerson = "automatic"
    again: Again = False
    rollout: Rollout = ""


class StageRequest(StageOptions, kw_only=True, forbid_unknown_fields=True):
    """``POST /admin/releases``."""

    path: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=PATH_CHARS_MAX,
            description="Absolute path of a bundle's folder or tar; the daemon opens it and copies "
            "what it reads.",
        ),
    ]


class StageQuery(StageOptions, kw_only=True, forbid_unknown_fields=True):
    """The query of ``POST /admin/bundles``, whose body is the tar."""


class HistoryQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The query of ``GET /admin/history`` and of one model's."""

    limit: Annotated[int, Meta(ge=1, le=HISTORY_MAX, description="Most rows.")] = HISTORY_DEFAULT
    before: Annotated[
        int, Meta(ge=0, description="Only rows with a smaller id; 0: from the newest on.")
    ] = 0


class ReasonRequest(Struct, forbid_unknown_fields=True):
    """``POST /admin/releases/NAME/promote`` and its neighbours; the body may be left out."""

    reason: Annotated[Reason, Meta(description="Why, for the history.")] = ""


class AbortRequest(ReasonRequest, kw_only=True, forbid_unknown_fields=True):
    """``POST /admin/releases/NAME/abort``; the body may be left out."""

    rollout: Annotated[
        str,
        Meta(
            pattern=ROLLOUT,
            description="Name of the fleet's rollout that is aborted: a release that a person or "
            "another rollout ordered goes on (409). Empty: a person aborts.",
        ),
    ] = ""


class RollbackRequest(ReasonRequest, kw_only=True, forbid_unknown_fields=True):
    """``POST /admin/releases/NAME/rollback``; the body may be left out."""

    to: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Version that is to answer: one that was committed here and is in the "
            "store (409 if not, or with a release under way); null: the previous one."
        ),
    ] = None
    disable: Annotated[
        bool, Meta(description="Let nothing answer: the model is disabled (409 as with `to`).")
    ] = False


class RevertRequest(ReasonRequest, kw_only=True, forbid_unknown_fields=True):
    """``POST /admin/releases/NAME/revert``; the body may be left out."""

    rollout: Rollout = ""
    to: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Version that must be the previous one (409 if it is not); null: whichever "
            "it is."
        ),
    ] = None


class TrafficRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /admin/models/NAME/traffic``."""

    weights: Annotated[
        dict[str, Percent],
        Meta(
            max_length=16,
            description="Percent of the traffic by version, 100 together; empty: the active "
            "version answers everything.",
        ),
    ]
    reason: Reason = ""


class KeyringQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The query of ``POST /admin/keyring``, whose body is the keyring file."""

    force: Annotated[
        bool,
        Meta(
            description="Take it although too few of its keys signed a version that is active, "
            "previous or under way: without, that is 409."
        ),
    ] = False


class Release(Struct, kw_only=True):
    """One version's passage through this device."""

    id: int
    model: str
    version: int
    state: Annotated[
        str,
        Meta(
            description="installed, self-testing, staged, shadowing, canary, probation, committed, "
            "rolling-back, rolled-back or failed."
        ),
    ]
    mode: str = "automatic"
    source: Annotated[str, Meta(description="Who ordered it.")] = ""
    manifest_sha256: str = ""
    digest: Annotated[str, Meta(description="Of the chosen variant; empty until self-tested.")] = ""
    variant: str = ""
    variant_reason: str = ""
    active: Annotated[
        int | None, Meta(description="The version it is compared with; null: it is the first.")
    ] = None
    percent: Annotated[int, Meta(description="Share of the traffic while it is under way.")] = 0
    weights: Annotated[tuple[int, ...], Meta(description="Steps of the canary, in percent.")] = ()
    stage: Annotated[int, Meta(description="Which of the weights it is at, from 0.")] = 0
    method: Annotated[
        str,
        Meta(
            description="How it got the traffic: availability-preserving (the previous version "
            "stays in memory) or resource-preserving (it left first)."
        ),
    ] = ""
    remaining_s: Annotated[
        float | None,
        Meta(description="Awake seconds that the step may still take; null: no deadline."),
    ] = None
    numbers: Annotated[
        dict[str, Any], Meta(description="What the step has measured so far, by name.")
    ] = {}
    judged: Annotated[
        list[str], Meta(description="What the evidence says so far, in sentences.")
    ] = []
    waits_for: Annotated[
        str, Meta(description="Why it does not go on by itself now; empty: it does.")
    ] = ""
    crashes: Annotated[
        int,
        Meta(
            description="Times the daemon died under it in canary and probation; of a committed "
            "version: in a row, soon after its start."
        ),
    ] = 0
    cause: Annotated[str, Meta(description="Why it was rolled back, in one frozen word.")] = ""
    reason: Annotated[str, Meta(description="The same for people.")] = ""
    proof: Annotated[
        str,
        Meta(
            description="Of a committed version: `proven`, or `unproven` if there was too little "
            "evidence or somebody decided without it; `reason` says what was lacking. Empty: it is "
            "not committed, or that is not known."
        ),
    ] = ""
    note: Annotated[
        str,
        Meta(
            description="What an order to stage did where it began no release: it renewed the "
            "signature of the version that answers. Empty: it began this one."
        ),
    ] = ""
    created_s: float = 0.0
    updated_s: float = 0.0


class Override(Struct, kw_only=True):
    """A local decision that orders from the fleet respect until it is cleared."""

    kind: Literal["hold", "rollback"]
    reason: str = ""
    source: str = ""
    created_s: float = 0.0


class BadRelease(Struct, kw_only=True):
    """A version that is not taken again unless an order says ``again``."""

    version: int
    manifest_sha256: str
    digest: Annotated[
        str,
        Meta(
            description="Of the files that ran here; the same files are refused under any number. "
            "Empty: its self-test chose none."
        ),
    ] = ""
    cause: str = ""
    reason: str = ""


class ModelReleases(Struct, kw_only=True):
    """What releases did to one model."""

    model: str
    active: Annotated[
        int | None,
        Meta(description="Version that a release made active; null: the configuration decides."),
    ] = None
    active_source: Annotated[
        str, Meta(description="`store`: a release; `seed`: the configuration or a folder.")
    ] = ""
    running_digest: Annotated[
        str, Meta(description="Of what really answers now; empty: nothing is in memory.")
    ] = ""
    active_problem: Annotated[
        str,
        Meta(
            description="Why the active version does not answer, or could not be loaded again (a "
            "damaged file, a key that is gone); empty: nothing is known to be wrong."
        ),
    ] = ""
    previous: Annotated[int | None, Meta(description="Version that a rollback leads to.")] = None
    disabled: Annotated[
        str, Meta(description="Why the model answers 503 to everybody; empty: it does not.")
    ] = ""
    traffic: Annotated[dict[str, int], Meta(description="The split that stays, in percent.")] = {}
    override: Override | None = None
    installed: Annotated[list[int], Meta(description="Versions in the store.")] = []
    releases: Annotated[
        list[Release], Meta(description="Newest first: those under way, and the last that ended.")
    ] = []
    bad: Annotated[
        list[BadRelease],
        Meta(description="What is remembered as bad on this device, the newest 100 at most."),
    ] = []


class Trust(Struct, kw_only=True):
    """What is believed at the door."""

    managed: Annotated[bool, Meta(description="Whether only signed bundles are taken.")] = False
    keyring_version: int = 0
    keys: list[str] = []
    threshold: int = 0
    orphaned: Annotated[
        list[str],
        Meta(
            description="After a forced `POST /admin/keyring`: the versions that it cannot load "
            "any more, with what they are. Else empty."
        ),
    ] = []


class Releases(Struct, kw_only=True):
    """``GET /admin/releases``."""

    trust: Trust = field(default_factory=Trust)
    problem: Annotated[
        str, Meta(description="Why nothing can be released now (a full disk, ...); empty: nothing.")
    ] = ""
    models: list[ModelReleases] = []


class Transition(Struct, kw_only=True):
    """One row of the history, which is never changed."""

    id: int
    release_id: int
    model: str
    version: int
    from_state: str
    to_state: str
    event: str
    cause: str = ""
    reason: str = ""
    digest: Annotated[str, Meta(description="Of what really answered after it.")] = ""
    numbers: dict[str, Any] = {}
    wall_s: float = 0.0
    awake_s: float = 0.0
    boot_id: str = ""


class History(Struct, kw_only=True):
    """``GET /admin/history``, newest first."""

    transitions: list[Transition]


class Explanation(Struct, kw_only=True):
    """``GET /admin/releases/NAME/explain``."""

    model: str
    sentences: list[str]
