"""Every setting and every limit of the daemon, with its unit and its reason.

``docs/configuration.md`` is generated from these structs; ``config`` reads them from somewhere.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

SECONDS_MAX: Final = 366 * 86_400  # a year; infinity and slips are above it


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """A group of settings; an unknown key is an error."""


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


class Engine(Settings, frozen=True):
    """How models run, in ``[engine]``."""

    providers: Annotated[
        tuple[str, ...],
        Meta(
            description="Execution providers in order of preference; those that are not "
            "installed are left out and reported. The CPU provider always ends the list."
        ),
    ] = ("CPUExecutionProvider",)
    intra_op_threads: Annotated[
        int,
        Meta(
            ge=0,
            description="Threads of one run; 0: the CPUs this process may use "
            "(affinity mask and cgroup quota).",
        ),
    ] = 0
    pool_threads: Annotated[
        int,
        Meta(
            ge=0,
            description="Runs that may go on at once beside the event loop; 0: as many as CPUs.",
        ),
    ] = 0
    inline_limit_s: Annotated[
        float,
        Meta(
            ge=0,
            le=SECONDS_MAX,
            description="Runs expected to be shorter than this many seconds execute on the "
            "event loop's own thread; handing over to the pool costs about 0.1 ms.",
        ),
    ] = 0.0005
    queue_depth: Annotated[
        int, Meta(ge=1, description="Runs that may wait for the pool; more are answered 503.")
    ] = 256
    memory_arena: Annotated[
        bool,
        Meta(
            description="ONNX Runtime's CPU arena. With several clients it needs less memory than "
            "the system's allocator at the same speed (docs/performance.md), but it keeps what "
            "the largest request took until the model is unloaded: switch it off where the sizes "
            "of requests vary much."
        ),
    ] = True


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
    pipeline_depth: Annotated[
        int,
        Meta(ge=1, description="Unanswered requests on one connection; more wait unread."),
    ] = 64
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


class Config(Settings, frozen=True):
    """Everything the daemon can be told."""

    models: Annotated[
        dict[str, Model], Meta(description="Models by name, as `[models.NAME]` tables.")
    ] = {}
    repositories: Annotated[
        tuple[str, ...],
        Meta(
            description="Model repository folders (`<name>/<version>/model.onnx`). In a file, "
            "relative ones start at the file's folder, elsewhere at the working directory."
        ),
    ] = ()
    state_dir: Annotated[
        str,
        Meta(
            description="State directory (nothing is kept there yet). Empty: "
            "`$STATE_DIRECTORY`, else `$XDG_STATE_HOME/edge-runtime`, else "
            "`~/.local/state/edge-runtime`."
        ),
    ] = ""
    sockets: Sockets = Sockets()
    http: Http = Http()
    engine: Engine = Engine()
    limits: Limits = Limits()
    log: Log = Log()
