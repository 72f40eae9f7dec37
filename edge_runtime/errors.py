"""Every error of the runtime and its client, cut by who has to act.

::

    EdgeRuntimeError
    ├── RequestError               the caller: change the request
    │   ├── InvalidRequestError      malformed JSON, header or field
    │   ├── InvalidTensorError       a tensor does not fit what it claims or what the model takes
    │   ├── ModelNotFoundError       no model or version of that name
    │   ├── RequestTooLargeError     over a stated limit
    │   ├── ForbiddenError           this door or this caller may not do that
    │   ├── ConflictError            it does not fit what is so now: look, and decide again
    │   └── UnsupportedError         a part of the protocol that is not here
    ├── UnavailableError           nobody, or the caller later: try again
    │   ├── ModelNotReadyError       known, but not loaded (or loading, or unloading)
    │   │   └── NoRoomError            the memory budget has no room for it
    │   ├── OverloadedError          a bounded queue is full
    │   ├── DeadlineExceededError    the request's own timeout passed before it ran
    │   └── TransportError           (client) the daemon could not be reached, or went away
    ├── ModelFailedError           the operator: the model itself failed on a well-formed request
    ├── ArtifactError              the operator: replace the files
    │   ├── ManifestError            the manifest cannot be read, or contradicts the files
    │   ├── DigestMismatchError      a file is not the one the manifest names
    │   ├── StorageError             the disk is full, read-only or failing; nothing changed
    │   ├── SignatureError           not signed by enough keys that this device trusts
    │   └── ModelLoadError           the model file cannot be loaded
    ├── ConfigError                the operator: fix the configuration
    ├── SocketError                the device: an address is in use or may not be bound
    └── ProtocolError              (client) an answer that is not of the protocol

HTTP statuses live in ``protocol.status`` and exit codes in ``cli``, never here. A message says
what went wrong, where, and what to do about it; it is shown to callers, so it never holds a
traceback or a path of the device that the caller did not name.
"""


class EdgeRuntimeError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        quoted: The end of the message, where the words of a library may hold values of tensors:
            for the caller, whose tensors they are, and never for a log.
    """

    quoted = ""

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return str(self.args[0]) if self.args else type(self).__name__

    @property
    def loggable(self) -> str:
        """The message without what may be a tensor's values."""
        if not self.quoted:
            return self.message
        return f"{self.message.removesuffix(self.quoted)}(not logged: it may quote tensors)"


class RequestError(EdgeRuntimeError):
    """The caller must change the request; sending it again as it is cannot help."""


class InvalidRequestError(RequestError):
    """The request is malformed: JSON, a header, a field or a parameter."""


class InvalidTensorError(RequestError):
    """A tensor does not fit its own description, or the model's signature."""


class ModelNotFoundError(RequestError):
    """No such model, or no such version of it."""


class RequestTooLargeError(RequestError):
    """The request is over a stated limit."""


class ForbiddenError(RequestError):
    """This door, or this caller, may not do that."""


class ConflictError(RequestError):
    """It does not fit what is so now: the caller must look, and decide again."""


class UnsupportedError(RequestError):
    """A part of the protocol that this server does not have."""


class UnavailableError(EdgeRuntimeError):
    """Not now; the same request may succeed later.

    Args:
        message: What is not available, and why.
        retry_after_s: When a new try makes sense, in whole seconds; ``None`` if nobody can say.
    """

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelNotReadyError(UnavailableError):
    """The model or version is known, but cannot answer at the moment."""


class NoRoomError(ModelNotReadyError):
    """There is no room for a version in the memory budget: for now, or ever."""


class OverloadedError(UnavailableError):
    """A bounded queue is full."""


class DeadlineExceededError(UnavailableError):
    """The request's own timeout passed before it ran."""


class TransportError(UnavailableError):
    """The daemon could not be reached, or went away before it answered.

    Args:
        message: What was tried and what the system said.
        request_sent: Whether a byte of the request had left: if not, a new try is always safe.
    """

    def __init__(self, message: str, *, request_sent: bool = False) -> None:
        super().__init__(message)
        self.request_sent = request_sent


class ModelFailedError(EdgeRuntimeError):
    """The model failed on a request that was well formed."""


class ArtifactError(EdgeRuntimeError):
    """Files of a model are not usable; somebody must replace them."""


class ManifestError(ArtifactError):
    """The manifest cannot be read, or contradicts the files beside it."""


class DigestMismatchError(ArtifactError):
    """A file is not the one that the manifest names."""


class StorageError(ArtifactError):
    """The disk is full, read-only or failing; nothing changed."""


class SignatureError(ArtifactError):
    """A bundle or a keyring is not signed by enough of the keys that are trusted."""


class ModelLoadError(ArtifactError):
    """ONNX Runtime cannot load the model, or the model has a form we do not serve."""


class ConfigError(EdgeRuntimeError):
    """The configuration is wrong; the message names the key."""


class SocketError(EdgeRuntimeError):
    """An address is in use, or may not be bound."""


class ProtocolError(EdgeRuntimeError):
    """A server's answer is not of the protocol."""
