"""A broker for the demo: mosquitto where it is installed, else amqtt in a process of its own."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
START_S: Final = 60.0


class Broker:
    """Runs, and can be stopped and started again on the same port.

    Args:
        folder: For its files.

    Attributes:
        name: Of the program.
        port: Where it listens.
    """

    def __init__(self, folder: Path) -> None:
        # Bound for as long as it is needed, and never listening: nobody else is given this port.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind((HOST, 0))
        self.port: int = self._held.getsockname()[1]
        found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        self.name = "mosquitto" if found else "amqtt"
        if found:
            config = folder / "mosquitto.conf"
            config.write_text(f"listener {self.port} {HOST}\nallow_anonymous true\n", "utf-8")
            self._command = [found, "-c", str(config)]
        else:
            self._command = [sys.executable, str(Path(__file__).resolve()), str(self.port)]
        self._log = folder / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1.0):
                return
            time.sleep(0.05)
        sys.exit(f"the broker did not start: {self._log.read_text('utf-8', 'replace')[-500:]}")

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S)
            self._process = None


def _embedded(port: int) -> None:
    from amqtt.broker import Broker as Amqtt  # noqa: PLC0415 - only where there is no mosquitto

    async def run() -> None:
        broker = Amqtt(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {}},
            }
        )
        await broker.start()
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    _embedded(int(sys.argv[1]))
