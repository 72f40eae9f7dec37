"""Takes what `edge-agent import` laid out: judged where it lies, put in place, believed.

What is refused was never in place, and nothing that was there is gone. What is believed stays in
place with its files, also if the disk refuses what comes after.
"""

from collections.abc import Callable
from typing import Final

from agent.download.disk import translated
from agent.download.import_folder import ImportFolder
from agent.errors import AgentError, StateError
from agent.trust.metadata_folder import AdoptedError
from agent.trust.repository import Refreshed, Repository
from edge_runtime.failpoints import failpoint

TAKEN: Final = "the import is believed and in place, but not all of it is written down"
"""How the message begins of an error that came too late to refuse anything."""


class Importing:
    """An import that is laid out, as a source that can be refreshed from.

    Args:
        folder: Where its files are.
        believing: Makes what believes the files at a URL.
    """

    def __init__(self, folder: ImportFolder, believing: Callable[[str], Repository]) -> None:
        self._folder = folder
        self._believing = believing

    def refresh(self, announced: bytes | None = None) -> Refreshed:  # noqa: ARG002 - as others do
        """Believe what was laid out, if it can be believed as a whole, and put it in place.

        Args:
            announced: Says nothing of an import.

        Raises:
            ConfigError: There is no root to judge it by.
            TrustError: It cannot be believed; nothing changed.
            RefusedError: A file that must be there is not; the same.
            StateError: The disk refused; the same, unless its message begins with ``TAKEN``.
            AgentError: Nothing was laid out, or somebody lays something out just now.
        """
        with self._folder.alone():
            return self.take()

    def take(self) -> Refreshed:
        """Do the same for one who keeps others away already.

        Raises:
            AgentError: As of ``refresh``.
        """
        coming = self._folder.spare
        if not coming.is_dir():
            raise AgentError("nothing was laid out: give the file to `edge-agent import`")
        self._believing(coming.absolute().as_uri()).verify()
        with translated(coming):
            failpoint("agent.import.verified")
        with self._folder.replaced():
            try:
                return self._believing(self._folder.path.absolute().as_uri()).refresh()
            except AdoptedError as error:
                late = error  # metadata and files belong together: neither goes back
        raise StateError(f"{TAKEN}; import it again: {late.message}") from late
