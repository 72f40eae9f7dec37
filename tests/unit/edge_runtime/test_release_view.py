"""Releases as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.cli import release_view as view
from edge_runtime.protocol import release_schemas as schemas
from tests.scripted_orders import shown, standing

NOW_S = 1_700_000_000.0
CONTROL = "\x1b[2J"


def row(**more: object) -> schemas.Transition:
    told = {
        "id": 1,
        "release_id": 7,
        "model": "digits",
        "version": 2,
        "from_state": "canary",
        "to_state": "rolling-back",
        "event": "roll-back",
        "wall_s": NOW_S,
    }
    return schemas.Transition(**{**told, **more})  # type: ignore[arg-type]


def test_the_overview_begins_with_who_is_believed() -> None:
    trust = schemas.Trust(managed=True, keyring_version=3, keys=["a", "b"], threshold=2)
    lines = view.overview(schemas.Releases(trust=trust, problem="the disk is full"))
    assert lines == [
        "managed: only bundles signed by 2 of 2 keys are taken (keyring version 3)",
        "nothing can be released: the disk is full",
        "no model was released here; begin with: edge-runtime release stage BUNDLE",
    ]


def test_a_model_tells_what_is_remembered_as_bad() -> None:
    bad = [
        schemas.BadRelease(version=number, manifest_sha256="a" * 64, cause=f"verdict{CONTROL}")
        for number in range(9, 2, -1)
    ]
    (line,) = [each for each in view.one_model(standing(bad=bad)) if "bad" in each]
    assert line.startswith("remembered as bad: version 9 (verdict")
    assert line.endswith("and 2 more; --again takes one all the same")
    assert "version 4" not in line
    assert CONTROL not in line
    assert not [each for each in view.one_model(standing()) if "bad" in each]


def test_the_overview_has_a_line_for_each_model_with_its_newest_release() -> None:
    canary = shown("canary", percent=25, remaining_s=125.0)
    disabled = standing(active=None, disabled="it was the first")
    disabled.model = "house"
    text = view.overview(schemas.Releases(models=[standing(canary, previous=4), disabled]))[-1]
    titles, digits, house = text.splitlines()
    assert titles.split() == [
        "MODEL", "ACTIVE", "FROM", "PREVIOUS", "RELEASE", "STATE", "SHARE", "LEFT", "REASON",
    ]  # fmt: skip
    assert digits.split() == [
        "digits", "1", "store", "4", "2", "canary", "25", "%", "2", "min", "5", "s", "-",
    ]  # fmt: skip
    assert house.split()[:2] == ["house", "disabled"]
    assert house.endswith("it was the first")


def test_one_model_is_told_with_everything_that_stands() -> None:
    override = schemas.Override(kind="hold", reason="demo day", source="operator uid=7")
    ended = shown("rolled-back", cause="verdict", reason="it is slow", updated_s=NOW_S)
    model = standing(
        ended, override=override, traffic={"1": 80, "2": 20}, previous=4, installed=[1, 2, 4]
    )
    lines = view.one_model(model)
    assert lines[:5] == [
        "digits version 1 from store is active; running: 111111111111",
        "a rollback leads to version 4",
        "the traffic is split: 1=80 %, 2=20 %",
        "hold by operator uid=7: demo day; the fleet's orders wait for `release clear`",
        "installed: 1, 2, 4",
    ]
    assert "2023-11-14 22:13:20" in lines[5]
    assert lines[5].endswith("verdict  it is slow")


def test_a_model_of_which_nothing_is_in_memory_says_so() -> None:
    assert "running: nothing in memory" in view.one_model(standing(running_digest=""))[0]


def test_why_the_active_version_cannot_be_loaded_is_told_in_both_views() -> None:
    model = standing(shown(), running_digest="", active_problem="model.onnx has 7 bytes")
    assert view.one_model(model)[1] == "it does not answer: model.onnx has 7 bytes"
    seen = schemas.Releases(models=[model])
    assert view.overview(seen)[1].endswith("model.onnx has 7 bytes")


def test_a_model_of_which_nothing_was_committed_is_what_the_configuration_says() -> None:
    lines = view.one_model(standing(active=None, active_source=""))
    assert lines == ["digits is what the configuration says; running: 111111111111"]


def test_the_history_has_a_line_for_each_row_and_short_digests() -> None:
    text = view.history([row(digest="ab" * 32, cause="verdict", reason="it is slow")])
    assert text.splitlines()[1].split() == [
        "2023-11-14", "22:13:20", "digits", "2", "canary", "rolling-back", "roll-back", "verdict",
        "abababababab", "it", "is", "slow",
    ]  # fmt: skip


def test_a_step_is_told_with_its_first_few_measurements() -> None:
    numbers = {"blocks": 16, "agreement": 0.98765, "names": ["a"], "is_it": True, "x": None}
    numbers |= {"looks": 2, "alpha_left": 0.025, "more": 5}
    step = view.step(row(cause="verdict", reason="it is slow", numbers=numbers))
    assert step == (
        "2023-11-14 22:13:20  rolling-back: verdict: it is slow "
        "(blocks 16, agreement 0.988, looks 2, alpha left 0.025)"
    )


def test_what_a_release_waits_for_is_told_before_its_reason() -> None:
    held = standing(shown("staged", waits_for="a hold stands", reason="it passed"))
    assert view.one_model(held)[-1].endswith("waits: a hold stands")
    assert view.overview(schemas.Releases(models=[held]))[-1].endswith("waits: a hold stands")


def test_a_long_reason_is_cut_in_a_table_and_whole_where_somebody_waits() -> None:
    told = row(reason="x" * 81)
    assert view.history([told]).endswith(" " + "x" * 79 + "…")
    assert view.step(told, 25) == "2023-11-14 22:13:20  rolling-back 25 %: " + "x" * 81


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (-3.0, "0 s"), (59.4, "59 s"), (60.0, "1 min 0 s"), (3700.0, "1 h 1 min")],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert view.duration(seconds) == text


@given(st.floats(allow_nan=False))
def test_a_clock_that_was_far_off_can_be_shown(seconds: float) -> None:
    assert isinstance(view.when(seconds), str)


def test_nothing_that_came_from_outside_reaches_the_terminal_as_it_is() -> None:
    bad = shown(CONTROL, reason=CONTROL, cause=CONTROL, source=CONTROL)
    override = schemas.Override(kind="hold", reason=CONTROL, source=CONTROL)
    model = standing(
        bad,
        override=override,
        disabled=CONTROL,
        traffic={CONTROL: 100},
        running_digest=CONTROL,
        active_source=CONTROL,
    )
    model.model = CONTROL
    open_model = standing(bad, running_digest=CONTROL, active_source=CONTROL)
    rows = [row(reason=CONTROL, cause=CONTROL, to_state=CONTROL, model=CONTROL, digest=CONTROL)]
    texts = [
        *view.one_model(model),
        *view.one_model(open_model),
        *view.overview(schemas.Releases(problem=CONTROL, models=[model])),
        view.history(rows),
        view.step(rows[0]),
        view.numbers({CONTROL: 1}),
    ]
    assert not [text for text in texts if "\x1b" in text]
