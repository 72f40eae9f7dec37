"""What keeps a version that comes in, or comes back, from being removed by a cleaning under way.

A disk that is slow makes a cleaning last long, and its list of what nobody keeps was made when it
began. There is no lock: whoever hangs holds up nobody. Whichever of the two speaks first wins.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from edge_runtime.errors import StorageError

Key = tuple[str, int]
"""Name and version."""


class Cleaning:
    """One cleaning.

    Attributes:
        arrived: What came since it began.
    """

    def __init__(self) -> None:
        self.arrived: set[Key] = set()


class Arrivals:
    """Which versions came while a cleaning went on, and which are just being removed.

    Any thread may use it: each step adds to or takes from one list, which Python does whole.
    """

    def __init__(self) -> None:
        self._cleanings: list[Cleaning] = []
        self._leaving: list[Key] = []

    def came(self, key: Key) -> None:
        """Keep a version from the cleanings under way.

        Raises:
            StorageError: It is just being removed.
        """
        for cleaning in tuple(self._cleanings):
            cleaning.arrived.add(key)
        if key in self._leaving:
            name, version = key
            raise StorageError(
                f"{name} version {version} is being removed from the store at this moment; stage "
                "it again"
            )

    @contextmanager
    def cleaning(self) -> Iterator[Cleaning]:
        """Begin a cleaning; what comes from now on, stays."""
        cleaning = Cleaning()
        self._cleanings.append(cleaning)
        try:
            yield cleaning
        finally:
            self._cleanings.remove(cleaning)

    @contextmanager
    def removing(self, key: Key, cleaning: Cleaning) -> Iterator[bool]:
        """Remove a version, if it did not come since the cleaning began.

        Args:
            key: The version.
            cleaning: The one that wants it gone.

        Yields:
            Whether it may be removed.
        """
        self._leaving.append(key)
        try:
            yield key not in cleaning.arrived
        finally:
            self._leaving.remove(key)
