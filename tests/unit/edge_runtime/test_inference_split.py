"""A split request path: who is asked, and who answers where a version on trial fails."""

import asyncio

import pytest
import pytest_asyncio
from msgspec.structs import replace

from edge_runtime.access import Peer
from edge_runtime.errors import EdgeRuntimeError, ModelFailedError, OverloadedError
from edge_runtime.routing import LoadedVersion, Traffic
from tests.fakes import bundle
from tests.splits import FAILED, Split, request, split_at_rest

pytestmark = pytest.mark.asyncio


path = pytest_asyncio.fixture(split_at_rest)


# -- who is asked --------------------------------------------------------------------------------


async def test_a_key_keeps_its_version_and_keys_share_both_out(path: Split) -> None:
    await path.serve(Traffic(1, {2: 5000}))
    seen: dict[str, set[str]] = {}
    for _ in range(3):
        for number in range(40):
            path.submit(replace(request(), routing_key=f"camera-{number}"))
            (run,) = path.runs
            seen.setdefault(f"camera-{number}", set()).add(run.version.version)
            path.end(run.version.version)
    assert all(len(versions) == 1 for versions in seen.values())
    assert set.union(*seen.values()) == {"1", "2"}


async def test_without_a_key_a_connection_keeps_its_version(path: Split) -> None:
    await path.serve(Traffic(1, {2: 5000}))
    peers = [Peer(7, 7, 7, "unix") for _ in range(40)]
    chosen = []
    for peer in peers * 2:
        path.submit(replace(request(), caller=peer))
        chosen.append(path.runs[0].version.version)
        path.end(chosen[-1])
    assert chosen[:40] == chosen[40:]
    assert set(chosen) == {"1", "2"}
    assert len({peer.connection for peer in peers}) == 40
    assert peers[0] == peers[1], "who it is has nothing to do with it"


async def test_who_names_a_version_or_an_alias_is_not_sent_elsewhere(path: Split) -> None:
    await path.serve()
    for asked, want in (("1", "1"), ("2", "2"), ("latest", "1"), ("stable", "1"), ("", "2")):
        path.submit(replace(request(), model_version=asked))
        path.end(want)


# -- where the version on trial fails ------------------------------------------------------------


async def test_a_failure_on_trial_is_answered_by_the_proven_version(path: Split) -> None:
    await path.serve()
    path.submit(replace(request(), id="mine"))
    path.end("2", FAILED)
    assert path.answers == []
    path.end("1")
    assert path.answered_by() == "1"
    assert path.counts(2) == (0, {"BACKEND": 1}, 1)
    assert path.counts(1) == (1, {}, 0)
    assert path.noted == [("2", FAILED)]


async def test_it_runs_again_on_the_same_inputs(path: Split) -> None:
    await path.serve()
    asked = request(3)
    path.submit(asked)
    first = path.runs[0]
    path.end("2", FAILED)
    (again,) = path.runs
    assert again.feeds["a"] is first.feeds["a"] is asked.inputs["a"].array
    assert (again.rows, again.asked) == (3, asked)
    path.end("1")


async def test_it_keeps_its_deadline_and_the_time_it_came(path: Split) -> None:
    await path.serve()
    path.submit(replace(request(), timeout_us=5_000_000))
    (first,) = path.runs
    path.end("2", FAILED)
    (again,) = path.runs
    assert again.deadline_ns == first.deadline_ns > 0
    assert again.received - again.waited_ns == first.received
    path.end("1")


async def test_where_both_fail_the_caller_hears_of_the_proven_version(path: Split) -> None:
    await path.serve()
    path.submit()
    path.end("2", FAILED)
    last = ModelFailedError("so did the other")
    path.end("1", last)
    assert path.answer() is last
    assert path.counts(1) == (0, {"BACKEND": 1}, 0)


async def test_the_failure_of_the_default_or_of_a_version_named_is_answered_as_it_is(
    path: Split,
) -> None:
    await path.serve(Traffic(1, {2: 0}))
    path.submit()
    path.end("1", FAILED)
    path.submit(replace(request(), model_version="2"))
    path.end("2", FAILED)
    assert path.answers == [FAILED, FAILED]
    assert path.counts(2) == (0, {"BACKEND": 1}, 0)
    assert path.noted == []


async def test_only_a_model_that_failed_is_replaced_not_a_full_queue(path: Split) -> None:
    await path.serve()
    full = OverloadedError("full")
    path.submit()
    path.end("2", full)
    assert path.answer() is full
    assert path.counts(2) == (0, {"REJECTED": 1}, 0)


async def test_nobody_is_asked_again_for_a_client_that_left(path: Split) -> None:
    await path.serve()
    asked = request()
    path.submit(asked)
    asked.cancelled = True
    path.end("2", FAILED)
    assert path.answer() is FAILED


async def test_in_probation_the_earlier_version_answers_where_the_new_one_fails(
    path: Split,
) -> None:
    await path.serve(Traffic(2, fallback=1))
    path.submit()
    path.end("2", FAILED)
    path.end("1")
    assert path.answered_by() == "1"


async def test_requests_on_a_version_that_was_taken_back_meanwhile_are_answered(
    path: Split,
) -> None:
    await path.serve()
    path.submit()
    path.catalog.direct("m", Traffic(1))
    taken_back = asyncio.ensure_future(path.catalog.apply("m", {1: bundle("m", 1, "one")}))
    while "2" in path.catalog.table["m"].versions:  # noqa: ASYNC110 - nothing says when
        await asyncio.sleep(0)
    path.end("2", FAILED)
    path.end("1")
    assert path.answered_by() == "1"
    await taken_back


async def test_a_request_still_counts_once_among_its_users_unanswered_ones(path: Split) -> None:
    await path.serve()
    path.inference.requests_per_user = 1
    for _ in range(3):
        path.submit()
        path.end("2", FAILED)
        path.end("1")
    assert not any(isinstance(answer, EdgeRuntimeError) for answer in path.answers)
    path.submit()
    path.submit()
    assert isinstance(path.answers[-1], OverloadedError)
    path.end("2")


async def test_a_failure_that_cannot_be_noted_is_answered_all_the_same(
    path: Split, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_loaded: LoadedVersion, _error: EdgeRuntimeError) -> None:
        raise RuntimeError("defect")

    await path.serve()
    path.inference.fallback.noted = fail
    path.submit()
    path.end("2", FAILED)
    path.end("1")
    assert path.answered_by() == "1"
    assert "could not be noted" in caplog.text
