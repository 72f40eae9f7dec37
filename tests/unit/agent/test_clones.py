"""Two devices with one key: who answers this run is one, who repeats old words none."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli import main
from agent.clone_condition import CloneCondition
from agent.durable_file import remove_file
from agent.envelope import report_message, wrap
from agent.locations import DATABASE
from agent.messages import CHALLENGES_MAX, Birth, write
from agent.state_lock import lock_state
from agent.topics import Topics, parse
from agent.transport.clones import ANSWER_S, ODD_S, CloneWatch, Suspicion
from edge_runtime.exit_codes import ExitCode
from tests.signing import signing_key

TOPICS = Topics("test", "dev-1")
KEY = signing_key("device")
KEYS = {KEY.key_id: KEY.public_key}


class Agent:
    """One run of an agent, as its clone watch sees the world."""

    def __init__(self, boot_id: str, *earlier: str, is_known: bool = False) -> None:
        self.boot_id = boot_id
        self.now_s = 0.0
        self.watch = CloneWatch(
            boot_id, {boot_id, *earlier}, KEYS, is_known=is_known, now_s=lambda: self.now_s
        )

    def birth(self, key: str = "device") -> bytes:
        """Say a birth."""
        watch = self.watch
        payload = write(
            Birth(boot_id=self.boot_id, challenge=watch.challenge, answers=watch.answers)
        )
        topic = parse(TOPICS.birth)
        assert topic is not None
        signature = signing_key(key).sign(report_message(topic, self.boot_id, 1, payload))
        return wrap(self.boot_id, 1, payload, signature)

    def hears(self, *births: bytes) -> Suspicion:
        """Hear births, and say what follows."""
        topic = parse(TOPICS.birth)
        assert topic is not None
        for birth in births:
            self.watch.heard(topic, birth)
        return self.watch.suspicion


def test_two_that_hear_each_other_are_both_sure_after_one_answer_each() -> None:
    one, two = Agent("one.1"), Agent("two.1")
    assert two.hears(one.birth()) is Suspicion.SUSPECTED
    assert two.watch.is_answer_due()
    assert one.hears(two.birth()) is Suspicion.CLONED
    assert two.hears(one.birth()) is Suspicion.CLONED


def test_a_copy_made_while_the_agent_ran_remembers_its_run_and_both_are_sure_all_the_same() -> None:
    one = Agent("one.1")
    copy = Agent("two.2", "one.1")
    copy.hears(one.birth())  # the broker keeps it: as after any restart, it means nothing
    assert not copy.watch.is_answer_due()
    one.hears(copy.birth())
    assert one.watch.is_answer_due()
    assert copy.hears(one.birth()) is Suspicion.CLONED
    assert copy.watch.is_answer_due()
    assert one.hears(copy.birth()) is Suspicion.CLONED


@given(st.lists(st.integers(0, 30), max_size=40), st.sampled_from([(), ("one.1",)]))
def test_the_next_run_of_one_that_had_a_copy_is_no_clone_by_what_both_said_before(
    repeated: list[int], remembered: tuple[str, ...]
) -> None:
    one, copy = Agent("one.1"), Agent("two.2", "one.1")
    said = []
    for _ in range(3):
        for speaker, hearer in ((one, copy), (copy, one)):
            said.append(speaker.birth())
            hearer.hears(said[-1])
    assert one.watch.suspicion is copy.watch.suspicion is Suspicion.CLONED
    last = Agent("one.2", *remembered)
    for which in repeated:
        last.hears(said[which % len(said)])
        said.append(last.birth())  # with its answers
    assert last.watch.suspicion is not Suspicion.CLONED


def test_a_suspicion_of_which_nothing_more_is_heard_lapses_and_certainty_does_not() -> None:
    agent, other = Agent("own.9"), Agent("other.1")
    assert agent.hears(other.birth()) is Suspicion.SUSPECTED
    agent.now_s += ODD_S - 1
    assert agent.hears() is Suspicion.SUSPECTED
    agent.now_s += 1
    assert agent.hears() is Suspicion.NONE
    agent.watch.taken_over()
    assert agent.hears() is Suspicion.SUSPECTED
    other.hears(agent.birth())
    assert agent.hears(other.birth()) is Suspicion.CLONED
    agent.now_s += 10 * ODD_S
    assert agent.hears() is Suspicion.CLONED


def test_no_replay_of_whatever_this_device_ever_said_makes_it_a_clone() -> None:
    said: list[bytes] = []
    for run in range(20):
        agent = Agent(f"kernel.{run}")  # its agent.db was lost each time: it remembers nothing
        said.append(agent.birth())
        assert agent.hears(*said, *said) in {Suspicion.NONE, Suspicion.SUSPECTED}
        said.append(agent.birth())  # with its answers to what was replayed


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=40))
def test_one_agent_at_a_time_is_never_a_clone_whatever_a_broker_repeats(
    acts: list[tuple[int, int]],
) -> None:
    agent, said, run = Agent("run.0"), [], 0
    for what, which in acts:
        if what == 0:
            run += 1
            agent = Agent(f"run.{run}", *(f"run.{run - 1}" for _ in range(which % 2)))
        elif what == 1:
            said.append(agent.birth())
        elif what == 2:
            agent.watch.taken_over()
        elif said:
            agent.hears(said[which % len(said)])
        assert agent.watch.suspicion is not Suspicion.CLONED


def test_remembered_runs_and_forged_births_and_noise_say_nothing() -> None:
    agent = Agent("own.2", "own.1")
    births = (Agent("own.1").birth(), agent.birth(), Agent("x").birth("enemy"), b"{}", b"", b"\xff")
    assert agent.hears(*births) is Suspicion.NONE
    assert not agent.watch.is_answer_due()


def test_an_answer_that_another_key_signed_proves_nothing() -> None:
    agent, enemy = Agent("one"), Agent("two")
    enemy.hears(agent.birth())
    assert agent.hears(enemy.birth("enemy")) is Suspicion.NONE


def test_takeovers_alone_and_with_replays_are_never_more_than_a_suspicion() -> None:
    agent = Agent("own.9")
    for _ in range(5):
        agent.watch.taken_over()
    assert agent.hears(Agent("own.1").birth()) is Suspicion.SUSPECTED


def test_a_replay_of_many_births_causes_few_births_and_answers_only_the_newest() -> None:
    agent = Agent("own.9")
    due = 0
    old = [Agent(f"old.{number}") for number in range(500)]
    for each in old:
        agent.hears(each.birth())
        due += agent.watch.is_answer_due()
    assert due == 1
    assert agent.watch.answers == tuple(each.watch.challenge for each in old[-CHALLENGES_MAX:])
    agent.now_s += ANSWER_S
    assert agent.watch.is_answer_due()
    agent.now_s += ANSWER_S
    assert agent.hears(old[-1].birth()) is Suspicion.SUSPECTED
    assert not agent.watch.is_answer_due()


def test_what_an_earlier_run_was_sure_of_stands_until_somebody_saw_to_it() -> None:
    agent = Agent("own.2", is_known=True)
    assert agent.watch.suspicion is Suspicion.CLONED
    agent.watch.clear()
    assert agent.hears() is Suspicion.NONE


def test_after_clearing_the_old_answer_is_void_and_a_living_copy_is_noticed_again() -> None:
    one, two = Agent("one"), Agent("two")
    two.hears(one.birth())
    answer = two.birth()
    assert one.hears(answer) is Suspicion.CLONED
    one.watch.clear()
    assert one.hears(answer, answer) is Suspicion.SUSPECTED
    two.hears(one.birth())
    assert one.hears(two.birth()) is Suspicion.CLONED


def test_the_condition_is_kept_until_it_is_cleared_and_clearing_twice_is_no_trouble(
    tmp_path: Path,
) -> None:
    condition = CloneCondition(tmp_path)
    condition.clear()
    condition.note()
    assert CloneCondition(tmp_path).stands()
    condition.clear()
    assert not condition.stands()
    assert not CloneCondition(tmp_path).stands()
    remove_file(tmp_path / "clone")


def test_without_an_agent_the_condition_is_cleared_in_its_folder_and_nothing_is_made_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_SOCKET", str(tmp_path / "nobody.sock"))
    state = tmp_path / "state"
    (tmp_path / "agent.toml").write_text(f'state_dir = "{state}"\n', "utf-8")
    command = ["clear-clone", "--config", str(tmp_path / "agent.toml")]
    assert main(command) == ExitCode.USAGE
    assert "none has run" in capsys.readouterr().err
    assert not state.exists()
    state.mkdir()
    (state / DATABASE).touch()
    CloneCondition(state).note()
    assert main([*command, "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out) == {"was": "cloned", "is": "none"}
    assert not CloneCondition(state).stands()
    assert main(command) == ExitCode.DONE
    assert "nothing to clear" in capsys.readouterr().out
    CloneCondition(state).note()
    lock = lock_state(state)
    try:
        assert main(command) == ExitCode.USAGE
        assert "another edge-agent uses" in capsys.readouterr().err
        assert CloneCondition(state).stands()
    finally:
        os.close(lock)
