"""Answers of servers that are read within time limits at every byte, and can be called off.

``http.client`` has a timeout for silence only. A server that drips one byte now and then, in the
head or in the body, would be waited for without end: so every byte comes through a reader of ours.
"""

import contextlib
import http.client
import io
import socket
import time
from typing import Any, Final

from agent.trust.patience import Patience

BUFFER_BYTES: Final = 65_536


class Waiting:
    """What the answer that is asked for next is waited with.

    Args:
        patience: Of that answer; may be replaced at any time.

    Attributes:
        patience: The same.
        received_bytes: Everything that ever came, with heads, after decryption.
        sock: The newest connection that was asked something.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience
        self.received_bytes = 0
        self.sock: socket.socket | None = None

    def abort(self) -> None:
        """Wake up the thread that waits for bytes; its answer ends."""
        if self.sock is not None:
            with contextlib.suppress(OSError):
                # Not the method of a TLS socket, which says goodbye first.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _PatientReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, waiting: Waiting) -> None:
        super().__init__()
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._waiting = waiting
        self._patience = waiting.patience
        waiting.sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401 - as in io.RawIOBase
        begun_s = time.monotonic()
        if self._patience is not None:
            self._sock.settimeout(self._patience.timeout_s(begun_s))
        try:
            size = self._raw.readinto(buffer)
        except TimeoutError as error:
            if self._patience is None:
                raise
            raise self._patience.nothing_came(time.monotonic()) from error
        self._waiting.received_bytes += size or 0
        if self._patience is not None and size:
            now_s = time.monotonic()
            self._patience.waited(now_s - begun_s, size, now_s)
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


def patient_responses(waiting: Waiting) -> type[http.client.HTTPResponse]:
    """Make a ``response_class`` for connections of ``http.client``.

    Args:
        waiting: Where the patience of each answer is put before it is asked for.
    """

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            super().__init__(sock, *args, **kwargs)
            self.fp.close()
            self.fp = io.BufferedReader(_PatientReader(sock, waiting), BUFFER_BYTES)

    return Response
