"""Job statuses on their way into the outbox: with the comparisons, and never too large for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.device.remarks import Remarks
from agent.device.reports import Reports
from agent.download.notices import Notice, NoticeKind
from agent.errors import RuntimeAwayError
from agent.messages import JobState, JobStatus
from agent.records.outbox import Outbox
from agent.records.outbox_rows import Priority
from agent.topics import Topics
from agent.update.judgements import Judgement
from tests.linked_device import FLEET, outbox_in

ENDED = [
    Judgement(step="shadowing", to="canary", verdict="pass", numbers={"blocks": 9}),
    Judgement(step="canary", to="probation", verdict="pass", numbers={"traffic_blocks": 7}),
]


class Judges:
    """A runtime that says so, or is away."""

    def __init__(self, found: list[Judgement] | None) -> None:
        self.found = found

    def judgements(self, model: str, release: int) -> list[Judgement]:
        """Say it."""
        assert (model, release) == ("m", 4)
        if self.found is None:
            raise RuntimeAwayError("nobody answers")
        return self.found


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    file, outbox = outbox_in(tmp_path / "state")
    yield outbox
    outbox.close()
    file.close()


def details(
    tmp_path: Path,
    outbox: Outbox,
    found: list[Judgement] | None,
    state: JobState = JobState.SUCCEEDED,
    **more: Any,  # noqa: ANN401 - of the status
) -> dict[str, Any]:
    """Report, and give what is in the outbox then."""
    reports = Reports(
        outbox, Topics(FLEET, "dev-1"), Remarks(tmp_path), Judges(found), lambda: None
    )
    told = {"release": 4, **more}
    reports.job(JobStatus(rollout="r", model="m", version=2, state=state, details=told))
    (row,) = outbox.take(9)
    assert row.priority is Priority.STATUS
    return msgspec.json.decode(row.payload, type=JobStatus).details


def test_the_last_status_has_every_judgement(tmp_path: Path, outbox: Outbox) -> None:
    told = details(tmp_path, outbox, ENDED)
    assert told["judgements"] == msgspec.to_builtins(ENDED)


def test_a_status_on_the_way_has_the_last_judgement(tmp_path: Path, outbox: Outbox) -> None:
    told = details(tmp_path, outbox, ENDED, JobState.IN_PROGRESS)
    assert told["judgements"] == msgspec.to_builtins(ENDED[-1:])


@pytest.mark.parametrize("found", [None, []])
def test_a_runtime_that_is_away_or_has_nothing_to_say_keeps_no_status_back(
    tmp_path: Path, outbox: Outbox, found: list[Judgement] | None
) -> None:
    assert details(tmp_path, outbox, found) == {"release": 4}


def test_what_does_not_fit_is_left_out_beginning_with_the_download(
    tmp_path: Path, outbox: Outbox
) -> None:
    for number in range(8):
        text = f"{number}" + "\0" * 490
        Remarks(tmp_path).add("m", 2, "r", Notice(NoticeKind.REUSE_FAILED, text, 0))
    told = details(tmp_path, outbox, ENDED, filler="x" * 60_000)
    assert "download" not in told
    assert told["judgements"] == msgspec.to_builtins(ENDED)
