"""Releases on the admin door: which order is given for which request, and what is refused."""

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.api.tables import data_routes
from edge_runtime.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    SignatureError,
    StorageError,
)
from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.release_orders import split
from tests.scripted_orders import AdminClient, shown, standing, told

pytestmark = pytest.mark.asyncio

WAIT_S = 60.0
VERBS = ("promote", "rollback", "revert", "abort", "hold", "clear")


def bundles_open() -> list[str]:
    """List the descriptors of this process that hold a bundle that was sent."""
    names = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one of the folder itself
            names.append(str(link.readlink()))
    return [name for name in names if name.startswith("/memfd:bundle")]


# -- stage ---------------------------------------------------------------------------------------


async def test_a_path_is_staged_as_asked_and_the_history_gets_the_user() -> None:
    client = AdminClient()
    client.orders.staged = shown(mode="manual")
    exchange = await client.send(
        "POST", "/admin/releases", {"path": "/b/digits-2", "mode": "manual", "again": True}
    )
    assert exchange.status == 200
    assert told(exchange)["id"] == 7
    order = {"mode": "manual", "again": True, "rollout": "", "asked_by": "operator uid=1000"}
    assert client.orders.taken == [("stage", {"source": Path("/b/digits-2"), **order})]


async def test_the_fleet_s_order_is_told_from_a_person_s() -> None:
    client = AdminClient()
    await client.send("POST", "/admin/releases", {"path": "/b", "rollout": "r-17"})
    ((_, order),) = client.orders.taken
    assert order["rollout"] == "r-17"
    assert order["asked_by"] == "fleet r-17 uid=1000"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"path": ""},
        {"path": "digits-2"},
        {"path": "./digits-2"},
        {"path": "/b\0/c"},
        {"path": "/" + "x" * 4096},
        {"path": "/b", "mode": "now"},
        {"path": "/b", "agian": True},
        {"path": "/b", "again": "yes"},
        {"path": "/b", "rollout": "x" * 201},
        {"path": 3},
        [],
        b"{",
        b"\xff",
        b"[" * 100_000,
    ],
)
async def test_an_order_that_is_not_understood_whole_is_refused_and_not_given(body: object) -> None:
    client = AdminClient()
    exchange = await client.send("POST", "/admin/releases", body)
    assert exchange.status == 400
    assert told(exchange)["error"]
    assert client.orders.taken == []


async def test_a_tar_is_handed_over_as_a_descriptor_that_is_closed_afterwards() -> None:
    client = AdminClient()
    exchange = await client.send("POST", "/admin/bundles?mode=manual&again=true", b"tar's bytes")
    assert exchange.status == 200
    assert client.orders.bundle == b"tar's bytes"
    ((_, order),) = client.orders.taken
    assert (order["mode"], order["again"]) == ("manual", True)
    assert bundles_open() == []


async def test_a_tar_s_descriptor_is_closed_where_the_bundle_is_refused() -> None:
    client = AdminClient()
    client.orders.problem = SignatureError("manifest.sig is missing; sign it")
    exchange = await client.send("POST", "/admin/bundles", b"tar's bytes")
    assert exchange.status == 403
    assert bundles_open() == []


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", b""),
        ("?mode=later", b"tar"),
        ("?again=2", b"tar"),
        ("?agian=true", b"tar"),
        ("?mode=manual&mode=automatic", b"tar"),
        ("?rollout=%ff", b"tar"),
    ],
)
async def test_a_tar_with_a_query_that_is_not_understood_is_refused(
    query: str, body: bytes
) -> None:
    client = AdminClient()
    exchange = await client.send("POST", f"/admin/bundles{query}", body)
    assert exchange.status == 400
    assert client.orders.taken == []


async def test_an_order_goes_on_when_whoever_gave_it_leaves() -> None:
    client = AdminClient()
    client.orders.held = asyncio.Event()
    exchange = client.begin("POST", "/admin/releases", {"path": "/b"})
    await asyncio.sleep(0)
    exchange.cancel()
    assert exchange.answer is None
    client.orders.held.set()
    async with asyncio.timeout(WAIT_S):
        await client._answered.wait()
    assert exchange.status == 200


# -- decisions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
async def test_a_decision_is_given_with_its_reason_and_answered_with_what_is_so_then(
    verb: str,
) -> None:
    client = AdminClient()
    exchange = await client.send("POST", f"/admin/releases/digits/{verb}", {"reason": "it is slow"})
    assert exchange.status == 200
    assert told(exchange)["active"] == 1
    ((name, order),) = client.orders.taken
    assert name == verb
    extra: dict[str, dict[str, Any]] = {"abort": {"rollout": ""}, "revert": {"to": None}}
    asked = {"model": "digits", "reason": "it is slow", "asked_by": "operator uid=1000"}
    assert order == {**asked, **extra.get(verb, {})}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_decision_needs_no_body(verb: str) -> None:
    client = AdminClient()
    assert (await client.send("POST", f"/admin/releases/digits/{verb}")).status == 200
    assert client.orders.taken[0][1]["reason"] == ""


@pytest.mark.parametrize("body", [{"reason": "x" * 201}, {"why": "x"}, {"reason": 1}, b"[]"])
async def test_a_decision_that_is_not_understood_is_not_given(body: object) -> None:
    client = AdminClient()
    exchange = await client.send("POST", "/admin/releases/digits/rollback", body)
    assert exchange.status == 400
    assert client.orders.taken == []


@pytest.mark.parametrize("verb", ["rollback", "revert", "abort"])
@pytest.mark.parametrize("state", ["committed", "rolling-back", "canary", "failed"])
async def test_a_way_back_that_is_not_done_yet_is_no_success(verb: str, state: str) -> None:
    client = AdminClient()
    client.orders.ended = shown(state, reason="the disk is full")
    exchange = await client.send("POST", f"/admin/releases/digits/{verb}")
    assert exchange.status == 503
    said = told(exchange)["error"]
    stands = "recorded" if verb == "rollback" else "taken"  # only that one leaves an override
    assert said.startswith(f"the {verb} of 'digits' is {stands} and not done yet: version 2 is")
    assert f"{state} (the disk is full)" in said


async def test_an_end_for_a_rollout_names_it() -> None:
    client = AdminClient()
    halted, back = {"rollout": "r-17", "reason": "halted"}, {"rollout": "r-17", "to": 1}
    assert (await client.send("POST", "/admin/releases/digits/abort", halted)).status == 200
    assert (await client.send("POST", "/admin/releases/digits/revert", back)).status == 200
    (_, abort), (_, revert) = client.orders.taken
    assert (abort["rollout"], abort["asked_by"]) == ("r-17", "fleet r-17 uid=1000")
    assert (revert["to"], revert["asked_by"]) == (1, "fleet r-17 uid=1000")


@pytest.mark.parametrize("body", [{"to": 0}, {"to": "1"}, {"version": 1}, {"rollout": "x" * 201}])
async def test_a_revert_that_is_not_understood_is_not_given(body: object) -> None:
    client = AdminClient()
    exchange = await client.send("POST", "/admin/releases/digits/revert", body)
    assert exchange.status == 400
    assert client.orders.taken == []


async def test_a_model_s_name_may_hold_what_a_path_cannot() -> None:
    client = AdminClient()
    client.orders.models["a/b c"] = [standing()]
    await client.send("POST", "/admin/releases/a%2Fb%20c/hold")
    assert client.orders.taken[0][1]["model"] == "a/b c"


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (InvalidRequestError("no release of digits is under way"), 400),
        (StorageError("the disk is full"), 507),
        (ForbiddenError("a hold stands"), 403),
        (ConflictError("another rollout ordered it"), 409),
    ],
)
async def test_what_refuses_an_order_is_told_as_it_is(problem: Any, status: int) -> None:  # noqa: ANN401
    client = AdminClient()
    client.orders.problem = problem
    exchange = await client.send("POST", "/admin/releases/digits/promote")
    assert exchange.status == status
    assert told(exchange) == {"error": problem.message}


# -- traffic -------------------------------------------------------------------------------------


async def test_a_split_is_given_by_version() -> None:
    client = AdminClient()
    body = {"weights": {"1": 80, "2": 20}, "reason": "A/B"}
    assert (await client.send("POST", "/admin/models/digits/traffic", body)).status == 200
    ((name, order),) = client.orders.taken
    assert name == "traffic"
    assert order["weights"] == {1: 80, 2: 20}
    assert order["reason"] == "A/B"


async def test_an_empty_split_ends_it() -> None:
    client = AdminClient()
    assert (
        await client.send("POST", "/admin/models/digits/traffic", {"weights": {}})
    ).status == 200
    assert client.orders.taken[0][1]["weights"] == {}


@pytest.mark.parametrize(
    "weights",
    [
        {"1": 80, "2": 21},
        {"1": 99},
        {"1": 0, "2": 100},
        {"1": 101},
        {"1": 50.0, "2": 50},
        {"0": 100},
        {"-1": 100},
        {"": 100},
        {"one": 100},
        {"1": 50, "01": 50},
        {"²": 100},
        {"9" * 5000: 100},
        {str(version): 5 for version in range(1, 21)},
        None,
    ],
)
async def test_a_split_that_is_none_is_refused_and_not_given(weights: object) -> None:
    client = AdminClient()
    exchange = await client.send("POST", "/admin/models/digits/traffic", {"weights": weights})
    assert exchange.status == 400
    assert client.orders.taken == []


async def test_a_body_without_weights_does_not_end_a_split() -> None:
    client = AdminClient()
    assert (await client.send("POST", "/admin/models/digits/traffic")).status == 400
    assert client.orders.taken == []


@given(st.dictionaries(st.text(max_size=4) | st.integers(0, 30).map(str), st.integers(1, 100)))
async def test_a_split_is_either_whole_and_by_version_or_refused(weights: dict[str, int]) -> None:
    are_versions = all(re.fullmatch("0*[1-9][0-9]*", text) for text in weights)
    by_version = {text.lstrip("0"): share for text, share in weights.items()}
    is_split = are_versions and len(by_version) == len(weights)
    if is_split and sum(weights.values()) in {0, 100}:
        numbers = split(weights)
        assert {str(version): share for version, share in numbers.items()} == by_version
    else:
        with pytest.raises(InvalidRequestError):
            split(weights)


# -- questions -----------------------------------------------------------------------------------


async def test_status_tells_who_is_believed_and_how_each_model_does() -> None:
    client = AdminClient()
    client.orders.trust = schemas.Trust(managed=True, keyring_version=3, keys=["a"], threshold=1)
    answer = told(await client.send("GET", "/admin/releases"))
    assert answer["trust"] == {
        "managed": True,
        "keyring_version": 3,
        "keys": ["a"],
        "threshold": 1,
        "orphaned": [],
    }
    assert [model["model"] for model in answer["models"]] == ["digits"]
    one = told(await client.send("GET", "/admin/releases/digits"))
    assert one["running_digest"] == "1" * 64
    assert told(await client.send("GET", "/admin/releases/digits/explain")) == {
        "model": "digits",
        "sentences": ["Version 1 of digits is active."],
    }


@pytest.mark.parametrize("target", ["/admin/releases/nobody", "/admin/releases/nobody/explain"])
async def test_a_model_that_releases_do_not_know_is_not_found(target: str) -> None:
    exchange = await AdminClient().send("GET", target)
    assert exchange.status == 404
    assert "'nobody'" in told(exchange)["error"]


def row(number: int, model: str = "digits") -> schemas.Transition:
    return schemas.Transition(
        id=number,
        release_id=7,
        model=model,
        version=2,
        from_state="staged",
        to_state="shadowing",
        event="begin",
    )


@pytest.mark.parametrize(
    ("target", "numbers"),
    [
        ("/admin/history", [5, 4, 3, 2, 1]),
        ("/admin/history?limit=2", [5, 4]),
        ("/admin/history?limit=2&before=4", [3, 2]),
        ("/admin/releases/digits/history", [5, 3, 1]),
        ("/admin/releases/digits/history?before=5&limit=1", [3]),
        ("/admin/releases/nobody/history", []),
    ],
)
async def test_the_history_is_told_newest_first_and_in_pages(
    target: str, numbers: list[int]
) -> None:
    client = AdminClient()
    client.orders.rows = [row(each, "digits" if each % 2 else "m") for each in range(5, 0, -1)]
    answer = told(await client.send("GET", target))
    assert [each["id"] for each in answer["transitions"]] == numbers


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=", "before=-1", "limt=3", "limit=1&limit=2"],
)
async def test_a_page_that_cannot_be_is_refused(query: str) -> None:
    assert (await AdminClient().send("GET", f"/admin/history?{query}")).status == 400


# -- where it is, and where it is not ------------------------------------------------------------


async def test_a_daemon_without_releases_says_so() -> None:
    client = AdminClient(wired=False)
    for method, target in (("GET", "/admin/releases"), ("POST", "/admin/releases/digits/hold")):
        exchange = await client.send(method, target)
        assert exchange.status == 501
        assert "no releases" in told(exchange)["error"]


async def test_the_data_door_has_none_of_it() -> None:
    handlers = AdminClient().handlers
    assert not [route.path for route in data_routes(handlers) if route.path.startswith("/admin")]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused(method: str) -> None:
    client = AdminClient()
    exchange = await client.send(method, "/admin/releases/digits")
    assert exchange.status == 405
    assert client.orders.taken == []


async def test_the_document_describes_queries_and_the_tar() -> None:
    paths = told(await AdminClient().send("GET", "/openapi.json"))["paths"]
    sent = paths["/admin/bundles"]["post"]
    assert list(sent["requestBody"]["content"]) == ["application/x-tar"]
    assert [each["name"] for each in sent["parameters"]] == ["mode", "again", "rollout"]
    history = paths["/admin/releases/{name}/history"]["get"]
    assert [each["name"] for each in history["parameters"]] == ["name", "limit", "before"]
    assert paths["/admin/releases"]["post"]["requestBody"]["required"]
    assert not paths["/admin/releases/{name}/hold"]["post"]["requestBody"]["required"]
