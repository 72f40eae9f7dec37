"""The daemon's hand-over socket: bundles go there as descriptors, contents come back as such.

One packet with at most one descriptor is asked, one is answered; each call has a connection of its
own, so that threads may share this.
"""

import array
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from agent.errors import RuntimeAwayError, RuntimeRefusedError

PACKET_BYTES_MAX: Final = 65_536
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
"""Longest answer that comes as a descriptor."""

_TOO_LARGE: Final = 413
_DESCRIPTORS_MAX: Final = 4  # more than one is closed at once
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class MissingFile(NamedTuple):
    """A file of a bundle that the runtime does not have.

    Attributes:
        file: Path in the bundle.
        sha256: Of its content.
        size: In bytes.
    """

    file: str
    sha256: str
    size: int


class Needs(NamedTuple):
    """What the runtime needs of a bundle.

    Attributes:
        variants: Model files of the variants that it would try.
        files: What has to come.
        present: SHA-256 of what it has already.
    """

    variants: tuple[str, ...]
    files: tuple[MissingFile, ...]
    present: frozenset[str]


class Handover:
    """The hand-over socket of this device's daemon.

    Every call raises ``RuntimeAwayError`` when nobody answers, and ``RuntimeRefusedError`` with
    the daemon's sentence when it says no.

    Args:
        path: The socket.
        timeout_s: Longest wait for an answer that needs no copying, in seconds.
        stage_s: Longest wait until a bundle is copied, in seconds.
    """

    def __init__(self, path: Path, timeout_s: float = 30.0, stage_s: float = 3600.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._stage_s = stage_s

    def needs(self, manifest: bytes, signature: str | None = None) -> Needs:
        """Ask which files of a bundle have to come.

        Args:
            manifest: Its exact bytes.
            signature: Text of its signature; ``None``: it has none.
        """
        request: dict[str, Any] = {"op": "needs"}
        if signature is not None:
            request["signature"] = signature
        with os.fdopen(os.memfd_create("manifest"), "w+b", buffering=0) as file:
            file.write(manifest)
            found, extra = self._ask(request, file.fileno(), self._timeout_s)
        _close(extra)
        try:
            return Needs(
                variants=tuple(map(str, found["variants"])),
                files=tuple(
                    MissingFile(str(each["file"]), str(each["sha256"]), int(each["size"]))
                    for each in found["files"]
                ),
                present=frozenset(map(str, found["present"])),
            )
        except (TypeError, KeyError, ValueError) as error:
            raise self._strange(error) from error

    def open(self, sha256: str) -> int | None:
        """Open a content of the daemon's store.

        Args:
            sha256: Of the content.

        Returns:
            A descriptor for reading, which is the caller's: nobody changes what it leads to, but
            only the caller's own hashing proves what it is. ``None``: the store does not have it.
        """
        found, descriptor = self._ask({"op": "open", "sha256": sha256}, None, self._timeout_s)
        if found is None:
            _close(descriptor)
            return None
        if descriptor is None:
            raise self._strange(ValueError("no descriptor came with the answer"))
        return descriptor

    def stage(
        self,
        bundle: Path | int,
        *,
        rollout: str,
        again: bool = False,
        mode: Literal["automatic", "manual"] = "automatic",
    ) -> dict[str, Any]:
        """Hand a bundle over, and have its release begun.

        The daemon copies all that it takes before it answers.

        Args:
            bundle: Its folder or tar file: a path, or a descriptor, which stays the caller's. It
                may lack files that the daemon has, and those that ``needs`` did not ask for. The
                daemon's user must be able to read a folder and the files in it; those above it
                may be closed to everybody.
            rollout: The fleet's rollout that orders it.
            again: Take a version that is remembered as bad.
            mode: ``manual``: after the self-test, wait until somebody promotes it.

        Returns:
            The release, as the admin socket shows it.
        """
        request = {"op": "stage", "rollout": rollout, "again": again, "mode": mode}
        if isinstance(bundle, int):
            found, extra = self._ask(request, bundle, self._stage_s)
        else:
            flags = _FOLDER if bundle.is_dir() else _FILE
            try:
                descriptor = os.open(bundle, flags)
            except OSError as error:
                raise RuntimeRefusedError(
                    400, f"cannot hand over {bundle}: {error.strerror}; download it again"
                ) from error
            try:
                found, extra = self._ask(request, descriptor, self._stage_s)
            finally:
                os.close(descriptor)
        _close(extra)
        if not isinstance(found, dict):
            raise self._strange(ValueError("the answer is no release"))
        return found

    def _ask(
        self, request: Mapping[str, Any], descriptor: int | None, timeout_s: float
    ) -> tuple[Any, int | None]:
        """Ask once; give what is ``ok`` in the answer, and the descriptor that came with it."""
        data = json.dumps(request, separators=(",", ":")).encode()
        if len(data) > PACKET_BYTES_MAX:
            raise RuntimeRefusedError(
                _TOO_LARGE, f"the request is over {PACKET_BYTES_MAX} bytes: is the signature whole?"
            )
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.settimeout(timeout_s)
                sock.connect(str(self._path))
                socket.send_fds(sock, [data], [] if descriptor is None else [descriptor])
                answer, found = _received(sock)
        except OSError as error:
            raise RuntimeAwayError(
                f"the runtime does not answer at {self._path} ({error.strerror or error}); is "
                "edge-runtime running, and may this user open its socket?"
            ) from error
        return self._read(answer, found)

    def _read(self, answer: bytes, descriptor: int | None) -> tuple[Any, int | None]:
        try:
            said = json.loads(answer)
            if isinstance(said, dict) and "attached" in said and descriptor is not None:
                attached, descriptor = descriptor, None
                said = json.loads(_content(attached))
            if isinstance(said, dict) and "ok" in said:
                return said["ok"], descriptor
            sentence, status = str(said["error"]), int(said["status"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            _close(descriptor)
            raise self._strange(error) from error
        _close(descriptor)
        raise RuntimeRefusedError(status, sentence)

    def _strange(self, error: Exception) -> RuntimeAwayError:
        return RuntimeAwayError(f"{self._path} does not answer as edge-runtime does: {error!r}")


def _received(sock: socket.socket) -> tuple[bytes, int | None]:
    """Take the answer, and at most one descriptor."""
    # Not `socket.recv_fds`: it drops the flags, and a child could inherit what came.
    found = array.array("i")
    space = socket.CMSG_SPACE(_DESCRIPTORS_MAX * found.itemsize)
    data, ancillary, _, _ = sock.recvmsg(PACKET_BYTES_MAX + 1, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    for each in found[1:]:
        os.close(each)
    return data, found[0] if found else None


def _content(descriptor: int) -> bytes:
    """Read a long answer from its beginning, and let go of it."""
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        data = file.read(ANSWER_BYTES_MAX + 1)
    if len(data) > ANSWER_BYTES_MAX:
        raise ValueError(f"over {ANSWER_BYTES_MAX} bytes")
    return data


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)
