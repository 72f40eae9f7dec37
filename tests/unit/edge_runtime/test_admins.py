"""Who may change what is served through the admin door, and who may look."""

import pytest

from edge_runtime.access import NOBODY
from edge_runtime.api.tables import admin_routes
from edge_runtime.callers import Callers
from tests.scripted_orders import AdminClient, told

pytestmark = pytest.mark.asyncio

FLEET_S = ("revert", "abort")
VERBS = ("promote", "rollback", *FLEET_S, "hold", "clear")
CHANGES = (
    ("POST", "/v2/repository/models/m/load"),
    ("POST", "/v2/repository/models/m/unload"),
    ("POST", "/v2/cache/clear"),
    ("POST", "/admin/releases"),
    ("POST", "/admin/bundles"),
    *(("POST", f"/admin/releases/digits/{verb}") for verb in VERBS),
    ("POST", "/admin/models/digits/traffic"),
)


@pytest.mark.parametrize(("method", "target"), CHANGES)
async def test_who_is_not_on_the_list_may_change_nothing(method: str, target: str) -> None:
    client = AdminClient()
    client.handlers.admins = Callers(frozenset({4711}), frozenset({4712}))
    exchange = await client.send(method, target, {"path": "/b", "weights": {}})
    assert exchange.status == 403
    assert "uid 1000" in told(exchange)["error"]
    assert "release.admins" in told(exchange)["error"]
    assert client.orders.taken == []


@pytest.mark.parametrize(("method", "target"), CHANGES)
async def test_of_whom_the_kernel_says_nothing_may_change_nothing_where_there_is_a_list(
    method: str, target: str
) -> None:
    client = AdminClient()
    client.peer = NOBODY
    client.handlers.admins = Callers(frozenset({1000}), frozenset({100}))
    assert (await client.send(method, target)).status == 403


@pytest.mark.parametrize("admins", [Callers(frozenset({1000}), frozenset()), None])
async def test_who_is_on_the_list_may_and_without_a_list_everybody(admins: Callers | None) -> None:
    client = AdminClient()
    client.handlers.admins = admins
    assert (await client.send("POST", "/admin/releases/digits/rollback")).status == 200


async def test_a_group_s_members_may() -> None:
    client = AdminClient()
    client.handlers.admins = Callers(frozenset(), frozenset({100}))
    assert (await client.send("POST", "/admin/releases/digits/rollback")).status == 200


async def test_a_list_that_changes_counts_from_the_next_request_on() -> None:
    client = AdminClient()
    assert (await client.send("POST", "/admin/releases/digits/hold")).status == 200
    client.handlers.admins = Callers(frozenset({4711}), frozenset())
    assert (await client.send("POST", "/admin/releases/digits/hold")).status == 403


@pytest.mark.parametrize(
    "target", ["/admin/releases", "/admin/releases/digits", "/admin/history", "/v2"]
)
async def test_everybody_who_may_open_the_socket_may_look(target: str) -> None:
    client = AdminClient()
    client.handlers.admins = Callers(frozenset({4711}), frozenset())
    assert (await client.send("GET", target)).status == 200


async def test_every_changing_route_of_the_admin_door_is_behind_the_list() -> None:
    client = AdminClient()
    client.handlers.admins = Callers(frozenset({4711}), frozenset())
    harmless = {"/v2/repository/index", "/v2/repository/{repository}/index"}
    for route in admin_routes(client.handlers):
        if route.method == "GET" or route.path in harmless:
            continue
        target = route.path.replace("{name}", "digits")
        assert (await client.send(route.method, target)).status == 403, route.path


# -- the fleet -------------------------------------------------------------------------------------

AGENT = Callers(frozenset({1000}), frozenset())
"""The user of ``AdminClient``, as the agent's."""


@pytest.mark.parametrize("admins", [None, AGENT, Callers(frozenset({4711}), frozenset())])
@pytest.mark.parametrize("named", ["", "r-17"])
async def test_the_agent_s_orders_are_the_fleet_s_whatever_they_say(
    admins: Callers | None, named: str
) -> None:
    client = AdminClient()
    client.handlers.admins, client.handlers.fleet = admins, AGENT
    body = {"path": "/b", "rollout": named}
    assert (await client.send("POST", "/admin/releases", body)).status == 200
    query = f"?rollout={named}" if named else ""
    assert (await client.send("POST", f"/admin/bundles{query}", b"tar")).status == 200
    for verb in FLEET_S:
        target = f"/admin/releases/digits/{verb}"
        assert (await client.send("POST", target, {"rollout": named})).status == 200
    (_, path), (_, tar), (_, revert), (_, abort) = client.orders.taken
    assert path["rollout"] == tar["rollout"] == abort["rollout"] == (named or "fleet")
    who = f"fleet {named} uid=1000" if named else "fleet uid=1000"
    assert {each["asked_by"] for each in (path, tar, revert, abort)} == {who}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        each
        for each in CHANGES
        if each[1].rpartition("/")[2] not in {"releases", "bundles", *FLEET_S}
    ],
)
@pytest.mark.parametrize("admins", [None, AGENT])
async def test_the_agent_decides_nothing_that_is_for_people(
    method: str, target: str, admins: Callers | None
) -> None:
    client = AdminClient()
    client.handlers.admins, client.handlers.fleet = admins, AGENT
    exchange = await client.send(method, target, {"weights": {}, "reason": "a person said so"})
    assert exchange.status == 403
    assert "counts as the fleet (release.fleet" in told(exchange)["error"]
    assert client.orders.taken == []


async def test_the_agent_insists_on_a_bad_bundle_for_a_named_rollout_only() -> None:
    client = AdminClient()
    client.handlers.fleet = AGENT
    exchange = await client.send("POST", "/admin/releases", {"path": "/b", "again": True})
    assert exchange.status == 403
    assert "name the rollout" in told(exchange)["error"]
    assert (await client.send("POST", "/admin/bundles?again=true", b"tar")).status == 403
    assert client.orders.taken == []
    body = {"path": "/b", "again": True, "rollout": "r-17"}
    assert (await client.send("POST", "/admin/releases", body)).status == 200


async def test_the_agent_may_look() -> None:
    client = AdminClient()
    client.handlers.fleet = AGENT
    for target in ("/admin/releases", "/admin/releases/digits", "/admin/history", "/metrics"):
        assert (await client.send("GET", target)).status == 200


async def test_others_stay_people_beside_a_fleet() -> None:
    client = AdminClient()
    client.handlers.fleet = Callers(frozenset({4711}), frozenset())
    body = {"path": "/b", "again": True}
    assert (await client.send("POST", "/admin/releases", body)).status == 200
    assert (await client.send("POST", "/admin/releases/digits/promote")).status == 200
    assert client.orders.taken[0][1]["asked_by"] == "operator uid=1000"


async def test_a_fleet_that_changes_counts_from_the_next_request_on() -> None:
    client = AdminClient()
    assert (await client.send("POST", "/admin/releases/digits/hold")).status == 200
    client.handlers.fleet = AGENT
    assert (await client.send("POST", "/admin/releases/digits/hold")).status == 403
