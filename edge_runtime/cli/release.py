"""``edge-runtime release``: stage a version, watch it, judge it by hand, take it back."""

import argparse
import sys
from pathlib import Path
from typing import BinaryIO

from edge_runtime.cli import release_view as view
from edge_runtime.cli.release_arguments import PIPE
from edge_runtime.cli.release_client import ReleaseClient
from edge_runtime.cli.terminal import print_json, printable, say
from edge_runtime.errors import ConfigError, ProtocolError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.protocol import release_schemas as schemas


def run(options: argparse.Namespace) -> int:
    """Do what is asked.

    Raises:
        EdgeRuntimeError: The daemon did not answer, or refused.
    """
    with ReleaseClient.of(options) as client:
        match options.action:
            case "stage":
                return _stage(client, options)
            case "status":
                _status(client, options)
            case "history":
                _history(client, options)
            case "explain":
                _explain(client, options)
            case _:
                return _decide(client, options)
    return ExitCode.DONE


# -- stage and wait --------------------------------------------------------------------------------


def _stage(client: ReleaseClient, options: argparse.Namespace) -> int:
    mode: schemas.Mode = "manual" if options.manual else "automatic"
    model = ""
    try:
        if options.send or options.bundle == PIPE:
            wanted = schemas.StageQuery(mode=mode, again=options.again)
            release = client.send(_tar(options.bundle, options.max_bytes), wanted)
        else:
            bundle = _real(options.bundle)
            order = schemas.StageRequest(path=str(bundle), mode=mode, again=options.again)
            release = client.stage(order)
        model = printable(release.model)
        say(
            f"{model} version {release.version} is release {release.id}: {printable(release.state)}"
        )
        if release.note:
            say(printable(release.note))
        elif options.wait:
            ends = schemas.ENDINGS | ({schemas.STAGED} if options.manual else frozenset())
            return _wait(client, release, ends, options)
    except KeyboardInterrupt:
        return _goes_on(model)
    if options.json:
        print_json(release)
    elif not release.note:
        say(f"see how it does: edge-runtime release status {model}")
    return ExitCode.DONE


def _real(bundle: str) -> Path:
    """Follow links here, with this user's eyes: the daemon follows none."""
    try:
        return Path(bundle).resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        said = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot find the bundle {bundle}: {said}") from error


def _tar(bundle: str, max_bytes: int) -> bytes:
    """Read a whole tar, of a file or of a pipe."""
    if bundle == PIPE:
        if sys.stdin.isatty():
            raise ConfigError(
                "standard input is a terminal; pipe a tar in: tar -C FOLDER -c . | "
                "edge-runtime release stage -"
            )
        return _limited(sys.stdin.buffer, max_bytes, "standard input")
    tar = _real(bundle)
    if tar.is_dir():
        raise ConfigError(
            f"{tar} is a folder, and --send sends a tar; pack it: tar -C {tar} -cf bundle.tar ."
        )
    try:
        with tar.open("rb") as file:
            return _limited(file, max_bytes, str(tar))
    except OSError as error:
        raise ConfigError(f"cannot read {tar}: {error.strerror}") from error


def _limited(file: BinaryIO, max_bytes: int, shown: str) -> bytes:
    data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ConfigError(
            f"{shown} holds more than {max_bytes} bytes (--max-bytes), and it is sent in one "
            "piece; put the bundle where the daemon may read it, and stage its path"
        )
    if not data:
        raise ConfigError(f"{shown} is empty; a bundle as tar is needed there")
    return data


def _wait(
    client: ReleaseClient,
    release: schemas.Release,
    ends: frozenset[str],
    options: argparse.Namespace,
) -> int:
    """Wait for the end of a release, and say how it ended."""
    # Here, because what draws bars takes longer to import than all the rest.
    from edge_runtime.cli.release_watch import wait  # noqa: PLC0415

    ended, model = wait(client, release, ends)
    if options.json:
        print_json(ended)
    name = f"{printable(ended.model)} version {ended.version}"
    if ended.state == schemas.COMMITTED:
        running = view.short(model.running_digest) or "nothing in memory"
        say(f"{name} is committed; running: {running}")
        return ExitCode.DONE
    if ended.state in ends - schemas.ENDINGS:
        say(f"{name} is {ended.state}: `edge-runtime release promote {printable(ended.model)}`")
        return ExitCode.DONE
    why = ": ".join(printable(each) for each in (ended.cause, ended.reason) if each)
    say(f"{name} is {ended.state}: {why or 'the daemon gave no reason'}")
    running = view.short(model.running_digest) or "nothing in memory"
    say(printable(model.disabled) or f"{view.answering(model)}; running: {running}")
    return ExitCode.FAILED


def _goes_on(model: str) -> int:
    """Tell whoever pressed Ctrl-C that it ended the waiting and nothing else."""
    of = f" {model}" if model else ""
    say(
        f"\nthe daemon goes on with it: `edge-runtime release status{of}` shows how it does, "
        f"`edge-runtime release abort{of or ' NAME'}` ends it"
    )
    return ExitCode.INTERRUPTED


# -- decisions -------------------------------------------------------------------------------------


def _decide(client: ReleaseClient, options: argparse.Namespace) -> int:
    try:
        if options.action == "revert":
            model = client.revert(options.name, options.to, options.reason)
        elif options.action == "rollback":
            wanted = schemas.RollbackRequest(options.reason, to=options.to, disable=options.disable)
            model = client.rollback(options.name, wanted)
        else:
            model = client.decide(options.name, options.action, options.reason)
        if options.action == "promote" and options.wait:
            if not model.releases:
                raise ProtocolError(f"the daemon shows no release of {options.name}; see `status`")
            return _wait(client, model.releases[0], schemas.ENDINGS, options)
    except KeyboardInterrupt:
        return _goes_on(printable(options.name))
    if options.json:
        print_json(model)
    else:
        print("\n".join(view.one_model(model)))
    return ExitCode.DONE


# -- questions -------------------------------------------------------------------------------------


def _status(client: ReleaseClient, options: argparse.Namespace) -> None:
    seen = client.releases_of(options.name) if options.name else client.releases()
    if options.json:
        print_json(seen)
    elif isinstance(seen, schemas.ModelReleases):
        print("\n".join(view.one_model(seen)))
    else:
        print("\n".join(view.overview(seen)))


def _history(client: ReleaseClient, options: argparse.Namespace) -> None:
    rows = client.history(options.name, options.limit)
    if options.json:
        print_json(rows)
    elif rows:
        print(view.history(rows))
    else:
        say("nothing was released here yet")


def _explain(client: ReleaseClient, options: argparse.Namespace) -> None:
    explanation = client.explain(options.name)
    if options.json:
        print_json(explanation)
    else:
        for sentence in explanation.sentences:
            print(printable(sentence))
