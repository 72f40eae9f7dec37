"""Every call of the API as a blocking method, whoever sends it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeVar

from edge_runtime.client import calls
from edge_runtime.client.arrays import Input
from edge_runtime.client.calls import Call, Prediction, Version
from edge_runtime.client.wire import Answer, Buffer
from edge_runtime.protocol import schemas
from edge_runtime.tensors import Array

T = TypeVar("T")


class BlockingCalls(ABC):
    """What a daemon can be asked, as methods that wait for the answer."""

    @abstractmethod
    def _perform(self, call: Call[T], timeout_s: float | None) -> T:
        """Send a call and give what its answer means; ``None``: the client's own timeout."""

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Input],
        *,
        version: Version = "",
        outputs: Sequence[str] | None = None,
        routing_key: str | int = "",
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
            routing_key: See ``predict``.
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
            model,
            inputs,
            version=version,
            outputs=outputs,
            routing_key=routing_key,
            timeout_s=timeout_s,
            binary=binary,
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
        routing_key: str | int = "",
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
            routing_key: Requests of one key get one version while the model's traffic is split,
                whatever connection they take; empty: each connection has a key of its own.
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
            routing_key=routing_key,
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

    def metrics(self, *, timeout_s: float | None = None) -> str:
        """Ask for every counter of the daemon, as Prometheus text.

        Raises:
            UnavailableError: The daemon cannot be reached.
        """
        return self._perform(calls.metrics(), timeout_s)

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
