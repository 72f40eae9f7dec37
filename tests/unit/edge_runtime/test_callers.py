"""Who may ask which model."""

import grp
import os
import pwd
import socket

import pytest

from edge_runtime.access import NOBODY, Peer
from edge_runtime.callers import Callers, admins, by_model, fleet
from edge_runtime.errors import ConfigError
from edge_runtime.settings import Model, Release

CAMERA = Peer(1001, 100, 7, "unix", frozenset({100, 44}))


def callers(*rules: str) -> Callers:
    return Callers.parse(rules, "models.m.callers")


@pytest.mark.parametrize(
    ("rules", "admitted"),
    [
        (["uid:1001"], True),
        (["uid:1002"], False),
        (["gid:44"], True),
        (["gid:100"], True),
        (["gid:1001"], False),
        (["uid:1002", "gid:44"], True),
    ],
)
def test_a_caller_is_admitted_by_user_or_by_any_of_its_groups(
    rules: list[str],
    admitted: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    assert callers(*rules).admit(CAMERA) is admitted


def test_names_are_looked_up() -> None:
    user = pwd.getpwuid(os.getuid())
    group = grp.getgrgid(os.getgid())
    found = callers(f"user:{user.pw_name}", f"group:{group.gr_name}")
    assert found == Callers(frozenset({user.pw_uid}), frozenset({group.gr_gid}))


def test_a_caller_of_whom_nothing_is_known_is_never_admitted() -> None:
    assert not callers("uid:0", "gid:0", "uid:65534").admit(NOBODY)


@pytest.mark.parametrize(
    "rule", ["", "camera", "uid:", "uid:-1", "uid:x", "user:", "gid:\uff11", "uid:1001 ", "mac:1"]
)
def test_what_is_no_rule_is_refused_with_the_key_and_the_forms(rule: str) -> None:
    with pytest.raises(ConfigError, match=r"models\.m\.callers: .*user:NAME"):
        callers("uid:1", rule)


@pytest.mark.parametrize("rule", ["user:no-such-user", "group:no-such-group"])
def test_a_name_that_nobody_has_is_refused(rule: str) -> None:
    with pytest.raises(ConfigError, match="on this device"):
        callers(rule)


def test_only_models_with_rules_have_an_allow_list() -> None:
    found = by_model({"open": Model(), "closed": Model(callers=("uid:5",))})
    assert found == {"closed": Callers(frozenset({5}), frozenset())}


def test_the_kernel_says_which_groups_a_peer_is_in() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        peer = Peer.of_unix_socket(ours)
    assert peer.groups == frozenset({*os.getgroups(), os.getgid()})


def test_people_and_the_fleet_have_lists_of_their_own() -> None:
    release = Release(admins=("uid:1001",), fleet=("gid:44",))
    people, agents = admins(release), fleet(release)
    assert people == Callers(frozenset({1001}), frozenset())
    assert agents == Callers(frozenset(), frozenset({44}))
    assert fleet(Release()) is None
    with pytest.raises(ConfigError, match=r"release\.fleet: 'edge-agent' is no rule"):
        fleet(Release(fleet=("edge-agent",)))
