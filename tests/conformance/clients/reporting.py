"""Runs the checks of a client script and prints what became of each, for the test that asked."""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

PREFIX = "check_"


def report(names: Mapping[str, Any], call: Callable[[Callable[..., Any]], None]) -> None:
    """Run every ``check_...`` function and print a JSON object: its traceback or null by name.

    Args:
        names: The script's globals.
        call: Calls one check.
    """
    results: dict[str, str | None] = {}
    for name, check in names.items():
        if not name.startswith(PREFIX):
            continue
        try:
            call(check)
        except Exception:  # noqa: BLE001 - the test fails with it
            results[name] = traceback.format_exc()
        else:
            results[name] = None
    json.dump(results, sys.stdout)


def refused(action: Callable[[], Any], error: type[Exception], *words: str) -> Exception:
    """Demand that something fails with an error whose text has these words."""
    try:
        action()
    except error as raised:
        for word in words:
            assert word in str(raised), f"{word!r} is not in {raised}"  # noqa: PT017
        return raised
    message = f"{error.__name__} was not raised"
    raise AssertionError(message)
