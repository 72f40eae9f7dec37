"""Small signed files, such as plans: fetched, checked, and kept beside the metadata."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from agent.errors import Distrust, TrustError
from agent.trust.http import Http
from agent.trust.room import Room, bounded, unlimited
from agent.trust.verified import Artifact

FOLDER: Final = "plans"
DOCUMENT_BYTES_MAX: Final = 1_048_576


@dataclass(frozen=True)
class Source:
    """Where documents come from.

    Attributes:
        http: Asks the server.
        base_url: Of artifacts, with a slash at its end.
        file_s: Most seconds of one file.
        count: Told how many bytes came over the network.
        room: Says how many more may come.
    """

    http: Http
    base_url: str
    file_s: float
    count: Callable[[int], None]
    room: Room = unlimited


def document(folder: Path, artifact: Artifact, source: Source | None) -> bytes | None:
    """Give a signed file: as it is kept, else fetched and then kept as the only one.

    Args:
        folder: Of the metadata.
        artifact: What was signed of it.
        source: Where to fetch it; ``None``: nowhere.

    Returns:
        Its bytes; ``None``: it is not kept, and there is nowhere to fetch it.

    Raises:
        TrustError: What is served is not what was signed.
        NetworkError: The server cannot be reached, fails, or is too slow.
        RefusedError: The server does not have it.
        BudgetError: The byte budget has no room for it.
        OSError: The disk refused.
    """
    kept = folder / FOLDER / f"{artifact.sha256}.json"
    if kept.is_file():
        data = kept.read_bytes()
        if sha256(data).hexdigest() == artifact.sha256:
            return data
    if source is None:
        return None
    data = fetched(artifact, source)
    kept.parent.mkdir(exist_ok=True)
    for old in kept.parent.iterdir():
        old.unlink()
    kept.write_bytes(data)
    return data


def fetched(artifact: Artifact, source: Source) -> bytes:
    """Fetch a small signed file.

    Args:
        artifact: What was signed of it.
        source: Where it is.

    Raises:
        TrustError: What is served is not what was signed.
        NetworkError: The server cannot be reached, fails, or is too slow.
        RefusedError: The server does not have it.
        BudgetError: The byte budget has no room for it.
    """
    url = source.base_url + artifact.url_path
    if artifact.size > DOCUMENT_BYTES_MAX:
        raise TrustError(
            Distrust.TOO_LARGE,
            f"{url}: {artifact.size} bytes, but a document may have {DOCUMENT_BYTES_MAX}",
        )
    before = source.http.received_bytes
    try:
        with (
            bounded(source.room, artifact.size) as limit_bytes,
            source.http.get(
                url, limit_bytes=limit_bytes, first_byte_s=source.file_s, whole_s=source.file_s
            ) as answer,
        ):
            data = answer.read()
    finally:
        source.count(source.http.received_bytes - before)
    if len(data) != artifact.size or sha256(data).hexdigest() != artifact.sha256:
        raise TrustError(Distrust.WRONG_HASH, f"{url}: not the file that was signed")
    return data
