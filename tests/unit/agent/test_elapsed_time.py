"""The counter of elapsed time: never fast, whoever says what the time is."""

import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import BUILT_S, Clock
from agent.elapsed_time import (
    KEEP_S_MAX,
    KEEP_S_MIN,
    MADE_UP_S_MAX,
    ElapsedTime,
    Kept,
    boot_id,
    since_boot_s,
)
from agent.errors import StateError
from agent.records.elapsed import SCHEMA, Elapsed
from agent.records.file import RecordsFile
from agent.records.floors import SCHEMA as FLOORS_SCHEMA
from agent.records.floors import Floors

DAY_S = 86_400.0


@dataclass
class Machine:
    """A device whose boots and clock a test moves, and what it keeps.

    Attributes:
        since_boot_s: Age of the boot.
        boot: Its id.
        wall_s: The system clock where it can be believed.
        kept_row: What is kept.
        writes: How often something was.
    """

    since_boot_s: float = 0.0
    boot: str = "boot-1"
    wall_s: float | None = None
    kept_row: Kept = field(default_factory=Kept)
    writes: int = 0

    def kept(self) -> Kept:
        """Read."""
        return self.kept_row

    def keep(self, kept: Kept) -> None:
        """Write."""
        self.kept_row = kept
        self.writes += 1

    def start(self) -> ElapsedTime:
        """Start the agent."""
        return ElapsedTime(
            self,
            lambda: self.wall_s,
            since_boot=lambda: self.since_boot_s,
            boot=lambda: self.boot,
        )

    def live(self, seconds: float) -> None:
        """Let time pass while the device is on."""
        self.since_boot_s += seconds
        if self.wall_s is not None:
            self.wall_s += seconds

    def reboot(self, off_s: float = 0.0) -> None:
        """Switch it off and on."""
        self.boot += "+"
        self.since_boot_s = 1.0
        if self.wall_s is not None:
            self.wall_s += off_s + 1.0


def test_time_passes_while_the_device_is_on() -> None:
    machine = Machine(since_boot_s=1000.0)
    told = machine.start()
    assert told.now_s() == 0.0
    machine.live(60)
    assert told.now_s() == 60.0


def test_a_killed_agent_loses_nothing_while_the_device_stays_on() -> None:
    machine = Machine(since_boot_s=1000.0)
    told = machine.start()
    told.keep()
    machine.live(KEEP_S_MIN)
    told.keep()
    machine.live(200)
    assert machine.start().now_s() == KEEP_S_MIN + 200


def test_a_power_cut_loses_what_was_not_kept_and_invents_nothing() -> None:
    machine = Machine()
    told = machine.start()
    told.keep()
    machine.live(KEEP_S_MIN)
    told.keep()
    machine.live(200)
    machine.reboot()
    machine.live(500)  # nobody knows which part of it was before the counter was kept
    again = machine.start()
    assert again.now_s() == KEEP_S_MIN
    machine.live(10)
    assert again.now_s() == KEEP_S_MIN + 10


def test_an_agent_that_is_stopped_keeps_all_of_it() -> None:
    machine = Machine()
    told = machine.start()
    machine.live(7)
    told.settle()
    machine.reboot()
    assert machine.start().now_s() == 7


def test_days_switched_off_do_not_count_where_no_clock_is_believed() -> None:
    machine = Machine()
    told = machine.start()
    machine.live(100)
    told.settle()
    machine.reboot(off_s=30 * DAY_S)
    assert machine.start().now_s() == 100


def test_days_switched_off_count_where_the_clock_is_believed_before_and_after() -> None:
    machine = Machine(wall_s=BUILT_S)
    told = machine.start()
    machine.live(100)
    told.settle()
    machine.reboot(off_s=3 * DAY_S)
    assert machine.start().now_s() == 100 + 3 * DAY_S + 1


def test_a_clock_that_is_believed_some_minutes_after_the_boot_makes_up_for_the_night() -> None:
    machine = Machine(wall_s=BUILT_S)
    told = machine.start()
    machine.live(100)
    told.settle()
    machine.reboot()
    machine.wall_s = None
    told = machine.start()
    machine.live(300)
    assert told.now_s() == 400
    machine.wall_s = BUILT_S + DAY_S
    assert told.now_s() == DAY_S
    told.settle()
    assert machine.start().now_s() == DAY_S


def test_a_clock_that_is_believed_for_the_first_time_changes_nothing_that_was_counted() -> None:
    machine = Machine()
    told = machine.start()
    machine.live(100)
    machine.wall_s = BUILT_S + 1000 * DAY_S
    assert told.now_s() == 100


def test_a_clock_that_loses_its_trust_goes_on_by_the_time_that_the_device_is_on() -> None:
    machine = Machine(wall_s=BUILT_S)
    told = machine.start()
    machine.live(100)
    assert told.now_s() == 100
    machine.wall_s = None
    machine.live(50)
    assert told.now_s() == 150
    told.settle()
    machine.reboot(off_s=DAY_S)
    assert machine.start().now_s() == 150


@pytest.mark.parametrize("jump_s", [-1000 * DAY_S, -1.0, 1.0, 1000 * DAY_S])
def test_a_clock_that_is_set_while_the_device_is_on_counts_for_nothing(jump_s: float) -> None:
    machine = Machine(wall_s=BUILT_S)
    told = machine.start()
    machine.live(100)
    told.settle()
    assert machine.wall_s is not None
    machine.wall_s += jump_s
    assert told.now_s() == 100
    told.settle()
    assert machine.start().now_s() == 100


def test_a_clock_that_is_behind_after_a_boot_takes_nothing_away() -> None:
    machine = Machine(wall_s=BUILT_S)
    told = machine.start()
    machine.live(100)
    told.settle()
    machine.reboot()
    machine.wall_s = BUILT_S - 50
    assert machine.start().now_s() == 100


def test_a_clock_that_was_a_day_behind_for_a_moment_makes_up_for_nothing_when_it_is_right() -> None:
    machine = Machine(wall_s=BUILT_S)
    told = machine.start()
    machine.live(100)
    told.settle()
    assert machine.wall_s is not None
    machine.wall_s -= DAY_S
    told.settle()
    machine.reboot()
    told = machine.start()
    assert told.now_s() == 100  # at the first look of a boot it is behind, too
    told.settle()
    machine.wall_s += DAY_S
    machine.reboot(off_s=10)
    assert machine.start().now_s() == pytest.approx(100 + 10 + 2)


def test_a_time_server_that_lies_adds_a_month_in_a_boot_at_most_and_nothing_when_it_is_over() -> (
    None
):
    machine = Machine(wall_s=BUILT_S)
    told = machine.start()
    machine.live(100)
    told.settle()
    truth_s = machine.wall_s
    machine.reboot()
    machine.wall_s = BUILT_S + 3650 * DAY_S
    told = machine.start()
    assert told.now_s() == 100 + MADE_UP_S_MAX
    told.settle()
    for _ in range(3):
        machine.reboot()
        machine.wall_s = truth_s
        told = machine.start()
        assert told.now_s() == 100 + MADE_UP_S_MAX
        told.settle()


def test_it_is_written_seldom() -> None:
    machine = Machine(wall_s=BUILT_S)
    told = machine.start()
    told.keep()
    for _ in range(7 * 24 * 60):
        machine.live(60)
        told.keep()
    hours = 7 * 24
    assert hours - 5 <= machine.writes <= hours + 30
    assert told.now_s() - machine.kept_row.elapsed_s <= KEEP_S_MAX


def test_a_disk_that_refuses_makes_it_slower_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Machine):
        def keep(self, kept: Kept) -> None:
            raise StateError(f"no space for {kept.elapsed_s}")

    machine = Full()
    told = machine.start()
    for _ in range(3):
        machine.live(KEEP_S_MAX)
        told.keep()
    told.settle()
    assert told.now_s() == 3 * KEEP_S_MAX
    assert len(caplog.records) == 1
    assert machine.start().now_s() == 0.0


def test_no_signed_date_moves_it(tmp_path: Path) -> None:
    """The clock of a device that has none goes as far as signed plans say; the counter does not."""
    file = RecordsFile(tmp_path / "agent.db", [SCHEMA, FLOORS_SCHEMA])
    clock = Clock(Floors(file), system=lambda: 0.0, synchronised=lambda: False)
    machine = Machine()
    told = ElapsedTime(
        Elapsed(file), clock.believed_s, since_boot=lambda: machine.since_boot_s, boot=lambda: "b"
    )
    for day in range(1, 20):
        clock.raise_floor(BUILT_S + day * DAY_S)
        machine.live(1.0)
        assert told.now_s() == day
    assert clock.wall_s() >= BUILT_S + 19 * DAY_S
    file.close()


def test_what_is_kept_comes_back_from_the_disk(tmp_path: Path) -> None:
    machine = Machine(wall_s=BUILT_S)
    for n in range(3):
        file = RecordsFile(tmp_path / "agent.db", [SCHEMA])
        told = ElapsedTime(
            Elapsed(file),
            lambda: machine.wall_s,
            since_boot=lambda: machine.since_boot_s,
            boot=lambda: machine.boot,
        )
        assert told.now_s() == n * 101.0
        machine.live(90)
        told.settle()
        file.close()
        machine.reboot(off_s=10)


def test_a_counter_goes_on_where_it_was_after_kill_9(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from agent.elapsed_time import ElapsedTime
from agent.records.elapsed import SCHEMA, Elapsed
from agent.records.file import RecordsFile
told = ElapsedTime(Elapsed(RecordsFile(Path(sys.argv[1]), [SCHEMA])), lambda: None)
told.keep()
print(told.now_s(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    last_s, begun_s = 0.0, since_boot_s()
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "agent.db")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert last_s <= float(done.stdout) <= since_boot_s() - begun_s
        last_s = float(done.stdout)
    # The device stayed on meanwhile, and the agent was away.
    assert last_s > 0


def test_a_device_whose_boots_have_no_names_counts_no_boot_twice() -> None:
    machine = Machine(boot="")
    told = machine.start()
    machine.live(50)
    told.settle()
    machine.live(50)
    assert machine.start().now_s() == 50


def test_this_device_names_its_boots_and_counts_since() -> None:
    assert boot_id() == boot_id() != ""
    assert 0 < since_boot_s() <= since_boot_s()


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("live"), st.floats(0, 1e5)),
            st.tuples(st.just("keep"), st.just(0.0)),
            st.tuples(st.just("settle"), st.just(0.0)),
            st.tuples(st.just("restart"), st.just(0.0)),
            st.tuples(st.just("reboot"), st.floats(0, 1e6)),
            st.tuples(st.just("sync"), st.sampled_from([0.0, 1.0])),
        ),
        max_size=30,
    )
)
def test_it_is_never_fast(steps: list[tuple[str, float]]) -> None:
    """Whatever comes in whatever order: no more than the time that truly passed."""
    machine, true_s, is_synchronised = Machine(), 0.0, False
    told = machine.start()
    last_s = 0.0
    for kind, amount in steps:
        if kind == "live":
            machine.live(amount)
            true_s += amount
        elif kind == "keep":
            told.keep()
        elif kind == "settle":
            told.settle()
        elif kind == "restart":
            told, last_s = machine.start(), 0.0
        elif kind == "reboot":
            machine.reboot()
            true_s += amount + 1.0
            machine.wall_s = None
            is_synchronised = False
            told, last_s = machine.start(), 0.0
        else:
            is_synchronised = bool(amount)
        machine.wall_s = BUILT_S + true_s if is_synchronised else None
        assert last_s <= told.now_s() <= true_s + 1e-3
        last_s = told.now_s()
