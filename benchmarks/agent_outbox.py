"""What the agent's outbox costs: rows a second beside plain SQLite, and its drain into mosquitto.

Everything is the agent's own: outbox, signatures, sender, link. The broker is a real one on
loopback; without one its lines are missing.
"""

import random
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from agent.clock import Clock, NoFloor
from agent.identity import device_key
from agent.messages import JobState, JobStatus, MetricsBatch, write
from agent.records import outbox_rows
from agent.records.file import RecordsFile
from agent.records.outbox import Outbox
from agent.records.outbox_rows import Priority
from agent.settings import messaging
from agent.settings.messaging import Broker, Mqtt
from agent.topics import Topics
from agent.transport.clones import CloneWatch
from agent.transport.courier import Courier
from agent.transport.inbox import Inbox
from agent.transport.link import Link
from agent.transport.sender import Sender
from benchmarks.bench import Bench
from benchmarks.results import Entry, Outcome, at_least, ratios, spread

TABLE: Final = "The agent's outbox"
PLAIN: Final = "SQLite, one insert in each transaction (synchronous=FULL)"
STATUSES: Final = "statuses added, each durable"
FLASH: Final = "metrics added while the broker is away"
MEMORY: Final = "metrics added while the broker is there"
DRAIN_STATUSES: Final = "statuses drained into mosquitto, signed"
DRAIN_METRICS: Final = "metrics drained into mosquitto"

_ROUNDS: Final = 5
_ROWS: Final = 400
_MANY_ROWS: Final = 2000
_RATIO_MIN: Final = 0.5
_HOST: Final = "127.0.0.1"
_WAIT_S: Final = 60.0
_TOPICS: Final = Topics("bench", "dev-1")
_STATUS: Final = write(
    JobStatus(rollout="r1", model="digits", state=JobState.IN_PROGRESS, step="downloading")
)
_METRICS: Final = write(MetricsBatch(batch={f"metric_{index}": index for index in range(80)}))


def outbox_row(bench: Bench) -> Outcome:
    """Measure adding, and draining where there is a broker."""
    rates: dict[str, list[float]] = {name: [] for name in (PLAIN, STATUSES, FLASH, MEMORY)}
    for number in range(_ROUNDS):
        folder = bench.scratch / f"outbox-{number}"
        folder.mkdir()
        rates[PLAIN].append(_plain(folder))
        rates[STATUSES].append(_adding(folder / "statuses", Priority.STATUS, _ROWS))
        rates[FLASH].append(_adding(folder / "flash", Priority.METRICS, _MANY_ROWS))
        rates[MEMORY].append(
            _adding(folder / "memory", Priority.METRICS, _MANY_ROWS, is_connected=True)
        )
        shutil.rmtree(folder)
        bench.tick()
    outcome = Outcome()
    to_plain = ratios(rates[STATUSES], rates[PLAIN])
    what = "durable rows a second of the outbox"
    outcome.targets.append(at_least(what, to_plain.median, _RATIO_MIN, "of plain SQLite"))
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        outcome.notes.append("mosquitto is not installed: draining was not measured.")
    else:
        rates |= _drains(bench, program)
    for name, found in rates.items():
        outcome.entries.append(Entry(TABLE, {"what": name, "rows a second": spread(found)}))
    outcome.notes.append(
        f"A status has {len(_STATUS)} bytes, a batch of metrics {len(_METRICS)}. At most 20 are on "
        "their way at once; what the broker has is deleted twenty at a time."
    )
    return outcome


def _drains(bench: Bench, program: str) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {DRAIN_STATUSES: [], DRAIN_METRICS: []}
    with broker(program, bench.scratch) as port:
        for number in range(_ROUNDS):
            for name, priority in (
                (DRAIN_STATUSES, Priority.STATUS),
                (DRAIN_METRICS, Priority.METRICS),
            ):
                folder = bench.scratch / f"drain-{number}-{priority}"
                rates[name].append(_drained(folder, port, priority))
                shutil.rmtree(folder)
            bench.tick()
    return rates


def _plain(folder: Path) -> float:
    """Insert the same payloads without an outbox."""
    db = sqlite3.connect(folder / "plain.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, topic TEXT, payload BLOB)")
    topic = _TOPICS.job("r1")

    def insert() -> None:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO plain (topic, payload) VALUES (?, ?)", (topic, _STATUS))
        db.execute("COMMIT")

    rate = _rate(insert, _ROWS)
    db.close()
    return rate


def _adding(folder: Path, priority: Priority, count: int, *, is_connected: bool = False) -> float:
    with _outbox(folder) as outbox:
        if is_connected:
            outbox.connected()
        return _rate(lambda: _add(outbox, priority), count)


def _drained(folder: Path, port: int, priority: Priority) -> float:
    """Let messages wait, then connect, and take the time until all have been acknowledged."""
    with _outbox(folder) as outbox:
        for _ in range(_MANY_ROWS):
            _add(outbox, priority if priority is Priority.METRICS else Priority.STATUS)
        outbox.lost()
        is_over = threading.Event()
        key = device_key(folder)
        settings = Mqtt(brokers=(Broker(host=_HOST, port=port, tls=False),))
        left = [_MANY_ROWS]

        def arrived(_row: object) -> None:
            left[0] -= 1
            if not left[0]:
                is_over.set()

        sender = Sender(
            outbox,
            sign=key.sign,
            settings=messaging.Outbox(drain_per_s=10_000, drain_jitter_s=0),
            in_flight_max=settings.in_flight_max,
            uniform=random.uniform,
            now_s=time.monotonic,
            on_arrived=arrived,
        )
        clones = CloneWatch(outbox.boot_id, outbox.own_boot_ids, {})
        link = Link(
            settings,
            topics=_TOPICS,
            boot_id=outbox.boot_id,
            traffic=Courier(_TOPICS, sender, Inbox(_TOPICS, lambda: None), clones),
            clock=Clock(NoFloor(), "yes"),
            uniform=random.uniform,
        )
        begin_s = time.perf_counter()
        link.start()
        try:
            if not is_over.wait(_WAIT_S):
                raise TimeoutError(f"{left[0]} messages were not acknowledged in {_WAIT_S} s")
            return _MANY_ROWS / (time.perf_counter() - begin_s)
        finally:
            link.stop()


def _add(outbox: Outbox, priority: Priority) -> None:
    if priority is Priority.STATUS:
        outbox.add(_TOPICS.job("r1"), _STATUS, priority)
    else:
        outbox.add(_TOPICS.metrics, _METRICS, priority)


def _rate(action: Callable[[], None], count: int) -> float:
    begin_s = time.perf_counter()
    for _ in range(count):
        action()
    return count / (time.perf_counter() - begin_s)


@contextmanager
def _outbox(folder: Path) -> Iterator[Outbox]:
    folder.mkdir()
    file = RecordsFile(folder / "agent.db", [outbox_rows.SCHEMA])
    outbox = Outbox(
        file,
        kernel="bench",
        mark=folder / "outbox.seq",
        gaps_topic=_TOPICS.metrics,
        metrics_bytes=64 * 2**20,
        memory_bytes=262_144,
        in_flight_max=20,
        now_s=time.monotonic,
    )
    try:
        yield outbox
    finally:
        outbox.close()
        file.close()


@contextmanager
def broker(program: str, scratch: Path) -> Iterator[int]:
    """Run mosquitto on loopback, without a password; gives its port.

    Args:
        program: Where it is installed.
        scratch: For its configuration.
    """
    with socket.socket() as sock:
        sock.bind((_HOST, 0))
        port: int = sock.getsockname()[1]
    config = scratch / "mosquitto.conf"
    config.write_text(f"listener {port} {_HOST}\nallow_anonymous true\n", "utf-8")
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        end_s = time.monotonic() + _WAIT_S
        while time.monotonic() < end_s:
            with suppress(OSError), socket.create_connection((_HOST, port), 1.0):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()
