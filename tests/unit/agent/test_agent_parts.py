"""Small parts of the agent: whose word wins, what is remembered, what is found on this device."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from agent.config import Config
from agent.device.local_contents import LocalContents
from agent.device.remarks import REMARKS_MAX, TOLD_MAX, Remarks
from agent.download.notices import Notice, NoticeKind
from agent.enrolment.membership import Membership
from agent.enrolment.messages import Enrolment
from agent.errors import ConfigError, RuntimeAwayError, StateError
from agent.member_settings import completed, machine_name, named
from agent.pause import Pause
from agent.settings.device import Device, Repository
from agent.settings.messaging import Broker, Mqtt
from tests.agent_downloads import sha256

if TYPE_CHECKING:
    from agent.runtime_client.handover import Handover

PATHS = ("/s/ca.pem", "/s/certificate.pem", "/s/root.json")
JOINED = Membership(
    enrolment=Enrolment(
        fleet="shop",
        device="till-7",
        certificate="",
        repository="https://fleet.example",
        mirrors=("https://lan.example",),
        brokers=(Broker(host="fleet.example"),),
        journal="https://journal.example",
    ),
    ca="",
    root="{}",
    not_before_s=0.0,
    not_after_s=1.0,
)


def test_enrolment_fills_what_the_owner_left_open() -> None:
    config = completed(Config(), JOINED, PATHS)
    assert (config.device.id, config.device.fleet) == ("till-7", "shop")
    assert config.repository.url == "https://fleet.example"
    assert config.repository.mirrors == ("https://lan.example",)
    assert (config.repository.ca, config.repository.root) == (PATHS[0], PATHS[2])
    assert config.mqtt.brokers == (Broker(host="fleet.example"),)
    assert (config.mqtt.ca, config.mqtt.certificate) == PATHS[:2]
    assert config.mqtt.key == "/s/device.key"
    assert config.journal.url == "https://journal.example"


def test_too_many_labels_with_those_of_the_enrolment_are_a_clear_error() -> None:
    labels = {str(number): "x" * 200 for number in range(50)}
    more = {f"more-{number}": "x" * 200 for number in range(50)}
    joined = msgspec.structs.replace(JOINED, labels=labels)
    with pytest.raises(ConfigError, match=r"device\.labels .* given at enrolment count too"):
        completed(Config(device=Device(labels=more)), joined, PATHS)


def test_what_the_owner_wrote_wins_over_the_enrolment() -> None:
    written = Config(
        device=Device(id="mine", fleet="barn"),
        repository=Repository(url="https://mine.example", root="/mine/root.json"),
        mqtt=Mqtt(brokers=(Broker(host="mine.example"),), certificate="/mine.pem", key="/mine.key"),
    )
    config = completed(written, JOINED, PATHS)
    assert (config.device, config.repository, config.mqtt) == (
        written.device,
        written.repository,
        written.mqtt,
    )
    # Whom the owner's own broker shows to be is not for the enrolment's authority to say.
    assert config.mqtt.ca == ""
    assert config.repository.ca == ""


def test_nothing_changes_without_an_enrolment() -> None:
    assert completed(Config(), None, ("", "", "")) == Config()


def test_a_device_is_named_after_its_machine_without_telling_its_id() -> None:
    config = named(Config(device=Device(fleet="shop")), b"0123456789abcdef0123456789abcdef")
    assert config.device.id == machine_name(b"0123456789abcdef0123456789abcdef")
    assert config.device.id.startswith("d-")
    assert "0123456789" not in config.device.id
    with pytest.raises(ConfigError, match="no name"):
        named(Config(device=Device(fleet="shop")), b"")
    with pytest.raises(ConfigError, match="no fleet"):
        named(Config(), b"x")


def test_a_pause_outlives_the_agent_and_rubbish_is_no_pause(tmp_path: Path) -> None:
    assert Pause(tmp_path).until_s() == 0.0
    Pause(tmp_path).set(77.0)
    assert Pause(tmp_path).until_s() == 77.0
    (tmp_path / "pause.json").write_bytes(b"rubbish")
    assert Pause(tmp_path).until_s() == 0.0


def test_a_pause_that_the_disk_refuses_is_none(tmp_path: Path) -> None:
    pause = Pause(tmp_path / "gone")
    with pytest.raises(StateError, match="cannot write"):
        pause.set(77.0)
    assert pause.until_s() == 0.0


def notice(text: str, kind: NoticeKind = NoticeKind.REUSE_FAILED) -> Notice:
    return Notice(kind, text, 7)


def test_remarks_are_kept_once_each_over_restarts_and_never_grow(tmp_path: Path) -> None:
    remarks = Remarks(tmp_path)
    for _ in range(3):
        remarks.add("m", 2, "r", notice("one"))
    remarks.add("m", 2, "r", notice("again", NoticeKind.RETRYING))
    remarks.add("m", 3, "r", notice("another"))
    assert [each.notice for each in Remarks(tmp_path).of("m", 2, "r")] == [notice("one")]
    for number in range(3 * REMARKS_MAX):
        remarks.add("m", 4, "r", notice(f"{number}" + "x" * 9000))
    assert len(remarks.of("m", 4, "r")) == TOLD_MAX
    assert (tmp_path / "remarks.json").stat().st_size < 65_536
    assert remarks.of("m", 2, "r") == ()
    (tmp_path / "remarks.json").write_bytes(b"rubbish")
    assert Remarks(tmp_path).of("m", 4, "r") == ()


class Store:
    """The daemon's store, where only one content is.

    Attributes:
        is_away: Whether the daemon answers nobody.
    """

    def __init__(self, contents: Mapping[str, Path]) -> None:
        self._contents = contents
        self.is_away = False

    def open(self, digest: str) -> int | None:
        """Open a content."""
        if self.is_away:
            raise RuntimeAwayError("nobody answers")
        path = self._contents.get(digest)
        return None if path is None else os.open(path, os.O_RDONLY)


def content(found: int | None) -> bytes | None:
    if found is None:
        return None
    with open(found, "rb") as file:  # noqa: PTH123 - a descriptor
        return file.read()


def test_contents_are_found_in_what_was_imported_and_in_the_daemons_store(tmp_path: Path) -> None:
    stored, imported = tmp_path / "stored", tmp_path / "imported"
    stored.write_bytes(b"stored")
    folder = imported / "models" / "m" / "1"
    folder.mkdir(parents=True)
    (folder / f"{sha256(b'came')}.model #1 é.onnx").write_bytes(b"came")
    (folder / "not-named-so").write_bytes(b"other")
    store = Store({sha256(b"stored"): stored})
    local = LocalContents(cast("Handover", store), imported)
    assert content(local.open(sha256(b"came"))) == b"came"
    assert content(local.open(sha256(b"stored"))) == b"stored"
    assert local.open(sha256(b"other")) is None
    store.is_away = True
    assert local.open(sha256(b"stored")) is None
    assert content(local.open(sha256(b"came"))) == b"came"
    assert LocalContents(cast("Handover", store), tmp_path / "none").open(sha256(b"came")) is None


def test_an_imported_link_leads_nowhere(tmp_path: Path) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "imported"
    secret.write_bytes(b"secret")
    folder.mkdir()
    (folder / f"{sha256(b'secret')}.x").symlink_to(secret)
    local = LocalContents(cast("Handover", Store({})), folder)
    assert local.open(sha256(b"secret")) is None
