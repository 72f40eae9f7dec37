"""``edge-runtime keyring``: make the list of keys that devices believe, sign it, check it."""

import argparse
from pathlib import Path

from edge_runtime.cli.bundle_files import replace_file
from edge_runtime.cli.signing import read_file, read_keys
from edge_runtime.cli.terminal import print_json, printable, say, table
from edge_runtime.errors import ConfigError, SignatureError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.trust.keyring import (
    KEYRING_BYTES_MAX,
    SCHEMA_VERSION,
    Document,
    Keyring,
    listed,
    text_of,
)
from edge_runtime.trust.signatures import KEY_FILE_BYTES_MAX, read_public_key


def run(options: argparse.Namespace) -> int:
    """Do what is asked.

    Raises:
        ConfigError: Something that was given cannot be used.
        SignatureError: The keyring is not good.
    """
    match options.action:
        case "create":
            return _create(options)
        case "sign":
            return _sign(options)
        case "check":
            return _check(options)
        case "install":
            return _install(options)
        case _:
            return _show(options)


def _create(options: argparse.Namespace) -> int:
    output = Path(options.output)
    if output.exists() and not options.force:
        raise ConfigError(f"{output} is there already; --force replaces it")
    before = _read(options.after).version if options.after else 0
    keys = tuple(listed(_public(Path(file)), name or Path(file).stem) for name, file in options.key)
    document = Document(
        schema_version=SCHEMA_VERSION,
        version=before + 1,
        threshold=options.threshold,
        keys=keys,
        releases_threshold=options.releases_threshold,
    )
    try:
        keyring = Keyring(text_of(document), (), str(output))
    except SignatureError as error:
        raise ConfigError(error.message) from error
    replace_file(output, keyring.write())
    whose = f"keys of {options.after}" if options.after else "of its keys"
    needed = _read(options.after).document.threshold if options.after else options.threshold
    say(
        f"{output}: keyring version {keyring.version} of {len(keys)} keys, not signed; have "
        f"{needed} {whose} sign it with `edge-runtime keyring sign`"
    )
    return ExitCode.DONE


def _sign(options: argparse.Namespace) -> int:
    keyring = _read(options.keyring)
    keys = read_keys(options.keys)
    for key in keys:
        keyring = keyring.signed_with(key)
    replace_file(Path(options.keyring), keyring.write())
    say(
        f"signed keyring version {keyring.version} with {len(keys)} keys; it has "
        f"{len(keyring.signatures)} signatures now"
    )
    return ExitCode.DONE


def _install(options: argparse.Namespace) -> int:
    from edge_runtime.cli.release_client import ReleaseClient  # noqa: PLC0415 - the rest needs none

    data = read_file(Path(options.keyring), KEYRING_BYTES_MAX)
    with ReleaseClient.of(options) as client:
        trust = client.install_keyring(data, force=options.force)
    if options.json:
        print_json(trust)
    else:
        say(f"the device has keyring version {trust.keyring_version} now, {len(trust.keys)} keys")
    if trust.orphaned:
        say(
            f"warning: too few of its keys signed {', '.join(map(printable, trust.orphaned))}: "
            "what is in memory answers on, and cannot be loaded at the next start. Release a "
            "version that its keys signed"
        )
    return ExitCode.DONE


def _check(options: argparse.Namespace) -> int:
    keyring = _read(options.keyring)
    if options.after:
        keyring.check_follows(_read(options.after))
        print(f"{options.keyring}: may follow {options.after}")
    else:
        keyring.check_own()
        print(f"{options.keyring}: may be a device's first keyring")
    if options.state_dir:
        from edge_runtime.cli.keyring_orphans import check_installed  # noqa: PLC0415 - rarely

        check_installed(keyring, Path(options.state_dir))
        print(f"{options.state_dir}: what was released there can be loaded with it")
    return ExitCode.DONE


def _show(options: argparse.Namespace) -> int:
    keyring = _read(options.keyring)
    document = keyring.document
    own = keyring.signed_by(keyring)
    others = sorted({each.key_id for each in keyring.signatures} - keyring.keys.keys())
    if options.json:
        print_json({"keyring": document, "signed_by": sorted(own), "other_key_ids": others})
        return ExitCode.DONE
    print(
        f"keyring version {document.version}: {document.threshold} of {len(document.keys)} keys "
        f"sign the next keyring, {document.releases_threshold} a release"
    )
    rows = [
        (key.key_id, printable(key.name), "yes" if key.key_id in own else "no")
        for key in document.keys
    ]
    print(table(("KEY", "NAME", "SIGNED THIS"), rows))
    if others:
        print(f"signatures by other keys, not verified: {', '.join(each[:12] for each in others)}")
    return ExitCode.DONE


def _read(path: str) -> Keyring:
    return Keyring.read(read_file(Path(path), KEYRING_BYTES_MAX), path)


def _public(path: Path) -> bytes:
    """Read the public half of a key, from either half."""
    data = read_file(path, KEY_FILE_BYTES_MAX)
    if b"PRIVATE KEY" in data:
        return read_keys([str(path)])[0].public_key
    return read_public_key(data, str(path))
