"""The last part of ``make demo``: a fleet of one device.

An operator signs releases into a repository and announces them over MQTT; the agent pulls them, the
daemon judges them, and the operator hears the truth. Then broker and repository are taken away.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

if TYPE_CHECKING:
    from examples.digits.broker import HOST, Broker
    from examples.digits.mix_up import mixed_up
    from examples.digits.release import all_of, bundle, everything, say
    from examples.digits.steady import Steady
else:  # the files beside this one, found there when the demo is run as a script
    from broker import HOST, Broker
    from mix_up import mixed_up
    from release import all_of, bundle, everything, say
    from steady import Steady

HERE: Final = Path(__file__).parent
PROGRAMS: Final = Path(sys.executable).parent
FLEET: Final = "demo"
DEVICE: Final = "camera-1"
STEP_S: Final = 180.0
WAITING: Final = 5

AGENT: Final = """\
state_dir = "{folder}/agent"
[device]
id = "camera-1"
fleet = "demo"
[runtime]
admin_socket = "{folder}/admin.sock"
poll_s = 1.0
[repository]
url = "{url}"
root = "{folder}/repo/root.json"
doorbell_jitter_s = 0.0
[downloads]
reserve_bytes = 0
[outbox]
drain_jitter_s = 0.0
[telemetry]
interval_s = 1.0
[mqtt]
reconnect_most_s = 1.0
[[mqtt.brokers]]
host = "127.0.0.1"
port = {port}
tls = false
"""
PLAN: Final = """\
rollout = "digits-{version}"
model = "digits"
version = {version}
[[stages]]
permyriad = 10000
"""


class Operator:
    """Announces, and hears what the device says.

    Attributes:
        ended: The last word about each version: succeeded, failed or rejected, and why.
        batches: Batches of measurements that came.
    """

    def __init__(self, broker: Broker) -> None:
        self.ended: dict[int, tuple[str, str]] = {}
        self.batches = 0
        self._broker = broker
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="operator")
        self._client.on_connect = lambda client, *_: client.subscribe(f"edge/v1/{FLEET}/#", qos=1)
        self._client.on_message = self._heard
        self._client.reconnect_delay_set(1, 1)
        self._client.connect(HOST, broker.port)
        self._client.loop_start()

    def announce(self, timestamp: Path) -> None:
        """Publish the signed timestamp: a doorbell, not an order."""
        topic = f"edge/v1/{FLEET}/announce/timestamp"
        self._client.publish(topic, timestamp.read_bytes(), qos=1, retain=True)

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()
        self._client.loop_stop()

    def _heard(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/m"):
            self.batches += 1
            return
        if "/jobs/" not in message.topic or message.topic.endswith("/summary"):
            return
        job = json.loads(json.loads(message.payload)["payload"])
        reason = f" ({job['reason']})" if job.get("reason") else ""
        say(f"     {message.topic.rpartition('/')[2]}: {job['state']}, {job['step']}{reason}")
        if job["state"] in {"succeeded", "failed", "rejected"}:
            self.ended[job["version"]] = job["state"], job.get("text", "")


def show(socket: Path, folder: Path) -> bool:
    """Run the fleet's side, the broker and the agent beside the daemon that runs.

    Args:
        socket: The daemon's data socket; the admin socket is beside it.
        folder: For what is made here; the goldens lie there.

    Returns:
        Whether everything went as it must.
    """
    say("\n6. a fleet: signed releases, announced over MQTT, pulled by the agent of this device")
    _make_repository(folder)
    broker = Broker(folder)
    broker.start()
    say(f"   the broker is {broker.name}; the repository is plain files behind a web server")
    server, url = _serve(folder)
    (folder / "agent.toml").write_text(AGENT.format(folder=folder, url=url, port=broker.port))
    operator = Operator(broker)
    images, labels = everything()
    steady = Steady(socket, images, labels)
    steady.start()
    say("   $ edge-agent run --config agent.toml")
    agent = _agent(folder)
    try:
        right = [
            _good(operator, folder, steady),
            _bad(operator, folder),
            _alone(broker, server, operator, folder, steady),
        ]
    finally:
        steady.stop()
        agent.terminate()
        ended = agent.wait(STEP_S)
        operator.close()
        server.terminate()
        server.wait(STEP_S)
        broker.stop()
    say(f"   Requests meanwhile: {steady.asked}, failed: {len(steady.failed)}")
    return all_of(
        {"the agent ended with 0": ended == 0, "no request failed": not steady.failed}
    ) and all(right)


def _good(operator: Operator, folder: Path, steady: Steady) -> bool:
    say("\n7. version 4, the int8 model again, is signed, planned for everybody, and announced")
    _publish(bundle(HERE / "digits-int8.onnx", 4, folder), 4, operator, folder)
    found = _until(lambda: 4 in operator.ended)
    _until(lambda: steady.answered["4"] > 0)
    return all_of(
        {
            "the operator heard that version 4 succeeded": found
            and operator.ended[4][0] == "succeeded",
            "version 4 answers": steady.answered["4"] > 0,
        }
    )


def _bad(operator: Operator, folder: Path) -> bool:
    say("\n8. version 5 mixes two digits up, and is signed all the same")
    model = folder / "digits-spoilt-5.onnx"
    # A comment makes it another file: the one of version 2 would be known and refused at the door.
    comment = b"\x32\x05again"  # protobuf's field 6, ModelProto.doc_string
    model.write_bytes(mixed_up((HERE / "digits-fp32.onnx").read_bytes()) + comment)
    _publish(bundle(model, 5, folder), 5, operator, folder)
    found = _until(lambda: 5 in operator.ended)
    if found:
        say(f"     {operator.ended[5][1]}")
    explained = _run(folder, "edge-agent", "explain", "digits", "--config=agent.toml")
    say("   $ edge-agent explain digits")
    for line in explained.splitlines()[:3]:
        say(f"     {line}")
    return all_of(
        {
            "the operator heard that version 5 failed": found and operator.ended[5][0] == "failed",
            "the device will not take it again": "none" in explained.splitlines()[0],
        }
    )


def _alone(
    broker: Broker,
    server: "subprocess.Popen[bytes]",
    operator: Operator,
    folder: Path,
    steady: Steady,
) -> bool:
    say("\n9. the broker and the repository go away")
    server.terminate()
    broker.stop()
    before, asked = operator.batches, steady.asked
    waits = _until(lambda: _metrics(folder) >= WAITING)
    say(f"     {steady.asked - asked} predictions without them; {_metrics(folder)} batches wait")
    is_alive = steady.asked > asked and not steady.failed
    broker.start()
    drained = _until(lambda: _metrics(folder) == 0)
    came = _until(lambda: operator.batches - before >= WAITING)
    say(f"     the broker is back: {operator.batches - before} batches came, 0 wait")
    return all_of(
        {
            "predictions went on": is_alive,
            "measurements waited": waits,
            "and came when the broker was back": drained and came,
        }
    )


def _make_repository(folder: Path) -> None:
    _shown(folder, "edge-fleet", "repo", "init", "repo", "--fleet", FLEET, "--keys", "keys")
    _run(folder, "edge-fleet", "repo", "show", "repo")


def _publish(name: str, version: int, operator: Operator, folder: Path) -> None:
    (folder / "plan.toml").write_text(PLAN.format(version=version), "utf-8")
    add = ["release", "add", "repo", name, "--keys", "keys", "--sign", "keys/offline/releases.pem"]
    _shown(folder, "edge-fleet", "repo", *add)
    plan = ["plan", "set", "repo", "plan.toml", "--channel", "stable", "--keys", "keys"]
    _shown(folder, "edge-fleet", "repo", *plan)
    operator.announce(folder / "repo" / "metadata" / "timestamp.json")


def _serve(folder: Path) -> "tuple[subprocess.Popen[bytes], str]":
    command = [str(PROGRAMS / "edge-fleet"), "repo", "serve", "repo", "--port", "0", "--json"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE)
    assert server.stdout is not None  # noqa: S101 - it is a pipe
    text = ""
    while not text.rstrip().endswith("}"):
        line = server.stdout.readline().decode()
        if not line:
            sys.exit("edge-fleet repo serve ended at once")
        text += line
    url: str = json.loads(text)["url"]
    return server, url


def _agent(folder: Path) -> "subprocess.Popen[bytes]":
    clean = {key: text for key, text in os.environ.items() if not key.startswith("EDGE_")}
    command = [str(PROGRAMS / "edge-agent"), "run", "--config", "agent.toml"]
    with (folder / "agent.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=clean, stderr=log)


def _metrics(folder: Path) -> int:
    """Count the batches that wait."""
    text = _run(folder, "edge-agent", "status", "--json", "--config=agent.toml")
    try:
        found: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:
        return -1
    waiting: int = found["outbox"]["metrics"]
    return waiting


def _until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + STEP_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _shown(folder: Path, program: str, *words: str) -> None:
    say(f"   $ {program} {' '.join(words)}")
    _run(folder, program, *words, must=True)


def _run(folder: Path, program: str, *words: str, must: bool = False) -> str:
    command = [str(PROGRAMS / program), *words]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if must and done.returncode != 0:
        sys.exit(f"{program} failed: {done.stderr}")
    return done.stdout
