"""Where a repository's files are: URLs from the settings."""

from dataclasses import dataclass

from agent.errors import ConfigError
from agent.settings.device import Repository as RepositorySettings
from fleet.documents.paths import ARTIFACTS_FOLDER, METADATA_FOLDER


@dataclass(frozen=True)
class Places:
    """Folders as URLs, each with a slash at its end.

    Attributes:
        metadata: Of the signed metadata; only there is it looked for.
        artifacts: The repository's own folder of artifacts.
        mirrors: Others that may have artifacts, tried before that one.
    """

    metadata: str
    artifacts: str
    mirrors: tuple[str, ...] = ()


def places_of(settings: RepositorySettings) -> Places:
    """Find the places of a repository.

    Args:
        settings: With the URL of the folder that holds ``metadata/`` and ``artifacts/``.

    Raises:
        ConfigError: There is no URL.
    """
    if not settings.url:
        raise ConfigError("there is no `url` in [repository]: enrol the device, or write it there")
    return Places(
        metadata=_folder(_folder(settings.url) + METADATA_FOLDER),
        artifacts=_folder(_folder(settings.url) + ARTIFACTS_FOLDER),
        mirrors=tuple(_folder(mirror) for mirror in settings.mirrors),
    )


def _folder(url: str) -> str:
    return url if url.endswith("/") else url + "/"
