"""Where things lie: names of TUF artifacts, and of the files that hold them.

``metadata/`` and ``artifacts/`` lie side by side. Artifacts have the consistent-snapshot names of
TUF, with their digest before the last part, so that what a name gives never changes.
"""

from typing import Final
from urllib.parse import quote

METADATA_FOLDER: Final = "metadata"
ARTIFACTS_FOLDER: Final = "artifacts"
RELEASES_ROLE: Final = "releases"
ROLLOUTS_ROLE: Final = "rollouts"
CHUNKS_SUFFIX: Final = ".chunks"
FILE_DEPTH_MAX: Final = 8
"""Parts of a file's path in its bundle; TUF matches paths part by part, so there is a limit."""
RELEASES_PATHS: Final = tuple(
    "/".join(("models", "*", "*", *["*"] * depth)) for depth in range(1, FILE_DEPTH_MAX + 1)
)
ROLLOUTS_PATHS: Final = ("rollouts/*",)
_SAFE: Final = "/@+:!$&'()*,;="


def plans_path(channel: str) -> str:
    """Name the artifact with the plans of a channel."""
    return f"rollouts/{channel}.json"


def model_path(model: str) -> str:
    """Name the folder of every artifact of a model; it ends with a slash."""
    return f"models/{model}/"


def artifact_path(model: str, version: int, file: str) -> str:
    """Name the artifact of a file of a release.

    Args:
        model: The model's name.
        version: Its version.
        file: The file's path in the bundle.
    """
    return f"{model_path(model)}{version}/{file}"


def chunks_path(model: str, version: int, file: str) -> str:
    """Name the artifact with the chunk index of a file of a release."""
    return artifact_path(model, version, file) + CHUNKS_SUFFIX


def artifact_file_path(path: str, sha256: str) -> str:
    """Give the file that holds an artifact, below the folder of artifacts.

    Args:
        path: The artifact's name.
        sha256: Of its content, in hexadecimal.
    """
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{sha256}.{name}"


def artifact_url_path(path: str, sha256: str) -> str:
    """Give the part of an artifact's URL below the URL of artifacts, percent-encoded.

    Args:
        path: The artifact's name.
        sha256: Of its content, in hexadecimal.
    """
    return quote(artifact_file_path(path, sha256), safe=_SAFE)
