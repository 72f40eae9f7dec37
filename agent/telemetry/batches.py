"""Measurements as batches that fit a message; pure.

A batch is ``{"at_s", "interval_s", "host", "runtime", "sketches"}``; what has nothing to say is
left out. Counters stand for the time since ``runtime.started_s``, so a batch that is lost costs a
moment and no count. What does not fit one message goes into the next, with the same ``at_s``.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from agent.telemetry.host import Host
from agent.telemetry.runtime_numbers import RuntimeNumbers
from edge_runtime.protocol.sketch_schemas import VersionSketches

BATCH_BYTES_MAX: Final = 49_152
"""Of one batch as JSON; a message has room for more, and its envelope too."""

_HEAD: Final = ("at_s", "interval_s")


def batches(
    host: Host,
    runtime: RuntimeNumbers | None,
    sketches: Sequence[VersionSketches],
    *,
    at_s: float,
    interval_s: float,
) -> Iterator[dict[str, Any]]:
    """Put one interval's measurements together.

    Args:
        host: Of the device.
        runtime: Of the daemon; ``None``: it does not answer.
        sketches: Of outputs; one that is too large for a message by itself is left out.
        at_s: When, in seconds since the epoch by the device's clock.
        interval_s: Time to the next one.
    """
    batch: dict[str, Any] = {"at_s": round(at_s, 3), "interval_s": interval_s}
    batch["host"] = msgspec.to_builtins(host)
    room = BATCH_BYTES_MAX
    if runtime is not None:
        head = msgspec.to_builtins(runtime)
        versions = head.pop("versions")
        batch["runtime"] = {**head, "versions": []}
        room -= _size(batch)
        for version in versions:
            size = _size(version)
            if size > room and batch["runtime"]["versions"]:
                yield batch
                batch = {key: batch[key] for key in _HEAD}
                batch["runtime"] = {"started_s": head["started_s"], "versions": []}
                room = BATCH_BYTES_MAX - _size(batch)
            batch["runtime"]["versions"].append(version)
            room -= size
    for told in (msgspec.to_builtins(each) for each in sketches if each.outputs):
        size = _size(told)
        if size > BATCH_BYTES_MAX - _size({key: batch[key] for key in _HEAD}):
            continue
        if size > room:
            yield batch
            batch = {key: batch[key] for key in _HEAD}
            room = BATCH_BYTES_MAX - _size(batch)
        batch.setdefault("sketches", []).append(told)
        room -= size
    yield batch


def _size(part: object) -> int:
    return len(msgspec.json.encode(part)) + len(',"sketches":[],')
