"""The arguments of every command, in one place and without importing what they do."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, get_args

from edge_runtime import __version__
from edge_runtime.usage import Parser
from quantize.records import Goal
from quantize.settings import Target

_COMMANDS: Final = ("quantize", "inspect", "compare", "verify", "report")
_UNITS_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_METRICS: Final = (
    "auto, top1, top5, mae, rmse, cosine or MODULE:FUNCTION (default: auto, which is top1 where "
    "the data has labels, else cosine)"
)

_Commands = Any  # argparse keeps the type of its subparsers to itself


def with_command(argv: Sequence[str]) -> list[str]:
    """Put the command in front where none is named: ``edge-quantize MODEL.onnx ...``.

    Args:
        argv: Arguments without the program's name.
    """
    first = argv[0] if argv else "--help"
    if first in {*_COMMANDS, "-h", "--help", "--version"}:
        return [first, *argv[1:]]
    return ["quantize", *argv]


def parser() -> argparse.ArgumentParser:
    """Build the whole command line."""
    root = Parser(
        prog="edge-quantize",
        usage="edge-quantize [-h] [--version] [COMMAND] ...",
        description="Make ONNX models smaller and faster, or say why not. Never silently worse.",
        epilog="examples:\n"
        "  edge-quantize model.onnx --data calibration.npz -o bundle/\n"
        "  edge-quantize model.onnx --data train.npz --evaluate test.npz --floor 0.995 -o bundle/\n"
        "  edge-quantize inspect model.onnx\n"
        "  edge-quantize verify bundle/\n\n"
        "exit codes: 0 done; 2 the accuracy floor cannot be reached (or, verify: is missed here);\n"
        "3 good but not faster, the float model was kept; 4 bad input; 130 interrupted: the same\n"
        "command goes on from there.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"edge-quantize {__version__}")
    commands = root.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    _add_quantize(commands)
    _add_inspect(commands)
    _add_compare(commands)
    _add_verify(commands)
    _add_report(commands)
    return root


def _command(commands: _Commands, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # What is not given must not win over the recipe file.
        argument_default=argparse.SUPPRESS,
    )
    return command


def _add_quantize(commands: _Commands) -> None:
    command = _command(
        commands,
        "quantize",
        "Search for the best quantised model and write it as a bundle (the default command).",
        "examples:\n"
        "  edge-quantize model.onnx --data calibration.npz -o bundle/\n"
        "  edge-quantize model.onnx --data train.npz --evaluate test.npz --metric top1 \\\n"
        "      --floor 0.99 --goal size --time-budget 5m -o bundle/\n"
        "  edge-quantize model.onnx --recipe recipe.toml -o bundle/\n\n"
        "DATA is an .npz file with one array per input of the model, the first axis being the\n"
        "samples, and `labels` where the metric needs them; or a folder of ONNX test_data_set_*.\n"
        "Nothing is uploaded, and nothing is fetched.",
    )
    command.add_argument("model", metavar="MODEL.onnx", help="the float model")
    _add_what(command)
    _add_how(command)


def _add_what(command: argparse.ArgumentParser) -> None:
    """Add the options that say what is wanted."""
    command.add_argument(
        "--data", metavar="DATA", help="samples that ranges are found and candidates compared on"
    )
    command.add_argument(
        "--evaluate",
        metavar="DATA",
        help="samples that the last decision is taken on (default: a part of --data)",
    )
    command.add_argument("-o", "--output", metavar="DIR", help="bundle directory to write")
    command.add_argument("--metric", metavar="NAME", help=_METRICS)
    command.add_argument(
        "--metric-output", metavar="NAME", help="output that the metric reads (default: it chooses)"
    )
    command.add_argument(
        "--floor",
        type=float,
        metavar="SHARE",
        help="share of the float model's score that must be kept, with 95 %% confidence "
        "(default: 0.99)",
    )
    command.add_argument(
        "--target",
        choices=get_args(Target),
        help="CPU class the bundle is for (default: auto, this one)",
    )
    command.add_argument(
        "--goal", choices=get_args(Goal), help="what to improve (default: latency)"
    )


def _add_how(command: argparse.ArgumentParser) -> None:
    """Add the options that say how it is looked for, and what it is called."""
    command.add_argument(
        "--prune",
        nargs="?",
        const="structured",
        metavar="HOW",
        help="also try to remove whole channels and heads",
    )
    command.add_argument(
        "--time-budget",
        dest="time_budget_s",
        type=_seconds,
        metavar="TIME",
        help="begin nothing new after so long: 90s, 10m, 1h (default: 10m)",
    )
    command.add_argument(
        "--recipe", metavar="F.toml", help="file with settings and [[recipes]]; options win over it"
    )
    command.add_argument("--name", help="the model's name in the bundle (default: the file's)")
    command.add_argument(
        "--model-version",
        dest="version",
        type=int,
        metavar="N",
        help="the version in the bundle (default: 1)",
    )
    command.add_argument(
        "--threads", type=int, metavar="N", help="threads while latency is measured (default: 1)"
    )
    command.add_argument("--seed", type=int, metavar="N", help="of all that is drawn (default: 0)")
    _add_json(command)
    command.add_argument(
        "-q", "--quiet", action="store_true", default=False, help="no progress on standard error"
    )


def _add_inspect(commands: _Commands) -> None:
    command = _command(
        commands,
        "inspect",
        "Say what a model is made of and what could be quantised.",
        "example:\n  edge-quantize inspect model.onnx --json",
    )
    command.add_argument("model", metavar="MODEL.onnx", type=Path, help="the model")
    _add_json(command)


def _add_compare(commands: _Commands) -> None:
    command = _command(
        commands,
        "compare",
        "Compare two models: answers, latency on this CPU, size.",
        "example:\n  edge-quantize compare model.onnx bundle/int8.onnx --data test.npz",
    )
    command.add_argument("first", metavar="A.onnx", type=Path, help="the reference")
    command.add_argument("second", metavar="B.onnx", type=Path, help="what is compared with it")
    command.add_argument("--data", metavar="DATA", type=Path, required=True, help="samples")
    command.add_argument("--metric", metavar="NAME", default="auto", help=_METRICS)
    command.add_argument("--metric-output", metavar="NAME", default="", help="output it reads")
    command.add_argument("--threads", type=_positive, default=1, metavar="N", help="of one run")
    _add_json(command)


def _add_verify(commands: _Commands) -> None:
    command = _command(
        commands,
        "verify",
        "Check a bundle where it is to run: digests, goldens, accuracy floor.",
        "example:\n  edge-quantize verify bundle/\n\n"
        "Needs no more than what a device has installed.",
    )
    command.add_argument("bundle", metavar="BUNDLE", type=Path, help="bundle directory")
    command.add_argument(
        "--variant", metavar="NAME", default="", help="check this variant, not the CPU's own"
    )
    _add_json(command)


def _add_report(commands: _Commands) -> None:
    command = _command(
        commands,
        "report",
        "Print the report of a search again.",
        "example:\n  edge-quantize report bundle/",
    )
    command.add_argument(
        "bundle", metavar="BUNDLE", type=Path, help="bundle directory, or its report.json"
    )
    _add_json(command)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json", action="store_true", default=False, help="print JSON on standard output"
    )


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90s, 10m or 1h")
    return float(match[1]) * _UNITS_S[match[2]]


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)
