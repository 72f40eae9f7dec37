"""What is read from the runtime's answer."""

import pytest

from agent.records.updates import Update
from agent.update.standing import standing_of
from agent.update.states import State
from edge_runtime.protocol.release_schemas import BadRelease, ModelReleases, Override, Release


def _update(seen_release: int = -1) -> Update:
    return Update(
        model="digits",
        version=2,
        rollout="digits-2",
        sequence=1,
        manifest_sha256="ab",
        state=State.FOLLOWING,
        seen_release=seen_release,
    )


def _release(number: int, state: str, source: str = "fleet digits-2 uid=7") -> Release:
    return Release(
        id=number, model="digits", version=2, state=state, manifest_sha256="ab", source=source
    )


def test_a_model_is_read_as_the_runtime_answers_it() -> None:
    standing = standing_of(
        ModelReleases(
            model="digits",
            active=1,
            running_digest="d1",
            previous=3,
            override=Override(kind="hold", reason="Sunday"),
            installed=[1, 2, 3],
            bad=[BadRelease(version=4, manifest_sha256="cd")],
            releases=[_release(1, "rolled-back"), _release(2, "canary")],
        )
    )
    assert (standing.active, standing.running_digest, standing.previous) == (1, "d1", 3)
    assert (standing.override, standing.override_reason) == ("hold", "Sunday")
    assert standing.bad == {"cd"}
    assert standing.installed == {1, 2, 3}
    assert [release.id for release in standing.releases] == [2, 1]
    assert standing.newest_release == 2


def test_a_release_that_was_there_before_the_hand_over_is_not_the_update_s() -> None:
    standing = standing_of(ModelReleases(model="digits", releases=[_release(5, "rolled-back")]))
    assert standing.passage(_update(seen_release=5)) is None
    found = standing.passage(_update(seen_release=4))
    assert found is not None
    assert found.id == 5
    assert standing.passage(_update()) is None


@pytest.mark.parametrize(
    ("source", "rollout"),
    [
        ("fleet digits-2 uid=1000", "digits-2"),
        ("fleet uid=1000", "fleet"),
        ("fleet", "fleet"),
        ("operator uid=1000", ""),
        ("", ""),
    ],
)
def test_who_ordered_a_release_is_read_from_its_source(source: str, rollout: str) -> None:
    standing = standing_of(ModelReleases(model="digits", releases=[_release(1, "canary", source)]))
    under_way = standing.under_way()
    assert under_way is not None
    assert under_way.rollout == rollout
