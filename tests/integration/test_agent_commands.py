"""Every command of the installed ``edge-agent``, from outside: what it says, its code, the disk."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.topics import Topics
from tests.agent_site import COMMAND, STORY_S, AgentProcess
from tests.brokers import free_port
from tests.daemons import eventually
from tests.enrolment_server import EnrolmentServer, enrolment_server
from tests.repositories import TestRepository, new_repository, served, tree

pytestmark = pytest.mark.integration

NAMED = '[device]\nid = "till-7"\nfleet = "shop"\nclock_is_trusted = "yes"\n'
MODEL = "digits"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a short folder: sockets have at most 107 bytes."""
    short = tmp_path / "a"
    short.mkdir()
    return short


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[TestRepository]:
    """A repository that is served, with one release and a plan."""
    (tmp_path / "origin").mkdir()
    made = new_repository(tmp_path / "origin", fleet="shop")
    made.add_bundle(model=MODEL)
    made.set_plan(model=MODEL)
    with served(made):
        yield made


def agent_of(
    folder: Path, repository: TestRepository | None = None, more: str = ""
) -> AgentProcess:
    text = NAMED + f'[runtime]\nadmin_socket = "{folder}/nobody.sock"\n'
    if repository is not None:
        text += f'[repository]\nurl = "{repository.url}"\nroot = "{repository.root}"\n'
    return AgentProcess(folder, text + more)


@pytest.fixture
def running(folder: Path, repository: TestRepository) -> Iterator[AgentProcess]:
    """An agent that runs and has looked at the repository; no daemon answers, and no broker."""
    port = free_port()
    agent = agent_of(
        folder,
        repository,
        f'[telemetry]\ninterval_s = 0.2\n[[mqtt.brokers]]\nhost = "127.0.0.1"\nport = {port}\n'
        "tls = false\n",
    )
    agent.start()
    try:
        eventually(agent.is_up, "the agent", STORY_S)
        eventually(lambda: agent.status()["repository"]["checked_s"] > 0, "a look", STORY_S)
        yield agent
    finally:
        agent.close()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: text for key, text in os.environ.items() if "EDGE_" not in key}
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**clean, **environment},
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Check that a command said no with one clear sentence, and without a trace of Python."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[device\n", ("agent.toml",)),
        ("[device]\nid = 7\n", ("device.id",)),
        ("[devise]\n", ("devise",)),
        ('[device]\nfleet = "Shop!"\n', ("fleet",)),
        ("", ("belongs to no fleet", "enrol")),
        (NAMED + '[mqtt]\nprotocol = "4"\n', ("protocol",)),
        (NAMED + '[mqtt]\ncommand_key = "/nowhere"\n', ("command_key", "/nowhere")),
    ],
    ids=["toml", "type", "section", "pattern", "no-fleet", "protocol", "key"],
)
def test_a_wrong_configuration_is_refused_before_anything_runs(
    folder: Path, text: str, words: tuple[str, ...]
) -> None:
    agent = AgentProcess(folder, text)
    refused(agent.command("run", expect=None), 4, *words)
    assert not (agent.state / "agent.db").exists()
    assert not (agent.state / "agent.sock").exists()
    agent.close()


def test_a_configuration_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    refused(run("run", "--config", str(tmp_path / "no.toml")), 4, "no.toml")
    refused(run("fly"), 4, "fly")
    refused(run("outbox", "--limit", "none"), 4, "none")


def test_a_second_agent_on_the_same_state_is_refused_and_the_first_goes_on(
    running: AgentProcess,
) -> None:
    refused(running.command("run", expect=None), 4, "another edge-agent uses")
    refused(running.command("prepare-image", "--yes", expect=None), 4, "another edge-agent")
    assert running.is_up()
    assert running.stop(signal.SIGTERM) == 0
    assert not (running.state / "agent.sock").exists()


def test_the_agent_holds_neither_numpy_nor_onnxruntime(running: AgentProcess) -> None:
    assert running.process is not None
    mapped = Path(f"/proc/{running.process.pid}/maps").read_text("utf-8")
    assert "libpython" in mapped or "python" in mapped
    assert "numpy" not in mapped
    assert "onnxruntime" not in mapped


def test_a_question_loads_neither_tuf_nor_paho(running: AgentProcess) -> None:
    for command in ("status", "explain", "check-now", "config", "outbox"):
        code = (
            "import sys\nfrom agent.cli import main\n"
            f"main([{command!r}, '--config', {str(running.config)!r}])\n"
            "heavy = {'tuf', 'paho', 'numpy', 'onnxruntime', 'psutil'}\n"
            "print('loaded', *sorted(heavy & set(sys.modules)), file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.stderr.splitlines()[-1] == "loaded", command


def test_status_explain_and_check_now_tell_what_the_agent_knows(running: AgentProcess) -> None:
    text = running.command("status").stdout
    assert "till-7 in fleet shop" in text
    assert "not connected" in text
    assert running.status()["repository"]["timestamp_version"] >= 1
    assert "timestamp" in running.command("check-now").stdout
    # No daemon answers here: that is said, not guessed.
    refused(running.command("explain", MODEL, expect=None), 1, "nobody.sock")
    assert running.status()["runtime"]["problem"]


def test_what_waits_for_the_broker_is_listed_beside_the_agent(running: AgentProcess) -> None:
    topics = Topics("shop", "till-7")

    def waits() -> bool:
        return topics.metrics in running.command("outbox", "--limit", "50").stdout

    eventually(waits, "a batch on flash", STORY_S)
    assert '"waiting"' in running.command("outbox", "--json").stdout


@pytest.mark.parametrize("command", ["status", "check-now", "outbox"])
def test_without_an_agent_a_question_is_answered_with_where_it_looked(
    folder: Path, command: str
) -> None:
    agent = agent_of(folder)
    before = tree(folder)
    done = agent.command(command, expect=None)
    refused(done, 4 if command == "outbox" else 1, str(agent.state))
    assert tree(folder) == before
    agent.close()


def test_the_running_agent_is_found_wherever_its_socket_is(folder: Path) -> None:
    agent = agent_of(folder)
    elsewhere = folder / "r"
    elsewhere.mkdir()
    clean = {key: text for key, text in os.environ.items() if "EDGE_" not in key}
    process = subprocess.Popen(
        [COMMAND, "run", "--config", str(agent.config)],
        env={**clean, "RUNTIME_DIRECTORY": str(elsewhere)},
        stderr=subprocess.DEVNULL,
    )
    at, state = str(elsewhere / "agent.sock"), str(agent.state)
    try:
        eventually((agent.state / "agent.sock").is_socket, "the agent", STORY_S)
        assert run("status", "--socket", at).returncode == 0
        assert run("status", "--config", str(agent.config)).returncode == 0
        assert run("status", "--state-dir", state).returncode == 0
        assert run("status", EDGE_AGENT_SOCKET=at).returncode == 0
        # What is named is meant, and nobody else answers for it.
        nobody = run("status", "--state-dir", str(folder / "none"), EDGE_AGENT_SOCKET=at)
        refused(nobody, 1, str(folder / "none" / "agent.sock"), "--socket", "--state-dir")
        refused(run("status", "--socket", "/nowhere/a.sock"), 1, "/nowhere/a.sock", "No such file")
    finally:
        process.terminate()
        assert process.wait(STORY_S) == 0
    assert not (agent.state / "agent.sock").is_symlink()
    agent.close()


def test_explain_without_an_agent_decides_by_what_is_kept(running: AgentProcess) -> None:
    running.stop()
    done = running.command("explain", MODEL, expect=None)
    refused(done, 1, "nobody.sock")
    unknown = running.command("explain", "nobody-knows-this")
    assert "no agent is running" in unknown.stdout
    assert "the channel has no plan for it" in unknown.stdout


def test_the_configuration_is_shown_whole_and_nothing_is_written(folder: Path) -> None:
    agent = agent_of(folder)
    before = tree(folder)
    text = agent.command("config").stdout
    assert 'fleet = "shop"' in text
    assert "reconnect_most_s" in text
    assert tree(folder) == before
    agent.close()


@pytest.fixture
def server() -> Iterator[EnrolmentServer]:
    """An enrolment server over TLS."""
    with enrolment_server() as found:
        yield found


def test_bad_enrolments_leave_no_membership(folder: Path, server: EnrolmentServer) -> None:
    agent = AgentProcess(folder, '[device]\nid = "till-7"\nclock_is_trusted = "yes"\n')
    good = server.token()
    for arguments, code, word in [
        ((server.url, "garbage"), 4, "no enrolment token"),
        ((server.url, "@/nowhere"), 4, "/nowhere"),
        ((server.url, good[:-9]), 4, "not whole"),
        (("http://plain.example", good), 4, "https"),
        ((server.url, server.token(expires_s=1.0)), 4, "time is over"),
        ((server.url, server.token(ca_sha256="0" * 64)), 1, "another CA"),
        ((server.url, server.token(secret="x" * 32)), 1, "403"),
        ((f"https://127.0.0.1:{free_port()}", good), 1, "127.0.0.1"),
    ]:
        refused(agent.command("enroll", *arguments, expect=None), code, word)
        assert not (agent.state / "enrolment.json").exists()
        assert not (agent.state / "certificate.pem").exists()
    assert server.devices == {}
    agent.close()


def test_a_device_is_enrolled_once_and_again_only_when_that_is_meant(
    folder: Path, server: EnrolmentServer
) -> None:
    agent = AgentProcess(folder, '[device]\nclock_is_trusted = "yes"\n')
    done = agent.command("enroll", server.url, server.token(uses=2), "--device", "till-7")
    assert "till-7 belongs to the fleet shop" in done.stdout
    assert 'id = "till-7"' in agent.command("config").stdout
    before = tree(agent.state)
    refused(agent.command("enroll", server.url, server.token(), expect=None), 4, "--again")
    assert tree(agent.state) == before
    key = (agent.state / "device.key").read_bytes()
    agent.command("enroll", server.url, server.token(), "--again", "--device", "till-8")
    assert (agent.state / "device.key").read_bytes() == key
    assert 'id = "till-8"' in agent.command("config").stdout
    agent.close()


def test_an_image_is_prepared_only_when_somebody_says_yes(
    folder: Path, server: EnrolmentServer
) -> None:
    agent = AgentProcess(folder, '[device]\nclock_is_trusted = "yes"\n')
    agent.command("enroll", server.url, server.token(), "--device", "till-7")
    (agent.state / "tuf").mkdir()
    (agent.state / "tuf" / "root.json").write_bytes(b"kept")
    for name in ("enrolment.json", "certificate.pem", "agent.db.guards", "models.json"):
        (agent.state / f".{name}.new").write_bytes(b"of a write that was killed")
    before = tree(agent.state)
    refused(agent.command("prepare-image", expect=None), 4, "--yes")
    assert tree(agent.state) == before
    agent.command("prepare-image", "--yes")
    assert sorted(path.name for path in agent.state.iterdir()) == ["tuf"]
    refused(agent.command("run", expect=None), 4, "belongs to no fleet")
    agent.close()


@pytest.mark.parametrize("data", [None, b"", b"no tar at all" * 100], ids=["none", "empty", "text"])
def test_what_is_no_export_changes_nothing(
    folder: Path, repository: TestRepository, tmp_path: Path, data: bytes | None
) -> None:
    agent = agent_of(folder, repository)
    file = tmp_path / "export.tar"
    if data is not None:
        file.write_bytes(data)
    agent.state.mkdir(mode=0o700)
    before = tree(agent.state)
    refused(agent.command("import", str(file), expect=None), 4, "export.tar")
    assert tree(agent.state) == before
    agent.close()


def test_a_socket_that_a_dead_agent_left_is_in_nobodys_way(
    folder: Path, repository: TestRepository
) -> None:
    agent = agent_of(folder, repository)
    agent.state.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(agent.state / "agent.sock"))
    agent.start()
    eventually(agent.is_up, "the agent", STORY_S)
    assert agent.stop() == 0
    agent.close()
