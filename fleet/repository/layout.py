"""Where the parts of a repository lie below its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet.documents.paths import ARTIFACTS_FOLDER, METADATA_FOLDER
from fleet.errors import BadInputError, RepositoryError
from fleet.repository.roles import ROOT, TIMESTAMP

ROOT_FILE: Final = "root.json"
SETTINGS_FILE: Final = "repository.json"
LOCK_FILE: Final = ".lock"


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of a repository.

    Attributes:
        folder: Its folder, as a web server shows it.
    """

    folder: Path

    @property
    def metadata(self) -> Path:
        """Folder of everything that is signed."""
        return self.folder / METADATA_FOLDER

    @property
    def artifacts(self) -> Path:
        """Folder of the files that metadata describe."""
        return self.folder / ARTIFACTS_FOLDER

    @property
    def root(self) -> Path:
        """The newest root: the file that a device is given first."""
        return self.folder / ROOT_FILE

    @property
    def settings(self) -> Path:
        """The operator's settings; nothing there is signed or trusted by devices."""
        return self.folder / SETTINGS_FILE

    @property
    def lock(self) -> Path:
        """Held by the one command that changes something."""
        return self.folder / LOCK_FILE

    def metadata_file(self, role: str, version: int) -> Path:
        """Name the file of one version of a role's metadata."""
        name = f"{role}.json" if role == TIMESTAMP else f"{version}.{role}.json"
        return self.metadata / name

    def versions(self, role: str) -> list[int]:
        """List the versions of a role that are on disk, oldest first.

        Args:
            role: Any but timestamp, which has only one.
        """
        names = (path.name.split(".") for path in self.metadata.glob(f"*.{role}.json"))
        return sorted(int(parts[0]) for parts in names if len(parts) == 3 and _is_version(parts[0]))  # noqa: PLR2004

    def check(self) -> None:
        """Refuse a folder that is no repository.

        Raises:
            BadInputError: It is not one.
            RepositoryError: It was one, and has no root any more.
        """
        if not self.settings.is_file():
            raise BadInputError(
                f"{self.folder} is not a repository; `edge-fleet repo init` makes one"
            )
        if not self.versions(ROOT):
            raise RepositoryError(f"{self.metadata} has no root; restore it from a copy")


def _is_version(text: str) -> bool:
    return text.isascii() and text.isdigit() and not text.startswith("0")
