"""A terminal that is drawn over again: plain control sequences, and nothing left behind."""

import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Final, Self

_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"
_CLEAR: Final = "\x1b[2J"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"


class Screen:
    """The terminal, drawn over again; put back as it was at the end.

    Args:
        is_live: Whether there is a terminal to draw on.
    """

    def __init__(self, *, is_live: bool) -> None:
        self.is_live = is_live
        self._shown: Sequence[str] = ()
        self._wakes = os.pipe()
        self._output = sys.stdout.fileno() if is_live else -1

    def __enter__(self) -> Self:
        if self.is_live:
            for end in self._wakes:
                os.set_blocking(end, False)
            signal.set_wakeup_fd(self._wakes[1], warn_on_full_buffer=False)
            signal.signal(signal.SIGWINCH, lambda *_: None)  # the pipe wakes ``wait``
            for number in (signal.SIGTERM, signal.SIGTSTP):
                signal.signal(number, self._leave)
            signal.signal(signal.SIGCONT, lambda *_: None)
            self._write(_HIDE_CURSOR + _CLEAR)
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_live:
            signal.set_wakeup_fd(-1)
            self._write(_SHOW_CURSOR)
        for end in self._wakes:
            os.close(end)

    def wait(self, seconds: float) -> None:
        """Let time pass; where the size of the terminal changes, draw again."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            woken, _, _ = select.select([self._wakes[0]], [], [], left)
            if woken:
                os.read(self._wakes[0], 1024)
                self._draw()

    def show(self, lines: Sequence[str]) -> None:
        """Draw these lines over what was there."""
        self._shown = lines
        self._draw()

    def _draw(self) -> None:
        if not self._shown:
            return
        width, height = os.get_terminal_size(self._output)
        text = fitted(self._shown, width, height)
        drawn = "\n".join(f"{line}{_REST_OF_LINE}" for line in text)
        self._write(f"{_HOME}{drawn}\n{_REST_OF_SCREEN}")

    def _write(self, text: str) -> None:
        # Not through sys.stdout: a signal's handler must be able to write in the middle of it.
        data = text.encode(sys.stdout.encoding, "replace")
        while data:
            data = data[os.write(self._output, data) :]

    def _leave(self, number: int, _: FrameType | None) -> None:
        """Show the cursor again, then do what the signal does to every program."""
        self._write(_SHOW_CURSOR)
        before = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # SIGTSTP only: here again after SIGCONT, or at once where nobody could continue us.
        signal.signal(number, before)
        self._come_back()

    def _come_back(self) -> None:
        self._write(_HIDE_CURSOR + _CLEAR)


def fitted(text: Sequence[str], width: int, height: int) -> list[str]:
    """Cut lines to a terminal: long ones at its edge, the last ones where it ends.

    Args:
        text: The lines.
        width: Columns.
        height: Lines; the last is left to the cursor.
    """
    room = max(height - 1, 1)
    shown = list(text)
    if len(shown) > room:
        shown = [*shown[: room - 1], f"... {len(shown) - room + 1} more"]
    return [line[: max(width, 1)] for line in shown]
