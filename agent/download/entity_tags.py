"""Which strong entity tag each server gave for a file that is not whole yet, kept beside it.

A hint and no more: without it, or with a wrong one, the server is asked once more, and digests
decide about the bytes anyway.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.download.ranges import strong_tag

SUFFIX: Final = ".tags"
_BYTES_MAX: Final = 65_536


def tags_file(part: Path) -> Path:
    """Name the file with the entity tags of a ``.part`` file."""
    return part.with_name(part.name + SUFFIX)


def read_tags(part: Path) -> dict[str, str]:
    """Read the tags by URL; none where they cannot be read.

    Args:
        part: The ``.part`` file.
    """
    try:
        with tags_file(part).open("rb") as file:
            found = json.loads(file.read(_BYTES_MAX))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    pairs = ((url, strong_tag(tag)) for url, tag in found.items() if isinstance(tag, str))
    return {url: tag for url, tag in pairs if tag}


def write_tags(part: Path, tags: Mapping[str, str]) -> None:
    """Keep the tags; perhaps only a part of them, or none.

    Args:
        part: The ``.part`` file.
        tags: By URL.
    """
    with contextlib.suppress(OSError):
        tags_file(part).write_text(json.dumps(dict(tags)), "utf-8")
