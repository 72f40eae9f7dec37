"""Servers that answer predictions, health checks, or as badly as a test wants."""

from typing import Any

import numpy as np

from edge_runtime.client import BalancedClient, Ejection
from tests.scripted_server import Caller, Script

X = {"x": np.zeros(1, np.float32)}
PATIENT = Ejection(failures=1000)
AT_ONCE = Ejection(failures=1, first_s=0.001, most_s=0.01, check_timeout_s=60.0)
CHECK = b"GET /v2/health/ready "


def http(status: int, body: bytes, *headers: bytes) -> bytes:
    """Put an answer together."""
    head = (b"HTTP/1.1 %d What" % status, *headers, b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def answer(number: float) -> bytes:
    """Answer a prediction with one number."""
    return http(
        200,
        b'{"model_name":"m","model_version":"1","outputs":'
        b'[{"name":"y","datatype":"FP32","shape":[1],"data":[%f]}]}' % number,
    )


BUSY = http(503, b'{"error":"full"}', b"Retry-After: 7")
READY = http(200, b'{"ready":true}')


class Seen:
    """Requests that a server has read, and how it treats them."""

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[bytes] = []
        self._answers = answers

    @property
    def predictions(self) -> list[bytes]:
        """Requests but for health checks."""
        return [request for request in self.requests if not request.startswith(CHECK)]

    def answering(self, caller: Caller) -> None:
        """Answer as long as the client asks, with the last answer again and again."""
        while request := caller.read_request():
            if request.startswith(CHECK):
                caller.write(READY)
                continue
            reply = self._answers[min(len(self.predictions), len(self._answers) - 1)]
            self.requests.append(request)  # first: who has the answer may look at what was read
            caller.write(reply)

    def leaving(self, caller: Caller) -> None:
        """Read a request, and close."""
        self.requests.append(caller.read_request())

    def hanging(self, caller: Caller) -> None:
        """Read a request, and wait for the client to close."""
        self.requests.append(caller.read_request())
        caller.read_request()


def many(script: Script) -> list[Script]:
    """Play the same for every connection."""
    return [script] * 100


def number(client: BalancedClient, **more: Any) -> float:  # noqa: ANN401 - what predict takes
    """Ask for a prediction, and give the number in it."""
    return float(client.predict("m", X, **more).outputs["y"][0])
