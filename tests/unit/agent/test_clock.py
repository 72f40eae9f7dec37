"""The clock never tells a time before what is past for sure."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import (
    AHEAD_S_MAX,
    BUILT_S,
    KEEP_EVERY_S,
    Clock,
    SignedTime,
    Trust,
    is_synchronised,
)
from agent.errors import StateError
from agent.records.file import RecordsFile
from agent.records.floors import SCHEMA, Floors, VersionFloor
from tests.trusting import Hands

DAY_S = 86_400.0


class Kept:
    """A floor in memory."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.signed: SignedTime | None = None
        self.writes = 0

    def time_s(self) -> float:
        """Read it."""
        return self.seconds

    def keep_time(self, seconds: float) -> None:
        """Write it."""
        self.seconds = seconds
        self.writes += 1

    def signed_time(self) -> SignedTime | None:
        """Read what others signed."""
        return self.signed

    def keep_signed_time(self, signed: SignedTime | None) -> None:
        """Write it."""
        self.signed = signed
        self.writes += 1


def clock(kept: Kept, hands: Hands, trust: Trust = "auto") -> Clock:
    return Clock(
        kept,
        trust,
        system=lambda: hands.system_s,
        awake=lambda: hands.awake_s,
        synchronised=lambda: hands.synchronised,
    )


def test_a_device_at_1970_is_at_least_as_late_as_its_program() -> None:
    hands = Hands(0.0, synchronised=False)
    told = clock(Kept(), hands)
    assert told.wall_s() == BUILT_S
    hands.awake_s = 100.0
    assert told.wall_s() == BUILT_S + 100.0
    assert not told.is_trusted()


def test_a_system_clock_that_can_be_believed_counts_whatever_the_floor() -> None:
    hands = Hands(BUILT_S + DAY_S)
    assert clock(Kept(), hands).wall_s() == BUILT_S + DAY_S
    assert clock(Kept(BUILT_S + 2 * DAY_S), hands).wall_s() == BUILT_S + DAY_S
    assert clock(Kept(BUILT_S + 2 * DAY_S), hands, "no").wall_s() == BUILT_S + 2 * DAY_S


def test_nobody_moves_a_clock_that_can_be_believed() -> None:
    """A plan that is dated into the future must not carry guard-rails along."""
    hands = Hands(BUILT_S + DAY_S)
    told = clock(Kept(), hands)
    told.raise_floor(BUILT_S + DAY_S + DAY_S / 2)
    assert told.wall_s() == BUILT_S + DAY_S
    assert told.floor_s == BUILT_S + DAY_S


@pytest.mark.parametrize(
    ("trust", "synchronised", "expected"),
    [("auto", True, True), ("auto", False, False), ("yes", False, True), ("no", True, False)],
)
def test_trust_is_the_kernels_word_or_the_owners(
    trust: Trust, *, synchronised: bool, expected: bool
) -> None:
    hands = Hands(BUILT_S + DAY_S, synchronised=synchronised)
    assert clock(Kept(), hands, trust).is_trusted() is expected


def test_a_clock_that_is_behind_the_floor_is_not_believed_whoever_says_so() -> None:
    hands = Hands(BUILT_S - AHEAD_S_MAX - 1)
    assert not clock(Kept(), hands, "yes").is_trusted()


def test_the_floor_outlives_a_restart_and_is_written_seldom(tmp_path: Path) -> None:
    file = RecordsFile(tmp_path / "agent.db", [SCHEMA])
    floors = Floors(file)
    hands = Hands(0.0, synchronised=False)
    told = Clock(floors, system=lambda: 0.0, awake=lambda: hands.awake_s)
    told.raise_floor(BUILT_S + DAY_S)
    hands.awake_s = KEEP_EVERY_S - 1
    told.raise_floor(told.floor_s)
    assert floors.time_s() == BUILT_S + DAY_S
    hands.awake_s = KEEP_EVERY_S
    told.raise_floor(told.floor_s)
    assert floors.time_s() == BUILT_S + DAY_S + KEEP_EVERY_S
    file.close()
    file = RecordsFile(tmp_path / "agent.db", [SCHEMA])
    again = Clock(Floors(file), system=lambda: 0.0, awake=lambda: 7.0)
    assert again.wall_s() == BUILT_S + DAY_S + KEEP_EVERY_S
    file.close()


def test_a_time_far_ahead_of_a_synchronised_clock_is_not_believed() -> None:
    kept = Kept()
    hands = Hands(BUILT_S + DAY_S)
    told = clock(kept, hands)
    told.raise_floor(BUILT_S + 3 * DAY_S)
    assert (told.wall_s(), kept.writes) == (BUILT_S + DAY_S, 0)
    hands.synchronised = False
    told.raise_floor(BUILT_S + 3 * DAY_S)
    assert told.wall_s() == BUILT_S + 3 * DAY_S


def test_a_synchronised_clock_is_believed_again_whatever_a_thief_signed_before_it_was() -> None:
    hands = Hands(0.0, synchronised=False)
    kept = Kept()
    told = clock(kept, hands)
    told.raise_floor(BUILT_S + 300 * DAY_S, "stolen")
    assert told.wall_s() == BUILT_S + 300 * DAY_S
    hands.system_s, hands.synchronised = BUILT_S + DAY_S, True
    for _ in range(2):
        assert told.is_trusted()
        assert told.wall_s() == BUILT_S + DAY_S
        told = clock(kept, hands)
    hands.synchronised = False
    assert told.wall_s() == BUILT_S + 300 * DAY_S


def test_what_was_signed_speaks_against_a_clock_of_which_only_the_owner_says_that_it_is_right() -> (
    None
):
    hands = Hands(BUILT_S, synchronised=False)
    told = clock(Kept(), hands, "yes")
    assert told.is_trusted()
    hands.system_s = 0.0
    told.raise_floor(BUILT_S + 300 * DAY_S, "keys")
    hands.system_s = BUILT_S
    assert not told.is_trusted()
    assert told.wall_s() == BUILT_S + 300 * DAY_S


def test_what_was_signed_holds_over_restarts_and_only_while_its_keys_do(tmp_path: Path) -> None:
    def started(file: RecordsFile) -> Clock:
        return Clock(Floors(file), system=lambda: 0.0, awake=lambda: 0.0)

    def again() -> Clock:
        files[-1].close()
        files.append(RecordsFile(tmp_path / "agent.db", [SCHEMA]))
        return started(files[-1])

    files = [RecordsFile(tmp_path / "agent.db", [SCHEMA])]
    started(files[-1]).raise_floor(BUILT_S + 300 * DAY_S, "stolen")
    assert not again().heed_authority("stolen")
    told = again()
    assert not told.heed_authority("")
    assert told.floor_s == BUILT_S + 300 * DAY_S
    assert told.own_floor_s == BUILT_S  # certificates are judged by this
    assert told.heed_authority("new")
    assert told.floor_s == BUILT_S
    assert again().floor_s == BUILT_S
    files[-1].close()


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_time_changes_nothing(seconds: float) -> None:
    kept = Kept()
    told = clock(kept, Hands(0.0, synchronised=False))
    told.raise_floor(seconds)
    assert (told.floor_s, kept.writes) == (BUILT_S, 0)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("raise"), st.floats(-1e10, 1e10)),
            st.tuples(st.just("awake"), st.floats(0, 1e6)),
            st.tuples(st.just("system"), st.floats(-1e9, 1e10)),
            st.tuples(st.just("sync"), st.sampled_from([0.0, 1.0])),
            st.tuples(st.just("restart"), st.just(0.0)),
        ),
        max_size=30,
    )
)
def test_the_floor_never_falls_while_awake_and_hardly_over_restarts(
    steps: list[tuple[str, float]],
) -> None:
    kept, hands = Kept(), Hands(0.0)
    told = clock(kept, hands)
    for kind, amount in steps:
        before = told.floor_s
        if kind == "raise":
            told.raise_floor(amount)
        elif kind == "awake":
            hands.awake_s += amount
        elif kind == "system":
            hands.system_s = amount
        elif kind == "sync":
            hands.synchronised = bool(amount)
        else:
            told.raise_floor(told.floor_s)
            told = clock(kept, hands)
            before -= KEEP_EVERY_S
        assert told.floor_s >= max(before, BUILT_S)
        assert told.wall_s() >= told.floor_s


def test_the_kernel_can_be_asked() -> None:
    assert is_synchronised() in {True, False}


def test_versions_are_kept_by_role_and_authority(tmp_path: Path) -> None:
    file = RecordsFile(tmp_path / "agent.db", [SCHEMA])
    floors = Floors(file)
    assert floors.versions() == {}
    assert floors.time_s() == 0.0
    floors.keep_versions({"root": VersionFloor(3, ""), "timestamp": VersionFloor(7, "a")})
    floors.keep_versions({"timestamp": VersionFloor(1, "b")})
    assert floors.versions() == {"root": VersionFloor(3, ""), "timestamp": VersionFloor(1, "b")}
    floors.keep_time(5.0)
    floors.keep_time(4.0)
    assert floors.time_s() == 5.0
    file.close()


def test_a_full_disk_is_told_and_the_floor_rises_all_the_same() -> None:
    class Full(Kept):
        def keep_time(self, seconds: float) -> None:
            raise StateError(f"no space for {seconds}")

    told = clock(Full(), Hands(0.0, synchronised=False))
    with pytest.raises(StateError):
        told.raise_floor(BUILT_S + DAY_S)
    assert told.floor_s == BUILT_S + DAY_S
