"""The systemd units of ``packaging/systemd`` are what systemd and the documents expect."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging" / "systemd"
UNITS = sorted(FOLDER.iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
SOCKETS = [unit for unit in UNITS if unit.suffix == ".socket"]
INSTALLED = re.compile(r"^(ExecStart=)/opt/edge-runtime/bin/\S+", re.MULTILINE)


def _keys(unit: Path, section: str) -> Iterator[tuple[str, str]]:
    """Give the keys of a section; one may stand there several times."""
    present = ""
    for line in unit.read_text("utf-8").splitlines():
        if line.startswith("["):
            present = line
        elif present == f"[{section}]" and "=" in line and not line.startswith("#"):
            key, _, text = line.partition("=")
            yield key, text


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not installed; it comes with systemd, too large to fetch for this",
)
def test_systemd_has_nothing_to_say_about_any_unit(tmp_path: Path) -> None:
    for unit in UNITS:
        # The programs are not installed here; that path is the only thing that is changed.
        text, changed = INSTALLED.subn(r"\1/bin/true", unit.read_text("utf-8"))
        assert changed == (unit in SERVICES)
        (tmp_path / unit.name).write_text(text, "utf-8")
    ended = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_a_service_has_no_rights_that_it_does_not_need(unit: Path) -> None:
    keys = dict(_keys(unit, "Service"))
    assert keys["User"] == unit.stem
    assert keys["CapabilityBoundingSet"] == ""
    assert keys["NoNewPrivileges"] == "yes"
    assert keys["ProtectSystem"] == "strict"
    assert keys["ProtectHome"] == "yes"
    assert keys["StateDirectoryMode"] == "0700"
    assert keys["UMask"] == "0077"


@pytest.mark.parametrize("unit", SOCKETS, ids=lambda unit: unit.name)
def test_a_socket_is_for_owner_and_group_only_and_belongs_to_the_daemon(unit: Path) -> None:
    keys = dict(_keys(unit, "Socket"))
    assert keys["SocketMode"] == "0660"
    assert keys["SocketUser"] == "edge-runtime"
    is_for_all = keys["FileDescriptorName"] == "runtime"
    assert keys["SocketGroup"] == ("edge" if is_for_all else "edge-admin")
    assert keys["Service"] == "edge-runtime.service"
    assert unit.name in dict(_keys(FOLDER / "edge-runtime.service", "Service"))["Sockets"].split()


def test_the_daemon_has_no_network_but_loopback_and_the_agent_needs_no_daemon_s_group() -> None:
    daemon = dict(_keys(FOLDER / "edge-runtime.service", "Service"))
    agent = dict(_keys(FOLDER / "edge-agent.service", "Service"))
    assert (daemon["IPAddressDeny"], daemon["IPAddressAllow"]) == ("any", "localhost")
    assert set(agent["SupplementaryGroups"].split()) == {"edge", "edge-admin"}
    assert agent["Group"] == "edge-agent"


def test_the_agent_may_ask_the_kernel_whether_the_clock_is_synchronised() -> None:
    keys = list(_keys(FOLDER / "edge-agent.service", "Service"))
    filters = [text for key, text in keys if key == "SystemCallFilter"]
    # @clock is part of @privileged, and a call that is not allowed ends the process.
    denied = next(index for index, text in enumerate(filters) if text.startswith("~@privileged"))
    assert any("clock_adjtime" in text.split() for text in filters[denied + 1 :])
    assert "ProtectClock" not in dict(keys)
    assert dict(keys)["CapabilityBoundingSet"] == ""


def test_the_page_on_installing_names_every_unit_user_and_group() -> None:
    page = (ROOT / "docs" / "install-device.md").read_text("utf-8")
    for unit in UNITS:
        assert unit.name in page, unit.name
    for name in ("edge-runtime", "edge-agent"):
        assert re.search(rf"^useradd .* {name}$", page, re.MULTILINE), name
    for name in ("edge", "edge-admin"):
        assert f"groupadd --system {name}\n" in page, name
    assert "useradd --system --user-group --groups edge,edge-admin" in page
