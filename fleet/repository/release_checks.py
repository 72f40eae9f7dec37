"""Whether a release may join those that are there: pure decisions."""

from collections.abc import Iterable, Mapping
from typing import Final

from fleet.documents.paths import CHUNKS_SUFFIX, FILE_DEPTH_MAX
from fleet.documents.release import ReleaseFacts
from fleet.errors import RefusedError

NAME_BYTES_MAX: Final = 255 - 65
"""Of a file's last part: a digest and a dot come before it, and file systems take 255 bytes."""


def check_order(facts: ReleaseFacts, there: Mapping[int, ReleaseFacts]) -> None:
    """Refuse a release that does not come after those of its model.

    Args:
        facts: The new release; its version is not there yet.
        there: Releases of the same model, by version.

    Raises:
        RefusedError: A version, a counter or the least counter goes back.
    """
    if not there:
        return
    shown = f"{facts.model} version {facts.version}"
    newest = max(there)
    if facts.version < newest:
        raise RefusedError(
            f"{shown} comes before version {newest}, which is released; give it a higher version"
        )
    counter = max(each.counter for each in there.values())
    if facts.counter <= counter:
        raise RefusedError(
            f"{shown}: the counter {facts.counter} does not rise above {counter}; use "
            f"--counter {counter + 1} or leave it out"
        )
    least = least_counter(there.values())
    if facts.min_counter < least:
        raise RefusedError(
            f"{shown}: min_counter {facts.min_counter} goes below {least}, which devices hold to "
            f"already; use --min-counter {least} or leave it out"
        )


def next_counter(there: Mapping[int, ReleaseFacts]) -> int:
    """Give the counter of the next release of a model."""
    return max((each.counter for each in there.values()), default=0) + 1


def least_counter(there: Iterable[ReleaseFacts]) -> int:
    """Give the counter that no device goes below."""
    return max((each.min_counter for each in there), default=0)


def check_files(shown: str, files: Iterable[str]) -> None:
    """Refuse files that cannot be artifacts.

    Args:
        shown: What the release is called.
        files: Paths in the bundle.

    Raises:
        RefusedError: One lies too deep, has too long a name, or the name of a chunk index.
    """
    known = set(files)
    for file in sorted(known):
        parts = file.split("/")
        if len(parts) > FILE_DEPTH_MAX:
            raise RefusedError(
                f"{shown}: {file} lies {len(parts)} folders deep; at most {FILE_DEPTH_MAX}"
            )
        if len(parts[-1].encode()) + len(CHUNKS_SUFFIX) > NAME_BYTES_MAX:
            raise RefusedError(
                f"{shown}: the name of {file} is over {NAME_BYTES_MAX - len(CHUNKS_SUFFIX)} bytes "
                "long; make it shorter"
            )
        if file.endswith(CHUNKS_SUFFIX) and file.removesuffix(CHUNKS_SUFFIX) in known:
            raise RefusedError(
                f"{shown}: {file} has the name of the chunk index of "
                f"{file.removesuffix(CHUNKS_SUFFIX)}; give it another name"
            )
