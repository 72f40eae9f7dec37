"""Each attack of the TUF specification against the installed agent: serving goes on, all is kept.

What each attack does to the metadata in detail is in ``test_agent_trust_attacks``; here it is what
the device as a whole makes of it, and that it recovers.
"""

import contextlib
import copy
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tuf.api.metadata import MetaFile

from agent.messages import Reported
from agent.topics import Kind
from tests.agent_site import FLEET, STORY_S, Site, site
from tests.daemons import eventually
from tests.every_row import every
from tests.hostile_http import HostileServer, drip, endless, hostile_server, replace
from tests.release_device import MODEL
from tests.trusting import path_of
from tests.tuf_attacks import TufRepository, plan, signer

pytestmark = pytest.mark.integration

HURRY = "metadata_s = 1.5"
"""For what is too slow; anything can be that on a busy machine, so only where it is expected."""


SLOW = "too-slow"


@dataclass
class Attacked:
    """A site whose repository can be made to do anything.

    Attributes:
        here: The site; its own repository is not used.
        repository: The one that the agent follows.
        web: Its server.
        folder: For copies.
        version: The newest release.
    """

    here: Site
    repository: TufRepository
    web: HostileServer
    folder: Path
    version: int = 1

    def release(self) -> None:
        """Sign the next version, and a plan for it."""
        self.version += 1
        bundle = self.here.bundle(f"bundle-{self.version}", self.version)
        files = {path.name: path.read_bytes() for path in bundle.iterdir()}
        self.repository.add_release(MODEL, self.version, files)
        self.replan()
        self.repository.publish()

    def replan(self, fleet: str = FLEET) -> None:
        """Plan the newest version."""
        self.repository.set_plans(plan(MODEL, self.version, sequence=self.version), fleet=fleet)

    def look(self) -> str:
        """Have the agent look; gives why it does not believe, or nothing."""
        found: str = self.here.agent.ask("check-now")["reason"]
        return found

    def digest(self) -> str:
        """Give a digest of the agent's state, but of its database and its socket."""
        text = hashlib.sha256()
        state = self.here.agent.state
        for path in sorted(state.rglob("*")):
            own = ("agent.db", ".agent.db", "outbox.seq")
            if path.name.startswith(own) or path.is_socket():
                continue
            text.update(path.relative_to(state).as_posix().encode() + b"\0")
            if path.is_symlink():
                text.update(str(path.readlink()).encode())
            elif path.is_file():
                text.update(path.read_bytes())
        return text.hexdigest()

    def rests(self) -> bool:
        """Tell whether the newest version runs, and all is written down and said of it."""
        found = self.here.operator.of(Kind.REPORTED)
        told = msgspec.json.decode(found[-1]["payload"], type=Reported).models if found else {}
        is_told = MODEL in told and told[MODEL].active == self.version and not told[MODEL].phase
        return is_told and self.here.agent.status()["updates"] == []

    def restart(self, hurry: str = "") -> None:
        """Have the agent begin anew, in a hurry or with all the time of the world."""
        agent = self.here.agent
        assert agent.stop() == 0
        text = agent.config.read_text("utf-8").replace(f"{HURRY}\n", "")
        agent.config.write_text(text, "utf-8")
        if hurry:
            agent.set("repository", hurry)
        agent.start()
        eventually(agent.is_up, "the agent", STORY_S)

    def reports(self) -> list[str]:
        """Give why the repository was not believed, as the fleet heard it; each number once."""
        found = {
            (each["boot_id"], each["seq"]): each["payload"]["batch"]["repository"]["distrusted"]
            for each in self.here.operator.of(Kind.METRICS)
            if "repository" in (each["payload"].get("batch") or {})
        }
        return list(found.values())

    @contextlib.contextmanager
    def attack(self) -> Iterator[None]:
        """Put everything back at the end, as its owner would from a copy."""
        repository, kept = self.repository, self.folder / f"kept-{self.version}"
        before: Any = copy.deepcopy(repository.signed), dict(repository.files)
        keys = {role: list(those) for role, those in repository.signers.items()}
        repository.copy_to(kept)
        yield
        self.web.heal()
        repository.put_back(kept)
        shutil.rmtree(kept)
        repository.signed, repository.files = before
        repository.signers = keys


def _newer(of: Attacked) -> None:
    of.repository.publish()


def _stranger(of: Attacked) -> None:
    of.repository.signers["timestamp"] = [signer()]
    _newer(of)


def _thief(of: Attacked) -> None:
    of.repository.signers["releases"] = [signer()]
    _newer(of)


def _few(of: Attacked) -> None:
    of.repository.signed["root"].version += 1
    of.repository.signers["root"].pop()
    _newer(of)


def _expired(of: Attacked) -> None:
    of.repository.signed["timestamp"].expires = of.repository.in_days(-1)
    _newer(of)


def _rolled_back(of: Attacked) -> None:
    of.repository.signed["rollouts"].version -= 1
    of.repository.signed["snapshot"].meta["rollouts.json"].version -= 1
    of.repository.publish("snapshot")


def _mixed(of: Attacked) -> None:
    _newer(of)
    between = of.repository.bytes_of("snapshot")
    _newer(of)
    of.web.fault(path_of(of.repository, "snapshot"), replace(between))


def _wrong_hash(of: Attacked) -> None:
    wrong = MetaFile(2, length=None, hashes={"sha256": "0" * 64})
    of.repository.signed["snapshot"].meta["releases.json"] = wrong
    _newer(of)


def _endless(of: Attacked) -> None:
    _newer(of)
    of.web.fault(path_of(of.repository, "snapshot"), endless(100))


def _drip(of: Attacked) -> None:
    _newer(of)
    of.web.fault(path_of(of.repository, "snapshot"), drip())


def _garbage(of: Attacked) -> None:
    _newer(of)
    of.web.fault("/metadata/timestamp.json", replace(b"<html>log in</html>"))


def _foreign(of: Attacked) -> None:
    of.replan("another")
    _newer(of)


ATTACKS: dict[str, tuple[Callable[[Attacked], None], str]] = {
    "a stranger signs the timestamp": (_stranger, "threshold"),
    "a stranger signs releases": (_thief, "threshold"),
    "too few sign the root": (_few, "threshold"),
    "the timestamp is frozen until it expires": (_expired, "expired"),
    "plans are rolled back": (_rolled_back, "rolled-back"),
    "two states are mixed": (_mixed, "mixed"),
    "another file than was signed": (_wrong_hash, "wrong-hash"),
    "metadata without end": (_endless, "too-large"),
    "metadata drip": (_drip, SLOW),
    "metadata are garbage": (_garbage, "malformed"),
    "plans are another fleet's": (_foreign, "wrong-fleet"),
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    folder = tmp_path_factory.mktemp("attacked")
    repository = TufRepository(folder / "tuf")
    with (
        site(folder, "[telemetry]\ninterval_s = 0\n") as here,
        hostile_server(repository.folder) as web,
    ):
        text = here.agent.config.read_text("utf-8")
        text = text.replace(str(here.repository.root), str(repository.first_root))
        here.agent.config.write_text(text, "utf-8")
        here.agent.look_at(web.url)
        made = Attacked(here, repository, web, folder)
        made.release()
        here.agent.start()
        here.reached("succeeded", 2)
        yield made


@pytest.mark.parametrize("name", list(ATTACKS)[:: every(2)])
def test_an_attack_changes_nothing_is_reported_once_and_the_device_recovers(
    attacked: Attacked, name: str
) -> None:
    act, reason = ATTACKS[name]
    here, agent = attacked.here, attacked.here.agent
    running, reports = attacked.version, len(attacked.reports())
    eventually(attacked.rests, "rest", STORY_S)
    assert attacked.look() == ""
    before = attacked.digest()
    with attacked.attack():
        act(attacked)
        if reason == SLOW:
            attacked.restart(HURRY)
        assert [attacked.look(), attacked.look(), attacked.look()] == [reason] * 3
        assert attacked.digest() == before
        status = agent.status()["repository"]
        assert status["reason"] == reason
        assert status["problem"]
        assert reason in agent.command("status").stdout
        explained = agent.command("explain", MODEL).stdout
        assert status["problem"][:40] in explained, explained
        eventually(lambda: len(attacked.reports()) > reports, "the report", STORY_S)
    # Nothing of it is left in the way.
    if reason == SLOW:
        attacked.restart()
    attacked.release()
    assert attacked.look() == ""
    here.reached("succeeded", running + 1)
    assert attacked.reports()[reports:] == [reason]
    assert here.device.status().active == running + 1
    assert here.device.traffic.faults() == []
    assert "Traceback" not in agent.log()


def test_a_mirror_that_lies_about_artifacts_never_reaches_the_daemon(attacked: Attacked) -> None:
    here, web = attacked.here, attacked.web
    for body in (b"", b"x" * 100, b"<html>log in</html>" * 50_000):
        web.fault("/artifacts/models/*model.onnx", replace(body))
        web.forget()
        attacked.release()
        assert attacked.look() == ""
        asked = lambda: any(path.endswith("model.onnx") for path in web.paths())  # noqa: E731
        eventually(asked, "a download", STORY_S)
        traffic = len(here.device.traffic.asked)
        eventually(lambda: len(here.device.traffic.asked) > traffic + 20, "answers")  # noqa: B023
        assert here.device.release(attacked.version) is None
        web.heal()
        with contextlib.suppress(Exception):
            attacked.look()  # or it waits for a minute
        here.reached("succeeded", attacked.version)
    assert here.device.traffic.faults() == []
