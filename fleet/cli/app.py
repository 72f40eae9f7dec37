"""The tree of commands. Each group has a file of its own."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from edge_runtime import __version__
from fleet.cli import plan_commands, release_command, repository_commands


def _group(text: str) -> typer.Typer:
    return typer.Typer(help=text, no_args_is_help=True, add_completion=False, rich_markup_mode=None)


def build() -> typer.Typer:
    """Build the whole command line."""
    root = _group("Sign releases and plans of models, and publish them to devices.")
    repo = _group("The repository: static files that devices believe if signed.")
    release = _group("Releases: bundles that the offline key signed.")
    plan = _group("Plans: which devices of a channel take which release, and when.")
    repository_commands.add_to(repo)
    release_command.add_to(release)
    plan_commands.add_to(plan)
    repo.add_typer(release, name="release")
    repo.add_typer(plan, name="plan")
    root.add_typer(repo, name="repo")
    root.callback()(_root)  # a group, however few commands it has
    return root


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        print(f"edge-fleet {__version__}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which this is.")
    ] = False,
) -> None:
    """Sign releases and plans of models, and publish them to devices."""
    del version


def command() -> Any:  # noqa: ANN401 - typer's class has no public name
    """Give the command line as an object that can describe itself."""
    return typer.main.get_command(build())


def helps() -> Iterator[tuple[str, str]]:
    """Give the help of every command, by its name, the groups before what is in them."""
    waiting: list[tuple[Any, Any]] = [(command(), None)]
    while waiting:
        each, parent = waiting.pop(0)
        context = typer.Context(
            each, info_name=each.name if parent else "edge-fleet", parent=parent, terminal_width=90
        )
        yield context.command_path, each.get_help(context)
        waiting[:0] = [(below, context) for below in getattr(each, "commands", {}).values()]


def run(argv: Sequence[str] | None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; ``None``: those of the process.

    Returns:
        The exit code.

    Raises:
        TyperException: The arguments are wrong.
    """
    arguments = None if argv is None else list(argv)
    code = command().main(args=arguments, prog_name="edge-fleet", standalone_mode=False)
    return code if isinstance(code, int) else 0
