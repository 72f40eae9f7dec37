"""What a device says of itself and its models: what is so now, or what was so last and says so."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.cli.asking import _runtime as runtime_lines
from agent.config import load
from agent.device.answering import Answering, Source, answering, ready_versions
from agent.device.known_models import FILE, Known, KnownModels
from agent.errors import ConfigError
from agent.messages import CHALLENGES_MAX, REPORT_BYTES_MAX, Reported, Slots, read, write
from agent.presence import AWAY, birth, reported, slots
from agent.settings.device import LABELS_BYTES_MAX, Device
from agent.transport.clones import Suspicion
from agent.update.standing import Passage, Standing
from edge_runtime.hardware import CpuFacts

CPU = CpuFacts("x86_64", frozenset({"avx2", "fma"}), vnni=False, description="a CPU")
MODELS = {"m": Slots(active=3, active_digest="d", since_s=7.0)}


def test_models_are_kept_while_the_runtime_is_away_and_said_to_be_old(tmp_path: Path) -> None:
    known = KnownModels(tmp_path)
    assert reported(known.answered(MODELS, 9.0), 10.0) == Reported(at_s=10.0, models=MODELS)
    away = reported(known.away(), 11.0)
    assert away == Reported(at_s=11.0, runtime=AWAY, known_s=9.0, models=MODELS)
    assert read(write(away), Reported) == away
    # The agent starts anew, and the runtime is still away.
    assert reported(KnownModels(tmp_path).away(), 12.0).models == MODELS


def test_a_runtime_that_never_answered_is_not_said_to_have_no_models(tmp_path: Path) -> None:
    told = reported(KnownModels(tmp_path).away(), 1.0)
    assert (told.runtime, told.models, told.known_s) == (AWAY, {}, None)


def test_flash_is_written_only_when_models_change_and_rubbish_is_nothing(tmp_path: Path) -> None:
    known = KnownModels(tmp_path)
    known.answered(MODELS, 1.0)

    def file() -> tuple[int, int]:  # each write is a new file; its time may be that of the last one
        found = (tmp_path / FILE).stat()
        return found.st_ino, found.st_mtime_ns

    written = file()
    known.answered(MODELS, 2.0)
    asleep = {"m": msgspec.structs.replace(MODELS["m"], active_digest="")}
    assert known.answered(asleep, 3.0).models == asleep
    assert known.away().models == asleep
    assert file() == written
    known.answered({"m": Slots(active=4)}, 4.0)
    assert file() != written
    (tmp_path / FILE).write_bytes(b"rubbish")
    assert KnownModels(tmp_path).away() == Known(is_away=True)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    assert KnownModels(tmp_path).answered({}, 3.0).models == {}
    assert known.answered({}, 3.0).models == {}  # what the disk refuses stops nothing


@pytest.mark.parametrize("is_away", [False, True])
def test_a_birth_says_what_the_device_is_that_it_has_a_clone_and_whether_the_runtime_is_away(
    *, is_away: bool
) -> None:
    for suspicion in Suspicion:
        message = birth(
            Device(id="till-7", fleet="shop", labels={"site": "oslo"}),
            CPU,
            boot_id="b.1",
            started_s=1.0,
            memory_bytes=2,
            known=Known(models=MODELS, known_s=5.0, is_away=is_away),
            suspicion=suspicion,
            challenge="c",
            answers=("a",),
            is_anew=is_away,
        )
        assert message.cpu_flags == ("avx2", "fma")
        assert message.models == MODELS
        assert (message.runtime, message.known_s) == ((AWAY, 5.0) if is_away else ("", None))
        assert (message.challenge, message.answers) == ("c", ("a",))
        assert ("clone" in message.conditions) == (suspicion is Suspicion.CLONED)
        assert ("records-lost" in message.conditions) == is_away


def test_since_is_when_the_release_came_into_its_phase_or_the_last_one_ended() -> None:
    ended = Passage(id=1, version=2, state="committed", changed_s=50.0)
    tried = Passage(id=2, version=3, state="canary", changed_s=70.0, digest="n")
    told = slots(
        {
            "tried": Standing(active=2, releases=(tried, ended)),
            "settled": Standing(active=2, releases=(ended,)),
            "own": Standing(running_digest="d"),
        }
    )
    assert {model: each.since_s for model, each in told.items()} == {
        "tried": 70.0,
        "settled": 50.0,
        "own": None,
    }
    assert (told["tried"].phase, told["tried"].under_way) == ("canary", 3)
    assert b"since_s" not in msgspec.json.encode(told["own"])


def test_the_reason_is_what_keeps_a_model_from_answering_before_what_a_person_decided() -> None:
    each = Standing(active=1, active_problem="its file is damaged", override_reason="demo day")
    assert slots({"m": each})["m"].reason == "its file is damaged"
    assert slots({"m": Standing(override_reason="demo day")})["m"].reason == "demo day"


@pytest.mark.parametrize("count", [1, 1000])
def test_more_models_than_a_message_holds_are_counted_and_stop_no_agent(count: int) -> None:
    standing = Standing(active=1, running_digest="d" * 64, active_problem='"\n' * 3000)
    models = slots({f"model-{number:04}": standing for number in range(count)})
    message = reported(Known(models=models, known_s=5.0), 9.0)
    assert len(write(message)) < REPORT_BYTES_MAX
    assert len(message.models) + message.left_out == count
    assert (message.left_out > 0) == (count > 1)


@pytest.mark.parametrize("character", ["\U0001f600", "\x01", "a"])
def test_as_many_labels_as_there_may_be_fit_into_a_birth_beside_many_models(character: str) -> None:
    value = (character * 200)[: 200 if character == "a" else 20]
    labels = {f"{value}{number}": value for number in range(64)}
    while len(msgspec.json.encode(labels)) > LABELS_BYTES_MAX:
        labels.popitem()
    device = Device(id="till-7", fleet="shop", labels=labels)
    standing = Standing(active=1, running_digest="d" * 64, active_problem='"\n' * 3000)
    message = birth(
        device,
        CPU,
        boot_id="b.1",
        started_s=1.0,
        memory_bytes=2,
        known=Known(models=slots({f"model-{number:04}": standing for number in range(500)})),
        suspicion=Suspicion.CLONED,
        challenge="c" * 256,
        answers=("a" * 256,) * CHALLENGES_MAX,
        is_anew=True,
    )
    assert len(write(message)) <= REPORT_BYTES_MAX
    assert len(message.models) + message.left_out == 500
    assert message.models


def test_labels_that_no_birth_could_hold_are_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    each = "\U0001f600" * 190
    table = ", ".join(f'"{each}{number}" = "{each}"' for number in range(64))
    path.write_text(f"[device]\nlabels = {{ {table} }}\n", "utf-8")
    with pytest.raises(ConfigError, match=r"device.labels have \d+ bytes as JSON, more than 16384"):
        load(path)


def passage(state: str, version: int = 2, digest: str = "two") -> Passage:
    return Passage(id=1, version=version, state=state, digest=digest)


@pytest.mark.parametrize(
    ("standing", "ready", "expected"),
    [
        (Standing(active=1, active_source="store"), {1}, Answering((1,), Source.RELEASE)),
        (Standing(active=1, active_source="seed"), {1}, Answering((1,), Source.CONFIGURATION)),
        (Standing(running_digest="own"), {1, 4}, Answering((1, 4), Source.CONFIGURATION)),
        (
            Standing(running_digest="own", releases=(passage("shadowing"),)),
            {1, 2},
            Answering((1,), Source.CONFIGURATION),
        ),
        (
            Standing(running_digest="two", releases=(passage("probation"),)),
            {2},
            Answering((2,), Source.PROBATION),
        ),
        (
            Standing(
                active=1,
                active_source="store",
                running_digest="two",
                releases=(passage("probation"),),
            ),
            {1, 2},
            Answering((2,), Source.PROBATION),
        ),
        (
            Standing(active=1, active_source="store", releases=(passage("probation"),)),
            {1, 2},
            Answering((1,), Source.RELEASE),
        ),
        (Standing(disabled="it was taken back"), {2}, Answering((), Source.NOBODY)),
        (Standing(), set(), Answering((), Source.NOBODY)),
    ],
    ids=[
        "a release",
        "the configuration's own came back",
        "the configuration's own versions",
        "the configuration's own beside a candidate",
        "a first release on probation",
        "a release on probation",
        "a release on probation that does not run yet",
        "nothing, since it is disabled",
        "nothing",
    ],
)
def test_status_says_what_really_answers(
    standing: Standing, ready: set[int], expected: Answering
) -> None:
    assert answering(standing, ready) == expected


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"answers": [2], "answers_by": "release"}, "version 2 answers"),
        ({"answers": [2], "answers_by": "probation"}, "version 2 answers, on probation"),
        (
            {"answers": [1, 4], "answers_by": "configuration"},
            "versions 1, 4 answer, as the daemon's configuration says",
        ),
        (
            {
                "answers": [1],
                "answers_by": "release",
                "under_way": {"version": 2, "phase": "canary", "percent": 25},
            },
            "version 1 answers; version 2 is tried (canary, 25 %)",
        ),
        (
            {"under_way": {"version": 2, "phase": "self-testing", "percent": 0}},
            "nothing answers; version 2 is tried (self-testing)",
        ),
        ({"disabled": "it was taken back"}, "disabled: it was taken back"),
        ({}, "nothing answers"),
    ],
)
def test_status_tells_a_person_what_answers_and_what_is_tried(
    changes: dict[str, Any], text: str
) -> None:
    standing = {
        "answers": [],
        "answers_by": "",
        "disabled": "",
        "problem": "its file is damaged",
        "running_digest": "0123456789abcdef",
        "under_way": None,
        **changes,
    }
    assert runtime_lines({"problem": "", "models": {"m": standing}}) == [
        f"  runtime     m: {text} (0123456789ab)",
        "              its file is damaged",
    ]


def test_only_versions_that_can_answer_are_read_from_the_index() -> None:
    index = [
        {"name": "m", "version": "1", "state": "READY"},
        {"name": "m", "version": "2", "state": "UNAVAILABLE", "reason": "damaged"},
        {"name": "m", "version": "x", "state": "READY"},
        {"name": "n", "state": "READY"},
        {"version": "3", "state": "READY"},
    ]
    assert ready_versions(index) == {"m": {1}}
