"""The repository as devices meet it: over HTTP with python-tuf's client, and after kill -9."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from hashlib import sha256
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from agent.download.air_gap import ImportLimits, import_file
from edge_runtime.manifest import MANIFEST_FILE, SIGNATURE_FILE
from fleet.documents.paths import artifact_url_path, chunks_path, plans_path
from fleet.documents.plan import read_plans
from fleet.documents.release import release_of
from fleet.repository.export import export
from fleet.repository.key_files import Keys
from fleet.repository.layout import Layout
from fleet.repository.rotation import rotate
from fleet.repository.state import now
from tests.every_row import every
from tests.repositories import (
    MODEL,
    TestRepository,
    make_repository,
    new_repository,
    problems,
    write_bundle,
)
from tests.signing import key_file
from tests.store_bundles import EXTERNAL, ONNX

pytestmark = pytest.mark.integration

LARGE = b"".join(sha256(str(n).encode()).digest() for n in range(50_000))
FILES = {"a/model.onnx": EXTERNAL, "a/weights.bin": LARGE, "odd name #1%.onnx": ONNX}
FLEET = (sys.executable, "-m", "fleet")
KILLER = Path(__file__).parents[1] / "fleet_killer.py"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[TestRepository]:
    with make_repository(tmp_path, files=FILES) as made:
        yield made


def _client(repository: TestRepository, folder: Path) -> Updater:
    folder.mkdir(exist_ok=True)
    return Updater(
        str(folder), f"{repository.metadata_url}/", bootstrap=repository.root.read_bytes()
    )


def _get(url: str, **headers: str) -> tuple[int, Message, bytes]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=names)) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_a_client_verifies_and_downloads_every_file_of_a_release(
    repository: TestRepository, tmp_path: Path
) -> None:
    client = _client(repository, tmp_path / "client")
    client.refresh()
    names = [*FILES, MANIFEST_FILE, SIGNATURE_FILE, "a/weights.bin.chunks"]
    for name in names:
        target = client.get_targetinfo(f"models/{MODEL}/1/{name}")
        assert target is not None, name
        path = artifact_url_path(target.path, target.hashes["sha256"])
        status, _, data = _get(f"{repository.artifacts_url}/{path}")
        assert status == 200
        target.verify_length_and_hashes(data)
        assert name not in FILES or data == FILES[name]


def test_a_client_reads_the_facts_and_the_plans(repository: TestRepository, tmp_path: Path) -> None:
    client = _client(repository, tmp_path / "client")
    client.refresh()
    manifest = client.get_targetinfo(f"models/{MODEL}/1/{MANIFEST_FILE}")
    assert manifest is not None
    assert release_of(manifest.custom, "custom") == repository.facts()
    target = client.get_targetinfo(plans_path("stable"))
    assert target is not None
    path = artifact_url_path(target.path, target.hashes["sha256"])
    _, _, data = _get(f"{repository.artifacts_url}/{path}")
    assert read_plans(data, path) == repository.plans()
    assert client.get_targetinfo(chunks_path(MODEL, 1, "b")) is None
    assert client.get_targetinfo("somewhere/else") is None


def test_a_client_sees_new_plans_and_follows_new_keys(
    repository: TestRepository, tmp_path: Path
) -> None:
    _client(repository, tmp_path / "client").refresh()
    before = _client(repository, tmp_path / "client").get_targetinfo(plans_path("stable"))
    repository.set_plan(order="hold")
    after = _client(repository, tmp_path / "client").get_targetinfo(plans_path("stable"))
    assert before is not None
    assert after is not None
    assert before.hashes != after.hashes
    new = str(tmp_path / "new")
    for role in ("root", "timestamp", "rollouts"):
        keys = ["--keys", str(repository.keys_folder), "--new-keys", new]
        keys += ["--keys", new] if role != "root" else []
        _run("repo", "rotate", str(repository.folder), role, *keys)
        client = _client(repository, tmp_path / "client")
        client.refresh()
        assert client.get_targetinfo(plans_path("stable")) is not None


def test_a_download_is_resumed_at_the_byte_and_only_of_the_same_file(
    repository: TestRepository,
) -> None:
    digest = sha256(LARGE).hexdigest()
    path = artifact_url_path(f"models/{MODEL}/1/a/weights.bin", digest)
    url = f"{repository.artifacts_url}/{path}"
    status, headers, data = _get(url)
    assert (status, data) == (200, LARGE)
    assert headers["accept-ranges"] == "bytes"
    assert headers["etag"] == f'"{digest}"'
    assert "immutable" in headers["cache-control"]
    status, headers, data = _get(url, Range="bytes=1000000-", If_Range=headers["etag"])
    assert (status, data) == (206, LARGE[1_000_000:])
    assert headers["content-range"] == f"bytes 1000000-{len(LARGE) - 1}/{len(LARGE)}"
    status, _, data = _get(url, Range="bytes=5-6", If_Range='"another"')
    assert (status, data) == (200, LARGE)
    assert _get(url, Range="bytes=5-6")[2] == LARGE[5:7]
    assert _get(url, Range=f"bytes={len(LARGE)}-")[0] == 416
    assert _get(url, If_None_Match=f'"{digest}"')[0] == 304


def test_only_what_is_public_is_shown(repository: TestRepository) -> None:
    assert _get(f"{repository.url}/root.json")[2] == repository.root.read_bytes()
    status, headers, data = _get(f"{repository.metadata_url}/timestamp.json")
    assert (status, data) == (200, repository.timestamp())
    assert headers["cache-control"] == "no-cache"
    for path in (
        "repository.json",
        ".lock",
        "",
        "metadata/",
        "metadata/99.root.json",
        "metadata/..%2frepository.json",
        "artifacts/%2e%2e/repository.json",
        f"artifacts/models/{MODEL}",
    ):
        assert _get(f"{repository.url}/{path}")[0] == 404, path


def test_an_export_is_a_repository_of_its_own(repository: TestRepository, tmp_path: Path) -> None:
    repository.add_bundle(model="other")
    repository.set_plan(model="other")
    folder, tar = str(repository.folder), tmp_path / "x.tar"
    _run("repo", "export", folder, "-o", str(tar), "--channel", "stable", "--model", MODEL)
    out = tmp_path / "out"
    with tarfile.open(tar) as archive:
        names = archive.getnames()
        archive.extractall(out, filter="data")
    assert names[0] == "metadata/timestamp.json"
    assert not any("other" in name for name in names)
    for path in out.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (repository.folder / path.relative_to(out)).read_bytes()
    assert (out / "artifacts" / f"models/{MODEL}/1").is_dir()


def test_an_export_is_what_the_agent_imports(tmp_path: Path) -> None:
    repository = new_repository(tmp_path)
    repository.add_bundle({"a/model.onnx": EXTERNAL, "a/weights.bin": LARGE, "b c.onnx": ONNX})
    repository.set_plan()
    tar = tmp_path / "x.tar"
    exported = export(repository.layout, tar, "stable")
    done = import_file(
        tar, tmp_path / "in", ImportLimits(), lambda _done, _all: None, threading.Event()
    )
    assert done.files == exported.files
    for path in done.folder.rglob("*"):
        if path.is_file():
            place = repository.folder / path.relative_to(done.folder)
            assert path.read_bytes() == place.read_bytes()


@contextmanager
def _serving(*argv: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [*FLEET, "repo", "serve", *argv, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        yield json.loads("".join(lines))["url"], process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    repository = new_repository(tmp_path)
    with _serving(str(repository.folder)) as (url, process):
        assert _get(f"{url}/metadata/timestamp.json")[2] == repository.timestamp()
        process.send_signal(number)
        assert process.wait(60.0) == 0


def test_serve_says_that_an_address_is_taken(tmp_path: Path) -> None:
    repository = new_repository(tmp_path)
    with _serving(str(repository.folder)) as (url, _):
        port = url.rpartition(":")[2]
        done = _run("repo", "serve", str(repository.folder), "--port", port, code=4)
        assert "choose another" in done.stderr


def _run(*argv: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*FLEET, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def _killed(number: int, when: str, *argv: str) -> bool:
    """Run a command that is killed at a change of a name; tell whether it was."""
    command = [sys.executable, str(KILLER), str(number), when, *argv]
    environment = {**os.environ, "PYTHONPATH": str(KILLER.parents[1])}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0


def _repeat(repository: TestRepository, command: str, new: Path) -> None:
    """Do again what was killed, and see that it is done."""
    if command == "release add":
        repository.add(repository.folder.parent / "two")
        assert repository.facts(version=2).counter == 2
    elif command == "plan set":
        assert repository.set_plan(rollout="r").sequence == 2
        assert repository.plans().plans[0].rollout == "r"
    else:
        keys = Keys([repository.keys_folder, *([new] if new.exists() else [])])
        again = new.with_name("again")
        done = rotate(repository.layout, "releases", keys, again, passphrase=None, now=now())
        assert done.signed.pending == ()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("command", ["release add", "plan set", "rotate"])
def test_kill_9_at_any_rename_leaves_a_whole_repository_and_the_command_can_be_repeated(
    tmp_path: Path, command: str, when: str
) -> None:
    first = new_repository(tmp_path / "0")
    first.add_bundle()
    first.set_plan()
    write_bundle(tmp_path / "0" / "two", {"model.onnx": ONNX}, version=2)
    fields = {"rollout": "r", "model": MODEL, "version": 1, "stages": [{"permyriad": 10_000}]}
    (tmp_path / "0" / "plan.json").write_text(json.dumps(fields), "utf-8")
    key_file(tmp_path / "0", "publisher")
    number, was_killed = 0, True
    while was_killed:
        number += every(3)
        here = tmp_path / str(number)
        shutil.copytree(tmp_path / "0", here)
        repository = TestRepository(Layout(here / "repository"), here / "keys", "")
        folder, keys = str(repository.folder), str(repository.keys_folder)
        signer = f"{here}/publisher.pem"
        argv = {
            "release add": ["release", "add", folder, f"{here}/two", "--sign", signer],
            "plan set": ["plan", "set", folder, f"{here}/plan.json", "--channel", "stable"],
            "rotate": ["rotate", folder, "releases", "--new-keys", f"{here}/new"],
        }[command]
        was_killed = _killed(number, when, "repo", *argv, "--keys", keys)
        assert problems(repository) == (), number
        _repeat(repository, command, here / "new")
        assert problems(repository) == (), number
        assert not list(repository.folder.rglob(".*.new"))
        assert not list(repository.folder.glob(".staging-*"))
    assert number > 4  # at least an artifact or a key, its metadata, snapshot and timestamp
