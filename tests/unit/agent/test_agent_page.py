"""``docs/agent.md`` names everything that a device says, and the formats that it gives are ours."""

import base64
import json
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import messages
from agent.commands import ORDERS
from agent.enrolment.messages import Enrolment, EnrolRequest, RenewRequest, renewal_text
from agent.enrolment.token import Token
from agent.envelope import Envelope, read_command, report_message
from agent.errors import Distrust
from agent.journal_sync.batches import Batch, signed_text
from agent.telemetry import runtime_numbers
from agent.telemetry.host import Host
from agent.topics import Topics, parse
from agent.update.judgements import Judgement
from edge_runtime.protocol.journal_schemas import JournalRow
from edge_runtime.protocol.sketch_schemas import OutputSketch, VersionSketches
from edge_runtime.trust.signatures import SigningKey

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "agent.md").read_text("utf-8")
SAID: tuple[type[msgspec.Struct], ...] = (
    Envelope,
    messages.Presence,
    messages.Birth,
    messages.Slots,
    messages.Reported,
    messages.JobStatus,
    messages.MetricsBatch,
    messages.Gap,
    messages.Ended,
    messages.Command,
    messages.CommandResult,
    Host,
    runtime_numbers.RuntimeNumbers,
    runtime_numbers.Version,
    runtime_numbers.Durations,
    VersionSketches,
    OutputSketch,
    Judgement,
    Batch,
    JournalRow,
    Token,
    EnrolRequest,
    Enrolment,
    RenewRequest,
)


@pytest.mark.parametrize("struct", SAID, ids=lambda struct: struct.__name__)
def test_every_field_that_is_sent_is_on_the_page(struct: type[msgspec.Struct]) -> None:
    missing = [name for name in struct.__struct_fields__ if name not in PAGE]
    assert not missing


@pytest.mark.parametrize(
    "word",
    [
        *ORDERS,
        *messages.JobState,
        *messages.State,
        *messages.Loss,
        *runtime_numbers._GAUGES.values(),
        *(name for name, _ in runtime_numbers._COUNTERS.values()),
        *runtime_numbers._HISTOGRAMS.values(),
    ],
)
def test_every_frozen_word_is_on_the_page(word: str) -> None:
    assert str(word) in PAGE


def test_every_reason_for_distrust_that_a_person_can_meet_leads_somewhere() -> None:
    for reason in (Distrust.EXPIRED, Distrust.ROLLED_BACK, Distrust.MIXED, Distrust.THRESHOLD):
        assert f"({reason})" in PAGE


def test_every_topic_is_on_the_page() -> None:
    topics = Topics("FLEET".lower(), "DEVICE".lower())
    root = "edge/v1/fleet/"
    for topic, shown in {
        topics.announcement: "announce/timestamp",
        topics.state: "d/DEVICE/state",
        topics.birth: "d/DEVICE/birth",
        topics.reported: "d/DEVICE/reported",
        topics.job("rollout"): "d/DEVICE/jobs/ROLLOUT",
        topics.metrics: "d/DEVICE/m",
        topics.command("op", "id"): "d/DEVICE/cmd/OP/ID",
        topics.result("op", "id"): "d/DEVICE/cmd/OP/ID/result",
    }.items():
        assert topic == root + shown.lower()
        assert f"`{shown}`" in PAGE


def _json(parts: list[object]) -> bytes:
    return json.dumps(parts, separators=(",", ":")).encode()


def test_what_is_signed_is_what_the_page_says() -> None:
    topics = Topics("greenhouse", "till-7")
    job = parse(topics.job("r-1"))
    assert job is not None
    header = _json(["job", "greenhouse", "till-7", "r-1", "boot", 7])
    assert report_message(job, "boot", 7, b"{}") == (
        b"edge-runtime/report/1\0" + header + b"\0" + b"{}"
    )
    result = parse(topics.result("collect", "c-1"))
    assert result is not None
    header = _json(["result", "greenhouse", "till-7", "", "boot", 8, "collect", "c-1"])
    assert report_message(result, "boot", 8, b"{}") == (
        b"edge-runtime/report/1\0" + header + b"\0" + b"{}"
    )
    csr = "-----BEGIN CERTIFICATE REQUEST-----\n"
    assert renewal_text("greenhouse", "till-7", "0" * 32, csr) == (
        b"edge-runtime/renew/1\0" + _json(["greenhouse", "till-7", "0" * 32, csr])
    )
    row = JournalRow(
        number=3,
        model="m",
        version="1",
        digest="",
        at_ms=0,
        reason="share",
        is_encrypted=False,
        record=b"",
    )
    batch = Batch(fleet="greenhouse", device="till-7", journal="j", rows=(row,))
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing
    assert signed_text(batch, b"") == (
        b"edge-runtime/journal/1\0" + _json(["greenhouse", "till-7", "j", 3, 3, digest])
    )


def test_the_command_on_the_page_is_obeyed_once_it_is_signed() -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith('{"payload"'))
    shown = json.loads(line)
    key = Ed25519PrivateKey.generate()
    signing = SigningKey(key)
    signature = key.sign(b"edge-runtime/command/1\0" + shown["payload"].encode())
    shown["signature"] = base64.b64encode(signature).decode()
    shown["key_id"] = signing.key_id
    topic = parse(Topics("greenhouse", "till-7").command("check-now", "c-81"))
    assert topic is not None
    command, _ = read_command(
        topic, json.dumps(shown).encode(), {signing.key_id: signing.public_key}
    )
    assert (command.op, command.counter) == ("check-now", 81)
