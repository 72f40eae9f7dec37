"""The page about releases says what the program says."""

import re
from pathlib import Path

from edge_runtime.api.handlers import Handlers
from edge_runtime.api.tables import admin_routes
from edge_runtime.release.states import Cause, State

OTHERS = ("/admin/sketches", "/admin/journal")
"""Routes of the admin door that are about predictions."""
PAGE = (Path(__file__).parents[4] / "docs" / "releases.md").read_text("utf-8")


def test_every_cause_is_explained() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| .+ \| .*\|$", PAGE.partition("## Why a release ended")[2], re.MULTILINE
    )
    assert rows == [str(cause) for cause in Cause]


def test_every_state_is_explained() -> None:
    table = PAGE.partition("## The way of a release")[2].partition("<!--")[0]
    for state in State:
        assert f"`{state}`" in table


def test_every_route_of_releases_is_listed() -> None:
    listed = PAGE.partition("## From a program")[2]
    verbs = set(re.findall(r"`([a-z]+)`", listed))
    for route in admin_routes(Handlers.__new__(Handlers)):
        if not route.path.startswith("/admin") or route.path.startswith(OTHERS):
            continue
        path = route.path.replace("{name}", "NAME")
        assert f"{route.method} {path}" in listed or path.rpartition("/")[2] in verbs, path
