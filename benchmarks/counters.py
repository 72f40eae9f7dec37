"""What a daemon counted itself, by Triton's statistics extension, and the CPU time it took for it.

A comparison of two settings means nothing if the setting had no effect; these counts tell.
"""

import json
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.servers import Server
from benchmarks.wire import ask
from benchmarks.workload import WrongAnswerError


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts of one model since its load."""

    inferences: int
    """Rows answered by a run."""

    runs: int
    """Runs of the model; one run may serve several requests."""

    hits: int
    """Requests answered from the cache."""

    cpu_s: float
    """CPU time of the whole daemon, as the kernel counts it, in seconds."""

    def since(self, earlier: "Counters") -> "Counters":
        """Give what was counted after an earlier reading."""
        return Counters(
            self.inferences - earlier.inferences,
            self.runs - earlier.runs,
            self.hits - earlier.hits,
            self.cpu_s - earlier.cpu_s,
        )

    @property
    def rows_per_run(self) -> float:
        """How many rows shared a run on average; 0 without a run."""
        return self.inferences / self.runs if self.runs else 0.0

    @property
    def hit_share(self) -> float:
        """Requests answered from the cache over all that were answered; 0 without a request."""
        answered = self.hits + self.inferences
        return self.hits / answered if answered else 0.0

    @property
    def cpu_us(self) -> float:
        """CPU time of an answer with one row, in microseconds; 0 without an answer."""
        answered = self.hits + self.inferences
        return 1e6 * self.cpu_s / answered if answered else 0.0


def read_counters(server: Server, model: str) -> Counters:
    """Ask a daemon.

    Args:
        server: A daemon of ours.
        model: The model; its first version counts.

    Raises:
        OSError: It does not answer.
        WrongAnswerError: It refuses to tell.
    """
    answer = ask(server.command.address, "GET", f"/v2/models/{model}/stats")
    if answer.status != 200:
        raise WrongAnswerError(f"{model}: statistics: status {answer.status}: {answer.body!r}")
    times = psutil.Process(server.pid).cpu_times()
    return parse(json.loads(answer.body), times.user + times.system)


def parse(page: Any, cpu_s: float) -> Counters:  # noqa: ANN401 - JSON
    """Read the statistics extension's answer.

    Args:
        page: The decoded body.
        cpu_s: The daemon's CPU time, in seconds.
    """
    stats = page["model_stats"][0]
    hits = stats["inference_stats"]["cache_hit"]["count"]
    return Counters(stats["inference_count"], stats["execution_count"], hits, cpu_s)
