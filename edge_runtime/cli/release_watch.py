"""Waiting for a release: its steps as they happen, and how long each may still take."""

import contextlib
import sys
import time
from typing import Final, NoReturn, Self

from tqdm import tqdm

from edge_runtime.cli import release_view
from edge_runtime.cli.release_client import ReleaseClient
from edge_runtime.cli.terminal import printable
from edge_runtime.errors import ArtifactError, RequestError, UnavailableError
from edge_runtime.protocol import release_schemas as schemas

POLL_S = 0.5
GONE_S = 60.0  # a daemon that dies under a version comes back and rolls it back: worth a wait
_CANARY: Final = "canary"
_STEPS_MAX: Final = 200  # of one release; what is older is not told again


class Progress:
    """A bar for the present step on the terminal, if there is one, and lines above it."""

    def __init__(self) -> None:
        self._bar: tqdm[NoReturn] | None = None
        self._step: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def tell(self, line: str) -> None:
        """Write a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def show(self, release: schemas.Release) -> None:
        """Draw how far the present step is."""
        step = release.state, release.stage
        left_s = release.remaining_s
        if step != self._step or self._bar is None:
            self._close()
            self._step = step
            share = f" {release.percent} %" if release.percent else ""
            self._bar = tqdm(
                total=left_s or None,
                desc=f"{release.state}{share}",
                bar_format="{desc} |{bar:24}|{postfix}",
                leave=False,
                file=sys.stderr,
                disable=None,  # only on a terminal
            )
        bar = self._bar
        if left_s is not None and bar.total:
            bar.n = max(0.0, bar.total - left_s)
        left = release_view.left(release)
        measured = release_view.numbers(release.numbers)
        words = [f"at most {left} more" if left else "", measured]
        bar.set_postfix_str(", ".join(word for word in words if word))


def wait(
    client: ReleaseClient, release: schemas.Release, ends: frozenset[str]
) -> tuple[schemas.Release, schemas.ModelReleases]:
    """Wait until a release has come to an end, and show the way there.

    Args:
        client: Asks the daemon. While it cannot be reached, it is tried again.
        release: What to wait for.
        ends: The states that end the wait.

    Returns:
        The release as it ended, and how its model does then.

    Raises:
        UnavailableError: The daemon could not be reached for ``GONE_S`` seconds.
        ArtifactError: The daemon does not know the release any more.
    """
    told = 0
    before: schemas.Release | None = None
    lost_s: float | None = None
    with Progress() as progress:
        while True:
            try:
                model = client.releases_of(release.model)
                now = _found(model, release)
                if before is None or _moved(before, now):
                    told = _tell_steps(client, now, told, progress)
            except UnavailableError as error:
                if lost_s is None:
                    lost_s = time.monotonic()
                    progress.tell(f"no answer, trying again: {printable(error.message)}")
                elif time.monotonic() - lost_s > GONE_S:
                    raise
            else:
                lost_s = None
                if now.state in ends:
                    return now, model
                if now.waits_for and (before is None or before.waits_for != now.waits_for):
                    progress.tell(f"it waits: {printable(now.waits_for)}")
                before = now
                progress.show(now)
            time.sleep(POLL_S)


def _found(model: schemas.ModelReleases, release: schemas.Release) -> schemas.Release:
    for each in model.releases:
        if each.id == release.id:
            return each
    raise ArtifactError(
        f"the daemon shows release {release.id} of {release.model} no more: newer ones came; see "
        f"`edge-runtime release history {release.model}`"
    )


def _moved(before: schemas.Release, now: schemas.Release) -> bool:
    return (before.state, before.stage, before.updated_s) != (now.state, now.stage, now.updated_s)


def _tell_steps(
    client: ReleaseClient, release: schemas.Release, told: int, progress: Progress
) -> int:
    """Tell the steps that were not told yet; a poll may have missed some.

    Args:
        client: Asks the daemon.
        release: Whose steps.
        told: Number of the last row told.
        progress: Where.

    Returns:
        The new number.
    """
    # A history that cannot be read keeps nobody from waiting.
    with contextlib.suppress(RequestError, ArtifactError):
        rows = client.history(release.model, _STEPS_MAX)
        shares = iter(release.weights)
        for row in reversed(rows):
            if row.release_id == release.id:
                percent = next(shares, 0) if row.to_state == _CANARY else 0
                if row.id > told:
                    progress.tell(release_view.step(row, percent))
                    told = row.id
    return told
