"""What every row of the benchmark is given: the plan, the models, the daemons to start."""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.cases import MODELS_FILE
from benchmarks.contenders import Served
from benchmarks.results import Outcome
from benchmarks.servers import OURS, Command, Server, fastapi, ours
from benchmarks.workload import Format, read_workload


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, and for how many seconds; the full plan takes under nine minutes."""

    warm: bool = True
    digits_connections: tuple[int, ...] = (1, 8, 32)
    digits_rounds: int = 7
    digits_s: int = 1
    image_connections: tuple[int, ...] = (1, 4)
    image_rounds: int = 3
    image_s: int = 2
    slow_rounds: int = 3
    slow_s: int = 3
    unix_rounds: int = 15
    unix_turns: int = 30
    memory_rounds: int = 3
    start_rounds: int = 9
    settle_s: float = 3.0
    idle_s: float = 12.0
    agent_idle_s: float = 180.0
    batching_one_rounds: int = 21
    batching_many_rounds: int = 9
    batching_s: float = 0.4
    fair_rounds: int = 4
    fair_s: float = 2.0
    fair_pool_s: float = 3.0
    beside_rounds: int = 3
    overload_rounds: int = 3
    overload_large_rounds: int = 2
    overload_s: int = 3
    cache_long_rounds: int = 6
    cache_rounds: int = 15
    cache_s: float = 0.4
    restart_rounds: int = 5
    loading_rounds: int = 7
    loading_s: float = 2.0
    release_rounds: int = 5
    release_s: float = 8.0


QUICK: Final = Plan(
    warm=False,
    digits_connections=(32,),
    digits_rounds=1,
    image_connections=(4,),
    image_rounds=1,
    image_s=1,
    slow_rounds=1,
    slow_s=1,
    unix_rounds=2,
    unix_turns=5,
    memory_rounds=1,
    start_rounds=1,
    settle_s=0.5,
    idle_s=0.6,
    agent_idle_s=0.6,
    batching_one_rounds=1,
    batching_many_rounds=1,
    fair_rounds=1,
    fair_s=1.0,
    fair_pool_s=1.0,
    beside_rounds=1,
    overload_rounds=1,
    overload_large_rounds=0,
    overload_s=1,
    cache_long_rounds=1,
    cache_rounds=1,
    restart_rounds=1,
    loading_rounds=1,
    release_rounds=1,
    release_s=1.0,
)
"""A smoke test: no number means anything."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What every row needs."""

    folder: Path
    """The cache folder, with the models and requests."""

    scratch: Path
    """A short-lived folder with a short path: Unix sockets lie in it."""

    plan: Plan
    tick: Callable[[], None]

    def model(self, name: str) -> Path:
        """Give a model's file.

        Args:
            name: The model.
        """
        return Path(json.loads((self.folder / MODELS_FILE).read_text("utf-8"))[name])

    def daemon(
        self,
        *models: str,
        name: str = OURS,
        formats: tuple[Format, ...] = ("json", "binary"),
        settings: Mapping[str, str] | None = None,
    ) -> Command:
        """Say how to start a daemon of ours.

        Args:
            *models: What it serves.
            name: What the tables call it.
            formats: What it is to be asked in.
            settings: As for ``servers.ours``.
        """
        paths = {model: self.model(model) for model in models}
        command = ours(paths, self.scratch / f"d{time.monotonic_ns()}", settings or {})
        return dataclasses.replace(command, name=name, formats=formats)

    def commands(self, name: str) -> list[Command]:
        """Say how to start both servers with one model.

        Args:
            name: The model.
        """
        return [self.daemon(name), fastapi({name: self.model(name)})]


@dataclass(frozen=True, slots=True)
class Row:
    """A part that can be run alone with ``--only``."""

    run: Callable[[Bench], Outcome]
    steps: Callable[[Plan], int]
    """How often it calls ``tick``."""

    quick: bool = True
    """Whether ``--quick`` takes it, too."""


def warm(bench: Bench, server: Server, model: str, connections: int) -> list[Served]:
    """Check a server's answers and load it for a second, in every format it speaks.

    Args:
        bench: What every row needs.
        server: The server.
        model: What it is asked.
        connections: Requests under way at once.

    Returns:
        The server as a contender, once for each format.
    """
    ways = [
        Served(server, read_workload(bench.folder, model, form), bench.scratch)
        for form in server.command.formats
    ]
    for way in ways:
        way.verify()
        if bench.plan.warm:
            way.measure(connections, 1)
    return ways
