"""Errors of python-tuf in our words: why a repository is not believed."""

import contextlib
import json
from collections.abc import Iterator
from typing import Protocol

from tuf.api import exceptions

from agent.errors import (
    Distrust,
    NetworkError,
    RefusedError,
    StateError,
    TooLargeError,
    TooSlowError,
    TrustError,
)


class Asked(Protocol):
    """What was asked for last.

    Attributes:
        role: Its role.
        version: Its version; ``None``: the newest.
        data: What was answered.
    """

    role: str
    version: int | None
    data: bytes


@contextlib.contextmanager
def translated(asked: Asked, origin: str) -> Iterator[None]:
    """Run python-tuf, and tell its errors in ours.

    Args:
        asked: What its fetcher asked for last.
        origin: The repository, for messages.

    Raises:
        TrustError: What is served is not believed.
        NetworkError: The server cannot be reached, or fails.
        RefusedError: The server lacks a file that must be there.
        StateError: The disk refused; its ``__cause__`` is the ``OSError``.
    """
    try:
        yield
    except TooSlowError as error:
        raise TrustError(Distrust.TOO_SLOW, error.message) from error
    except TooLargeError as error:
        raise TrustError(Distrust.TOO_LARGE, error.message) from error
    except exceptions.DownloadHTTPError as error:
        raise RefusedError(error.status_code, str(error)) from error
    except exceptions.DownloadLengthMismatchError as error:
        raise TrustError(Distrust.TOO_LARGE, _sentence(origin, asked, error)) from error
    except exceptions.DownloadError as error:
        raise NetworkError(_sentence(origin, asked, error)) from error
    except exceptions.RepositoryError as error:
        raise TrustError(distrust(error, asked), _sentence(origin, asked, error)) from error
    except OSError as error:
        raise StateError(f"cannot keep metadata of {origin}: {error}") from error


def distrust(error: exceptions.RepositoryError, asked: Asked) -> Distrust:
    """Choose the word for an error.

    Args:
        error: What python-tuf found.
        asked: What was asked for last.
    """
    if isinstance(error, exceptions.ExpiredMetadataError):
        return Distrust.EXPIRED
    if isinstance(error, exceptions.UnsignedMetadataError):
        return Distrust.THRESHOLD
    if isinstance(error, exceptions.LengthOrHashMismatchError):
        return Distrust.WRONG_HASH
    if isinstance(error, exceptions.BadVersionNumberError):
        # A file that is not the version it was asked as belongs to another state of the
        # repository; one that is, and is older than what is known, is a way back.
        return Distrust.MIXED if _is_another_version(asked) else Distrust.ROLLED_BACK
    return Distrust.MALFORMED


def _sentence(origin: str, asked: Asked, error: Exception) -> str:
    return f"{origin}: {asked.role or 'the first root'}: {error}"


def _is_another_version(asked: Asked) -> bool:
    if asked.version is None:
        return False
    try:
        served = json.loads(asked.data)["signed"]["version"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return True
    return bool(served != asked.version)
