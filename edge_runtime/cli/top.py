"""``edge-runtime top``: what the daemon does, again and again, for people or as JSON."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from edge_runtime.cli.activity import Activity, Look, VersionActivity, activity
from edge_runtime.cli.screen import Screen
from edge_runtime.cli.terminal import connect, printable
from edge_runtime.client import Client
from edge_runtime.errors import UnavailableError
from edge_runtime.exit_codes import ExitCode

FIRST_S: Final = 0.5  # the first view comes soon, whatever the interval is
_TITLES: Final = (
    "MODEL",
    "VERSION",
    "STATE",
    "REQ/S",
    "FAIL/S",
    "P50~MS",
    "P99~MS",
    "QUEUE MS",
    "ROWS/RUN",
    "CACHE",
    "MEMORY",
    "IN FLIGHT",
)
_TEXTS: Final = 3  # columns of text; numbers are set to the right
_MIB: Final = 1 << 20
_DAY_S: Final = 86_400
_LARGE: Final = 100


def run(options: argparse.Namespace) -> int:
    """Look again and again, or once.

    Raises:
        EdgeRuntimeError: The daemon could not be asked the first time.
    """
    with connect(options) as client:
        before = _look(client)
        if options.once:
            time.sleep(options.interval)
            _print(activity(before, _look(client), _now()), str(client.endpoint), options)
            return ExitCode.DONE
        with Screen(is_live=sys.stdout.isatty() and not options.json) as screen:
            pause_s = min(options.interval, FIRST_S) if screen.is_live else options.interval
            while True:
                screen.wait(pause_s)
                pause_s = options.interval
                try:
                    after = _look(client)
                except UnavailableError as error:
                    seen = Activity(time=_now(), error=error.message)
                else:
                    seen = activity(before, after, _now())
                    before = after
                if screen.is_live:
                    screen.show(lines(seen, str(client.endpoint)))
                else:
                    _print(seen, str(client.endpoint), options)


def _look(client: Client) -> Look:
    return Look.read(client.metrics(), client.index(), time.monotonic())


def _now() -> str:
    return datetime.now(tz=UTC).isoformat(timespec="milliseconds")


def _print(seen: Activity, address: str, options: argparse.Namespace) -> None:
    if options.json:
        print(msgspec.json.encode(seen).decode(), flush=True)
    else:
        print("\n".join(lines(seen, address)), flush=True)
        if not options.once:
            print(flush=True)


def lines(seen: Activity, address: str) -> list[str]:
    """Write a view for people.

    Args:
        seen: What happened.
        address: Where the daemon was asked.
    """
    if seen.error:
        return [
            f"edge-runtime at {printable(address)}, {seen.time}",
            f"not reachable, trying again: {printable(seen.error)}",
        ]
    memory = "-" if seen.resident_bytes is None else _mib(seen.resident_bytes)
    budget = f" of {_mib(seen.budget_bytes)}" if seen.budget_bytes else ""
    cpu = "-" if seen.cpu_ratio is None else f"{seen.cpu_ratio:.1%}"
    who = (
        f"edge-runtime {printable(seen.server_version)} at {printable(address)}, "
        f"up {_uptime(seen.uptime_s)}, last {seen.interval_s:.1f} s"
    )
    whole = (
        f"{_number(seen.requests_per_s)} requests/s, {_number(seen.failures_per_s)} failures/s, "
        f"CPU {cpu}, memory {memory}{budget}, {seen.connections} connections, "
        f"{seen.running} running, {seen.waiting} waiting"
    )
    return [who, whole, "", *_table([_cells(version) for version in seen.versions])]


def _cells(version: VersionActivity) -> tuple[str, ...]:
    ratio = version.cache_hit_ratio
    return (
        printable(version.model),
        version.version or "-",
        version.state or "-",
        _number(version.requests_per_s),
        _number(version.failures_per_s),
        _number(version.p50_ms),
        _number(version.p99_ms),
        _number(version.queue_ms),
        _number(version.rows_per_run),
        "-" if ratio is None else f"{ratio:.0%}",
        _mib(version.size_bytes) if version.size_bytes else "-",
        str(version.in_flight),
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    whole = [_TITLES, *rows]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    for row in whole:
        cells = [
            cell.ljust(width) if index < _TEXTS else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _number(value: float | None) -> str:
    """Write a number in about three digits."""
    if value is None:
        return "-"
    if not value:
        return "0"
    if value >= _LARGE:
        return f"{value:.0f}"
    return f"{value:.3g}" if value >= 1 else f"{value:.3f}"


def _mib(count: int) -> str:
    return f"{count / _MIB:.1f} MiB"


def _uptime(seconds: float) -> str:
    days, rest = divmod(int(seconds), _DAY_S)
    clock = time.strftime("%H:%M:%S", time.gmtime(rest))
    return f"{days} d {clock}" if days else clock
