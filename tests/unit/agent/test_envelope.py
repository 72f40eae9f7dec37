"""Envelopes: what a device signed is believed as it was said, where it was said, and once."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.envelope import (
    SIGNED,
    ForgedError,
    read_command,
    report_message,
    unwrap,
    wrap,
    write_command,
)
from agent.messages import MESSAGE_BYTES_MAX, REPORT_BYTES_MAX, Command, JobState, JobStatus, write
from agent.topics import Kind, Topic
from tests.signing import signing_key

KEY = signing_key("device")
KEYS = {KEY.key_id: KEY.public_key}
JOB = Topic(Kind.JOB, "fleet", "dev-1", rollout="r1")
PAYLOAD = write(JobStatus(rollout="r1", state=JobState.SUCCEEDED, text='ä "quoted" \n'))


def _signed(topic: Topic = JOB, boot: str = "boot", seq: int = 7, data: bytes = PAYLOAD) -> bytes:
    return wrap(boot, seq, data, KEY.sign(report_message(topic, boot, seq, data)))


def test_a_signed_report_is_read_back_to_the_byte() -> None:
    envelope, payload = unwrap(JOB, _signed(), KEYS)
    assert payload == PAYLOAD
    assert (envelope.boot_id, envelope.seq, envelope.historical) == ("boot", 7, False)


@given(st.text(max_size=200))
def test_any_text_survives_the_envelope(text: str) -> None:
    data = json.dumps({"text": text}, ensure_ascii=False).encode("utf-8", "replace")
    assert unwrap(JOB, _signed(data=data), KEYS)[1] == data


@pytest.mark.parametrize(
    "elsewhere",
    [
        dataclasses.replace(JOB, device="dev-2"),
        dataclasses.replace(JOB, fleet="other"),
        dataclasses.replace(JOB, rollout="r2"),
        dataclasses.replace(JOB, kind=Kind.REPORTED),
        Topic(Kind.BIRTH, "fleet", "dev-1"),
    ],
    ids=str,
)
def test_a_report_says_nothing_in_another_place(elsewhere: Topic) -> None:
    with pytest.raises(ForgedError):
        unwrap(elsewhere, _signed(), KEYS)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("boot_id", "boot2"),
        ("seq", 8),
        ("payload", PAYLOAD.decode().replace("succeeded", "failed")),
        ("signature", ""),
        ("signature", "A" * 88),
        ("key_id", "0" * 64),
    ],
)
def test_a_report_in_which_anything_was_changed_is_forged(field: str, value: object) -> None:
    message = json.loads(_signed())
    with pytest.raises(ForgedError):
        unwrap(JOB, json.dumps(message | {field: value}).encode(), KEYS)


def test_a_report_of_another_key_is_forged() -> None:
    with pytest.raises(ForgedError):
        unwrap(JOB, _signed(), {signing_key("other").key_id: signing_key("other").public_key})


@pytest.mark.parametrize("kind", sorted(SIGNED))
def test_a_kind_that_must_be_signed_is_not_believed_without(kind: Kind) -> None:
    topic = Topic(kind, "fleet", "dev-1")
    with pytest.raises(ValueError):  # noqa: PT011 - forged or no envelope, refused either way
        unwrap(topic, wrap("boot", 1, b"{}", None), KEYS)


def test_metrics_go_unsigned_as_plain_json_and_say_when_they_waited() -> None:
    topic = Topic(Kind.METRICS, "fleet", "dev-1")
    data = wrap("boot", 3, b'{"batch":{"n":1}}', None, historical=True)
    envelope, payload = unwrap(topic, data, {})
    assert (envelope.historical, payload) == (True, b'{"batch":{"n":1}}')
    assert json.loads(data)["payload"] == {"batch": {"n": 1}}


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"\xff", b'{"boot_id":"b","seq":0,"payload":{}}', b'{"seq":1}', b"[" * 100_000],
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the decoder says
        unwrap(JOB, data, KEYS)


def test_the_largest_report_fits_the_largest_message() -> None:
    data = b'{"t":"' + b'\\"' * ((REPORT_BYTES_MAX - 8) // 2) + b'"}'
    assert len(data) <= REPORT_BYTES_MAX
    assert len(_signed(data=data)) <= MESSAGE_BYTES_MAX
    assert unwrap(JOB, _signed(data=data), KEYS)[1] == data


def test_newer_fields_are_ignored_and_newer_schemas_are_refused() -> None:
    message = json.loads(_signed())
    assert unwrap(JOB, json.dumps(message | {"new": 1}).encode(), KEYS)[1] == PAYLOAD
    with pytest.raises(ValueError, match="schema_version"):
        unwrap(JOB, json.dumps(message | {"schema_version": 2}).encode(), KEYS)


def test_a_command_is_believed_only_at_its_place_and_with_the_command_key() -> None:
    command = Command(
        fleet="fleet", device="dev-1", op="collect", id="c1", counter=1, expires_s=1.0
    )
    topic = Topic(Kind.COMMAND, "fleet", "dev-1", op="collect", id="c1")
    data = write_command(command, KEY.sign)
    assert read_command(topic, data, KEYS) == (command, KEY.key_id)
    elsewhere = [
        dataclasses.replace(topic, op="check-now"),
        dataclasses.replace(topic, id="c2"),
        dataclasses.replace(topic, device="dev-2"),
        dataclasses.replace(topic, fleet="other"),
    ]
    for other in elsewhere:
        with pytest.raises(ForgedError):
            read_command(other, data, KEYS)
    with pytest.raises(ForgedError):
        read_command(topic, data, {})


def test_what_was_signed_as_a_report_is_no_command() -> None:
    command = Command(
        fleet="fleet", device="dev-1", op="collect", id="c1", counter=1, expires_s=1.0
    )
    topic = Topic(Kind.COMMAND, "fleet", "dev-1", op="collect", id="c1")
    signature = KEY.sign(report_message(topic, "boot", 1, write(command)))
    forged = {
        "payload": write(command).decode(),
        "signature": signature.signature,
        "key_id": signature.key_id,
    }
    with pytest.raises(ForgedError):
        read_command(topic, json.dumps(forged).encode(), KEYS)
