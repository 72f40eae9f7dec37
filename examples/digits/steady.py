"""Programs that ask without a pause worth mentioning, and remember every answer."""

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_runtime.client import Client
from edge_runtime.errors import EdgeRuntimeError

PAUSE_S: Final = 0.003
CAMERAS: Final = 40


class Steady(threading.Thread):
    """Sends one image after the other, in the name of ``CAMERAS`` cameras in turn.

    Each camera has a routing key of its own, so that a canary gives it all its answers or none.

    Args:
        socket: The daemon's data socket.
        images: Float32 ``[n, 1, 8, 8]``.
        labels: Int64 ``[n]``, the truth.

    Attributes:
        asked: Requests so far.
        answered: Answers by version.
        wrong: Answers that were not the truth, by version.
        failed: What went wrong instead of an answer.
    """

    def __init__(
        self, socket: Path, images: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> None:
        super().__init__(daemon=True)
        self._socket = socket
        self._bodies = [
            _body(image, f"camera-{number % CAMERAS}") for number, image in enumerate(images)
        ]
        self._labels = labels
        self._ended = threading.Event()
        self.asked = 0
        self.answered: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.failed: list[str] = []

    def run(self) -> None:
        """Ask until told to stop."""
        with Client(str(self._socket)) as client:
            while not self._ended.is_set():
                self._ask(client)
                time.sleep(PAUSE_S)

    def _ask(self, client: Client) -> None:
        which = self.asked % len(self._bodies)
        self.asked += 1
        try:
            answer = json.loads(bytes(client.infer_raw("digits", self._bodies[which]).body))
        except EdgeRuntimeError as error:
            self.failed.append(str(error))
            return
        version = answer["model_version"]
        outputs = {each["name"]: each["data"] for each in answer["outputs"]}
        self.answered[version] += 1
        self.wrong[version] += outputs["label"][0] != self._labels[which]

    def stop(self) -> None:
        """End, with the answer that is under way."""
        self._ended.set()
        self.join()


def _body(image: NDArray[np.float32], camera: str) -> bytes:
    tensor = {"name": "image", "shape": [1, *image.shape], "datatype": "FP32"}
    request = {
        "parameters": {"routing_key": camera},
        "inputs": [{**tensor, "data": image.ravel().tolist()}],
    }
    return json.dumps(request).encode()
