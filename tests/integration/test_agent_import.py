"""``edge-agent import``: verified where it was laid out, then put in place whole, or not at all."""

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest

from edge_runtime.failpoints import VARIABLE
from fleet.repository.export import export
from fleet.repository.key_files import Keys
from fleet.repository.refreshing import refresh
from fleet.repository.rotation import rotate
from fleet.repository.state import now
from tests.agent_site import COMMAND, STORY_S, AgentProcess
from tests.daemons import eventually
from tests.repositories import CHANNEL, TestRepository, new_repository, tree

pytestmark = pytest.mark.integration

MODEL = "digits"
POINTS = ("agent.import.laid_out", "agent.import.verified", "agent.import.placed")


@pytest.fixture
def repository(tmp_path: Path) -> TestRepository:
    """A repository that no network leads to, with one release and a plan."""
    (tmp_path / "origin").mkdir()
    made = new_repository(tmp_path / "origin", fleet="shop")
    made.add_bundle(model=MODEL)
    made.set_plan(model=MODEL)
    return made


@pytest.fixture
def agent(tmp_path: Path, repository: TestRepository) -> Iterator[AgentProcess]:
    """An agent without a network; not started. Its folder is short, since sockets need that."""
    folder = tmp_path / "a"
    folder.mkdir()
    text = (
        '[device]\nid = "till-7"\nfleet = "shop"\nclock_is_trusted = "yes"\n'
        f'[runtime]\nadmin_socket = "{folder}/nobody.sock"\n'
        f'[repository]\nroot = "{repository.root}"\n[downloads]\nreserve_bytes = 0\n'
    )
    made = AgentProcess(folder, text)
    yield made
    made.close()


def exported(repository: TestRepository, path: Path) -> Path:
    export(repository.layout, path, CHANNEL)
    return path


def next_version(repository: TestRepository, version: int = 2) -> None:
    repository.add_bundle(model=MODEL, version=version)
    repository.set_plan(model=MODEL, version=version, sequence=version)


def rewritten(archive: Path, into: Path, name_ends: str, data: bytes) -> Path:
    """Copy an export with another content of one of its files."""
    with tarfile.open(archive) as old, tarfile.open(into, "w") as new:
        for member in old.getmembers():
            file = old.extractfile(member)
            content = b"" if file is None else file.read()
            if member.name.endswith(name_ends):
                content = data
            member.size = len(content)
            new.addfile(member, BytesIO(content))
    return into


def believed(agent: AgentProcess) -> dict[str, object]:
    """Give everything that the agent keeps but for its database, whose floors are asked apart.

    A running agent may be writing it, and the copy of what is in it, at any time.
    """
    own = ("agent.db", ".agent.db", "agent.lock", "agent.sock", "outbox.seq")
    found: dict[str, object] = {}
    for path in sorted(agent.state.iterdir()):
        if path.is_dir():
            found[path.name] = ""
            found |= {f"{path.name}/{name}": content for name, content in tree(path).items()}
        elif not path.name.startswith(own):
            found[path.name] = path.read_bytes()
    return found


def place(agent: AgentProcess) -> Path:
    return agent.state / "imported"


def bad_exports(repository: TestRepository, folder: Path) -> dict[str, Path]:
    """Make exports that nobody may believe, of a newer state than ``repository`` has now."""
    old = exported(repository, folder / "old.tar")
    next_version(repository)
    new = exported(repository, folder / "new.tar")
    forged = json.loads(repository.timestamp())
    forged["signed"]["version"] += 7
    found = {
        "must be >=": old,
        "signed by": rewritten(
            new, folder / "forged.tar", "timestamp.json", json.dumps(forged).encode()
        ),
    }
    repository.set_plan(model=MODEL, version=2, sequence=3)
    return found


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "not-running"])
def test_a_refused_import_changes_nothing_on_the_disk(
    agent: AgentProcess, repository: TestRepository, tmp_path: Path, *, is_running: bool
) -> None:
    bad = bad_exports(repository, tmp_path)
    good = exported(repository, tmp_path / "good.tar")
    if is_running:
        agent.start()
        eventually(agent.is_up, "the agent", STORY_S)
    assert "every signature was right" in agent.command("import", str(good)).stdout
    before = believed(agent)
    assert before
    for reason, archive in bad.items():
        done = agent.command("import", str(archive), expect=1)
        assert f"nothing of {archive} was taken" in done.stderr
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
        assert believed(agent) == before


def test_a_refused_first_import_leaves_no_folder_of_it(
    agent: AgentProcess, repository: TestRepository, tmp_path: Path
) -> None:
    bad = bad_exports(repository, tmp_path)["signed by"]
    done = agent.command("import", str(bad), expect=1)
    assert "all is as it was" in done.stderr
    assert not list(agent.state.glob("imported*"))
    assert not (agent.state / "tuf").exists()


def test_after_a_kill_at_any_moment_the_old_or_the_new_import_is_whole(
    agent: AgentProcess, repository: TestRepository, tmp_path: Path
) -> None:
    old = exported(repository, tmp_path / "old.tar")
    next_version(repository)
    new = exported(repository, tmp_path / "new.tar")
    agent.command("import", str(old))
    whole = tree(place(agent))
    for point in POINTS:
        done = subprocess.run(
            [COMMAND, "import", "--config", str(agent.config), str(new)],
            env={**os.environ, VARIABLE: f"{point}=kill"},
            capture_output=True,
            check=False,
        )
        assert done.returncode < 0, done.stderr
        if point != POINTS[-1]:
            assert tree(place(agent)) == whole
    with tarfile.open(new) as archive:
        files = {each.name for each in archive.getmembers() if each.isfile()}
    assert files <= set(tree(place(agent)))
    agent.command("import", str(new))
    assert files <= set(tree(place(agent)))
    assert len(list(agent.state.glob("imported*"))) == 2


@pytest.mark.parametrize("point", ["renamed", "adopted"])
@pytest.mark.parametrize("is_running", [True, False], ids=["running", "not-running"])
def test_a_disk_that_fails_after_an_import_is_believed_parts_no_files_from_their_metadata(
    agent: AgentProcess,
    repository: TestRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    *,
    is_running: bool,
) -> None:
    old = exported(repository, tmp_path / "old.tar")
    next_version(repository)
    new = exported(repository, tmp_path / "new.tar")
    agent.command("import", str(old))
    if is_running:
        agent.start(f"agent.trust.{point}=error")
        eventually(agent.is_up, "the agent", STORY_S)
    else:
        monkeypatch.setenv(VARIABLE, f"agent.trust.{point}=error")
    done = agent.command("import", str(new), expect=1)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert "the import is believed and in place" in done.stderr
    assert "all is as it was" not in done.stderr
    with tarfile.open(new) as archive:
        files = {each.name for each in archive.getmembers() if each.isfile()}
    assert files <= set(tree(place(agent)))
    timestamp = (agent.state / "tuf" / "timestamp.json").read_bytes()
    assert timestamp == repository.timestamp()
    if is_running:
        agent.stop()
    agent.command("import", str(new))
    refused = agent.command("import", str(old), expect=1)
    assert "all is as it was" in refused.stderr


@pytest.mark.parametrize("is_given_anew", [True, False], ids=["new-root-given", "old-root"])
def test_an_import_with_new_keys_brings_back_a_device_that_a_thief_carried_ahead(
    agent: AgentProcess, repository: TestRepository, tmp_path: Path, *, is_given_anew: bool
) -> None:
    text = agent.config.read_text("utf-8")
    if not is_given_anew:
        first = tmp_path / "first-root.json"
        first.write_bytes(repository.root.read_bytes())
        text = text.replace(str(repository.root), str(first))
    text = text.replace('clock_is_trusted = "yes"', 'clock_is_trusted = "no"')
    agent.config.write_text(text, "utf-8")
    agent.command("import", str(exported(repository, tmp_path / "p0.tar")))
    ahead = now() + timedelta(days=200)
    repository.refresh(at=ahead)
    stolen = exported(repository, tmp_path / "p1.tar")
    agent.command("import", str(stolen))
    for role in ("timestamp", "snapshot"):
        new = repository.keys_folder / f"new-{role}"
        keys = Keys([repository.keys_folder, *repository.keys_folder.glob("new-*")])
        rotate(repository.layout, role, keys, new, passphrase=None, now=now())
    keys = Keys([repository.keys_folder, *repository.keys_folder.glob("new-*")])
    assert refresh(repository.layout, keys, older_than=None, now=now()).signed.versions == {}
    assert repository.plans().issued_s < ahead.timestamp()
    agent.command("import", str(exported(repository, tmp_path / "p2.tar")))
    timestamp = (agent.state / "tuf" / "timestamp.json").read_bytes()
    assert timestamp == repository.timestamp()


def test_two_imports_at_once_are_one_after_the_other_or_refused(
    agent: AgentProcess, repository: TestRepository, tmp_path: Path
) -> None:
    file = exported(repository, tmp_path / "x.tar")
    command = [COMMAND, "import", "--config", str(agent.config), str(file)]
    both = [
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    told = [each.communicate(timeout=STORY_S)[1] for each in both]
    assert 0 in {each.returncode for each in both}, told
    assert all("Traceback" not in text for text in told)
    assert (place(agent) / "metadata" / "timestamp.json").exists()
