"""Inbox, device key, commands and messages."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.commands import ORDERS, PAUSE_S_MAX, Commands, Order, PauseUpdates
from agent.envelope import write_command
from agent.errors import NetworkError, StateError
from agent.identity import NAME, device_key
from agent.messages import (
    GAPS_MAX,
    Birth,
    Command,
    CommandResult,
    Gap,
    JobStatus,
    Loss,
    MetricsBatch,
    read,
    write,
)
from agent.topics import Topics, parse
from agent.transport.inbox import COMMANDS_MAX, Inbox
from edge_runtime.trust.signatures import signers
from tests.signing import signing_key

TOPICS = Topics("test", "dev-1")
KEY = signing_key("commands")
KEYS = {KEY.key_id: KEY.public_key}
NOW_S = 1_800_000_000.0


def test_the_inbox_wakes_the_loop_and_keeps_commands_in_order() -> None:
    woken: list[int] = []
    inbox = Inbox(TOPICS, lambda: woken.append(1))
    for name in ("a", "b"):
        inbox.put(TOPICS.command("collect", name), name.encode())
    inbox.put(TOPICS.announcement, b"1")
    inbox.put(TOPICS.announcement, b"2")
    assert [each.payload for each in inbox.take()] == [b"a", b"b", b"2"]
    assert inbox.take() == []
    assert len(woken) == 4


@given(st.text(max_size=100), st.binary(max_size=100))
def test_the_inbox_takes_nothing_that_is_not_for_this_device(topic: str, data: bytes) -> None:
    inbox = Inbox(TOPICS, lambda: None)
    for name in (topic, "edge/v1/test/d/dev-2/cmd/collect/x", "edge/v1/o/announce/timestamp"):
        inbox.put(name, data)
    inbox.put(TOPICS.job("r1"), data)
    assert inbox.take() == []
    assert inbox.dropped == 4


def test_the_inbox_is_never_fuller_than_its_limit() -> None:
    inbox = Inbox(TOPICS, lambda: None)
    for number in range(10 * COMMANDS_MAX):
        inbox.put(TOPICS.command("collect", f"c{number}"), b"x")
    taken = inbox.take()
    assert len(taken) == COMMANDS_MAX
    assert taken[0].topic.id == "c0"
    assert inbox.dropped == 9 * COMMANDS_MAX


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    one, two = device_key(tmp_path), device_key(tmp_path)
    assert one.key_id == two.key_id
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    signature = one.sign(b"message")
    assert signers(b"message", [signature], {two.key_id: two.public_key}) == {one.key_id}


@pytest.mark.parametrize("text", [b"", b"noise", b"-----BEGIN PRIVATE KEY-----\nx\n"])
def test_a_key_is_never_replaced(tmp_path: Path, text: bytes) -> None:
    (tmp_path / NAME).write_bytes(text)
    (tmp_path / NAME).chmod(0o600)
    with pytest.raises(StateError, match="no private key"):
        device_key(tmp_path)
    assert (tmp_path / NAME).read_bytes() == text


def test_a_key_is_not_used_when_others_can_read_it(tmp_path: Path) -> None:
    device_key(tmp_path)
    (tmp_path / NAME).chmod(0o640)
    with pytest.raises(StateError, match="read by others"):
        device_key(tmp_path)


def test_a_key_is_not_followed_over_a_link_and_half_a_key_is_no_key(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(b"half")
    made = device_key(tmp_path)
    (tmp_path / NAME).rename(tmp_path / "elsewhere")
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="cannot read"):
        device_key(tmp_path)
    assert made.key_id


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot make"):
        device_key(tmp_path / "none")


class Counting:
    """A floor in memory."""

    def __init__(self) -> None:
        self.counter = 0

    def rise(self, key_id: str, counter: int) -> bool:
        """Raise it."""
        assert key_id == KEY.key_id
        is_new = counter > self.counter
        self.counter = max(counter, self.counter)
        return is_new


def _receive(op: str, arguments: dict[str, object], floor: Counting) -> CommandResult:
    obeyed: list[Order] = []

    def obey(order: Order) -> dict[str, object]:
        obeyed.append(order)
        if op == "check-now":
            raise NetworkError("the repository is away")
        return {"was": type(order).__name__}

    command = Command(
        fleet="test",
        device="dev-1",
        op=op,
        id="c",
        counter=floor.counter + 1,
        expires_s=NOW_S + 1,
        arguments=arguments,
    )
    topic = parse(TOPICS.command(op, "c"))
    assert topic is not None
    commands = Commands(KEYS, floor, lambda: NOW_S, obey)
    answer = commands.receive(topic, write_command(command, KEY.sign))
    assert answer is not None
    assert len(obeyed) == (answer.state != "rejected")
    return answer


@pytest.mark.parametrize(
    ("op", "arguments", "state"),
    [
        ("collect", {}, "succeeded"),
        ("check-now", {}, "failed"),
        ("log-level", {"level": "debug"}, "succeeded"),
        ("log-level", {"level": "loud"}, "rejected"),
        ("log-level", {}, "rejected"),
        ("pause-updates", {"until_s": NOW_S + 60}, "succeeded"),
        ("pause-updates", {"until_s": 0.0}, "succeeded"),
        ("pause-updates", {"until_s": NOW_S + PAUSE_S_MAX + 1}, "rejected"),
        ("pause-updates", {"until_s": -1.0}, "rejected"),
        ("format-disk", {}, "rejected"),
    ],
)
def test_a_command_is_answered(op: str, arguments: dict[str, object], state: str) -> None:
    answer = _receive(op, arguments, Counting())
    assert answer.state == state
    assert bool(answer.text) == (state != "succeeded")


def test_a_command_that_was_rejected_is_not_looked_at_again() -> None:
    floor = Counting()
    _receive("format-disk", {}, floor)
    assert floor.counter == 1


def test_every_order_is_there() -> None:
    assert set(ORDERS) == {"collect", "check-now", "log-level", "pause-updates"}
    assert ORDERS["pause-updates"] is PauseUpdates


def test_without_a_key_nothing_is_obeyed() -> None:
    commands = Commands({}, Counting(), lambda: NOW_S, lambda _: {})
    command = Command(
        fleet="test", device="dev-1", op="collect", id="c", counter=1, expires_s=NOW_S + 1
    )
    topic = parse(TOPICS.command("collect", "c"))
    assert topic is not None
    assert commands.receive(topic, write_command(command, KEY.sign)) is None


GAPS = st.builds(
    Gap,
    boot_id=st.text(max_size=60),
    first_seq=st.integers(1, 2**40),
    last_seq=st.integers(1, 2**40),
    count=st.integers(1, 2**40),
    reason=st.sampled_from(Loss),
)


@given(st.lists(GAPS, max_size=GAPS_MAX))
def test_a_message_is_read_back_as_it_was_written_and_the_same_is_written_again(
    gaps: list[Gap],
) -> None:
    batch = MetricsBatch(gaps=tuple(gaps))
    assert read(write(batch), MetricsBatch) == batch
    assert write(read(write(batch), MetricsBatch)) == write(batch)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    for kind in (JobStatus, MetricsBatch, Command, Birth):
        try:
            read(data, kind)
        except ValueError:
            continue
