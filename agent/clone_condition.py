"""Whether this device's identity was found on another device: kept until somebody sees to it.

Two devices that sign with one key cannot be told apart by the fleet, so neither begins an update.
A new key ends that (`edge-agent prepare-image`, then `enroll`), or a person who says
that the copy is gone (`edge-agent clear-clone`). Should it still be there, it is noticed again.
"""

from pathlib import Path
from typing import Final

from agent.durable_file import remove_file, replace_file

FILE: Final = "clone"
_TEXT: Final = b"another device signs with this one's key; see `edge-agent status`\n"


class CloneCondition:
    """A file that is there or not. Any thread may ask.

    Args:
        state: The agent's folder.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / FILE
        self._stands = self._path.exists()

    def stands(self) -> bool:
        """Tell whether another device has this identity."""
        return self._stands

    def note(self) -> None:
        """Note it, from now on.

        Raises:
            StateError: The disk refused; it stands until the agent ends.
        """
        self._stands = True
        replace_file(self._path, _TEXT)

    def clear(self) -> None:
        """Forget it: somebody has seen to it.

        Raises:
            StateError: The disk refused; it still stands.
        """
        remove_file(self._path)
        self._stands = False
