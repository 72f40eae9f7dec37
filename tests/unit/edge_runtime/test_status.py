"""The table between our errors and HTTP statuses, both ways."""

import pytest

from edge_runtime import errors
from edge_runtime.protocol.status import STATUS, error_of, status_of


def every(cls: type[errors.EdgeRuntimeError]) -> list[type[errors.EdgeRuntimeError]]:
    return [cls, *(below for child in cls.__subclasses__() for below in every(child))]


EXPECTED: dict[type[errors.EdgeRuntimeError], int] = {
    errors.EdgeRuntimeError: 500,
    errors.RequestError: 400,
    errors.InvalidRequestError: 400,
    errors.InvalidTensorError: 400,
    errors.ModelNotFoundError: 404,
    errors.ConflictError: 409,
    errors.RequestTooLargeError: 413,
    errors.ForbiddenError: 403,
    errors.UnsupportedError: 501,
    errors.UnavailableError: 503,
    errors.ModelNotReadyError: 503,
    errors.NoRoomError: 503,
    errors.OverloadedError: 503,
    errors.DeadlineExceededError: 503,
    errors.TransportError: 503,
    errors.ModelFailedError: 500,
    errors.ArtifactError: 400,
    errors.ManifestError: 400,
    errors.DigestMismatchError: 400,
    errors.SignatureError: 403,
    errors.StorageError: 507,
    errors.ModelLoadError: 400,
    errors.ConfigError: 500,
    errors.SocketError: 500,
    errors.ProtocolError: 500,
}


def test_every_error_has_the_status_that_triton_gives_it() -> None:
    # What a room keeps to itself is told by the status of its base.
    public = (cls for cls in every(errors.EdgeRuntimeError) if cls.__module__ == errors.__name__)
    assert {cls: status_of(cls("why")) for cls in public} == EXPECTED


@pytest.mark.parametrize("status", sorted(set(STATUS.values())))
def test_client_raises_an_error_of_the_same_status(status: int) -> None:
    error = error_of(status, "why")
    assert error.message == "why"
    assert status_of(error) == status


@pytest.mark.parametrize("status", [100, 204, 302, 418, 502])
def test_status_outside_the_table_is_not_of_the_protocol(status: int) -> None:
    assert type(error_of(status, "why")) is errors.ProtocolError


def test_error_without_words_says_its_name() -> None:
    assert errors.ModelFailedError().message == "ModelFailedError"
