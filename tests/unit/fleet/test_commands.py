"""``edge-fleet``: what it prints, what it ends with, and that it says what to do."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer

from edge_runtime import __version__
from edge_runtime.exit_codes import ExitCode
from fleet.cli import app, main
from fleet.cli.app import helps
from fleet.repository.layout import Layout
from tests.repositories import TestRepository, problems, tree, write_bundle
from tests.signing import key_file
from tests.store_bundles import EXTERNAL, ONNX

PLAN = """
channel = "stable"
rollout = "first"
model = "m"
version = 1
stages = [{ permyriad = 500, duration_s = 3600 }, { permyriad = 10000 }]
window = { days = ["mon", "tue"], begin = "22:00", end = "05:00", zone = "Europe/Berlin" }
"""


@pytest.fixture
def there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """Make a repository ``r`` with keys in ``k``, a bundle ``b`` and a plan, and go there."""
    monkeypatch.chdir(tmp_path)
    assert main(["repo", "init", "r", "--fleet", "f", "--keys", "k"]) == ExitCode.DONE
    write_bundle(Path("b"), {"a/model.onnx": EXTERNAL, "a/weights.bin": bytes(2_000_000)})
    key_file(tmp_path, "publisher")
    Path("plan.toml").write_text(PLAN, "utf-8")
    capsys.readouterr()
    return tmp_path


ADD = ["repo", "release", "add", "r", "b", "--keys", "k", "--sign", "publisher.pem"]
SET = ["repo", "plan", "set", "r", "plan.toml", "--keys", "k/online"]


def _json(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:  # noqa: ANN401
    assert main([*argv, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def _failed(capsys: pytest.CaptureFixture[str], code: int, *argv: str) -> str:
    """Run a command that fails, and see that it changed nothing."""
    before = tree(Path.cwd())
    assert main(list(argv)) == code
    assert tree(Path.cwd()) == before
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_every_command_has_help_with_an_example() -> None:
    pages = dict(helps())
    assert "edge-fleet repo release add" in pages
    for name, text in pages.items():
        assert "Usage: edge-fleet" in text
        if "COMMAND" not in text:
            assert f"Example: {name}" in " ".join(text.split())
            assert "--json" in text


def test_a_repository_from_its_beginning_to_a_device(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ADD, "--channel", "stable", "--label", "site=a", "--label", "site=b"]) == 0
    assert main(SET) == 0
    assert main([*SET, "--stage", "1"]) == 0
    for command in ("show", "verify", "plan show"):
        assert main(["repo", *command.split(), "r"]) == 0
    assert main(["repo", "export", "r", "-o", "x.tar", "--channel", "stable"]) == 0
    assert main(["repo", "refresh", "r", "--keys", "k/online"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "m version 1 released: counter 1, 5 files, 2.0 MB",
        "channel stable: plan first 2 (m version 1: install, stage 1) set",
        "signed releases 2, snapshot 2, timestamp 2",
        "good: 6 artifacts",
        "x.tar: m 1;",
        "nothing to do",
    ):
        assert words in printed
    repository = TestRepository(Layout(there / "r"), there / "k", "")
    assert repository.facts().requires.labels == {"site": ("a", "b")}
    assert problems(repository) == ()


def test_scripts_get_json(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del there
    added = _json(capsys, *ADD)
    assert added["facts"]["counter"] == 1
    assert added["signed"] == {
        "pending": [],
        "versions": {"releases": 2, "snapshot": 2, "timestamp": 2},
    }
    plan = _json(capsys, *SET)
    assert plan["plan"]["stages"][0]["begun_s"] > 0
    shown = _json(capsys, "repo", "show", "r")
    assert next(role["role"] for role in shown["roles"]) == "root"
    assert shown["releases"][0]["facts"]["model"] == "m"
    assert _json(capsys, "repo", "plan", "show", "r") == shown["plans"]
    assert _json(capsys, "repo", "plan", "show", "r", "--channel", "x") == []
    assert _json(capsys, "repo", "verify", "r")["problems"] == []
    assert _json(capsys, "repo", "refresh", "r", "--keys", "k")["signed"]["versions"] == {}
    assert _json(capsys, "repo", "publish", "r", "--keys", "k")["warnings"] == []
    exported = _json(capsys, "repo", "export", "r", "-o", "x.tar", "--channel", "stable")
    assert exported["releases"] == [["m", 1]]
    rotated = _json(capsys, "repo", "rotate", "r", "rollouts", "--keys", "k", "--new-keys", "n")
    assert rotated["keys"][0]["file"] == "n/rollouts-2.pem"
    made = _json(capsys, "repo", "init", "r2", "--fleet", "g", "--keys", "k2", "--root-keys", "2")
    assert {role: len(keys) for role, keys in made["keys"].items()}["root"] == 2


def test_wrong_usage_ends_with_four_and_says_what_is_right(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "plan.json").write_text('{"rollout": "x"}', "utf-8")
    (there / "broken.toml").write_text("= 3", "utf-8")
    for words, argv in (
        ("No such command 'rope'", ["rope"]),
        ("Missing option '--keys'", ["repo", "release", "add", "r", "b"]),
        ("is not there", ["repo", "release", "add", "r", "nothing", "--keys", "k"]),
        ("is not a repository", ["repo", "show", "k"]),
        ("name the folder with the keys", ["repo", "refresh", "r", "--keys", "no"]),
        ("write a number and s, m, h or d", ["repo", "refresh", "r", "--keys", "k"]),
        ("names no channel", ["repo", "plan", "set", "r", "plan.json", "--keys", "k"]),
        ("is not TOML", ["repo", "plan", "set", "r", "broken.toml", "--keys", "k"]),
        ("cannot read", ["repo", "plan", "set", "r", "none.toml", "--keys", "k"]),
        ("is not NAME=VALUE", [*ADD, "--label", "site"]),
        ("--channel: ", [*ADD, "--channel", "Stable"]),
        ("--agent-min: ", [*ADD, "--agent-min", "new"]),
        ("'--stage-min'", [*ADD, "--stage-min", "-1"]),
        ("'arm 64' is no processor", [*ADD, "--arch", "arm 64"]),
        ("'F' is no name of a fleet", ["repo", "init", "x", "--fleet", "F", "--keys", "y"]),
        ("is no folder", ["repo", "init", "x", "--fleet", "f", "--keys", "plan.toml"]),
        ("is not a number of days", ["repo", "init", "x", "--fleet", "f", "--keys", "y"]),
        ("cannot read nokey.pem", [*ADD[:-1], "nokey.pem"]),
        ("is no private key", [*ADD[:-1], "plan.toml"]),
    ):
        more = {
            "write a number": ["--if-older-than", "soon"],
            "is not a number": ["--expires-days", "root=long"],
        }
        extra = next((each for start, each in more.items() if words.startswith(start)), [])
        message = _failed(capsys, ExitCode.USAGE, *argv, *extra)
        assert words in message, argv
        assert "Traceback" not in message


def test_what_the_repository_refuses_ends_with_one(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ADD) == 0
    write_bundle(there / "c", {"model.onnx": ONNX}, version=2)
    (there / "c" / "model.onnx").write_bytes(ONNX + b"x")
    capsys.readouterr()
    for words, argv in (
        ("has no manifest.sig", ["repo", "release", "add", "r", "c", "--keys", "k"]),
        (
            "more than the 4 bytes",
            ["repo", "release", "add", "r", "c", "--keys", "k", "--allow-unsigned"],
        ),
        ("no plan of channel beta", ["repo", "export", "r", "-o", "x", "--channel", "beta"]),
        ("with other counters", [*ADD, "--counter", "7"]),
    ):
        assert words in _failed(capsys, ExitCode.FAILED, *argv), argv
    next((there / "r" / "artifacts").rglob("*.weights.bin")).write_bytes(b"")
    assert "was changed" in _failed(capsys, ExitCode.FAILED, "repo", "verify", "r")


def test_an_export_never_takes_the_place_of_a_part_of_the_repository(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ADD) == 0
    assert main(SET) == 0
    (there / "d").mkdir()
    (there / "link").symlink_to(there / "r" / "metadata" / "timestamp.json")
    capsys.readouterr()
    for words, output in (
        ("lies in the repository", "r/metadata/timestamp.json"),
        ("lies in the repository", "r/artifacts/x.tar"),
        ("lies in the repository", "link"),
        ("is a folder", "d"),
    ):
        export = ["repo", "export", "r", "-o", output, "--channel", "stable", "--force"]
        assert words in _failed(capsys, ExitCode.USAGE, *export)


def test_plans_are_shown_with_times_and_where_there_are_none_that_is_said(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show = ["repo", "plan", "show", "r"]
    assert main(show) == 0
    assert capsys.readouterr().err == "there are no plans\n"
    assert main(ADD) == 0
    plan = there / "plan.toml"
    plan.write_text(PLAN.replace("3600 }", "3600, begun_s = 1e12 }"), "utf-8")
    before = datetime.now(UTC)
    assert main([*SET, "--stage", "1"]) == 0
    days = {f"{at:%Y-%m-%d}" for at in (before, datetime.now(UTC))}  # two at midnight
    capsys.readouterr()
    assert main(show) == 0
    shown = capsys.readouterr().out
    assert "1000000000000 s" in shown
    assert any(day in shown for day in days)
    assert main([*show, "--channel", "x"]) == 0
    assert capsys.readouterr().err == "channel x has no plans\n"


def test_the_version_is_that_of_all_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"edge-fleet {__version__}\n"


def test_a_file_that_is_there_is_replaced_only_when_told(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ADD) == 0
    assert main(SET) == 0
    export = ["repo", "export", "r", "-o", "plan.toml", "--channel", "stable"]
    capsys.readouterr()
    assert "--force replaces it" in _failed(capsys, ExitCode.USAGE, *export)
    assert main([*export, "--force"]) == 0
    first = (there / "plan.toml").read_bytes()
    assert main([*export, "--force"]) == 0
    assert (there / "plan.toml").read_bytes() == first


def test_encrypted_keys_are_opened_with_the_passphrase_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    init = ["repo", "init", "r", "--fleet", "f", "--keys", "k", "--encrypt"]
    assert "set EDGE_FLEET_PASSPHRASE" in _failed(capsys, ExitCode.USAGE, *init)
    monkeypatch.setenv("EDGE_FLEET_PASSPHRASE", "")
    assert "encrypts nothing" in _failed(capsys, ExitCode.USAGE, *init)
    monkeypatch.setenv("EDGE_FLEET_PASSPHRASE", "a word")
    assert main(init) == 0
    assert all(b"ENCRYPTED" in path.read_bytes() for path in Path("k").rglob("*.pem"))
    refresh = ["repo", "refresh", "r", "--keys", "k/online", "--if-older-than", "0s"]
    assert main(refresh) == 0
    capsys.readouterr()
    monkeypatch.setenv("EDGE_FLEET_PASSPHRASE", "another")
    assert "cannot be opened with this passphrase" in _failed(capsys, ExitCode.USAGE, *refresh)
    monkeypatch.delenv("EDGE_FLEET_PASSPHRASE")
    assert "set EDGE_FLEET_PASSPHRASE" in _failed(capsys, ExitCode.USAGE, *refresh)


def test_a_name_cannot_write_to_the_terminal(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(b"x\x1b[2J")
    (there / odd).write_text(PLAN, "utf-8")
    assert main(["repo", "plan", "set", "r", odd, "--keys", "k"]) == ExitCode.USAGE
    assert "\x1b" not in capsys.readouterr().err


def test_a_key_that_others_may_read_is_pointed_out(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (there / "k" / "online" / "timestamp.pem").chmod(0o644)
    assert main(["repo", "refresh", "r", "--keys", "k", "--if-older-than", "0s"]) == 0
    assert capsys.readouterr().err.count("others may read this key") == 1


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "as before, or with all of the change"),
        (typer.Abort(), ExitCode.INTERRUPTED, "as before, or with all of the change"),
        (OSError(28, "No space left on device", "r/x"), ExitCode.FAILED, "r/x: No space left"),
        (OSError("odd"), ExitCode.FAILED, "odd; mend it"),
        (ModuleNotFoundError("no", name="fastcdc"), ExitCode.FAILED, "edge-runtime[fleet]"),
    ],
    ids=["ctrl-c", "end-of-input", "disk-full", "without-a-file", "without-the-extra"],
)
def test_whatever_ends_a_command_has_its_code_and_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    code: ExitCode,
    words: str,
) -> None:
    def run(argv: object) -> int:
        del argv
        raise raised

    monkeypatch.setattr(app, "run", run)
    assert main([]) == code
    assert words in capsys.readouterr().err


def test_whoever_reads_the_output_may_go_away(there: Path) -> None:
    show = [sys.executable, "-m", "fleet", "repo", "show", "r"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    reader, writer = os.pipe()
    os.close(reader)  # before it begins: it may be the faster one
    try:
        done = subprocess.run(
            show, stdout=writer, stderr=subprocess.PIPE, check=False, cwd=there, env=environment
        )
    finally:
        os.close(writer)
    assert done.stderr == b""
    assert done.returncode == ExitCode.FAILED
