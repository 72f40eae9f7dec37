"""``make demo``: serve the quantized digits, ask for answers, and release two new versions.

Starts the installed daemon in a private folder, sends it held-out images through ``curl``, the
``edge-runtime`` command and the Python client, and compares every answer with the truth. Then,
under steady requests, a bad version is released, which removes itself, and a good one, which stays.
At the end both come from a fleet: signed, announced over MQTT, pulled by the agent.
Ends with 0 only if the answers were right enough, no request failed and both releases ended as they
must.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_runtime.client import Client
from edge_runtime.errors import EdgeRuntimeError

if TYPE_CHECKING:
    from examples.digits import over_mqtt, release
else:  # the files beside this one, found there when this one is run as a script
    import over_mqtt
    import release

HERE: Final = Path(__file__).parent
COMMAND: Final = str(Path(sys.executable).with_name("edge-runtime"))
START_S: Final = 60.0
ACCURACY_MIN: Final = 0.96
SHADES: Final = " .:-=+*#%@"


def main() -> int:
    """Run the demo; 0 if every door answered rightly."""
    data = np.load(HERE / "test.npz", allow_pickle=False)
    images: NDArray[np.float32] = data["image"]
    labels: NDArray[np.int64] = data["labels"]
    with tempfile.TemporaryDirectory(prefix="edge-demo-") as name:
        folder = Path(name)
        socket, settings = folder / "runtime.sock", folder / "demo.toml"
        settings.write_text(release.SETTINGS, "utf-8")
        model = f"digits={(HERE / 'digits-int8.onnx').resolve()}"
        shown = model.replace(str(HERE.resolve()), "examples/digits")
        _say(f"demo.toml, for this demo:\n\n{release.SETTINGS}")
        _say(f"$ edge-runtime serve {shown} --config demo.toml")
        command = [COMMAND, "serve", model, "--config", str(settings), "--socket", str(socket)]
        daemon = subprocess.Popen([*command, "--state-dir", str(folder / "state")])
        try:
            _wait(socket, daemon)
            right = [
                _through_curl(socket, images[0], int(labels[0]), folder),
                _through_cli(socket, images[1], int(labels[1]), folder),
                _through_client(socket, images, labels),
                release.show(socket, folder),
                over_mqtt.show(socket, folder),
            ]
        finally:
            daemon.send_signal(signal.SIGTERM)
            ended = daemon.wait(START_S)
    _say(f"\nThe daemon was told to stop (SIGTERM) and ended with {ended}.")
    done = all(right) and ended == 0
    _say("All went as it must." if done else "Something was WRONG, see above.")
    return 0 if done else 1


def _wait(socket: Path, daemon: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and daemon.poll() is None:
        try:
            with Client(str(socket)) as client:
                if client.ready():
                    return
        except EdgeRuntimeError:
            pass  # not listening yet
        time.sleep(0.02)
    sys.exit("the daemon did not become ready; its log is above")


def _through_curl(socket: Path, image: NDArray[np.float32], label: int, folder: Path) -> bool:
    _say("\n1. curl, JSON over the Unix socket: this image")
    _show(image)
    tensor: dict[str, Any] = {"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32"}
    request = {"inputs": [{**tensor, "data": image.ravel().tolist()}]}
    (folder / "request.json").write_text(json.dumps(request))
    if shutil.which("curl") is None:
        _say("   curl is not installed here, so this part is left out.")
        return True
    command = ["curl", "-sS", "--unix-socket", str(socket)]
    command += ["http://localhost/v2/models/digits/infer", "-d", f"@{folder / 'request.json'}"]
    _say("   $ curl --unix-socket runtime.sock -d @request.json \\")
    _say("          http://localhost/v2/models/digits/infer")
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    _say(f"   {answer.stdout}{answer.stderr}")
    if answer.returncode != 0:
        return False
    outputs = {each["name"]: each["data"] for each in json.loads(answer.stdout)["outputs"]}
    return _verdict(int(outputs["label"][0]), label)


def _through_cli(socket: Path, image: NDArray[np.float32], label: int, folder: Path) -> bool:
    _say("\n2. the command line: this image")
    _show(image)
    np.save(folder / "image.npy", image[None])
    command = [COMMAND, "predict", "digits", "--socket", str(socket)]
    command += ["--input", f"image=@{folder / 'image.npy'}"]
    _say("   $ edge-runtime predict digits --input image=@image.npy")
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    for line in (answer.stdout + answer.stderr).splitlines():
        _say(f"   {line}")
    machine = subprocess.run([*command, "--json"], check=False, capture_output=True, text=True)
    if answer.returncode != 0 or machine.returncode != 0:
        return False
    outputs = {each["name"]: each["data"] for each in json.loads(machine.stdout)["outputs"]}
    return _verdict(int(outputs["label"][0]), label)


def _through_client(socket: Path, images: NDArray[np.float32], labels: NDArray[np.int64]) -> bool:
    _say(f"\n3. Python: {len(images)} held-out images, one request each, then all in one")
    _say('   client.infer("digits", {"image": image})["label"]')
    with Client(str(socket)) as client:
        started = time.perf_counter()
        single = [int(client.infer("digits", {"image": each[None]})["label"][0]) for each in images]
        took = time.perf_counter() - started
        together = client.infer("digits", {"image": images})["label"]
    accuracy = float(np.mean(np.array(single) == labels))
    _say(f"   {accuracy:.2%} right, {took / len(images) * 1e3:.2f} ms a request")
    same = bool(np.array_equal(together, single))
    _say(f"   one request with all rows gives {'the same' if same else 'OTHER'} labels")
    return accuracy >= ACCURACY_MIN and same


def _verdict(got: int, wanted: int) -> bool:
    _say(f"   it says {got}, the truth is {wanted}: {'right' if got == wanted else 'WRONG'}")
    return got == wanted


def _show(image: NDArray[np.float32]) -> None:
    for row in image[0]:
        shades = (SHADES[min(int(value * len(SHADES)), len(SHADES) - 1)] for value in row)
        _say("      " + "".join(shade * 2 for shade in shades))


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
