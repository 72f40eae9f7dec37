"""The arguments of every command, in one place and without importing what they do."""

import argparse
from typing import Any

from edge_runtime.cli import bundle_arguments, release_arguments
from edge_runtime.cli.argument_types import (
    admin_options,
    command,
    not_empty,
    not_negative,
    positive,
    positive_seconds,
)
from edge_runtime.locations import ADMIN_SOCKET_NAME, RUNTIME_SOCKET_NAME

_Commands = Any  # argparse keeps the type of its subparsers to itself


def add_all(commands: _Commands) -> None:
    """Add every command to the parser."""
    _add_serve(commands)
    _add_config(commands)
    _add_predict(commands)
    _add_models(commands)
    _add_status(commands)
    _add_top(commands)
    _add_bench(commands)
    _add_cache(commands)
    _add_journal(commands)
    bundle_arguments.add(commands)
    release_arguments.add(commands)


def _add_serve(commands: _Commands) -> None:
    parser = command(
        commands,
        "serve",
        "Serve models until SIGTERM.",
        "examples:\n"
        "  edge-runtime serve digits=digits-int8.onnx\n"
        "  edge-runtime serve ./models --http 127.0.0.1:8000\n"
        "  edge-runtime serve --config /etc/edge-runtime.toml --log-format json\n\n"
        "A MODEL is a model file, a bundle directory (manifest.json), or a model repository\n"
        "(<name>/<version>/model.onnx). SIGHUP reads the configuration and the folders again.",
    )
    parser.add_argument("models", nargs="*", metavar="[NAME=]MODEL", help="what to serve")
    parser.add_argument(
        "--socket",
        metavar="P",
        type=not_empty,
        help=f"data socket (default: {RUNTIME_SOCKET_NAME})",
    )
    parser.add_argument(
        "--admin-socket",
        metavar="P",
        type=not_empty,
        help=f"admin socket (default: {ADMIN_SOCKET_NAME} beside it)",
    )
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        type=not_empty,
        help="also listen on loopback TCP, for example 127.0.0.1:8000",
    )
    parser.add_argument("--state-dir", metavar="D", type=not_empty, help="state directory")
    parser.add_argument("--config", metavar="F.toml", type=not_empty, help="configuration file")
    parser.add_argument("--log-format", choices=("text", "json"), help="format of the log")


def _add_config(commands: _Commands) -> None:
    parser = command(
        commands,
        "config",
        "Print the resolved configuration.",
        "examples:\n"
        "  edge-runtime config --config /etc/edge-runtime.toml\n"
        "  EDGE_RUNTIME__LIMITS__BODY_BYTES=1000000 edge-runtime config --json",
    )
    parser.add_argument("--config", metavar="F.toml", type=not_empty, help="configuration file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of TOML")


def _client_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket",
        metavar="P",
        type=not_empty,
        help="the daemon's data socket, or http://HOST:PORT "
        f"(default: $EDGE_RUNTIME_SOCKET, else this user's {RUNTIME_SOCKET_NAME})",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive_seconds,
        help="seconds until a request is given up (default: 30)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON on standard output")


def _input_option(parser: Any) -> None:  # noqa: ANN401 - a parser or a group of its options
    parser.add_argument(
        "--input",
        action="append",
        metavar="NAME=VALUE",
        help="an input: @FILE.npy, @FILE.npz:KEY, or JSON such as [1,2,3], nested or flat; may be "
        "repeated",
    )


def _add_predict(commands: _Commands) -> None:
    parser = command(
        commands,
        "predict",
        "Ask the daemon for one prediction.",
        "examples:\n"
        "  edge-runtime predict digits --input image=@image.npy\n"
        "  edge-runtime predict digits --input image=@test.npz:image --output scores --class 3\n"
        "  edge-runtime predict house --input 'features=[3, 120.5, 1]' --json\n"
        "  edge-runtime predict digits --request request.json\n"
        "  generate | edge-runtime predict digits --request - --json\n\n"
        "Values are converted to the model's datatype where that loses nothing. If the model's\n"
        "first axis varies and a value has one axis less, it is taken as one row of a batch. A\n"
        "flat JSON list gets the model's shape where that can be only one.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the model")
    parser.add_argument("--version", metavar="V", default="", help="version (default: any)")
    what = parser.add_mutually_exclusive_group(required=True)
    _input_option(what)
    what.add_argument(
        "--request", metavar="F|-", help="send this JSON request as it is; -: standard input"
    )
    parser.add_argument(
        "--output",
        action="append",
        metavar="NAME",
        help="an output to give back (default: all); may be repeated",
    )
    parser.add_argument(
        "--class",
        dest="classes",
        type=positive,
        default=0,
        metavar="N",
        help="show the N highest values of each output, with index and label (default outputs: "
        "those with float values)",
    )
    _client_options(parser)


def _add_models(commands: _Commands) -> None:
    parser = command(
        commands,
        "models",
        "List the daemon's models, what they take and what they give.",
        "examples:\n"
        "  edge-runtime models\n"
        "  edge-runtime models --json | jq -r '.[] | select(.state == \"READY\") | .name'",
    )
    _client_options(parser)


def _add_status(commands: _Commands) -> None:
    parser = command(
        commands,
        "status",
        "Tell whether the daemon is live and ready, and how its models do.",
        "examples:\n"
        "  edge-runtime status\n"
        "  edge-runtime status --socket http://127.0.0.1:8000 --json\n\n"
        "Exit code 0 if the daemon is live and ready, else 1.",
    )
    _client_options(parser)


def _add_top(commands: _Commands) -> None:
    parser = command(
        commands,
        "top",
        "Show what the daemon does, live: the busiest models first.",
        "examples:\n"
        "  edge-runtime top\n"
        "  edge-runtime top -n 5 --socket http://127.0.0.1:8000\n"
        "  edge-runtime top --once --json | jq '.versions[] | {model, requests_per_s}'\n\n"
        "Each line is one version of a model, over the last interval: answered and failed\n"
        "requests a second, the time in which half (P50) and 99 of 100 (P99) were answered, mean\n"
        "time in the queue, rows of a run, answers from the cache, memory, requests under way.\n"
        "P50 and P99 are estimates: only buckets that double in size are counted. ASLEEP is not\n"
        "in memory, and is loaded when asked. CPU is of one core.\n\n"
        "Ctrl-C ends it with 130. If the daemon goes away it is looked for until it is back.",
    )
    parser.add_argument(
        "-n",
        "--interval",
        metavar="S",
        type=positive_seconds,
        default=2.0,
        help="seconds between two looks (default: 2)",
    )
    parser.add_argument("--once", action="store_true", help="look over one interval, then end")
    _client_options(parser)


def _add_bench(commands: _Commands) -> None:
    parser = command(
        commands,
        "bench",
        "Measure how long the daemon takes to answer, and how much it answers.",
        "examples:\n"
        "  edge-runtime bench digits\n"
        "  edge-runtime bench digits --duration 10 --concurrency 4\n"
        "  edge-runtime bench digits --input image=@image.npy --requests 5000 --json\n\n"
        "Without --input the inputs are random, the same in every run, and varying axes have\n"
        "size 1. Times go from a request's first byte to its answer's last, this client's work\n"
        "included, which shares the CPUs with the daemon. Ctrl-C prints what was measured so far\n"
        "and exits with 130. The exit code is 1 if a request failed.",
    )
    parser.add_argument("name", metavar="NAME", help="name of the model")
    parser.add_argument("--version", metavar="V", default="", help="version (default: any)")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--requests", type=positive, metavar="N", help="requests to measure (default: 1000)"
    )
    amount.add_argument(
        "--duration", type=positive_seconds, metavar="S", help="seconds to measure instead"
    )
    parser.add_argument(
        "--concurrency",
        type=positive,
        default=1,
        metavar="C",
        help="requests under way at once (default: 1)",
    )
    parser.add_argument(
        "--warmup",
        type=not_negative,
        default=20,
        metavar="N",
        help="requests before the measurement (default: 20)",
    )
    _input_option(parser)
    parser.add_argument(
        "--batch",
        type=positive,
        default=1,
        metavar="N",
        help="rows of random inputs whose first axis varies (default: 1)",
    )
    parser.add_argument(
        "--json-body", action="store_true", help="send tensors as JSON instead of raw bytes"
    )
    _client_options(parser)


def _add_cache(commands: _Commands) -> None:
    parser = command(
        commands,
        "cache",
        "Look into the prediction cache, clear it, or export what it keeps.",
        "examples:\n"
        "  edge-runtime cache stats\n"
        "  edge-runtime cache stats --state-dir /var/lib/edge-runtime --json\n"
        "  edge-runtime cache clear --model digits\n"
        "  edge-runtime cache export --model digits --csv -o digits.csv\n"
        "  edge-runtime cache export --with-outputs | jq -c '[.created, .outputs.scores.data]'\n\n"
        "It works with the daemon running or not. The file is the running daemon's, unless\n"
        "--state-dir says otherwise. `clear` without --model removes the file, damaged ones that\n"
        "were put aside too. `export` writes one JSON object a line; outputs only if asked for.\n"
        "Inputs are not there at all: of a question only a digest is kept.",
    )
    parser.add_argument("action", choices=("stats", "clear", "export"), help="what to do")
    parser.add_argument("--state-dir", metavar="D", type=not_empty, help="state directory")
    admin_options(parser, "30")
    parser.add_argument("--model", metavar="NAME", default="", help="this model only")
    parser.add_argument("--json", action="store_true", help="stats: print JSON")
    parser.add_argument(
        "--csv", action="store_true", help="export: write CSV instead of JSON lines"
    )
    parser.add_argument(
        "--with-outputs", action="store_true", help="export: the outputs of every answer too"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="", help="export: write here, for its owner only"
    )


def _add_journal(commands: _Commands) -> None:
    parser = command(
        commands,
        "journal",
        "Look at the predictions that were kept for retraining, or remove them.",
        "examples:\n"
        "  edge-runtime journal show --model digits --limit 20\n"
        "  edge-runtime journal show --json --tensors | jq -c .outputs\n"
        "  edge-runtime journal purge --model digits --yes\n\n"
        "A model has a journal when models.NAME.journal in the configuration says so. It works\n"
        "with the daemon running or not, for the user who may read the state directory.",
    )
    parser.add_argument("action", choices=("show", "purge"), help="what to do")
    parser.add_argument("--state-dir", metavar="D", type=not_empty, help="state directory")
    parser.add_argument("--model", metavar="NAME", default="", help="this model only")
    parser.add_argument(
        "--limit", metavar="N", type=positive, default=20, help="show: so many (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="show: one JSON object a line")
    parser.add_argument(
        "--tensors", action="store_true", help="show: with all values; needs --json"
    )
    parser.add_argument(
        "--key-file", metavar="F", type=not_empty, help="show: decrypts what is encrypted"
    )
    parser.add_argument(
        "--through", metavar="N", type=positive, help="purge: only rows up to this number"
    )
    parser.add_argument("--yes", action="store_true", help="purge: do not ask")
