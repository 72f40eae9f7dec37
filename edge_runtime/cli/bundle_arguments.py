"""The arguments of ``bundle`` and ``keyring``: what is done by hand, far from any daemon."""

import argparse
from typing import Any

from edge_runtime.cli.argument_types import command, not_empty, positive, positive_seconds
from edge_runtime.cli.release_arguments import daemon_options
from edge_runtime.errors import ManifestError
from edge_runtime.manifest import parse_version

_Commands = Any  # argparse keeps the type of its subparsers to itself


def add(commands: _Commands) -> None:
    """Add ``bundle`` and ``keyring``."""
    parser = command(
        commands,
        "bundle",
        "Make a bundle of a model file, look into one, sign it and verify it.",
        "examples:\n"
        "  edge-runtime bundle create digits.onnx --name digits --version 3 \\\n"
        "      --goldens samples.npz -o digits-3.tar\n"
        "  edge-runtime bundle sign digits-3.tar --key release.pem\n"
        "  edge-runtime bundle verify digits-3.tar --keyring keyring.json\n\n"
        "No daemon is needed for any of it. docs/bundles.md tells more.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    _add_create(actions)
    _add_show(actions)
    _add_verify(actions)
    _add_sign(actions)
    _add_keyring(commands)


def _add_create(actions: _Commands) -> None:
    parser = command(
        actions,
        "create",
        "Make a bundle of a model file and its external weights.",
        "examples:\n"
        "  edge-runtime bundle create m.onnx --name m --version 1 -o m-1\n"
        "  edge-runtime bundle create m.onnx --name m --version 2 --goldens a.npz b.npz \\\n"
        "      --tolerance scores=1e-3:1e-2 --latency-budget 0.02 --sign release.pem -o m-2.tar\n\n"
        "A golden .npz file holds an array per input, named like it, and one per output; outputs\n"
        "that are not there are what the model answers on this machine. Without --tolerance,\n"
        "floats may be off by a little (it is printed) and everything else must be equal. The\n"
        "same files give the same bytes, if $SOURCE_DATE_EPOCH says when they were made.",
    )
    parser.add_argument("model", metavar="MODEL.onnx", type=not_empty, help="the model file")
    parser.add_argument(
        "--name", metavar="N", required=True, type=not_empty, help="the model's name"
    )
    parser.add_argument(
        "--version", metavar="V", required=True, type=_version, help="its version, from 1 on"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR|FILE.tar",
        required=True,
        type=not_empty,
        help="the folder to be made, or a tar file",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a bundle that is there already"
    )
    _acceptance_options(parser)
    _key_option(parser, "--sign", "sign it with this private key; may be repeated", required=False)


def _acceptance_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--goldens", metavar="F.npz", nargs="+", default=[], help="inputs to be answered as here"
    )
    parser.add_argument(
        "--tolerance",
        metavar="[OUTPUT=]ATOL[:RTOL]",
        action="append",
        default=[],
        type=_tolerance,
        help="how far an output (or any) may be from the goldens; may be repeated",
    )
    parser.add_argument(
        "--latency-budget",
        metavar="S",
        type=positive_seconds,
        default=0.0,
        help="longest median time of a run on a device, in seconds",
    )
    parser.add_argument(
        "--memory-budget",
        metavar="BYTES",
        type=positive,
        default=0,
        help="most memory that loading and running it may take, in bytes",
    )
    parser.add_argument(
        "--agreement-floor",
        metavar="F",
        type=_share,
        help="least share of real inputs on which it agrees with the version it follows, 0 to 1",
    )
    parser.add_argument(
        "--labels",
        metavar="OUTPUT=FILE",
        action="append",
        default=[],
        type=_labels,
        help="names of an output's classes, one a line; may be repeated",
    )


def _add_show(actions: _Commands) -> None:
    parser = command(
        actions,
        "show",
        "Print what a bundle says of itself.",
        "examples:\n"
        "  edge-runtime bundle show digits-3.tar\n"
        "  edge-runtime bundle show digits-3 --json | jq '.manifest.acceptance'\n\n"
        "Nothing is verified: that is `bundle verify`.",
    )
    _bundle_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_verify(actions: _Commands) -> None:
    parser = command(
        actions,
        "verify",
        "Check a bundle as a device would: files, signatures, and the goldens on this machine.",
        "examples:\n"
        "  edge-runtime bundle verify digits-3.tar\n"
        "  edge-runtime bundle verify digits-3 --keyring keyring.json --json\n\n"
        "Exit code 0 if it is good here, 1 if it is not. The variant for this CPU is run.",
    )
    _bundle_argument(parser)
    parser.add_argument(
        "--keyring", metavar="F", type=not_empty, help="also check that its keys signed the bundle"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_sign(actions: _Commands) -> None:
    parser = command(
        actions,
        "sign",
        "Add a signature to a bundle.",
        "examples:\n"
        "  openssl genpkey -algorithm ed25519 -out release.pem\n"
        "  edge-runtime bundle sign digits-3.tar --key release.pem\n\n"
        "What is signed is the manifest, which names the SHA-256 of every file. Signatures of\n"
        "other keys stay. Do `bundle verify` first: a signature says that you want it to run.",
    )
    _bundle_argument(parser)
    _key_option(parser, "--key", "private Ed25519 key (PEM); may be repeated", required=True)


def _add_keyring(commands: _Commands) -> None:
    parser = command(
        commands,
        "keyring",
        "Make and sign the list of keys that devices believe.",
        "examples:\n"
        "  edge-runtime keyring create --key ann=ann.pub --key bob=bob.pub --threshold 2 \\\n"
        "      -o keyring.json\n"
        "  edge-runtime keyring sign keyring.json --key ann.pem\n"
        "  edge-runtime keyring check keyring.json\n\n"
        "A device takes a newer keyring if `threshold` keys of the one it has signed it, and a\n"
        "release if `releases_threshold` keys did. The first one, `release.keyring` in the\n"
        "configuration, must be signed by its own keys.",
    )
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    _add_keyring_create(actions)
    show = command(actions, "show", "Print a keyring and who signed it.", "")
    _keyring_argument(show)
    show.add_argument("--json", action="store_true", help="print JSON")
    sign = command(
        actions, "sign", "Add a signature to a keyring.", "Signatures of other keys stay."
    )
    _keyring_argument(sign)
    _key_option(sign, "--key", "private Ed25519 key (PEM); may be repeated", required=True)
    check = command(
        actions,
        "check",
        "Tell whether a device would take a keyring.",
        "examples:\n"
        "  edge-runtime keyring check keyring.json                     # as its first one\n"
        "  edge-runtime keyring check keyring-2.json --after keyring.json\n"
        "  edge-runtime keyring check keyring-2.json --after keyring.json \\\n"
        "      --state-dir /var/lib/edge-runtime         # before a package brings it\n\n"
        "Exit code 0 if it would, 1 if it would not.",
    )
    _keyring_argument(check)
    check.add_argument("--after", metavar="F", type=not_empty, help="the one the device has")
    check.add_argument(
        "--state-dir",
        metavar="D",
        type=not_empty,
        help="also check that what was released there could be loaded with it; no daemon is asked",
    )
    install = command(
        actions,
        "install",
        "Give a device a newer keyring.",
        "examples:\n"
        "  edge-runtime keyring install keyring-2.json\n\n"
        "It is taken if it is newer and `threshold` keys of the one that the device has signed\n"
        "it, unless too few of its keys signed a version that is active, previous or under way:\n"
        "that could not be loaded at the next start. Exit code 1 if it is refused.",
    )
    _keyring_argument(install)
    install.add_argument(
        "--force", action="store_true", help="take it although versions cannot be loaded then"
    )
    daemon_options(install)


def _add_keyring_create(actions: _Commands) -> None:
    create = command(
        actions,
        "create",
        "Make a keyring of public keys.",
        "examples:\n"
        "  edge-runtime keyring create --key ann=ann.pub --key bob=bob.pub --threshold 2 \\\n"
        "      -o keyring.json\n"
        "  edge-runtime keyring create --after keyring.json --key eve=eve.pub -o keyring-2.json\n\n"
        "A key may be a public or a private PEM file; only the public half is used.",
    )
    create.add_argument(
        "--key",
        metavar="[NAME=]F",
        action="append",
        required=True,
        type=_named,
        help="a key (PEM) and what people call it; may be repeated",
    )
    create.add_argument(
        "--threshold",
        metavar="K",
        type=positive,
        default=1,
        help="keys that must sign the next keyring (default: 1)",
    )
    create.add_argument(
        "--releases-threshold",
        metavar="K",
        type=positive,
        default=1,
        help="keys that must sign a release (default: 1)",
    )
    create.add_argument(
        "--after", metavar="F", type=not_empty, help="the keyring it follows: its version + 1"
    )
    create.add_argument("-o", "--output", metavar="F", required=True, type=not_empty, help="file")
    create.add_argument("--force", action="store_true", help="replace a file that is there")


def _bundle_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", type=not_empty, help="its folder, or a tar")


def _keyring_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keyring", metavar="FILE", type=not_empty, help="the keyring")


def _key_option(parser: argparse.ArgumentParser, flag: str, words: str, *, required: bool) -> None:
    parser.add_argument(
        flag,
        metavar="KEY.pem",
        dest="keys",
        action="append",
        required=required,
        default=None if required else [],
        type=not_empty,
        help=words,
    )


def _version(text: str) -> int:
    try:
        return parse_version(text)
    except ManifestError as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _share(text: str) -> float:
    number = _number(text)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share: a number from 0 to 1")
    return number


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return number


def _tolerance(text: str) -> tuple[str, float, float]:
    output, _, numbers = text.rpartition("=")
    atol, colon, rtol = numbers.partition(":")
    return output, _number(atol), _number(rtol) if colon else 0.0


def _named(text: str) -> tuple[str, str]:
    name, _, file = text.rpartition("=")
    return name, not_empty(file)


def _labels(text: str) -> tuple[str, str]:
    output, file = _named(text)
    if not output:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not OUTPUT=FILE, for example scores=names.txt"
        )
    return output, file
