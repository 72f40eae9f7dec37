"""The command line by which tuf-conformance drives our client, and some of what it looks at."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tuf.api.metadata import Metadata

from tests.hostile_http import HostileServer, hostile_server, replace, status
from tests.tuf_attacks import TufRepository

pytestmark = pytest.mark.integration

ROLES = ("root", "timestamp", "snapshot", "targets")


class Client:
    """Runs commands as the suite does."""

    def __init__(self, folder: Path, server: HostileServer) -> None:
        """Folders are made as the suite makes them."""
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        self._server = server

    def run(self, *arguments: str) -> int:
        """Run one command."""
        command = [sys.executable, "-m", "agent.trust.conformance"]
        return subprocess.run([*command, *arguments], check=False, timeout=60).returncode

    def init(self, root: Path) -> int:
        """Begin with a root."""
        return self.run("--metadata-dir", str(self.metadata), "init", str(root))

    def refresh(self) -> int:
        """Refresh."""
        url = f"{self._server.url}/metadata"
        return self.run("--metadata-url", url, "--metadata-dir", str(self.metadata), "refresh")

    def download(self, name: str) -> int:
        """Download an artifact."""
        return self.run(
            "--metadata-url",
            f"{self._server.url}/metadata",
            "--metadata-dir",
            str(self.metadata),
            "--target-name",
            name,
            "--target-dir",
            str(self.targets),
            "--target-base-url",
            f"{self._server.url}/artifacts",
            "download",
        )

    def versions(self) -> dict[str, int]:
        """Read the versions of what is trusted."""
        return {
            path.name.removesuffix(".json"): Metadata.from_file(str(path)).signed.version
            for path in sorted(self.metadata.glob("*.json"))
        }

    def downloaded(self) -> list[bytes]:
        """Read what was downloaded."""
        return [path.read_bytes() for path in self.targets.rglob("*") if path.is_file()]


@pytest.fixture
def repository(tmp_path: Path) -> TufRepository:
    return TufRepository(tmp_path / "repository")


@pytest.fixture
def server(repository: TufRepository) -> Iterator[HostileServer]:
    with hostile_server(repository.folder) as running:
        yield running


@pytest.fixture
def client(tmp_path: Path, server: HostileServer, repository: TufRepository) -> Client:
    made = Client(tmp_path, server)
    assert made.init(repository.first_root) == 0
    return made


def test_a_refresh_asks_for_top_level_metadata_only(client: Client, server: HostileServer) -> None:
    assert server.paths() == []
    assert client.refresh() == 0
    names = ("2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json")
    assert server.paths() == [f"/metadata/{name}" for name in names]
    assert client.versions() == dict.fromkeys(ROLES, 1)


def test_what_was_verified_before_a_failure_is_kept_step_by_step(
    client: Client, server: HostileServer, repository: TufRepository
) -> None:
    assert client.refresh() == 0
    repository.publish("targets")
    server.fault("/metadata/2.snapshot.json", status(404))
    assert client.refresh() == 1
    assert client.versions() == {"root": 1, "timestamp": 2, "snapshot": 1, "targets": 1}
    server.heal()
    server.fault("/metadata/2.targets.json", status(404))
    assert client.refresh() == 1
    assert client.versions() == {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 1}
    server.heal()
    assert client.refresh() == 0


def test_an_older_timestamp_is_refused(client: Client, repository: TufRepository) -> None:
    repository.announce()
    assert client.refresh() == 0
    repository.signed["timestamp"].version -= 1
    repository.write()
    assert client.refresh() == 1
    assert client.versions()["timestamp"] == 2


def test_a_root_that_does_not_sign_itself_asks_for_nothing(
    client: Client, server: HostileServer, tmp_path: Path, repository: TufRepository
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(repository.first_root.read_text().replace('"sig":"', '"sig":"00'))
    client.init(wrong)
    assert client.refresh() == 1
    assert server.paths() == []


def test_an_artifact_is_downloaded_once_and_never_a_false_one(
    client: Client, server: HostileServer, repository: TufRepository
) -> None:
    repository.add_file("targets", "path/to/file name.txt", b"right")
    repository.publish("targets")
    assert client.download("path/to/file name.txt") == 0
    assert client.downloaded() == [b"right"]
    server.forget()
    assert client.download("path/to/file name.txt") == 0
    assert not [path for path in server.paths() if path.startswith("/artifacts")]
    assert client.download("missing") == 1
    repository.add_file("targets", "path/to/file name.txt", b"newer")
    repository.publish("targets")
    server.fault("/artifacts/*", replace(b"false"))
    assert client.download("path/to/file name.txt") == 1
    assert client.downloaded() == [b"right"]
    server.heal()
    assert client.download("path/to/file name.txt") == 0
    assert client.downloaded() == [b"newer"]


GRAPHS: dict[str, tuple[list[tuple[Any, ...]], list[str]]] = {
    "depth before breadth": (
        [("targets", "A"), ("targets", "B"), ("A", "C"), ("A", "D")],
        ["A", "C", "D", "B"],
    ),
    "a cycle": ([("targets", "A"), ("A", "B"), ("B", "C"), ("C", "A")], ["A", "B", "C"]),
    "a diamond": ([("targets", "A"), ("targets", "B"), ("B", "C"), ("A", "C")], ["A", "C", "B"]),
    "the last word": ([("targets", "A", True), ("targets", "B"), ("A", "C")], ["A", "C"]),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_delegations_are_walked_in_the_order_of_the_specification(
    client: Client, server: HostileServer, repository: TufRepository, name: str
) -> None:
    delegations, order = GRAPHS[name]
    for parent, role, *is_last in delegations:
        repository.delegate(parent, role, "*", is_last=bool(is_last))
    repository.publish("targets")
    assert client.download("missing") == 1
    asked = [path.rpartition("/")[2] for path in server.paths()]
    assert asked[4:] == [f"1.{role}.json" for role in order]


@pytest.mark.parametrize("role", ["?", "#", "/role", "../role"])
def test_strange_names_of_roles_are_quoted_in_urls_and_files(
    client: Client, server: HostileServer, repository: TufRepository, role: str
) -> None:
    repository.delegate("targets", role, "*")
    repository.publish("targets")
    path = f"/metadata/1.{quote(role, safe='')}.json"
    server.fault(path, replace(repository.bytes_of(role)))  # no file has such a name
    assert client.download("missing") == 1
    assert path in server.paths()
    assert len(client.versions()) == 5
    assert client.refresh() == 0


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_new_keys_let_versions_begin_anew(
    client: Client, repository: TufRepository, role: str
) -> None:
    repository.signed[role].version = 100_000
    repository.announce()
    assert client.refresh() == 0
    assert client.versions()[role] >= 100_000
    repository.rotate("snapshot")
    repository.rotate("timestamp")
    repository.signed[role].version = 1
    repository.announce()
    assert client.refresh() == 0
    assert client.versions()[role] < 100_000


def test_an_expired_root_is_kept_and_nothing_after_it(
    client: Client, repository: TufRepository
) -> None:
    assert client.refresh() == 0
    repository.signed["root"].expires = repository.in_days(-1)
    repository.publish("root", "targets")
    assert client.refresh() == 1
    assert client.versions() == {"root": 2, "timestamp": 1, "snapshot": 1, "targets": 1}
