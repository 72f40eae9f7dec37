"""The daemon: its doors, its limits, its log, and everything together."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_runtime.settings.engine import Batching, Cache, Engine
from edge_runtime.settings.group import SECONDS_MAX, Settings
from edge_runtime.settings.journal import Journal
from edge_runtime.settings.model import Model
from edge_runtime.settings.release import Release


class Sockets(Settings, frozen=True):
    """The Unix sockets, in ``[sockets]``."""

    runtime: Annotated[
        str,
        Meta(
            description="Data socket. Empty: `runtime.sock` in `$RUNTIME_DIRECTORY`, else in "
            "`$XDG_RUNTIME_DIR/edge-runtime`, else in a private folder under the temporary one."
        ),
    ] = ""
    admin: Annotated[
        str, Meta(description="Admin socket. Empty: `admin.sock` beside the data socket.")
    ] = ""
    group: Annotated[
        str, Meta(description="Group that owns the data socket; empty: the daemon's own group.")
    ] = ""
    admin_group: Annotated[
        str, Meta(description="Group that owns the admin socket; empty: the daemon's own group.")
    ] = ""


class Http(Settings, frozen=True):
    """The TCP door, in ``[http]``. Closed unless an address is given."""

    listen: Annotated[
        str,
        Meta(
            description="HOST:PORT on loopback, for example `127.0.0.1:8000`; empty: no TCP. "
            "Port 0 takes a free port. Addresses beyond loopback are refused."
        ),
    ] = ""


class Limits(Settings, frozen=True):
    """What a caller may ask of the daemon, in ``[limits]``."""

    header_bytes: Annotated[
        int, Meta(ge=256, description="Request line and headers together, in bytes.")
    ] = 16_384
    target_bytes: Annotated[int, Meta(ge=64, description="Request target (URL), in bytes.")] = 4_096
    body_bytes: Annotated[
        int, Meta(ge=0, description="Body of one request, in bytes (Triton's default is the same).")
    ] = 67_108_864
    body_bytes_in_flight: Annotated[
        int,
        Meta(ge=0, description="Bodies over 64 KiB of all unanswered requests together, in bytes."),
    ] = 268_435_456
    chunks: Annotated[
        int, Meta(ge=1, description="Chunks of one chunked body (Triton's limit is the same).")
    ] = 65_536
    json_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="JSON part of one request, in bytes. Decoding it holds up all others, "
            "about 50 ms a megabyte; binary tensors cost nothing of the kind.",
        ),
    ] = 16_777_216
    json_depth: Annotated[
        int, Meta(ge=1, le=64, description="Nesting of a tensor's JSON `data`.")
    ] = 16
    connections: Annotated[
        int, Meta(ge=1, description="Open connections on each listening socket; more get 503.")
    ] = 512
    connections_per_user: Annotated[
        int,
        Meta(
            ge=0,
            description="Open connections of one user on each Unix socket while nobody else has "
            "any; others who have many leave fewer. 0: three quarters of `connections`.",
        ),
    ] = 0
    pipeline_depth: Annotated[
        int,
        Meta(ge=1, description="Unanswered requests on one connection; more wait unread."),
    ] = 64
    requests_per_user: Annotated[
        int,
        Meta(
            ge=1,
            description="Unanswered predictions of one user (all callers over TCP together count "
            "as one); more are answered 503.",
        ),
    ] = 1024
    idle_timeout_s: Annotated[
        float,
        Meta(
            gt=0, le=SECONDS_MAX, description="A connection without a request is closed after this."
        ),
    ] = 75.0
    header_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=SECONDS_MAX,
            description="Time from a request's first byte to its last header byte.",
        ),
    ] = 10.0
    body_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=SECONDS_MAX,
            description="Grace for a body, on top of the time that `body_rate_bytes_per_s` allows.",
        ),
    ] = 10.0
    body_rate_bytes_per_s: Annotated[
        int, Meta(ge=1, description="Slowest average rate at which bytes may come and go.")
    ] = 16_384
    answer_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=SECONDS_MAX,
            description="Grace for a client to read, on top of what the rate above allows.",
        ),
    ] = 10.0
    drain_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=SECONDS_MAX,
            description="On stop, time for requests in flight before they are cut.",
        ),
    ] = 20.0


class Log(Settings, frozen=True):
    """The log on standard error, in ``[log]``."""

    format: Annotated[
        Literal["text", "json"], Meta(description="`text` for people, `json` for machines.")
    ] = "text"
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least level written.")
    ] = "info"
    requests: Annotated[
        Literal["off", "failures", "all"],
        Meta(
            description="Which requests get a line of their own: none, those answered with a "
            "status of 400 or above, or all. Never with tensors or headers in it."
        ),
    ] = "failures"
    failures_per_minute: Annotated[
        int,
        Meta(
            ge=1,
            description="Most lines in a minute for failed requests of one status, with "
            '`requests = "failures"`; how many were left out is told.',
        ),
    ] = 30


class Config(Settings, frozen=True):
    """Everything the daemon can be told."""

    models: Annotated[
        dict[str, Model], Meta(description="Models by name, as `[models.NAME]` tables.")
    ] = {}  # noqa: RUF012 - msgspec copies it
    repositories: Annotated[
        tuple[str, ...],
        Meta(
            description="Model repository folders (`<name>/<version>/model.onnx`). In a file, "
            "relative ones start at the file's folder, elsewhere at the working directory."
        ),
    ] = ()
    default_model: Annotated[
        str,
        Meta(
            description="Model of `POST /predict` and `GET /model-info` where a request names none "
            "and several are served. Empty: such a request is refused."
        ),
    ] = ""
    state_dir: Annotated[
        str,
        Meta(
            description="State directory, for kept answers and optimised graphs. Empty: "
            "`$STATE_DIRECTORY`, else `$XDG_STATE_HOME/edge-runtime`, else "
            "`~/.local/state/edge-runtime`."
        ),
    ] = ""
    sockets: Sockets = Sockets()
    http: Http = Http()
    engine: Engine = Engine()
    batching: Batching = Batching()
    cache: Cache = Cache()
    journal: Journal = Journal()
    release: Release = Release()
    limits: Limits = Limits()
    log: Log = Log()


def needs_restart(before: Config, after: Config) -> bool:
    """Tell whether a configuration changes what is only taken at the start."""
    return _taken_at_start(before) != _taken_at_start(after)


def _taken_at_start(settings: Config) -> tuple[object, ...]:
    return (
        settings.sockets,
        settings.http,
        msgspec.structs.replace(settings.engine, memory_budget_bytes=0),  # taken at once
        settings.batching,
        settings.cache,
        settings.journal,
        settings.state_dir,
    )
