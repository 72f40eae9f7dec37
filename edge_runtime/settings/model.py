"""Settings of one model."""

from typing import Annotated, Literal

from msgspec import Meta

from edge_runtime.settings.group import SECONDS_MAX, Settings
from edge_runtime.settings.journal import Kept
from edge_runtime.settings.release import Thresholds


class VersionPolicy(Settings, frozen=True):
    """Which versions of a repository model are served; at most one field may be set."""

    latest: Annotated[int, Meta(ge=1, description="Serve the n highest versions.")] | None = None
    all: Annotated[bool, Meta(description="Serve every version found.")] = False
    specific: Annotated[tuple[int, ...], Meta(description="Serve exactly these versions.")] = ()


class Model(Settings, frozen=True):
    """Settings of one model, in ``[models.NAME]``."""

    path: Annotated[
        str,
        Meta(
            description="Model file or bundle directory; empty: found in a repository. In a file, "
            "a relative path starts at the file's folder, elsewhere at the working directory."
        ),
    ] = ""
    version_policy: Annotated[
        VersionPolicy,
        Meta(description="Versions to serve from a repository; the latest one by default."),
    ] = VersionPolicy()
    intra_op_threads: Annotated[
        int,
        Meta(ge=0, description="Threads of one run; 0 takes `engine.intra_op_threads`."),
    ] = 0
    callers: Annotated[
        tuple[str, ...],
        Meta(
            description="Who may ask for predictions: `user:NAME`, `uid:NUMBER`, `group:NAME` or "
            "`gid:NUMBER`, as the kernel knows the caller on the Unix socket; callers over TCP "
            "are nobody. Empty: whoever may open the socket."
        ),
    ] = ()
    max_rows: Annotated[
        int,
        Meta(
            ge=0,
            description="Most rows of a shared run; 1: runs are never shared; 0: the bundle's "
            "`batching.max_rows`, else `batching.max_rows`.",
        ),
    ] = 0
    load: Annotated[
        Literal["always", "start", "request"],
        Meta(
            description="When it is loaded. `start`: at the start if there is room, else when a "
            "request asks for it. `request`: when a request asks for it. `always`: at the start, "
            "and it never leaves for another model. To make room, models of `request` leave "
            "first, then those of `start`, each the least recently used first."
        ),
    ] = "start"
    idle_unload_s: Annotated[
        float,
        Meta(
            ge=0,
            le=SECONDS_MAX,
            description="Unload a version that was not asked for this many seconds; the next "
            "request loads it again. 0: never.",
        ),
    ] = 0.0
    aliases: Annotated[
        dict[str, int],
        Meta(
            description="Names for versions, such as `{ stable = 2 }`, to be used where a version "
            "number stands in a request. `latest` (the highest version that can answer) and "
            "`stable` (if not given: what answers when no version is named) are always there."
        ),
    ] = {}  # noqa: RUF012 - msgspec copies it
    cache_ttl_s: Annotated[
        float,
        Meta(
            ge=0,
            le=SECONDS_MAX,
            description="Answers are kept and given again for this many seconds; 0: never. Only "
            "for models that give equal inputs equal outputs.",
        ),
    ] = 0.0
    cache_max_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Most that the kept answers of this model take, in bytes: once in memory "
            "and once on disk.",
        ),
    ] = 67_108_864
    cache_scope: Annotated[
        Literal["shared", "uid"],
        Meta(
            description="Who gets a kept answer: every caller, or only the Unix user who asked "
            "first. `uid` keeps one user from learning by the time it takes what another asked; "
            "callers over TCP have no user, and their answers are not kept."
        ),
    ] = "shared"
    cache_stale_s: Annotated[
        float,
        Meta(
            ge=0,
            le=SECONDS_MAX,
            description="While the model cannot run, kept answers are given for this many seconds "
            "beyond `cache_ttl_s`, marked `stale`; 0: none are given while it cannot run.",
        ),
    ] = 0.0
    journal: Annotated[
        Kept, Meta(description="What is kept of its predictions, for retraining.")
    ] = Kept()
    release: Annotated[
        Thresholds, Meta(description="What a new version must reach beside the active one.")
    ] = Thresholds()
