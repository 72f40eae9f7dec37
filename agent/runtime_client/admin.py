"""What the agent asks the daemon on its admin socket, and orders there."""

import time
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from agent.errors import RuntimeAwayError, RuntimeRefusedError
from agent.runtime_client.local_http import ask
from edge_runtime.protocol import release_schemas as schemas
from edge_runtime.protocol.journal_schemas import Collected, JournalRows
from edge_runtime.protocol.sketch_schemas import Sketches

AWAY_S: Final = 5.0
"""So long nobody else waits for a daemon that was waited for in vain."""

_T = TypeVar("_T")
_FAILED = 400
_NO_JSON = msgspec.MsgspecError, UnicodeError, RecursionError


class _Refusal(msgspec.Struct):
    """The body of every refusal."""

    error: str = ""


class Admin:
    """The admin socket of this device's daemon.

    Every call raises ``RuntimeAwayError`` when nobody answers, and ``RuntimeRefusedError`` with
    the daemon's sentence when it says no. A daemon that hangs costs one wait, not one a question:
    whoever asks within ``AWAY_S`` after it is told so at once.

    Args:
        path: The socket.
        timeout_s: Most silence of the daemon, in seconds.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._silence = 0.0, ""

    def releases(self) -> schemas.Releases:
        """Say how every model does that releases know."""
        return self._get("/admin/releases", schemas.Releases)

    def history(self, model: str, limit: int) -> schemas.History:
        """Say what happened to a model, newest first."""
        target = f"/admin/releases/{quote(model, safe='')}/history?limit={limit}"
        return self._get(target, schemas.History)

    def abort(self, model: str, *, rollout: str, reason: str) -> None:
        """End the release under way."""
        self._order(model, "abort", {"reason": reason, "rollout": rollout})

    def revert(self, model: str, *, to: int | None, rollout: str, reason: str) -> None:
        """Go back to the previous version, and leave no override."""
        body: dict[str, Any] = {"reason": reason, "rollout": rollout}
        if to is not None:
            body["to"] = to
        self._order(model, "revert", body)

    def index(self) -> list[dict[str, Any]]:
        """List the models that the daemon knows, as the Triton extension says it."""
        return self._read(self._ask("POST", "/v2/repository/index", b"{}"), list[dict[str, Any]])

    def sketches(self) -> Sketches:
        """Say how outputs spread; the first call begins the counting."""
        return self._get("/admin/sketches", Sketches)

    def journal(self, after: int) -> JournalRows:
        """Give predictions that were kept, with larger numbers than this, the oldest first."""
        return self._get(f"/admin/journal?after={after}", JournalRows)

    def collected(self, journal: str, through: int) -> None:
        """Let go of predictions that are safe elsewhere."""
        body = msgspec.json.encode(Collected(journal=journal, through=through))
        self._ask("POST", "/admin/journal/collected", body)

    def metrics(self) -> str:
        """Give the Prometheus text."""
        return self._ask("GET", "/metrics").decode("utf-8", "replace")

    def _order(self, model: str, verb: str, body: dict[str, Any]) -> None:
        target = f"/admin/releases/{quote(model, safe='')}/{verb}"
        self._ask("POST", target, msgspec.json.encode(body))

    def _get(self, target: str, kind: type[_T]) -> _T:
        return self._read(self._ask("GET", target), kind)

    def _ask(self, method: str, target: str, body: bytes | None = None) -> bytes:
        until_s, why = self._silence
        if time.monotonic() < until_s:
            raise RuntimeAwayError(why)
        try:
            answer = ask(self._path, method, target, body, timeout_s=self._timeout_s)
        except RuntimeAwayError as error:
            if isinstance(error.__cause__, TimeoutError):
                self._silence = time.monotonic() + AWAY_S, error.message
            raise
        if answer.status >= _FAILED:
            try:
                sentence = msgspec.json.decode(answer.body, type=_Refusal).error
            except _NO_JSON:
                sentence = ""
            raise RuntimeRefusedError(
                answer.status, sentence or f"the runtime answered {answer.status} to {target}"
            )
        return answer.body

    def _read(self, body: bytes, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(body, type=kind)
        except _NO_JSON as error:
            raise RuntimeAwayError(
                f"{self._path} does not answer as edge-runtime does: {error}"
            ) from error
