"""``edge-runtime status``: is the daemon live and ready, and how do its models do?"""

import argparse
from typing import Final

import msgspec

from edge_runtime.cli.terminal import connect, print_json, printable, table
from edge_runtime.client import Client
from edge_runtime.errors import UnavailableError
from edge_runtime.exit_codes import ExitCode
from edge_runtime.protocol.schemas import IndexEntry, ModelStatistics

_NS_PER_MS: Final = 1e6


class ModelStatus(msgspec.Struct):
    """How one version does.

    Attributes:
        name: The model.
        version: Empty while none is known.
        state: As in the repository index.
        reason: Why it is not ready.
        requests: Answered requests.
        failures: Failed ones.
        mean_ms: Mean time of an answered request inside the daemon; ``None``: there was none.
    """

    name: str
    version: str
    state: str
    reason: str
    requests: int = 0
    failures: int = 0
    mean_ms: float | None = None


class Status(msgspec.Struct):
    """How the daemon does.

    Attributes:
        address: Where it was asked.
        live: Whether it runs.
        ready: Whether it can answer.
        server: Its name and version.
        models: Every version known.
        error: Why it could not be asked.
    """

    address: str
    live: bool = False
    ready: bool = False
    server: str = ""
    models: list[ModelStatus] = []
    error: str = ""


def run(options: argparse.Namespace) -> int:
    """Print the status.

    Raises:
        EdgeRuntimeError: The daemon did not answer, or not as it should.
    """
    with connect(options) as client:
        status = Status(str(client.endpoint))
        try:
            _ask(client, status)
        except UnavailableError as error:
            if not options.json:
                raise
            status.error = error.message
    if options.json:
        print_json(status)
    else:
        _print_for_people(status)
    return ExitCode.DONE if status.live and status.ready and not status.error else ExitCode.FAILED


def _ask(client: Client, status: Status) -> None:
    status.live = client.live()
    status.ready = client.ready()
    server = client.metadata()
    status.server = f"{server.name} {server.version}"
    statistics = {(each.name, each.version): each for each in client.statistics().model_stats}
    status.models = [
        _model(entry, statistics.get((entry.name, entry.version))) for entry in client.index()
    ]


def _model(entry: IndexEntry, statistics: ModelStatistics | None) -> ModelStatus:
    status = ModelStatus(entry.name, entry.version, entry.state, entry.reason)
    if statistics is not None:
        success = statistics.inference_stats.success
        status.requests = success.count
        status.failures = statistics.inference_stats.fail.count
        if success.count:
            status.mean_ms = round(success.ns / success.count / _NS_PER_MS, 3)
    return status


def _print_for_people(status: Status) -> None:
    live = "live" if status.live else "not live"
    ready = "ready" if status.ready else "not ready"
    print(f"{printable(status.server)} at {printable(status.address)}: {live}, {ready}")
    if status.models:
        titles = ("MODEL", "VERSION", "STATE", "REQUESTS", "FAILED", "MEAN MS", "REASON")
        print(table(titles, [_cells(model) for model in status.models]))


def _cells(model: ModelStatus) -> tuple[str, ...]:
    mean = "" if model.mean_ms is None else f"{model.mean_ms:.3f}"
    numbers = (str(model.requests), str(model.failures), mean)
    return (model.name, model.version, model.state, *numbers, model.reason)
