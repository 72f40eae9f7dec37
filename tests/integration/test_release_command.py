"""``edge-runtime release`` and ``traffic`` as a person or a script runs them, on a real socket.

The releases behind the socket are scripted; the admin door, the connection and the commands are
the real ones.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import cli
from edge_runtime.cli import release_watch
from edge_runtime.errors import (
    InvalidRequestError,
    ModelNotReadyError,
    SignatureError,
    StorageError,
)
from edge_runtime.protocol import release_schemas as schemas
from tests.daemons import COMMAND
from tests.scripted_orders import AdminSocket, ScriptedOrders, admin_socket, shown, standing
from tests.scripted_server import scripted_server

pytestmark = pytest.mark.integration

WAIT_S = 60.0
NOW_S = 1_700_000_000.0


@pytest.fixture
def admin() -> Iterator[AdminSocket]:
    """A daemon that has released ``digits``."""
    with admin_socket(ScriptedOrders(models={"digits": [standing()]})) as served:
        yield served


@pytest.fixture(autouse=True)
def _polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_watch, "POLL_S", 0.005)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder that only the daemon would look into."""
    folder = tmp_path / "digits-2"
    folder.mkdir()
    return folder


def run(admin: AdminSocket, *arguments: str) -> int:
    return cli.main([*arguments, "--socket", str(admin.path)])


def row(number: int, before: str, after: str, event: str, **more: Any) -> schemas.Transition:  # noqa: ANN401
    told = {"wall_s": NOW_S, "digest": "1" * 64, "release_id": 7, "model": "digits", "version": 2}
    states = {"from_state": before, "to_state": after}
    return schemas.Transition(id=number, event=event, **{**told, **states, **more})


def under_way(*states: str, **more: Any) -> list[schemas.ModelReleases]:  # noqa: ANN401
    """Say one state after the other; ``more`` is of the last one."""
    said = [standing(shown(state, updated_s=number)) for number, state in enumerate(states[:-1])]
    return [*said, standing(shown(states[-1], updated_s=99.0, **more), running_digest="2" * 64)]


# -- stage ---------------------------------------------------------------------------------------


def test_stage_orders_the_real_path_and_says_what_came_of_it(
    admin: AdminSocket, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(bundle)
    assert run(admin, "release", "stage", str(link), "--manual", "--again") == 0
    ((order, arguments),) = admin.orders.taken
    assert order == "stage"
    assert arguments["source"] == bundle.resolve()
    assert (arguments["mode"], arguments["again"]) == ("manual", True)
    assert arguments["asked_by"] == f"operator uid={os.getuid()}"
    assert "digits version 2 is release 7: installed" in capsys.readouterr().err


def test_stage_gives_the_release_as_json(
    admin: AdminSocket, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(admin, "release", "stage", str(bundle), "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "installed"


def test_send_carries_the_tar_s_bytes(admin: AdminSocket, tmp_path: Path) -> None:
    tar = tmp_path / "digits-2.tar"
    tar.write_bytes(b"a tar")
    assert run(admin, "release", "stage", str(tar), "--send", "--again", "--manual") == 0
    assert admin.orders.bundle == b"a tar"
    ((_, arguments),) = admin.orders.taken
    assert (arguments["mode"], arguments["again"]) == ("manual", True)


def test_a_folder_is_not_sent_but_how_to_pack_it_is_said(
    admin: AdminSocket, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(admin, "release", "stage", str(bundle), "--send") == 4
    assert "pack it: tar -C" in capsys.readouterr().err
    assert admin.orders.taken == []


def test_a_bundle_that_is_not_there_is_not_ordered(
    admin: AdminSocket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(admin, "release", "stage", str(tmp_path / "nothing")) == 4
    assert "cannot find the bundle" in capsys.readouterr().err
    assert admin.orders.taken == []


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (SignatureError("manifest.sig is missing; sign it"), 1),
        (StorageError("the disk is full; free 12 MB"), 1),
    ],
)
def test_a_refused_bundle_is_told_with_the_daemon_s_words(
    admin: AdminSocket,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    problem: Any,  # noqa: ANN401
    code: int,
) -> None:
    admin.orders.problem = problem
    assert run(admin, "release", "stage", str(bundle)) == code
    assert capsys.readouterr().err == f"edge-runtime release: {problem.message}\n"


# -- wait ----------------------------------------------------------------------------------------


def test_wait_tells_every_step_and_ends_with_0_where_the_version_was_committed(
    admin: AdminSocket, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.orders.models["digits"] = under_way("self-testing", "shadowing", "committed")
    for model in admin.orders.models["digits"]:
        model.releases[0].weights = (5, 50)
    admin.orders.rows = [
        row(15, "probation", "committed", "passed"),
        row(14, "canary", "probation", "done", numbers={"blocks": 16, "agreement": 0.991}),
        row(13, "canary", "canary", "passed"),
        row(12, "shadowing", "canary", "passed"),
        row(11, "staged", "shadowing", "begin"),
        row(10, "self-testing", "staged", "passed"),
        row(9, "canary", "rolling-back", "roll-back", release_id=6),
    ]
    assert run(admin, "release", "stage", str(bundle), "--wait") == 0
    said = capsys.readouterr().err.splitlines()
    steps = [line for line in said if line.startswith("2023-11-14 22:13:20  ")]
    assert [step.split("  ")[1] for step in steps] == [
        "staged",
        "shadowing",
        "canary 5 %",
        "canary 50 %",
        "probation (blocks 16, agreement 0.991)",
        "committed",
    ]
    assert said[-1] == "digits version 2 is committed; running: 222222222222"


@pytest.mark.parametrize("state", ["rolled-back", "failed"])
def test_wait_ends_with_1_and_the_reason_where_it_was_not_committed(
    admin: AdminSocket, bundle: Path, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    reason = "agreement 0.71 is below 0.98"
    admin.orders.models["digits"] = under_way("canary", state, cause="verdict", reason=reason)
    assert run(admin, "release", "stage", str(bundle), "--wait") == 1
    said = capsys.readouterr().err
    assert f"digits version 2 is {state}: verdict: {reason}" in said
    assert said.endswith("digits version 1 from store is active; running: 222222222222\n")


def test_wait_says_where_nothing_answers_any_more(
    admin: AdminSocket, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = standing(shown("rolled-back", cause="errors"), active=None, disabled="it was the first")
    admin.orders.models["digits"] = [ended]
    assert run(admin, "release", "stage", str(bundle), "--wait") == 1
    assert "it was the first" in capsys.readouterr().err


def test_wait_for_a_manual_release_ends_where_a_person_has_to_decide(
    admin: AdminSocket, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.orders.models["digits"] = under_way("self-testing", "staged")
    assert run(admin, "release", "stage", str(bundle), "--manual", "--wait", "--json") == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["state"] == "staged"
    assert "edge-runtime release promote digits" in out.err


def test_wait_says_once_what_a_release_waits_for(
    admin: AdminSocket, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = standing(shown("staged", waits_for="a hold stands"))
    admin.orders.models["digits"] = [held, held, *under_way("shadowing", "committed")]
    assert run(admin, "release", "stage", str(bundle), "--wait") == 0
    assert capsys.readouterr().err.count("it waits: a hold stands") == 1


def test_promote_can_wait_too(admin: AdminSocket, capsys: pytest.CaptureFixture[str]) -> None:
    admin.orders.models["digits"] = under_way("probation", "probation", "committed")
    assert run(admin, "release", "promote", "digits", "--wait") == 0
    assert admin.orders.taken[0][0] == "promote"
    assert "is committed" in capsys.readouterr().err


def test_a_release_that_newer_ones_pushed_out_of_sight_ends_the_wait(
    admin: AdminSocket, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.orders.models["digits"] = [standing(shown("canary", id=99))]
    assert run(admin, "release", "stage", str(bundle), "--wait") == 1
    assert "release history digits" in capsys.readouterr().err


def test_wait_outlives_a_daemon_that_does_not_answer_for_a_while(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Restarting(ScriptedOrders):
        times = 0

        async def status_of(self, model: str) -> schemas.ModelReleases:
            self.times += 1
            if self.times in {2, 3}:
                raise ModelNotReadyError("the daemon is starting")
            return await super().status_of(model)

    orders = Restarting(models={"digits": under_way("canary", "committed")})
    with admin_socket(orders) as admin:
        assert run(admin, "release", "stage", str(bundle), "--wait") == 0
    assert capsys.readouterr().err.count("no answer, trying again: the daemon is starting") == 1


def test_wait_gives_up_a_daemon_that_stays_away(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_watch, "GONE_S", 0.05)
    body = b'{"id":7,"model":"digits","version":2,"state":"installed"}'
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def once(caller: Any) -> None:  # noqa: ANN401
        caller.read_request()
        caller.write(head + body)

    with scripted_server(once) as server:
        arguments = ["release", "stage", str(bundle), "--wait", "--socket", str(server.path)]
        assert cli.main(arguments) == 1
    assert "no answer, trying again" in capsys.readouterr().err


def test_ctrl_c_ends_the_waiting_and_not_the_release(admin: AdminSocket, bundle: Path) -> None:
    waits = shown("shadowing", remaining_s=600.0, waits_for="the disk has not answered")
    admin.orders.models["digits"] = [standing(waits)]
    process = subprocess.Popen(
        [COMMAND, "release", "stage", str(bundle), "--wait", "--socket", str(admin.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "release 7" in process.stderr.readline()
    # Only now it waits: before, it imports, where an interruption can be lost.
    assert any("it waits" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert "the daemon goes on with it" in said
    assert "edge-runtime release abort digits" in said
    assert "Traceback" not in said
    assert [order for order, _ in admin.orders.taken] == ["stage"]


# -- decisions and questions ---------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["promote", "rollback", "abort", "hold", "clear"])
def test_a_decision_carries_its_reason_and_shows_what_is_so_then(
    admin: AdminSocket, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    assert run(admin, "release", verb, "digits", "--reason", "it flickers") == 0
    ((order, arguments),) = admin.orders.taken
    assert order == verb
    assert (arguments["model"], arguments["reason"]) == ("digits", "it flickers")
    assert "digits version 1 from store is active; running: 111111111111" in capsys.readouterr().out


def test_a_decision_that_is_refused_is_told(
    admin: AdminSocket, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.orders.problem = InvalidRequestError("no release of digits is under way")
    assert run(admin, "release", "promote", "digits", "--wait") == 1
    assert capsys.readouterr().err.endswith("no release of digits is under way\n")


def test_status_says_that_unsigned_bundles_are_taken(
    admin: AdminSocket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(admin, "release", "status") == 0
    out = capsys.readouterr().out
    assert out.startswith("not managed: unsigned bundles are taken")
    assert out.splitlines()[1].split() == ["MODEL", "ACTIVE", "FROM"]


def test_status_of_one_model_and_of_none(
    admin: AdminSocket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(admin, "release", "status", "digits", "--json") == 0
    assert json.loads(capsys.readouterr().out)["running_digest"] == "1" * 64
    assert run(admin, "release", "status", "nobody") == 4
    assert "'nobody'" in capsys.readouterr().err


def test_history_asks_for_as_many_pages_as_it_takes(
    admin: AdminSocket, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.orders.rows = [row(number, "a", "b", "begin") for number in range(2500, 0, -1)]
    assert run(admin, "release", "history", "digits", "-n", "2100", "--json") == 0
    numbers = [each["id"] for each in json.loads(capsys.readouterr().out)]
    assert numbers == list(range(2500, 400, -1))
    assert run(admin, "release", "history") == 0
    assert len(capsys.readouterr().out.splitlines()) == 51


def test_a_history_without_rows_says_so(
    admin: AdminSocket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(admin, "release", "history", "nobody") == 0
    assert "nothing was released here yet" in capsys.readouterr().err


def test_explain_prints_a_sentence_a_line(
    admin: AdminSocket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(admin, "release", "explain", "digits") == 0
    assert capsys.readouterr().out == "Version 1 of digits is active.\n"


# -- traffic -------------------------------------------------------------------------------------


def test_traffic_splits_clears_and_shows(
    admin: AdminSocket, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("traffic", "digits", "1=80", "2=20")
    assert run(admin, *arguments) == 0
    assert run(admin, "traffic", "digits", "--clear", "--reason", "done") == 0
    admin.orders.models["digits"] = [standing(traffic={"1": 80, "2": 20})]
    assert run(admin, "traffic", "digits") == 0
    weights = [order["weights"] for _, order in admin.orders.taken]
    assert weights == [{1: 80, 2: 20}, {}]
    assert "the traffic is split: 1=80 %, 2=20 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    "weights",
    [
        ("1=80", "2=21"),
        ("1=80", "1=20"),
        ("1=100", "--clear"),
        ("1=80,2=20",),
        ("80",),
        ("1=0", "2=100"),
        ("0=100",),
        ("1=-5", "2=105"),
    ],
)
def test_a_split_that_is_none_is_wrong_usage_and_changes_nothing(
    admin: AdminSocket, weights: tuple[str, ...]
) -> None:
    try:
        code = run(admin, "traffic", "digits", *weights)
    except SystemExit as ended:  # argparse's way
        code = int(str(ended.code))
    assert code == 4
    assert admin.orders.taken == []


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("stage",), ("promote",), ("hold", "")])
def test_half_a_command_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["release", *arguments])
    assert ended.value.code == 4
