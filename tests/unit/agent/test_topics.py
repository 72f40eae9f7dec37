"""Topics: every name that is built is read back, and nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.topics import Kind, Topic, Topics, parse

FLEETS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True)
DEVICES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
WORDS = FLEETS


def _every(topics: Topics, rollout: str, op: str, name: str) -> dict[Kind, str]:
    return {
        Kind.ANNOUNCEMENT: topics.announcement,
        Kind.STATE: topics.state,
        Kind.BIRTH: topics.birth,
        Kind.REPORTED: topics.reported,
        Kind.METRICS: topics.metrics,
        Kind.JOB: topics.job(rollout),
        Kind.COMMAND: topics.command(op, name),
        Kind.RESULT: topics.result(op, name),
    }


@given(FLEETS, DEVICES, WORDS, WORDS, WORDS)
def test_every_name_is_read_back_as_what_it_was_built_from(
    fleet: str, device: str, rollout: str, op: str, name: str
) -> None:
    every = _every(Topics(fleet, device), rollout, op, name)
    assert every.keys() == {*Kind}
    assert len({*every.values()}) == len(every)
    for kind, text in every.items():
        found = parse(text)
        assert found is not None
        assert (found.kind, found.fleet) == (kind, fleet)
        assert found.device == ("" if kind is Kind.ANNOUNCEMENT else device)
        assert found.rollout == (rollout if kind is Kind.JOB else "")
        is_command = kind in {Kind.COMMAND, Kind.RESULT}
        assert (found.op, found.id) == ((op, name) if is_command else ("", ""))


@given(st.text())
def test_whatever_is_read_is_one_of_ours_spelled_exactly_so(text: str) -> None:
    for prefix in ("", "edge/v1/", "edge/v1/f/d/", "edge/v1/f/d/dev/", "edge/v1/f/d/dev/cmd/"):
        found = parse(prefix + text)
        if found is not None:
            topics = Topics(found.fleet, found.device or "any")
            words = (found.rollout or "r", found.op or "o", found.id or "i")
            assert _every(topics, *words)[found.kind] == prefix + text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "edge/v1/f/d/dev",
        "edge/v1/f/d/dev/",
        "/edge/v1/f/d/dev/state",
        "edge/v2/f/d/dev/state",
        "edge/v1/F/d/dev/state",
        "edge/v1/f/d/../state",
        "edge/v1/f/d/dev\n/state",
        "edge/v1/f/d/+/state",
        "edge/v1/f/d/dev/#",
        "edge/v1/f/d/dev/cmd/+/+",
        "edge/v1/f/announce/timestamp/more",
        "edge/v1/f/d/" + "x" * 65 + "/state",
        "edge/v1/f/d/dev/jobs/" + "x" * 600,
    ],
)
def test_other_names_are_none_of_ours(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("fleet", "device"), [("F", "d"), ("f", ""), ("f", "a/b"), ("f", "#"), ("f.g", "d"), ("", "d")]
)
def test_no_topics_for_a_name_that_is_none(fleet: str, device: str) -> None:
    with pytest.raises(ValueError, match="names of a fleet and a device"):
        Topics(fleet, device)


def test_no_topic_with_a_rollout_that_would_reach_another() -> None:
    topics = Topics("f", "d")
    with pytest.raises(ValueError, match="cannot be part"):
        topics.job("a/b")
    with pytest.raises(ValueError, match="cannot be part"):
        topics.result("+", "x")


def test_two_fleets_at_one_broker_never_share_a_client() -> None:
    pairs = [("a", "b.c"), ("a-b", "c"), ("a", "b-c"), ("ab", "c"), ("a", "bc")]
    assert len({Topics(*pair).client_id for pair in pairs}) == len(pairs)


def test_a_topic_is_a_value() -> None:
    assert parse("edge/v1/f/d/x/m") == Topic(Kind.METRICS, "f", "x")
