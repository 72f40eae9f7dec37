"""``Client``: the daemon's API for programs with threads, or with none."""

import os
from collections.abc import Mapping, Sequence
from typing import Final, Self, TypeVar

from edge_runtime.client import calls
from edge_runtime.client.arrays import Input
from edge_runtime.client.calls import Call, Prediction, Version
from edge_runtime.client.connection import Pool
from edge_runtime.client.deadline import Deadline
from edge_runtime.client.endpoint import Endpoint
from edge_runtime.client.wire import Answer, Buffer, request_buffers
from edge_runtime.errors import InvalidRequestError
from edge_runtime.protocol import schemas
from edge_runtime.tensors import Array

T = TypeVar("T")

TIMEOUT_DEFAULT_S: Final = 30.0
CONNECTIONS_DEFAULT: Final = 64  # an eighth of what the daemon takes from all its clients


class Client:
    """Asks a daemon for predictions. Threads may share it; each call has a connection of its own.

    Every call raises, beside what it names itself: ``TransportError`` (the daemon could not be
    reached or went away; ``request_sent`` tells whether it may have run), ``DeadlineExceededError``
    (``timeout_s`` passed), ``ProtocolError`` (the answer is not of the protocol), or the error of
    ``edge_runtime.errors`` that the daemon answered. Connections are opened when needed and kept.

    Args:
        address: Path of a Unix socket, ``unix:PATH``, ``http://HOST:PORT[/BASE]``, or an
            ``Endpoint``; by default ``$EDGE_RUNTIME_SOCKET``, else this user's daemon.
        timeout_s: Seconds that a call may take, from connecting to the last byte; ``None``: no
            limit. Each call may say otherwise.
        connections: Most connections at once; further calls wait for one.

    Raises:
        ConfigError: The address is none.
        InvalidRequestError: A number is out of range.
        SocketError: The default folder of the sockets is not private.

    Example::

        with Client() as client:
            scores = client.infer("digits", {"image": image})["scores"]
    """

    def __init__(
        self,
        address: str | os.PathLike[str] | Endpoint | None = None,
        *,
        timeout_s: float | None = TIMEOUT_DEFAULT_S,
        connections: int = CONNECTIONS_DEFAULT,
    ) -> None:
        if connections < 1:
            raise InvalidRequestError(f"connections must be 1 or more: {connections}")
        Deadline(timeout_s)  # a wrong default is told here, not at the first call
        self.endpoint = Endpoint.of(address)
        self.timeout_s = timeout_s
        self._pool = Pool(self.endpoint, connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.endpoint)!r})"

    def close(self) -> None:
        """Close the connections; calls that go on in other threads finish first."""
        self._pool.close()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Input],
        *,
        version: Version = "",
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        binary: bool = True,
    ) -> dict[str, Array]:
        """Ask for a prediction, and give its arrays.

        Args:
            model: Name of the model.
            inputs: Arrays by input name, with the dtypes that the model declares (see
                ``predict``).
            version: Version of the model, as text or number; empty lets the daemon choose.
            outputs: Names of the outputs to give back; ``None``: every one.
            timeout_s: Instead of the client's.
            binary: Whether tensors travel as raw bytes; JSON is slower and knows no FP16 or BF16.

        Returns:
            Arrays by output name, which may be views of the answer's memory; text as objects of
            ``str``, BF16 as ``ml_dtypes.bfloat16`` if installed, else its raw bits as ``uint16``.

        Raises:
            InvalidRequestError: A name, number or combination is not acceptable.
            InvalidTensorError: An input does not fit the model.
            ModelNotFoundError: There is no such model or version.
            RequestTooLargeError: The request is over the daemon's limit.
            UnavailableError: Not now; ``retry_after_s`` may say when.
            ModelFailedError: The model failed.
            ProtocolError: The answer is not of the protocol.
        """
        return self.predict(
            model, inputs, version=version, outputs=outputs, timeout_s=timeout_s, binary=binary
        ).outputs

    def predict(
        self,
        model: str,
        inputs: Mapping[str, Input],
        *,
        version: Version = "",
        outputs: Sequence[str] | None = None,
        classes: int = 0,
        id: str = "",  # noqa: A002 - the protocol's word
        priority: int = 0,
        server_timeout_s: float | None = None,
        timeout_s: float | None = None,
        binary: bool = True,
    ) -> Prediction:
        """Ask for a prediction, and give all that the answer says.

        Args:
            model: Name of the model.
            inputs: Arrays by input name, with the dtypes that the model declares. Any layout and
                byte order; text as ``U``, ``S`` or objects of ``str`` or UTF-8 ``bytes``; BF16 as
                ``ml_dtypes.bfloat16``, or as ``Tensor(datatypes.BF16, bits)``.
            version: Version of the model, as text or number; empty lets the daemon choose.
            outputs: Names of the outputs to give back; ``None``: every one.
            classes: If above 0, each of ``outputs`` comes as its highest values, as text
                ``value:index[:label]``.
            id: The request's id, given back in the answer.
            priority: 1 is the highest, larger is lower; 0 is the model's default.
            server_timeout_s: Seconds after which the daemon must not begin to run it any more.
            timeout_s: Seconds until this call gives up, instead of the client's.
            binary: Whether tensors travel as raw bytes.

        Raises:
            InvalidRequestError: A name, number or combination is not acceptable.
            InvalidTensorError: An input does not fit the model.
            ModelNotFoundError: There is no such model or version.
            RequestTooLargeError: The request is over the daemon's limit.
            UnavailableError: Not now; ``retry_after_s`` may say when.
            ModelFailedError: The model failed.
            ProtocolError: The answer is not of the protocol.
        """
        call = calls.infer(
            model,
            inputs,
            version=version,
            outputs=outputs,
            classes=classes,
            request_id=id,
            priority=priority,
            server_timeout_s=server_timeout_s,
            binary=binary,
        )
        return self._perform(call, timeout_s)

    def infer_raw(
        self,
        model: str,
        body: Buffer,
        *,
        json_length: int | None = None,
        version: Version = "",
        timeout_s: float | None = None,
    ) -> Answer:
        """Send the body of an ``infer`` request as it is, and give the answer's as it is.

        Args:
            model: Name of the model.
            body: JSON, or JSON and binary tensors.
            json_length: Bytes of JSON where binary tensors follow it, else ``None``.
            version: Version of the model, as text or number; empty lets the daemon choose.
            timeout_s: Instead of the client's.

        Raises:
            RequestError: The daemon refused the request.
            UnavailableError: Not now; ``retry_after_s`` may say when.
            ModelFailedError: The model failed.
            ProtocolError: The answer is not of the protocol.
        """
        call = calls.infer_raw(model, body, json_length=json_length, version=version)
        return self._perform(call, timeout_s)

    def live(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether the daemon runs; a daemon that cannot be reached is an error, not a no.

        Raises:
            UnavailableError: It cannot be reached.
        """
        return self._perform(calls.live(), timeout_s)

    def ready(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether the daemon can answer predictions.

        Raises:
            UnavailableError: It cannot be reached.
        """
        return self._perform(calls.ready(), timeout_s)

    def model_ready(
        self, model: str, version: Version = "", *, timeout_s: float | None = None
    ) -> bool:
        """Ask whether a model can answer; false while it loads or when it is unloaded.

        Raises:
            ModelNotFoundError: Nobody knows a model or version of that name.
            UnavailableError: The daemon cannot be reached.
        """
        return self._perform(calls.model_ready(model, version), timeout_s)

    def metadata(self, *, timeout_s: float | None = None) -> schemas.ServerMetadata:
        """Ask what the server is: name, version, protocol extensions.

        Raises:
            UnavailableError: The daemon cannot be reached.
        """
        return self._perform(calls.metadata(), timeout_s)

    def model_metadata(
        self, model: str, version: Version = "", *, timeout_s: float | None = None
    ) -> schemas.ModelMetadata:
        """Ask what a model takes and gives.

        Raises:
            ModelNotFoundError: There is no such model or version.
            UnavailableError: The model is not loaded, or the daemon cannot be reached.
        """
        return self._perform(calls.model_metadata(model, version), timeout_s)

    def statistics(
        self, model: str = "", version: Version = "", *, timeout_s: float | None = None
    ) -> schemas.Statistics:
        """Ask what a model did, or every loaded model if none is named.

        Raises:
            ModelNotFoundError: There is no such model or version.
            UnavailableError: The model is not loaded, or the daemon cannot be reached.
        """
        return self._perform(calls.statistics(model, version), timeout_s)

    def index(
        self, *, only_ready: bool = False, timeout_s: float | None = None
    ) -> list[schemas.IndexEntry]:
        """List every version that the daemon knows, with its state.

        Args:
            only_ready: Leave out what cannot answer.
            timeout_s: Instead of the client's.

        Raises:
            UnavailableError: The daemon cannot be reached.
        """
        return self._perform(calls.index(only_ready=only_ready), timeout_s)

    def load(self, model: str, *, timeout_s: float | None = None) -> None:
        """Load a model, or its new files; only on the admin socket.

        Args:
            model: Name of the model.
            timeout_s: Instead of the client's; a large model takes its time to load.

        Raises:
            ForbiddenError: This is not the admin socket (``Client(Endpoint.default_admin())``).
            ModelNotFoundError: There is no such model.
            ModelFailedError: It could not be loaded; the message says why.
        """
        self._perform(calls.load(model), timeout_s)

    def unload(self, model: str, *, timeout_s: float | None = None) -> None:
        """Unload a model once its requests are answered; only on the admin socket.

        Raises:
            ForbiddenError: This is not the admin socket (``Client(Endpoint.default_admin())``).
            ModelNotFoundError: There is no such model.
        """
        self._perform(calls.unload(model), timeout_s)

    def _perform(self, call: Call[T], timeout_s: float | None) -> T:
        deadline = Deadline(self.timeout_s if timeout_s is None else timeout_s)
        buffers = request_buffers(
            self.endpoint, call.method, call.target, call.parts, call.json_length
        )
        connection = self._pool.take(deadline)
        try:
            answer = connection.exchange(buffers, deadline)
        except BaseException:
            connection.close()  # an answer that comes late must not meet the next request
            raise
        finally:
            self._pool.give_back(connection)
        return call.decode(answer)
