"""The contents that are in the store, for whoever wants to bring or to reuse only some.

Reads only.
"""

import os

from edge_runtime.manifest import File
from edge_runtime.private_folder import PrivateFolder
from edge_runtime.store.disk_errors import not_stored
from edge_runtime.store.layout import Layout


class Blobs:
    """Every content in the store once, by its SHA-256.

    Args:
        layout: Of the store.
        folder: The store's; one that others may write to is not used.
    """

    def __init__(self, layout: Layout, folder: PrivateFolder) -> None:
        self._layout = layout
        self._folder = folder

    def has(self, file: File) -> bool:
        """Tell whether the store has a file's content, of the right size.

        Raises:
            StorageError: The store cannot be read.
        """
        descriptor = self.open(file.sha256)
        if descriptor is None:
            return False
        try:
            return os.fstat(descriptor).st_size == file.size_bytes
        finally:
            os.close(descriptor)

    def open(self, sha256: str) -> int | None:
        """Open a content for reading; nobody will ever change it.

        A content gets its name in the store once all of it is written and durable.

        Args:
            sha256: 64 lower-case hexadecimal digits.

        Returns:
            The descriptor, which is the caller's; ``None``: it is not in the store.

        Raises:
            StorageError: The store cannot be read.
        """
        if not self._layout.blobs.is_dir() or not self._folder.is_safe():
            return None
        try:
            return os.open(self._layout.blob(sha256), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise not_stored("read the store", error) from error
