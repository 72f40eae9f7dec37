"""An agent that is killed again and again while it reports, and what a receiver makes of it."""

import os
import random
import select
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.brokers import Mosquitto
from tests.daemons import eventually
from tests.fleet_receiver import Receiver
from tests.linked_device import LinkedDevice, local

RUN_S_MAX = 0.6
START_S = 60.0


@dataclass
class Said:
    """What one run of the agent printed before it was killed.

    Attributes:
        classes: Class of each number that it was given.
        sent: Numbers that the broker had acknowledged.
    """

    classes: dict[int, str] = field(default_factory=dict)
    sent: set[int] = field(default_factory=set)


class Kills:
    """Runs an agent on one state directory, each time to a violent end.

    Args:
        state: Its state directory.
        broker: Where it reports; away for some of the runs.
        seed: Of the times.

    Attributes:
        said: What each run printed, by boot id.
    """

    def __init__(self, state: Path, broker: Mosquitto, seed: int) -> None:
        self._state = state
        self._broker = broker
        self._chance = random.Random(seed)  # noqa: S311 - for repeating
        self._seed = seed
        self.said: dict[str, Said] = defaultdict(Said)

    def run(self, times: int) -> None:
        """Kill it so many times."""
        for number in range(times):
            is_away = self._chance.random() < 0.3
            if is_away:
                self._broker.stop()
            self._killed(self._seed + number)
            if is_away:
                self._broker.restart()

    def _killed(self, seed: int) -> None:
        command = [sys.executable, "-m", "tests.linked_device", str(self._state)]
        process = subprocess.Popen(
            [*command, str(self._broker.port), str(seed)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        text = b""
        end_s = time.monotonic() + START_S
        while b"\n" not in text:
            assert time.monotonic() < end_s, "the agent did not begin"
            text += os.read(descriptor, 65_536)
        end_s = time.monotonic() + self._chance.uniform(0.0, RUN_S_MAX)
        while (left_s := end_s - time.monotonic()) > 0:
            if select.select([descriptor], [], [], left_s)[0]:
                text += os.read(descriptor, 65_536)
        process.kill()
        text += process.stdout.read()
        process.stdout.close()
        process.wait()
        self._note(text.decode().splitlines(keepends=True))

    def _note(self, lines: list[str]) -> None:
        said = self.said[lines[0].split()[1]]
        for line in lines[1:]:
            if not line.endswith("\n"):
                continue
            word, number, *run = line.split()
            if word == "sent":
                self.said[run[0]].sent.add(int(number))
            else:
                said.classes[int(number)] = word

    def drain(self, receiver: Receiver) -> None:
        """Let the agent run in peace until nothing waits, and the receiver has all of it."""
        settings = local(self._broker.port)
        with LinkedDevice(self._state, settings, on_arrived=None) as device:

            def is_empty() -> bool:
                waiting = device.outbox.waiting()
                return waiting.statuses + waiting.metrics == 0 and device.link.status.is_connected

            eventually(is_empty, "the end of the drain")
            last = device.status("last", "end")
            name = device.outbox.boot_id
            eventually(lambda: last in receiver.runs[name].seqs, "the last report's arrival")


def check(kills: Kills, receiver: Receiver) -> dict[str, int]:
    """Account for every number of every run.

    Returns:
        How many came, were told to be gone, and were lost with the memory of a killed agent.
    """
    total = {"came": 0, "gaps": 0, "in memory": 0, "copies": 0}
    for name, said in kills.said.items():
        heard = receiver.runs[name]
        durable = {seq for seq, word in said.classes.items() if word == "status"}
        assert durable <= heard.seqs.keys(), f"{name} lost statuses {durable - heard.seqs.keys()}"
        assert said.sent <= heard.seqs.keys(), f"{name} lost what was acknowledged"
        if not said.classes and not heard.seqs:
            continue  # killed before it had a number
        (end,) = heard.ended
        assert end.is_exact
        printed = max(said.classes, default=0)
        assert printed <= end.last_seq <= printed + 1
        missing = heard.missing(end.last_seq)
        assert missing == missing - {seq for seq in heard.seqs if seq > end.last_seq}
        assert {said.classes.get(seq, "metrics") for seq in missing} <= {"metrics", "latest"}
        for gap in heard.gaps:
            inside = [seq for seq in missing if gap.first_seq <= seq <= gap.last_seq]
            assert len(inside) >= gap.count, f"{name} told a gap of what came: {gap}"
        assert heard.lost <= len(missing)
        total["came"] += len(heard.seqs)
        total["gaps"] += heard.lost
        total["in memory"] += len(missing) - heard.lost
        total["copies"] += heard.copies
    return total
