"""Documents: what is written is read back, and any bytes are a document or a clear refusal."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.documents import chunks, plan, release
from fleet.documents.chunks import (
    INDEX_BYTES_MAX,
    Chunk,
    ChunkIndex,
    read_chunks,
    write_chunks,
)
from fleet.documents.errors import DocumentError
from fleet.documents.plan import (
    PLANS_BYTES_MAX,
    Plan,
    Plans,
    Stage,
    Window,
    plan_of,
    read_plans,
    write_plans,
)
from fleet.documents.release import (
    RELEASE_BYTES_MAX,
    GuardRails,
    ReleaseFacts,
    Requires,
    custom_of,
    read_release,
    release_of,
    write_release,
)

ROOT = Path(__file__).parents[3]
SHA = "ab" * 32

words = st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True)
devices = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
models = st.from_regex(r"[A-Za-z0-9_@+:][A-Za-z0-9._@+:-]{0,127}", fullmatch=True)
versions = st.integers(1, 2**63 - 1)
counts = st.integers(0, 2**63 - 1)
seconds = st.integers(0, 10**12).map(float)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
some_texts = st.lists(texts, max_size=4).map(tuple)
labels = st.dictionaries(texts, some_texts, max_size=4)
times = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))

facts = st.builds(
    ReleaseFacts,
    model=models,
    version=versions,
    counter=st.integers(2**62, 2**63 - 1),
    min_counter=st.integers(0, 2**62),
    requires=st.builds(
        Requires,
        arch=some_texts,
        cpu_flags=some_texts,
        memory_bytes=counts,
        labels=labels,
        agent_min=st.sampled_from(["", "0.1", "1.22.333"]),
    ),
    guard_rails=st.builds(
        GuardRails,
        channels=st.lists(words, max_size=3).map(tuple),
        first_stage_permyriad_max=st.integers(0, 10_000),
        stage_s_min=seconds,
        changes_per_day_max=counts,
        plan_age_s_max=seconds,
    ),
    created_s=seconds,
)


@st.composite
def some_plans(draw: st.DrawFn) -> Plan:
    """Draw a plan that does not contradict itself."""
    shares = sorted(draw(st.lists(st.integers(0, 10_000), min_size=1, max_size=5)))
    version = draw(st.integers(2, 2**62))
    return Plan(
        rollout=draw(words),
        sequence=draw(versions),
        model=draw(models),
        version=version,
        order=draw(st.sampled_from(["install", "hold", "abort", "revert"])),
        revert_to=version - 1,
        salt=draw(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)),
        stages=tuple(
            Stage(permyriad=share, duration_s=draw(seconds), begun_s=draw(st.none() | seconds))
            for share in shares
        ),
        stage=draw(st.integers(0, len(shares) - 1)),
        devices=tuple(draw(st.lists(devices, max_size=3))),
        filter=draw(labels),
        window=draw(
            st.none() | st.builds(Window, days=st.just(("mon", "sun")), begin=times, end=times)
        ),
        again=draw(st.booleans()),
        bytes_max=draw(counts),
    )


plans_of_channels = st.builds(
    Plans,
    fleet=words,
    channel=words,
    issued_s=seconds,
    plans=st.lists(some_plans(), max_size=3, unique_by=lambda each: each.model).map(tuple),
)


@given(facts)
def test_facts_are_read_back_as_they_were_written(value: ReleaseFacts) -> None:
    assert read_release(write_release(value), "facts") == value
    assert write_release(read_release(write_release(value), "facts")) == write_release(value)


@given(facts)
def test_facts_survive_signed_metadata_which_knows_no_fractions(value: ReleaseFacts) -> None:
    custom = custom_of(value)
    assert release_of(json.loads(json.dumps(custom)), "custom") == value
    assert "." not in "".join(
        str(number)
        for part in (custom, custom["guard_rails"])
        for number in part.values()
        if isinstance(number, int | float)
    )


@given(plans_of_channels)
def test_plans_are_read_back_as_they_were_written(value: Plans) -> None:
    try:
        data = write_plans(value)
    except DocumentError as error:
        assert "the window begins and ends" in error.message  # noqa: PT017 - drawn now and then
        return
    assert read_plans(data, "plans") == value
    assert write_plans(read_plans(data, "plans")) == data


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(texts, below, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200) | _json.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_document_or_a_document_error(data: bytes) -> None:
    for read in (read_release, read_plans, read_chunks):
        with contextlib.suppress(DocumentError):
            read(data, "something")


@given(st.data())
def test_a_document_with_one_changed_value_is_a_document_or_a_document_error(
    data: st.DataObject,
) -> None:
    for written, read in (
        (write_release(_facts()), read_release),
        (write_plans(_plans()), read_plans),
        (write_chunks(_index()), read_chunks),
    ):
        document = json.loads(written)
        key = data.draw(st.sampled_from(sorted(document)))
        document[key] = data.draw(_json)
        with contextlib.suppress(DocumentError):
            read(json.dumps(document).encode(), "changed")


def _facts(**fields: Any) -> ReleaseFacts:  # noqa: ANN401
    defaults: dict[str, Any] = {"model": "m", "version": 3, "counter": 3, "created_s": 1e9}
    return ReleaseFacts(**(defaults | fields))


def _plan(**fields: Any) -> Plan:  # noqa: ANN401
    defaults: dict[str, Any] = {
        "rollout": "r",
        "sequence": 1,
        "model": "m",
        "version": 3,
        "salt": "s",
        "stages": (Stage(permyriad=500), Stage(permyriad=10_000)),
    }
    return Plan(**(defaults | fields))


def _plans(*plans: Plan, **fields: Any) -> Plans:  # noqa: ANN401
    defaults: dict[str, Any] = {"fleet": "f", "channel": "stable", "issued_s": 1e9}
    return Plans(**(defaults | {"plans": plans or (_plan(),)} | fields))


def _index() -> ChunkIndex:
    pieces = (Chunk(offset=0, size=5, sha256=SHA), Chunk(offset=5, size=6, sha256=SHA))
    return ChunkIndex(file_sha256=SHA, file_size=11, chunks=pieces)


DOCUMENTS = pytest.mark.parametrize(
    ("written", "read"),
    [
        (write_release(_facts()), read_release),
        (write_plans(_plans()), read_plans),
        (write_chunks(_index()), read_chunks),
    ],
    ids=["facts", "plans", "chunks"],
)
Read = Callable[[bytes, str], object]


@DOCUMENTS
def test_fields_that_nobody_knows_are_ignored(written: bytes, read: Read) -> None:
    more = json.dumps(json.loads(written) | {"later": {"x": 1}}).encode()
    assert read(more, "more") == read(written, "same")


@DOCUMENTS
def test_a_newer_schema_is_refused(written: bytes, read: Read) -> None:
    newer = json.dumps(json.loads(written) | {"schema_version": 2}).encode()
    with pytest.raises(DocumentError, match="schema_version 2 is newer than 1"):
        read(newer, "newer")


@DOCUMENTS
def test_a_feature_that_must_be_known_is_refused(written: bytes, read: Read) -> None:
    needs = json.dumps(json.loads(written) | {"required_features": ["magic"]}).encode()
    with pytest.raises(DocumentError, match="'magic', which this program does not have"):
        read(needs, "needs")


@DOCUMENTS
def test_documents_are_written_sorted_and_without_spaces(written: bytes, read: Read) -> None:
    del read
    text = json.dumps(json.loads(written), sort_keys=True, separators=(",", ":"))
    assert written == text.encode()


@DOCUMENTS
def test_endless_data_are_refused(written: bytes, read: Read) -> None:
    del written
    most = max(RELEASE_BYTES_MAX, PLANS_BYTES_MAX, INDEX_BYTES_MAX)
    with pytest.raises(DocumentError, match="the limit"):
        read(b" " * (most + 1), "endless")


@DOCUMENTS
def test_deep_nesting_and_bytes_that_are_no_text_are_refused(written: bytes, read: Read) -> None:
    del written
    for data in (b"[" * 60_000, b"\xff\xfe", b"", b"null", b"{}", b'{"issued_s": 1e999}'):
        with pytest.raises(DocumentError, match=r"^odd: "):
            read(data, "odd")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"stage": 2}, "stage 2 is not there"),
        ({"stages": (Stage(permyriad=2), Stage(permyriad=1))}, "do not grow"),
        ({"order": "revert"}, "say which version in revert_to"),
        ({"revert_to": 3}, "revert_to is the version itself"),
        ({"window": Window(begin="01:00", end="01:00")}, "begins and ends at 01:00"),
        ({"window": Window(begin="24:00", end="01:00")}, "begin"),
        ({"window": {"days": ["friday"], "begin": "02:00", "end": "03:00"}}, "friday"),
        ({"salt": "a|b"}, "salt"),
        ({"salt": ""}, "salt"),
        ({"devices": ("Pump",)}, "devices"),
        ({"order": "explode"}, "explode"),
        ({"stages": ()}, "stages"),
        ({"sequence": 0}, "sequence"),
        ({"rollout": "a\n"}, "rollout"),
        ({"stages": (Stage(permyriad=10_001),)}, "permyriad"),
        ({"stages": (Stage(permyriad=1, duration_s=float("nan")),)}, "duration_s"),
        ({"stages": (Stage(permyriad=1, begun_s=-1.0),)}, "begun_s"),
    ],
)
def test_a_plan_that_makes_no_sense_is_neither_written_nor_read(
    wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises(DocumentError, match=words):
        write_plans(_plans(_plan(**wrong)))


def test_a_model_has_one_plan_in_a_channel() -> None:
    with pytest.raises(DocumentError, match="two plans for m"):
        write_plans(_plans(_plan(), _plan(rollout="other")))


def test_the_plan_of_a_model_is_found() -> None:
    other = _plan(model="n")
    assert _plans(_plan(), other).of("n") == other
    assert _plans(_plan()).of("n") is None


def test_a_plan_is_read_from_parsed_toml() -> None:
    value = {
        "rollout": "r",
        "sequence": 1,
        "model": "m",
        "version": 3,
        "salt": "s",
        "stages": [{"permyriad": 500}, {"permyriad": 10_000}],
    }
    assert plan_of(value, "plan.toml") == _plan()
    with pytest.raises(DocumentError, match=r"plan\.toml: .*model"):
        plan_of({**value, "model": 7}, "plan.toml")


def test_facts_that_exclude_themselves_are_refused() -> None:
    with pytest.raises(DocumentError, match="above its own counter"):
        write_release(_facts(min_counter=4))


def test_a_fraction_of_a_second_is_not_signed() -> None:
    with pytest.raises(DocumentError, match=r"stage_s_min is 0\.5; .* whole seconds"):
        custom_of(_facts(guard_rails=GuardRails(stage_s_min=0.5)))


def test_metadata_without_facts_are_refused() -> None:
    with pytest.raises(DocumentError, match="no facts of a release are signed with it"):
        release_of(None, "models/m/3/manifest.json")


@pytest.mark.parametrize(
    ("name", "text", "document"),
    [
        ("release-facts", release.schema_text(), write_release(_facts())),
        ("plans", plan.schema_text(), write_plans(_plans())),
        ("chunks", chunks.schema_text(), write_chunks(_index())),
    ],
)
def test_the_published_schema_accepts_what_is_written(
    name: str, text: str, document: bytes
) -> None:
    schema = json.loads(text)
    assert (ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text("utf-8") == text
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(document), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schema)


def test_structs_are_frozen() -> None:
    for struct in (
        Requires,
        GuardRails,
        ReleaseFacts,
        Stage,
        Window,
        Plan,
        Plans,
        Chunk,
        ChunkIndex,
    ):
        assert struct.__struct_config__.frozen
    with pytest.raises(TypeError, match="positional"):
        Stage(500)  # type: ignore[call-arg] # it is wrong on purpose


def test_an_agent_that_reads_documents_loads_no_signing_side() -> None:
    code = (
        "import sys, fleet.documents.plan, fleet.documents.chunks, fleet.documents.release, "
        "fleet.documents.cohort, fleet.documents.paths; print('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"numpy", "onnxruntime", "tuf", "cryptography", "typer", "rich", "fastcdc", "sqlite3"}
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}
