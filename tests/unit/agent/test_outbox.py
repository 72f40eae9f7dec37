"""The outbox: what waits, what is dropped, and that each number is accounted for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.messages import REPORT_BYTES_MAX, Loss, MetricsBatch, read
from agent.records.outbox import ARRIVED_MAX, FLUSH_BYTES, FLUSH_S
from agent.records.outbox_flash import RETRY_S
from agent.records.outbox_rows import Priority, Row
from tests.linked_device import KERNEL, status
from tests.outbox_world import IN_FLIGHT, FullDisk, World

KEPT = 2 * IN_FLIGHT + ARRIVED_MAX


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "state")
    yield made
    made.file.close()


def _numbers(rows: list[Row]) -> list[int]:
    return [row.key.seq for row in rows]


def _told(rows: list[Row]) -> list[MetricsBatch]:
    batches = [read(row.payload, MetricsBatch) for row in rows if row.topic.endswith("/m")]
    return [batch for batch in batches if batch.gaps or batch.ended]


def test_what_was_to_be_said_under_another_name_is_dropped_at_the_start_and_told(
    world: World,
) -> None:
    for number in range(3):
        world.add(Priority.STATUS, number, topic=f"edge/v1/test/d/old/jobs/r{number}")
    world.add(Priority.METRICS, topic="edge/v1/test/d/old/m")
    kept = world.add(Priority.STATUS, topic="edge/v1/test/d/dev-1/jobs/r1")
    world.reopen(own="edge/v1/test/d/dev-1/")
    assert world.outbox.waiting().statuses == 1
    assert world.outbox.waiting().metrics == 0
    assert world.outbox.waiting().dropped == {Loss.SUPERSEDED: 4}
    rows = world.drained()
    assert kept in _numbers(rows)
    (told,) = _told(rows)
    assert [(gap.first_seq, gap.last_seq, gap.reason) for gap in told.gaps] == [
        (1, 4, Loss.SUPERSEDED)
    ]


def test_a_loss_of_which_only_a_newer_program_knows_the_reason_is_told_with_another(
    world: World,
) -> None:
    world.add(Priority.STATUS)
    boot = world.outbox.newest.boot
    with world.file.transaction() as db:
        db.execute("INSERT INTO outbox_losses VALUES (?, 7, 8, 2, 'later-word')", (boot,))
    world.crash()
    (told,) = _told(world.drained())
    assert [(gap.first_seq, gap.last_seq, gap.reason) for gap in told.gaps] == [(7, 8, Loss.DISK)]


def test_what_was_refused_comes_after_what_waits_behind_it_and_each_has_its_turn(
    world: World,
) -> None:
    for number in range(7):
        world.add(Priority.STATUS, number)
    given = []
    for _ in range(4):
        rows = world.outbox.take(3)
        given.append(_numbers(rows))
        for row in rows:
            world.outbox.refused(row.key)
        world.outbox.try_refused()
    assert given == [[1, 2, 3], [4, 5, 6], [7, 1, 2], [3, 4, 5]]
    world.outbox.lost()
    assert _numbers(world.outbox.take(100)) == [1, 2, 3, 4, 5, 6, 7]


def test_numbers_rise_by_one_whatever_the_class(world: World) -> None:
    assert [world.add(each) for each in (*Priority, Priority.STATUS)] == [1, 2, 3, 4]


def test_statuses_go_before_births_and_births_before_metrics_each_by_age(world: World) -> None:
    order = [Priority.METRICS, Priority.LATEST, Priority.STATUS, Priority.METRICS, Priority.STATUS]
    for number, each in enumerate(order):
        world.add(each, number, topic=f"t{number}")
    assert _numbers(world.outbox.take(10)) == [3, 5, 2, 1, 4]


def test_what_is_taken_is_not_taken_twice_and_stays_until_it_arrived(world: World) -> None:
    world.add(Priority.STATUS)
    taken = world.outbox.take(10)
    assert world.outbox.take(10) == []
    assert world.outbox.waiting().statuses == 1
    world.outbox.arrived(taken[0].key)
    world.outbox.settle()
    assert world.outbox.waiting().statuses == 0


def test_what_was_under_way_is_taken_again_after_the_link_was_lost(world: World) -> None:
    for each in Priority:
        world.add(each)
    first = world.outbox.take(10)
    world.outbox.lost()
    assert sorted(_numbers(world.outbox.take(10))) == sorted(_numbers(first))


def test_a_status_is_durable_before_add_returns(world: World) -> None:
    world.add(Priority.STATUS)
    name = world.outbox.boot_id
    world.crash()
    statuses = [row for row in world.drained() if row.topic == "t"]
    assert [(row.boot_id, row.key.seq) for row in statuses] == [(name, 1)]


def test_metrics_stay_in_memory_while_connected_and_flash_is_not_written(world: World) -> None:
    world.outbox.connected()
    for number in range(50):
        world.add(Priority.METRICS, number)
    assert world.rows_on_flash() == 0
    assert world.outbox.waiting().metrics == 50


def test_metrics_go_to_flash_when_the_link_is_lost_and_keep_their_order(world: World) -> None:
    world.outbox.connected()
    for number in range(10):
        world.add(Priority.METRICS, number)
    world.outbox.take(3)
    world.outbox.lost()
    assert world.rows_on_flash() == 10
    assert _numbers(world.drained()) == [*range(1, 11)]


def test_too_many_metrics_for_memory_go_to_flash(tmp_path: Path) -> None:
    world = World(tmp_path / "state")
    world.crash(memory_bytes=2000)
    world.outbox.connected()
    for number in range(20):
        world.add(Priority.METRICS, number)
    assert world.rows_on_flash() > 10
    assert [row.key.seq for row in world.drained() if row.topic == "t"] == [*range(1, 21)]
    world.file.close()


def test_metrics_wait_for_company_while_the_broker_is_away_but_not_long(world: World) -> None:
    world.add(Priority.METRICS)
    assert world.rows_on_flash() == 0
    world.clock.now_s += FLUSH_S
    world.add(Priority.METRICS)
    assert world.rows_on_flash() == 2
    while world.rows_on_flash() == 2:
        world.add(Priority.METRICS)
    assert world.outbox.waiting().metrics > FLUSH_BYTES / 1000


def test_only_the_newest_birth_of_a_topic_goes_and_the_older_are_told(world: World) -> None:
    world.outbox.connected()
    for _ in range(3):
        world.add(Priority.LATEST, topic="birth")
    world.add(Priority.LATEST, topic="reported")
    rows = world.drained()
    assert [row.key.seq for row in rows if row.topic in {"birth", "reported"}] == [3, 4]
    (batch,) = _told(rows)
    assert [(gap.first_seq, gap.last_seq, gap.count) for gap in batch.gaps] == [(1, 2, 2)]
    assert {gap.reason for gap in batch.gaps} == {Loss.SUPERSEDED}


def test_a_birth_that_may_have_arrived_is_not_told_to_be_gone(world: World) -> None:
    world.add(Priority.LATEST, topic="birth")
    world.outbox.take(1)
    world.outbox.lost()
    world.add(Priority.LATEST, topic="birth")
    assert _numbers(world.drained()) == [1, 2]


def test_beyond_the_quota_the_oldest_metrics_are_dropped_and_counted_exactly(
    tmp_path: Path,
) -> None:
    world = World(tmp_path / "state")
    world.crash(metrics_bytes=40_000)
    added = [
        world.add(Priority.STATUS if number % 50 == 0 else Priority.METRICS, number)
        for number in range(1000)
    ]
    world.outbox.lost()
    waiting = world.outbox.waiting()
    assert waiting.metrics_bytes <= 40_000
    assert waiting.statuses == 20
    rows = world.drained()
    came = {row.key.seq for row in rows if row.topic == "t" and row.boot_id == rows[0].boot_id}
    assert {number for number in added if (number - 1) % 50 == 0} <= came
    missing = set(added) - came
    gaps = [gap for batch in _told(rows) for gap in batch.gaps]
    assert sum(gap.count for gap in gaps) == len(missing) > 500
    for gap in gaps:
        inside = {seq for seq in missing if gap.first_seq <= seq <= gap.last_seq}
        assert len(inside) == gap.count
    # The very oldest may have arrived before: they are kept.
    oldest = sorted(set(added) - {seq for seq in added if (seq - 1) % 50 == 0})[:KEPT]
    assert set(oldest) <= came
    world.file.close()


def test_gaps_outlive_a_crash_and_are_told_once(tmp_path: Path) -> None:
    world = World(tmp_path / "state")
    world.crash(metrics_bytes=20_000)
    for number in range(300):
        world.add(Priority.METRICS, number)
    world.outbox.lost()
    dropped = world.outbox.waiting().dropped[Loss.QUOTA]
    world.crash()
    batches = _told(world.drained())
    assert sum(gap.count for batch in batches for gap in batch.gaps) == dropped > 0
    assert _told(world.drained()) == []
    world.reopen()
    assert _told(world.drained()) == []
    world.file.close()


def test_a_run_that_was_killed_is_told_with_its_last_number(world: World) -> None:
    world.outbox.connected()
    for _ in range(7):
        world.add(Priority.METRICS)
    killed = world.outbox.boot_id
    world.crash()
    (batch,) = _told(world.drained())
    assert [(end.boot_id, end.last_seq, end.is_exact) for end in batch.ended] == [(killed, 7, True)]


def test_after_a_power_cut_the_last_number_is_told_as_uncertain(world: World) -> None:
    world.add(Priority.STATUS)
    world.outbox.connected()
    world.add(Priority.METRICS)
    (world.folder / "outbox.seq").unlink()
    world.crash(kernel=KERNEL.replace("1", "2"))
    (batch,) = _told(world.drained())
    assert [(end.last_seq, end.is_exact) for end in batch.ended] == [(1, False)]


def test_a_run_that_ended_well_leaves_nothing_to_tell_and_loses_no_metrics(world: World) -> None:
    world.outbox.connected()
    for _ in range(3):
        world.add(Priority.METRICS)
    world.reopen()
    rows = world.drained()
    assert _numbers(rows) == [1, 2, 3]
    assert _told(rows) == []


@pytest.mark.parametrize("was_lost_before", [True, False])
def test_a_birth_that_may_have_arrived_before_the_end_is_not_told_to_be_gone(
    world: World, *, was_lost_before: bool
) -> None:
    ended = world.outbox.boot_id
    world.add(Priority.LATEST, topic="birth")
    world.outbox.take(10)
    if was_lost_before:
        world.outbox.lost()
    world.add(Priority.LATEST, topic="reported")  # that one never went
    world.reopen()
    (batch,) = _told(world.drained())
    assert [(gap.first_seq, gap.last_seq, gap.reason) for gap in batch.gaps] == [
        (2, 2, Loss.SUPERSEDED)
    ]
    assert [(end.boot_id, end.last_seq, end.is_exact) for end in batch.ended] == [(ended, 2, True)]


def test_no_two_runs_have_one_name_even_when_the_file_was_lost(world: World) -> None:
    names = {world.outbox.boot_id}
    for _ in range(3):
        world.reopen()
        names.add(world.outbox.boot_id)
    world.outbox.close()
    world.file.close()
    for path in world.folder.iterdir():
        path.unlink()
    world.open()
    names.add(world.outbox.boot_id)
    assert len(names) == 5


def test_earlier_runs_are_known_as_its_own(world: World) -> None:
    earlier = world.outbox.boot_id
    world.reopen()
    assert world.outbox.own_boot_ids == {earlier, world.outbox.boot_id}


def test_runs_long_past_are_forgotten_once_all_was_told(world: World) -> None:
    for _ in range(80):
        world.reopen()
    assert len(world.outbox.own_boot_ids) <= 65


def test_a_message_without_end_is_refused_and_gets_no_number(world: World) -> None:
    with pytest.raises(ValueError, match="cut it"):
        world.outbox.add("t", b"x" * (REPORT_BYTES_MAX + 1), Priority.STATUS)
    assert world.add(Priority.STATUS) == 1


def test_a_message_that_no_broker_takes_is_dropped_and_told_but_never_a_status(
    world: World,
) -> None:
    world.add(Priority.METRICS)
    world.add(Priority.STATUS)
    for row in world.outbox.take(10):
        world.outbox.drop(row.key, Loss.TOO_LARGE)
    assert world.outbox.waiting().metrics == 0
    assert world.outbox.waiting().statuses == 1
    (batch,) = _told(world.outbox.take(10))
    assert [gap.reason for gap in batch.gaps] == [Loss.TOO_LARGE]


def test_a_full_disk_keeps_statuses_in_memory_and_sends_them_and_says_so(world: World) -> None:
    disk = FullDisk(world)
    for number in range(20):
        world.outbox.add("t", status(step=str(number) * 1000), Priority.STATUS)
    waiting = world.outbox.waiting()
    assert waiting.unsaved > 0
    assert "full" in waiting.problem
    assert waiting.statuses == 20
    assert [row.key.seq for row in world.outbox.take(50)] == [*range(1, 21)]
    world.outbox.lost()
    disk.empty()
    world.clock.now_s += RETRY_S
    world.outbox.settle()
    assert world.outbox.waiting().unsaved == 0
    assert world.outbox.waiting().problem == ""
    world.crash()
    assert [row.key.seq for row in world.drained() if row.topic == "t"] == [*range(1, 21)]


def test_a_full_disk_drops_metrics_and_counts_them(tmp_path: Path) -> None:
    world = World(tmp_path / "state")
    world.crash(memory_bytes=5000)
    disk = FullDisk(world)
    added = [world.add(Priority.METRICS, number) for number in range(200)]
    assert world.outbox.waiting().metrics_bytes <= 12_000  # what still fitted on the disk, too
    dropped = world.outbox.waiting().dropped[Loss.DISK]
    assert dropped > 100
    disk.empty()
    world.clock.now_s += RETRY_S
    world.outbox.lost()
    rows = world.drained()
    came = {row.key.seq for row in rows if row.topic == "t"}
    assert len(set(added) - came) == dropped
    assert sum(gap.count for batch in _told(rows) for gap in batch.gaps) == dropped
    world.file.close()
