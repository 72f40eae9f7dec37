"""The one table between our errors and HTTP statuses, both ways.

Statuses are Triton's: unknown model 404, not now 503, not supported 501, internal 500, and 400
for everything else that the caller can mend.
"""

from typing import Final

from edge_runtime import errors

STATUS: Final[dict[type[errors.EdgeRuntimeError], int]] = {
    errors.RequestError: 400,
    errors.ForbiddenError: 403,
    errors.ModelNotFoundError: 404,
    errors.ConflictError: 409,
    errors.RequestTooLargeError: 413,
    errors.UnsupportedError: 501,
    errors.SignatureError: 403,
    errors.StorageError: 507,
    errors.ArtifactError: 400,  # of ``load``: Triton answers the same
    errors.UnavailableError: 503,
    errors.EdgeRuntimeError: 500,
}

_ERROR: Final[dict[int, type[errors.EdgeRuntimeError]]] = {
    400: errors.InvalidRequestError,
    403: errors.ForbiddenError,
    404: errors.ModelNotFoundError,
    405: errors.InvalidRequestError,
    408: errors.InvalidRequestError,
    409: errors.ConflictError,
    413: errors.RequestTooLargeError,
    414: errors.RequestTooLargeError,
    431: errors.RequestTooLargeError,
    500: errors.ModelFailedError,
    501: errors.UnsupportedError,
    503: errors.UnavailableError,
    507: errors.StorageError,
}


def status_of(error: errors.EdgeRuntimeError) -> int:
    """Give the HTTP status of an error: its own row, else that of its nearest base."""
    for cls in type(error).__mro__:
        status = STATUS.get(cls)
        if status is not None:
            return status
    return 500


def error_of(status: int, message: str) -> errors.EdgeRuntimeError:
    """Give the error that a client raises for a server's answer."""
    cls = _ERROR.get(status, errors.ProtocolError)
    return cls(message)
