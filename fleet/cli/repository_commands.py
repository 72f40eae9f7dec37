"""``edge-fleet repo``: make a repository, look at it, keep it fresh, serve it."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.exit_codes import ExitCode
from fleet.cli.arguments import (
    Folder,
    Json,
    KeyFolders,
    duration,
    new_passphrase,
    opened,
    pairs,
)
from fleet.cli.output import (
    TIME_FORMAT,
    bar,
    megabytes,
    print_json,
    print_table,
    printable,
    say,
)
from fleet.errors import BadInputError
from fleet.repository.creation import NewRepository, create
from fleet.repository.draft import Signed
from fleet.repository.export import export
from fleet.repository.key_files import NewKey
from fleet.repository.layout import Layout
from fleet.repository.overview import Overview, overview
from fleet.repository.refreshing import Refreshed, publish, refresh
from fleet.repository.roles import RULES
from fleet.repository.rotation import rotate
from fleet.repository.state import now
from fleet.repository.verification import verify

Encrypt = Annotated[
    bool,
    typer.Option("--encrypt", help="Encrypt new keys; $EDGE_FLEET_PASSPHRASE, or asked."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to their group."""
    for name, command, example in (
        ("init", _init, "edge-fleet repo init repo --fleet greenhouse --keys keys"),
        ("show", _show, "edge-fleet repo show repo --json"),
        ("verify", _verify, "edge-fleet repo verify repo"),
        ("publish", _publish, "edge-fleet repo publish repo --keys keys/online"),
        ("refresh", _refresh, "edge-fleet repo refresh repo --keys keys/online"),
        ("rotate", _rotate, "edge-fleet repo rotate repo timestamp --keys keys --new-keys new"),
        ("export", _export, "edge-fleet repo export repo -o update.tar --channel stable"),
        ("serve", _serve, "edge-fleet repo serve repo --host 0.0.0.0 --port 8443"),
    ):
        app.command(name, epilog=f"Example: {example}")(command)


def _init(
    folder: Folder,
    *,
    fleet: Annotated[str, typer.Option(metavar="NAME", help="Name of the fleet: a-z, 0-9 and -.")],
    keys: Annotated[Path, typer.Option(metavar="KEYDIR", help="Where the new keys go.")],
    root_keys: Annotated[int, typer.Option(metavar="N", help="How many keys root has.")] = 3,
    root_threshold: Annotated[
        int, typer.Option(metavar="N", help="How many of them sign a new root.")
    ] = 2,
    expires_days: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=DAYS", help="How long a role's metadata last; repeatable."),
    ] = None,
    encrypt: Encrypt = False,
    as_json: Json = False,
) -> int:
    """Make a repository and its keys."""
    days = {
        role: _number(values[-1], f"--expires-days {role}")
        for role, values in pairs(expires_days or [], "--expires-days").items()
    }
    wanted = NewRepository(
        fleet=fleet, root_keys=root_keys, root_threshold=root_threshold, expires_days=days
    )
    layout = Layout(folder)
    made = create(layout, keys, wanted, passphrase=new_passphrase(wanted=encrypt), now=now())
    if as_json:
        listed = {role: [_key(key) for key in each] for role, each in made.items()}
        print_json({"fleet": fleet, "root": str(layout.root), "keys": listed})
        return ExitCode.DONE
    rows = [
        (role, str(key.file), key.public.keyid[:12], RULES[role].why)
        for role, each in made.items()
        for key in each
    ]
    print_table(f"keys of the fleet {fleet}", ("ROLE", "PRIVATE KEY", "KEY ID", "WHAT FOR"), rows)
    say(
        f"{layout.root} is what devices are given first. Move each root key to a place of its own, "
        f"and {keys / 'offline'} away from this machine; only {keys / 'online'} stays."
    )
    return ExitCode.DONE


def _show(folder: Folder, *, as_json: Json = False) -> int:
    """Show roles, releases and plans."""
    found = overview(Layout(folder))
    if as_json:
        print_json(found)
        return ExitCode.DONE
    roles = [
        (
            role.role,
            str(role.version),
            f"{role.expires:{TIME_FORMAT}}",
            f"{role.threshold} of {len(role.keyids)}",
            "online" if role.is_online else "offline",
            "pending" if role.is_pending else "" if role.is_signed else "not signed",
        )
        for role in found.roles
    ]
    print_table(
        f"roles of the fleet {found.fleet}",
        ("ROLE", "VERSION", "EXPIRES (UTC)", "KEYS", "KEPT", ""),
        roles,
    )
    _show_contents(found)
    return ExitCode.DONE


def _show_contents(found: Overview) -> None:
    releases = [
        (
            each.facts.model,
            str(each.facts.version),
            str(each.facts.counter),
            str(each.facts.min_counter),
            megabytes(each.size_bytes),
            ", ".join(each.facts.guard_rails.channels) or "any",
        )
        for each in found.releases
    ]
    columns = ("MODEL", "VERSION", "COUNTER", "LEAST", "SIZE", "CHANNELS")
    print_table("releases", columns, releases)
    plans = [
        (
            plans.channel,
            plan.model,
            plan.rollout,
            str(plan.sequence),
            plan.order,
            str(plan.version),
            f"{plan.stage} of {len(plan.stages)}: {plan.stages[plan.stage].permyriad / 100:g} %",
        )
        for plans in found.plans
        for plan in plans.plans
    ]
    titles = ("CHANNEL", "MODEL", "ROLLOUT", "SEQUENCE", "ORDER", "VERSION", "STAGE")
    print_table("plans", titles, plans)


def _verify(folder: Folder, *, as_json: Json = False) -> int:
    """Walk everything as a device would: signatures and digests."""
    found = verify(Layout(folder), now=now())
    if as_json:
        print_json(found)
    else:
        for warning in found.warnings:
            say(f"warning: {warning}")
        for problem in found.problems:
            say(problem)
        if not found.problems:
            print(f"good: {found.artifacts} artifacts, {megabytes(found.size_bytes)}")
    return ExitCode.FAILED if found.problems else ExitCode.DONE


def _publish(folder: Folder, *, keys: KeyFolders, as_json: Json = False) -> int:
    """Let devices see what was signed where the online keys are not."""
    _told(publish(Layout(folder), opened(keys), now=now()), as_json=as_json)
    return ExitCode.DONE


def _refresh(
    folder: Folder,
    *,
    keys: KeyFolders,
    if_older_than: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Age from which online metadata are signed again, such as 12h; 0s: at once. "
            "Left out: half of the time until they expire.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Sign again what is old, before it expires: every day."""
    older_than = None if if_older_than is None else duration(if_older_than)
    done = refresh(Layout(folder), opened(keys), older_than=older_than, now=now())
    _told(done, as_json=as_json)
    return ExitCode.DONE


def _told(done: Refreshed, *, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    for warning in done.warnings:
        say(f"warning: {warning}")
    print(described(done.signed) or "nothing to do")


def described(signed: Signed) -> str:
    """Say what was signed, for people."""
    parts = [f"{role} {version}" for role, version in signed.versions.items()]
    text = f"signed {', '.join(parts)}" if parts else ""
    if signed.pending:
        text += (
            f"{'; ' if text else ''}{', '.join(signed.pending)} waits: bring the repository to the "
            "online keys and run `edge-fleet repo publish`"
        )
    return text


def _rotate(
    folder: Folder,
    role: Annotated[str, typer.Argument(metavar="ROLE", help=f"One of {', '.join(RULES)}.")],
    *,
    keys: KeyFolders,
    new_keys: Annotated[Path, typer.Option(metavar="KEYDIR", help="Where the new keys go.")],
    encrypt: Encrypt = False,
    as_json: Json = False,
) -> int:
    """Replace the keys of a role: lost, stolen, or old."""
    done = rotate(
        Layout(folder),
        role,
        opened(keys),
        new_keys,
        passphrase=new_passphrase(wanted=encrypt),
        now=now(),
    )
    if as_json:
        made = [_key(key) for key in done.made]
        print_json({"role": role, "keys": made, "gone": done.gone, "signed": done.signed})
        return ExitCode.DONE
    rows = [(str(key.file), key.public.keyid[:12]) for key in done.made]
    print_table(f"new keys of {role}", ("PRIVATE KEY", "KEY ID"), rows)
    print(described(done.signed))
    return ExitCode.DONE


def _export(
    folder: Folder,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The tar file to be written.")
    ],
    channel: Annotated[
        str, typer.Option(metavar="NAME", help="Its plans and their releases go in.")
    ],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only this model; left out: every model."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> int:
    """Write a channel into one file, for `edge-agent import`."""
    with bar("writing", None, shown=not as_json) as progress:
        done = export(Layout(folder), output, channel, model, force=force, progress=progress)
    if as_json:
        print_json(done)
    else:
        named = ", ".join(f"{name} {version}" for name, version in done.releases)
        print(printable(f"{output}: {named}; {done.files} files, {megabytes(done.size_bytes)}"))
    return ExitCode.DONE


def _serve(
    folder: Folder,
    *,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, metavar="N", help="0: any that is free.")
    ] = 8443,
    as_json: Json = False,
) -> int:
    """Serve the public files over plain HTTP until Ctrl-C."""
    from fleet.repository.server import bind, server  # noqa: PLC0415 - other commands need none

    layout = Layout(folder)
    serving = server(layout)
    with bind(host, port) as listening:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listening.getsockname()[1]}"
        if as_json:
            print_json({"url": url, "root": f"{url}/root.json"})
        else:
            print(f"{folder} is at {url}; Ctrl-C ends it", flush=True)
        # Asked to end, every answer that is under way is given first.
        with suppress(KeyboardInterrupt):
            serving.run(sockets=[listening])
    return ExitCode.DONE


def _key(key: NewKey) -> dict[str, str]:
    return {
        "file": str(key.file),
        "keyid": key.public.keyid,
        "public": key.public.keyval["public"],
    }


def _number(text: str, what: str) -> int:
    if not text.isdecimal():
        raise BadInputError(f"{what} {text!r} is not a number of days")
    return int(text)
