"""A broker that is away for a month: the outbox stays small, and what is lost is told exactly."""

import random
from pathlib import Path

import pytest

from agent.messages import Loss
from agent.records.outbox_rows import Priority
from tests.brokers import mosquitto
from tests.daemons import eventually
from tests.fleet_receiver import Receiver
from tests.linked_device import LinkedDevice, local, metrics, outbox_in, status
from tests.outbox_world import Turnable

pytestmark = pytest.mark.integration

DAY_S = 86_400
INTERVAL_S = 300
QUOTA_BYTES = 500_000


def test_a_month_without_a_broker_loses_no_status_and_tells_every_gap(tmp_path: Path) -> None:
    state, clock = tmp_path / "state", Turnable()
    chance = random.Random(31)  # noqa: S311 - for repeating
    given: dict[str, dict[int, Priority]] = {}
    for _ in range(30):
        # Each day the device is switched off, well or not.
        file, outbox = outbox_in(state, now_s=clock, metrics_bytes=QUOTA_BYTES)
        today = given[outbox.boot_id] = {}
        for number in range(DAY_S // INTERVAL_S):
            clock.now_s += INTERVAL_S
            topic = "edge/v1/test/d/dev-1/m"
            today[outbox.add(topic, metrics(number, 600), Priority.METRICS)] = Priority.METRICS
            if chance.random() < 0.03:
                job = "edge/v1/test/d/dev-1/jobs/r1"
                today[outbox.add(job, status(), Priority.STATUS)] = Priority.STATUS
        assert outbox.waiting().metrics_bytes <= QUOTA_BYTES
        if chance.random() < 0.5:
            outbox.close()
        file.close()
    assert sum(path.stat().st_size for path in state.iterdir()) < 10 * QUOTA_BYTES
    with mosquitto(tmp_path, persistence=True) as broker:
        device = LinkedDevice(state, local(broker.port))
        with Receiver(broker.port, device.keys) as receiver, device:
            last = device.status("end")
            run = device.outbox.boot_id

            def is_over() -> bool:
                waiting = device.outbox.waiting()
                is_empty = waiting.statuses + waiting.metrics == 0
                return is_empty and last in receiver.runs[run].seqs

            eventually(is_over, "the end of the drain")

            def is_accounted_for(name: str) -> bool:
                # Only a run that was switched off without a word had something in memory.
                heard = receiver.runs[name]
                missing = given[name].keys() - heard.seqs.keys()
                return 0 <= len(missing) - heard.lost <= (2 if heard.ended else 0)

            # What the broker has, the receiver hears a moment later.
            eventually(lambda: all(map(is_accounted_for, given)), "every number accounted for")
            lost = arrived = 0
            for name, today in given.items():
                heard = receiver.runs[name]
                # One look: of a run that was switched off, the last may come even now.
                came = set(heard.seqs)
                statuses = {seq for seq, each in today.items() if each is Priority.STATUS}
                assert statuses <= came
                assert {gap.reason for gap in heard.gaps} <= {Loss.QUOTA}
                arrived += len(came)
                lost += len(today.keys() - came)
                assert all(end.last_seq == max(today) for end in heard.ended)
            assert arrived + lost == sum(len(today) for today in given.values())
            assert lost > arrived > 0
