"""Plans: completed, signed and read back; what may not be leaves no trace."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleet.documents.errors import DocumentError
from fleet.documents.release import GuardRails
from fleet.errors import BadInputError, RefusedError
from fleet.repository.state import now
from tests.repositories import (
    TestRepository,
    new_repository,
    problems,
    refused,
    tree,
)

WINDOW = {"begin": "22:00", "end": "05:00", "zone": "Europe/Berlni"}


@pytest.fixture
def repository(tmp_path: Path) -> TestRepository:
    return new_repository(tmp_path)


def test_a_plan_is_completed_signed_and_read_back(repository: TestRepository) -> None:
    repository.add_bundle()
    repository.add_bundle(model="other")
    begin = now() - timedelta(hours=2)
    first = repository.set_plan(at=begin, stages=[{"permyriad": 5}, {"permyriad": 10_000}])
    assert (first.sequence, first.stages[0].begun_s) == (1, begin.timestamp())
    repository.set_plan(model="other", rollout="other")
    later = begin + timedelta(hours=1)
    second = repository.set_plan(
        at=later, stage=1, stages=[{"permyriad": 5}, {"permyriad": 10_000}]
    )
    assert (second.sequence, second.salt) == (2, first.salt)
    assert [s.begun_s for s in second.stages] == [begin.timestamp(), later.timestamp()]
    plans = repository.plans()
    assert plans.issued_s == later.timestamp()
    assert [plan.model for plan in plans.plans] == ["m", "other"]
    assert plans.of("m") == second
    assert problems(repository) == ()


def test_the_same_plan_again_changes_nothing(repository: TestRepository) -> None:
    repository.add_bundle()
    repository.set_plan()
    before = tree(repository.folder)
    repository.set_plan()
    repository.set_plan(sequence=1)
    assert tree(repository.folder) == before


def test_a_rollout_stays_at_its_stage_unless_told_and_begins_anew_after_it_was_called_off(
    repository: TestRepository,
) -> None:
    repository.add_bundle(version=1)
    repository.add_bundle(version=2)

    def stage(rollout: str = "r", **fields: Any) -> int:  # noqa: ANN401
        stages = [{"permyriad": 500}, {"permyriad": 10_000}]
        return repository.set_plan(rollout=rollout, version=2, stages=stages, **fields).stage

    assert stage() == 0
    assert stage(stage=1) == 1
    assert stage() == 1
    assert stage(order="hold") == 1
    assert stage() == 1
    assert stage(stage=0) == 0
    assert stage(stage=1) == 1
    assert stage(order="revert", revert_to=1) == 1
    assert stage(order="revert", revert_to=1) == 1
    assert stage() == 0
    assert stage(stage=1) == 1
    assert stage("another") == 0


@pytest.mark.parametrize(
    ("error", "words", "fields"),
    [
        (RefusedError, "is not released", {"version": 9}),
        (RefusedError, "is not released", {"model": "unknown"}),
        (RefusedError, "does not rise above 1", {"sequence": 1, "order": "hold"}),
        (RefusedError, "for the channels stable only", {"channel": "beta"}),
        (BadInputError, "'steps', which means nothing", {"steps": []}),
        (BadInputError, "is no channel", {"channel": "../x"}),
        (BadInputError, "no time zone 'Europe/Berlni'", {"window": WINDOW}),
        (BadInputError, "stage", {"stages": []}),
        (BadInputError, "the plan: .*version.*schema of plans", {"version": "new"}),
        (BadInputError, "the plan: .*model", {"model": 7}),
        (DocumentError, "stage 3 is not there", {"stage": 3}),
    ],
)
def test_a_plan_that_may_not_be_leaves_no_trace(
    repository: TestRepository, error: type[Exception], words: str, fields: dict[str, Any]
) -> None:
    repository.add_bundle(guard_rails=GuardRails(channels=("stable",)))
    repository.set_plan(rollout="r")
    refused(repository, error, words, lambda: repository.set_plan(rollout="r", **fields))
