"""``edge-quantize MODEL.onnx``: search, and write a bundle or say why not."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_runtime.exit_codes import ExitCode
from quantize.cli.bars import bars
from quantize.cli.output import print_json
from quantize.errors import BadInputError
from quantize.pipeline import Result, quantize
from quantize.pruning import check_request
from quantize.recipe_file import read_recipe_file
from quantize.reports.document import Ending
from quantize.reports.markdown import verdict
from quantize.settings import Settings

_CODES: Final[dict[Ending, ExitCode]] = {
    "met": ExitCode.DONE,
    "floor-not-reached": ExitCode.ANSWER_2,
    "not-faster": ExitCode.ANSWER_3,
}
_NEEDED: Final = {"data": "--data", "output": "-o"}
_CACHE: Final = "edge-quantize"


def run(options: argparse.Namespace) -> int:
    """Search.

    Returns:
        0: a bundle that is better; 2: the floor is out of reach; 3: the float model was kept.

    Raises:
        BadInputError: Something that was given cannot be used.
        KeyboardInterrupt: Interrupted; the same command goes on.
    """
    settings = _settings(options)
    if not options.quiet:
        _echo(settings)
    try:
        result = quantize(settings, cache_folder(), bars(quiet=options.quiet))
    except KeyboardInterrupt:
        print("edge-quantize: what is known is kept; the same command goes on", file=sys.stderr)
        raise
    _tell(result, as_json=options.json)
    return _CODES[result.report.ending]


def cache_folder() -> Path:
    """Name the folder where calibration results are kept (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification: a path that is not absolute is to be ignored.
    home = Path(base) if os.path.isabs(base) else Path.home() / ".cache"  # noqa: PTH117 - a string
    return home / _CACHE


def _settings(options: argparse.Namespace) -> Settings:
    """Put the recipe file's settings and the options together; options win."""
    given: dict[str, Any] = {}
    if getattr(options, "recipe", None):
        given = read_recipe_file(Path(options.recipe))
    fields = {field.name for field in msgspec.structs.fields(Settings)}
    given |= {name: value for name, value in vars(options).items() if name in fields}
    if isinstance(given.get("prune"), str):
        check_request(given["prune"])
        given["prune"] = True
    for name, option in _NEEDED.items():
        if not given.get(name):
            raise BadInputError(f"{option} is missing; see edge-quantize quantize --help")
    try:
        return msgspec.convert(given, Settings)
    except msgspec.ValidationError as error:
        raise BadInputError(f"a setting cannot be used: {error}") from error


def _echo(settings: Settings) -> None:
    """Show every setting before the work begins."""
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        note = "" if field.required or value != field.default else "  (default)"
        shown = ", ".join(map(_shown, value)) if isinstance(value, tuple) else _shown(value)
        if shown:
            print(f"  {field.encode_name:20} {shown}{note}", file=sys.stderr)


def _shown(value: object) -> str:
    return getattr(value, "name", "") or str(value)


def _tell(result: Result, *, as_json: bool) -> None:
    if as_json:
        print_json(result.report)
        return
    print("\n".join(line for line in verdict(result.report) if line))
    for note in result.report.notes:
        print(f"Note: {note}")
    for step in result.report.next_steps:
        print(f"- {step}")
    print(f"report: {result.output / 'report.md'}")
