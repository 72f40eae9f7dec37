"""Every call of the API as a coroutine, whoever sends it."""

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


class AsynchronousCalls(ABC):
    """What a daemon can be asked, as methods to be awaited."""

    @abstractmethod
    async def _perform(self, call: Call[T], timeout_s: float | None) -> T:
        """Send a call and give what its answer means; ``None``: the client's own timeout."""

    async def infer(
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
        """Ask for a prediction, and give its arrays; see ``Client.infer``.

        Raises:
            EdgeRuntimeError: As ``Client.infer``.
        """
        prediction = await self.predict(
            model,
            inputs,
            version=version,
            outputs=outputs,
            routing_key=routing_key,
            timeout_s=timeout_s,
            binary=binary,
        )
        return prediction.outputs

    async def predict(
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
        """Ask for a prediction, and give all that the answer says; see ``Client.predict``.

        Raises:
            EdgeRuntimeError: As ``Client.predict``.
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
        return await self._perform(call, timeout_s)

    async def infer_raw(
        self,
        model: str,
        body: Buffer,
        *,
        json_length: int | None = None,
        version: Version = "",
        timeout_s: float | None = None,
    ) -> Answer:
        """Send the body of an ``infer`` request as it is; see ``Client.infer_raw``.

        Raises:
            EdgeRuntimeError: As ``Client.infer_raw``.
        """
        call = calls.infer_raw(model, body, json_length=json_length, version=version)
        return await self._perform(call, timeout_s)

    async def live(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether the daemon runs; one that cannot be reached is an error, not a no.

        Raises:
            UnavailableError: It cannot be reached.
        """
        return await self._perform(calls.live(), timeout_s)

    async def ready(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether the daemon can answer predictions.

        Raises:
            UnavailableError: It cannot be reached.
        """
        return await self._perform(calls.ready(), timeout_s)

    async def model_ready(
        self, model: str, version: Version = "", *, timeout_s: float | None = None
    ) -> bool:
        """Ask whether a model can answer; false while it loads or when it is unloaded.

        Raises:
            ModelNotFoundError: Nobody knows a model or version of that name.
            UnavailableError: The daemon cannot be reached.
        """
        return await self._perform(calls.model_ready(model, version), timeout_s)

    async def metadata(self, *, timeout_s: float | None = None) -> schemas.ServerMetadata:
        """Ask what the server is: name, version, protocol extensions.

        Raises:
            UnavailableError: The daemon cannot be reached.
        """
        return await self._perform(calls.metadata(), timeout_s)

    async def model_metadata(
        self, model: str, version: Version = "", *, timeout_s: float | None = None
    ) -> schemas.ModelMetadata:
        """Ask what a model takes and gives.

        Raises:
            ModelNotFoundError: There is no such model or version.
            UnavailableError: The model is not loaded, or the daemon cannot be reached.
        """
        return await self._perform(calls.model_metadata(model, version), timeout_s)

    async def statistics(
        self, model: str = "", version: Version = "", *, timeout_s: float | None = None
    ) -> schemas.Statistics:
        """Ask what a model did, or every loaded model if none is named.

        Raises:
            ModelNotFoundError: There is no such model or version.
            UnavailableError: The model is not loaded, or the daemon cannot be reached.
        """
        return await self._perform(calls.statistics(model, version), timeout_s)

    async def metrics(self, *, timeout_s: float | None = None) -> str:
        """Ask for every counter of the daemon, as Prometheus text.

        Raises:
            UnavailableError: The daemon cannot be reached.
        """
        return await self._perform(calls.metrics(), timeout_s)

    async def index(
        self, *, only_ready: bool = False, timeout_s: float | None = None
    ) -> list[schemas.IndexEntry]:
        """List every version that the daemon knows, with its state.

        Args:
            only_ready: Leave out what cannot answer.
            timeout_s: Instead of the client's.

        Raises:
            UnavailableError: The daemon cannot be reached.
        """
        return await self._perform(calls.index(only_ready=only_ready), timeout_s)
