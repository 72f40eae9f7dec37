"""The second half of ``make demo``: a bad version that removes itself, and a good one that stays.

All the while a thread asks, and no request may fail. The daemon does the work by itself; what is
called here is what an operator would call.
"""

import json
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from examples.digits.mix_up import MIXED, mixed_up
    from examples.digits.steady import Steady
else:  # the files beside this one, found there when the demo is run as a script
    from mix_up import MIXED, mixed_up
    from steady import Steady

HERE: Final = Path(__file__).parent
COMMAND: Final = str(Path(sys.executable).with_name("edge-runtime"))
WIDTH: Final = 96
GOLDENS: Final = 16
GOLDENS_FILE: Final = "goldens.npz"
RELEASE_S: Final = 150.0  # a good one takes about 12 s, where nothing else runs
ACCURACY_MIN: Final = 0.96
HISTORY_LINES: Final = 11

SETTINGS: Final = """\
# Steps of seconds, so that nobody waits for a demo. The defaults are minutes: configuration.md
[release]
block_s = 0.02           # 50 comparisons a second (1.0)
shadow_cpu_share = 0.5   # of one CPU, for comparisons (0.1)
shadow_s = 20.0          # most time of the shadow (600)
weights = [10, 50, 100]  # percent of the requests that the canary gets (5, 25, 50, 100)
canary_s = 5.0           # most time of each of these steps (300)
probation_s = 2.0        # time under watch before it is committed (600)

[models.digits.release]
latency_ratio_max = 3.0  # runs of 0.02 ms say little while other programs work here too (1.5)

[log]
level = "warning"        # the story is told here ("info")
"""


def show(socket: Path, folder: Path) -> bool:
    """Release a bad version and a good one, while requests come in.

    Args:
        socket: The daemon's data socket; the admin socket is beside it.
        folder: For what is made here.

    Returns:
        Whether everything went as it must.
    """
    _make_goldens(folder / GOLDENS_FILE)
    images, labels = everything()
    steady = Steady(socket, images, labels)
    steady.start()
    try:
        right = [_bad(socket, folder, steady), _good(socket, folder, steady)]
        _history(socket)
    finally:
        steady.stop()
    return _requests(steady) and all(right)


def _bad(socket: Path, folder: Path, steady: Steady) -> bool:
    say(
        "\n4. a release that goes wrong, while a thread asks: version 2 was trained with two labels"
    )
    say(f"   exchanged, {MIXED[0]} and {MIXED[1]}; its goldens show neither, so they are met")
    model = folder / "digits-spoilt.onnx"
    model.write_bytes(mixed_up((HERE / "digits-fp32.onnx").read_bytes()))
    ended = _stage(bundle(model, 2, folder), socket, folder)
    now = _status(socket)
    last = now["releases"][0]
    say(f"   It ended {last['state']}, cause {last['cause']}:")
    say(textwrap.fill(last["reason"], WIDTH, initial_indent="     ", subsequent_indent="     "))
    say(f"   Answers by version until here: {dict(steady.answered)}; failed: {len(steady.failed)}")
    return all_of(
        {
            "the command said so with exit code 1": ended == 1,
            "version 2 was rolled back by the evidence": (last["version"], last["state"])
            == (2, "rolled-back")
            and last["cause"] == "verdict",
            "nobody ever got an answer of version 2": not steady.answered["2"],
        }
    )


def _good(socket: Path, folder: Path, steady: Steady) -> bool:
    say("\n5. a release that goes well: version 3 is the float model")
    ended = _stage(bundle(HERE / "digits-fp32.onnx", 3, folder), socket, folder)
    now = _status(socket)
    last = now["releases"][0]
    say(f"   It ended {last['state']}. What answers now has the digest of the release:")
    say(f"     {now['running_digest'][:12]}, and `release rollback` leads to {now['previous']}.")
    return all_of(
        {
            "the command said so with exit code 0": ended == 0,
            "version 3 was committed": (last["version"], last["state"]) == (3, "committed"),
            "version 3 is what really answers": now["running_digest"] == last["digest"],
            "it answered requests": bool(steady.answered["3"]),
        }
    )


def _history(socket: Path) -> None:
    say("\n   The last lines of the history, newest first:")
    limit = ["--limit", str(HISTORY_LINES)]
    say(f"   $ edge-runtime release history digits {' '.join(limit)}")
    text = _command("release", "history", "digits", *limit, socket=socket).stdout
    for line in text.splitlines():
        say(f"   {line}")


def _requests(steady: Steady) -> bool:
    asked, failed = steady.asked, len(steady.failed)
    accuracy = 1 - sum(steady.wrong.values()) / max(1, sum(steady.answered.values()))
    say(f"\n   Requests meanwhile: {asked}, failed: {failed}, right: {accuracy:.2%}")
    for why in steady.failed[:3]:
        say(f"     {why}")
    return all_of(
        {
            "no request failed": asked > 0 and not failed,
            "the answers were right all the time": accuracy >= ACCURACY_MIN,
        }
    )


def _stage(bundle: str, socket: Path, folder: Path) -> int:
    """Stage a bundle and wait for its end, telling the steps as they come; gives the exit code."""
    say(f"   $ edge-runtime release stage {bundle} --wait")
    command = [COMMAND, "release", "stage", bundle, "--wait", *_admin(socket)]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    ) as staging:
        limit = threading.Timer(RELEASE_S, staging.terminate)
        limit.start()
        assert staging.stderr is not None  # noqa: S101 - it is a pipe
        for line in staging.stderr:
            say(f"     {textwrap.shorten(line.strip(), WIDTH, placeholder=' ...')}")
        limit.cancel()
        return staging.wait()


def bundle(model: Path, version: int, folder: Path) -> str:
    """Make a bundle with the command; gives its name in the folder."""
    name = f"digits-{version}"
    say(f"   $ edge-runtime bundle create {model.name} --name digits --version {version} \\")
    say(f"          --goldens {GOLDENS_FILE} -o {name}")
    made = _command(
        "bundle",
        "create",
        str(model.resolve()),
        "--name=digits",
        f"--version={version}",
        f"--goldens={folder / GOLDENS_FILE}",
        f"--output={folder / name}",
    )
    if made.returncode != 0:
        sys.exit(f"the bundle could not be made: {made.stderr}")
    return name


def _make_goldens(path: Path) -> None:
    """Take held-out images as goldens, none of the digits that version 2 mixes up."""
    images, labels = _images("test.npz")
    plain = ~np.isin(labels, MIXED)
    np.savez(path, image=images[plain][:GOLDENS], label=labels[plain][:GOLDENS])


def everything() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Give all images, ``[n, 1, 8, 8]``, and their labels."""
    pairs = [_images("test.npz"), _images("train.npz")]
    return np.concatenate([each[0] for each in pairs]), np.concatenate([each[1] for each in pairs])


def _images(name: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    with np.load(HERE / name, allow_pickle=False) as data:
        return data["image"], data["labels"]


def _status(socket: Path) -> dict[str, Any]:
    text = _command("release", "status", "digits", "--json", socket=socket).stdout
    found: dict[str, Any] = json.loads(text)
    return found


def _command(*words: str, socket: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [COMMAND, *words, *(_admin(socket) if socket is not None else ())]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _admin(socket: Path) -> list[str]:
    return ["--socket", str(socket.with_name("admin.sock"))]


def all_of(promises: dict[str, bool]) -> bool:
    """Show which promises hold, and tell whether all do."""
    for promise, holds in promises.items():
        say(f"   {'ok   ' if holds else 'WRONG'} {promise}")
    return all(promises.values())


def say(text: str) -> None:
    """Tell the story."""
    print(text, flush=True)
