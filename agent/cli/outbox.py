"""``edge-agent outbox``: what waits for the broker, read beside the running agent."""

import argparse
from typing import Final

from agent.cli.options import print_json, state_of
from agent.locations import DATABASE
from agent.records.outbox_listing import listed
from edge_runtime.exit_codes import ExitCode

_SHOWN_CHARS: Final = 100


def run(options: argparse.Namespace) -> int:
    """List what waits on flash; ``status`` counts what is in the running agent's memory, too.

    Raises:
        ConfigError: There is no outbox.
        StateError: It cannot be read.
    """
    count, found = listed(state_of(options) / DATABASE, options.limit)
    if options.json:
        rows = [
            {
                "priority": each.priority.name.lower(),
                "topic": each.topic,
                "payload": each.payload.decode("utf-8", "replace"),
            }
            for each in found
        ]
        print_json({"waiting": count, "messages": rows})
        return ExitCode.DONE
    print(f"{count} messages wait on flash")
    for each in found:
        text = each.payload.decode("utf-8", "replace")
        cut = "..." if len(text) > _SHOWN_CHARS else ""
        print(f"  {each.priority.name.lower():8} {each.topic}  {text[:_SHOWN_CHARS]}{cut}")
    return ExitCode.DONE
