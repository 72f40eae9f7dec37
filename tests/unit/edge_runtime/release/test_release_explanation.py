"""What a model's releases are explained with."""

import pytest

from edge_runtime.protocol.release_schemas import ModelReleases, Override, Release
from edge_runtime.release.explanation import explain
from edge_runtime.release.states import FINAL, State


def release(state: State | str, **more: object) -> Release:
    """Show a release of version 2."""
    told = {"id": 7, "model": "digits", "version": 2, "source": "operator uid=7"}
    return Release(state=str(state), **{**told, **more})  # type: ignore[arg-type]


def told(*releases: Release, **more: object) -> str:
    known = {"active": 1, "active_source": "store", "running_digest": "ab" * 32}
    model = ModelReleases(model="digits", releases=list(releases), **{**known, **more})  # type: ignore[arg-type]
    return " ".join(explain(model))


@pytest.mark.parametrize("state", [*State, "unheard-of"])
@pytest.mark.parametrize("active", [1, None])
def test_every_state_is_explained_in_whole_sentences(state: str, active: int | None) -> None:
    seen = release(state, cause="verdict", reason="it is slow")
    said = told(seen, active=active)
    assert "version 2" in said.lower()
    assert said.endswith(".")
    assert "None" not in said
    assert ".." not in said
    assert ("release 7" in said) == (state not in FINAL)


def test_what_answers_and_why_comes_first_with_the_running_digest() -> None:
    said = told()
    assert said.startswith(
        "Version 1 of digits is active, because its release was committed. What really answers now "
        "has the digest abababababab."
    )
    assert "Nothing was released here yet." in said


def test_a_disabled_model_is_explained_with_its_reason() -> None:
    said = told(active=None, disabled="its first release was reverted", running_digest="")
    assert said.startswith("digits is disabled and answers 503: its first release was reverted.")


@pytest.mark.parametrize(
    ("digest", "said"),
    [
        ("", "committed. It does not answer: model.onnx has 7 bytes."),
        ("ab" * 32, "abababababab. It is not quite right: model.onnx has 7 bytes."),
    ],
    ids=["away", "in memory"],
)
def test_why_the_active_version_cannot_be_loaded_is_explained(digest: str, said: str) -> None:
    assert said in told(running_digest=digest, active_problem="model.onnx has 7 bytes.")


def test_a_release_under_way_is_explained_with_evidence_and_time_left() -> None:
    seen = release(
        "canary",
        percent=25,
        remaining_s=90.0,
        variant="int8.onnx",
        variant_reason="the fastest of 2",
        method="availability-preserving",
        crashes=1,
        judged=["16 blocks agree."],
    )
    said = told(seen)
    assert "Its share of the traffic is 25 %." in said
    assert "Its variant on this device is int8.onnx: the fastest of 2." in said
    assert "stays in memory for the way back" in said
    assert "So far: 16 blocks agree." in said
    assert "The daemon died once under it." in said
    assert said.endswith("The step has 1 min 30 s of awake time left.")


def test_what_a_release_waits_for_is_said_instead_of_what_comes_next() -> None:
    said = told(release("staged", waits_for="somebody has to promote it"))
    assert said.endswith("It waits: somebody has to promote it.")


def test_holds_and_splits_and_the_way_back_are_explained() -> None:
    override = Override(kind="rollback", source="operator uid=7", reason="flicker")
    said = told(override=override, traffic={"1": 80, "2": 20}, previous=4)
    assert "A rollback by operator uid=7 (flicker) stands" in said
    assert "the traffic is split: version 1: 80 %, version 2: 20 %." in said
    assert "A rollback leads to version 4." in said


def test_without_a_previous_version_it_is_said_what_a_rollback_does() -> None:
    assert "a rollback disables the model" in told()
    assert "a rollback disables the model" not in told(active_source="seed")


def test_the_last_release_is_explained_where_none_is_under_way() -> None:
    said = told(release("rolled-back", cause="verdict", reason="it is slow"))
    assert said.endswith("The last release, of version 2, was rolled back (verdict: it is slow).")


def test_a_commit_is_explained_with_what_it_rests_on_and_deaths_since() -> None:
    lacking = "committed without proof: canary: 3 blocks, at least 16 are needed to pass"
    said = told(release("committed", proof="unproven", reason=lacking, crashes=2))
    assert f"was committed; none is under way. It was {lacking}." in said
    assert "The daemon died 2 times in a row with it in memory" in said
    said = told(release("committed", proof="proven", reason="agreement: 1"))
    assert said.endswith("was committed on evidence; none is under way.")


def test_where_nothing_was_committed_the_configuration_is_named() -> None:
    said = told(active=None, active_source="")
    assert said.startswith("The configuration and its folders say what answers for digits")


def test_a_version_that_left_memory_first_is_told_from_one_that_stays() -> None:
    said = told(release("probation", percent=100, method="resource-preserving"))
    assert "the active one left first" in said
    assert "stays in memory" not in said
