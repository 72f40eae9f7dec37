"""Whole stories: a release is announced, pulled, judged on the device, and reported."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.envelope import unwrap
from agent.messages import JobState, JobStatus
from agent.topics import Kind, parse
from tests import bad_models
from tests.agent_site import STORY_S, Site, key_of, site
from tests.daemons import eventually

pytestmark = pytest.mark.integration


def told_of(status: JobStatus) -> int:
    """Count the steps of whose end a status tells."""
    return len(status.details.get("judgements", ()))


def judgements(here: Site, status: JobStatus) -> list[dict[str, Any]]:
    """Give what a status says of comparisons: in the runtime's words, and signed by the device."""
    key, signed = key_of(here.agent), []
    for name, data in here.operator.everything():
        topic = parse(name)
        if topic is not None and topic.kind is Kind.JOB:
            _, payload = unwrap(topic, data, {key.key_id: key.public_key})
            signed.append(msgspec.json.decode(payload, type=JobStatus))
    assert status in signed
    found: list[dict[str, Any]] = status.details["judgements"]
    rows = {(row.version, row.from_state, row.wall_s): row for row in here.device.history()}
    for each in found:
        row = rows[status.version or 0, each["step"], each["at_s"]]
        assert (each["to"], each.get("numbers", {})) == (row.to_state, row.numbers)
    return found


def test_a_good_release_is_pulled_judged_committed_and_reported_with_its_digest_and_numbers(
    tmp_path: Path,
) -> None:
    with site(tmp_path, device_more={"shadow_s": 600.0, "canary_s": 600.0}) as here:
        here.agent.start()
        eventually(here.agent.is_up, "the agent", STORY_S)
        # Without traffic the second step does not end before the first one was told of.
        here.device.is_up.clear()
        here.publish(2, here.bundle("good", 2))
        eventually(lambda: any(map(told_of, here.operator.jobs())), "word of a step", STORY_S)
        here.device.is_up.set()
        last = here.reached("succeeded", 2)
        standing = here.device.status()
        assert standing.active == 2
        assert last.running_version == 2
        assert last.running_digest == standing.running_digest != ""
        steps = [each.step for each in here.operator.jobs()]
        assert steps[0] == "planned"
        assert "downloading" in steps
        assert "following" in steps
        told = judgements(here, last)
        ended = [each["step"] for each in told]
        assert ended == ["self-testing", "shadowing", "canary", "canary", "probation"]
        assert {each["verdict"] for each in told} <= {"pass", "inconclusive"}
        shadow, canary = told[1]["numbers"], told[2]["numbers"]
        assert shadow["seen"] >= shadow["blocks"] > 0
        assert {"agreement", "agreement_low", "latency_ratio", "errors_p"} <= shadow.keys()
        assert {"traffic_blocks", "traffic_errors_p", "level"} <= canary.keys()
        # On the way each status tells of the last step that had ended.
        way = [each for each in here.operator.jobs() if each.state is JobState.IN_PROGRESS]
        assert {told_of(each) for each in way} == {0, 1}
        assert here.operator.of(Kind.BIRTH)
        assert here.device.traffic.faults() == []
        assert here.agent.stop() == 0


def test_a_bad_release_is_rolled_back_reported_and_not_tried_again(tmp_path: Path) -> None:
    with site(tmp_path) as here:
        here.agent.start()
        here.publish(2, here.bundle("bad", 2, make=bad_models.not_a_number))
        last = here.reached("failed", 2)
        assert last.reason
        told = judgements(here, last)[-1]
        assert (told["verdict"], told["to"]) == ("fail", "rolling-back")
        assert told["numbers"]["bad"] > 0
        assert here.device.status().active in {None, 1}
        jobs = len(here.operator.jobs())
        here.plan(2)
        assert here.agent.command("check-now").returncode == 0
        explained = here.agent.command("explain", "m").stdout
        assert "remembered" in explained
        assert [each.state for each in here.operator.jobs()[jobs:]] in (
            [],
            [JobState.REJECTED],
        )
        assert here.device.traffic.faults() == []


def test_everything_goes_on_where_it_was_after_kill_9_in_the_download(tmp_path: Path) -> None:
    with site(tmp_path) as here:
        here.agent.start("agent.update.fetched=kill")
        here.publish(2, here.bundle("good", 2))
        assert here.agent.process is not None
        assert here.agent.process.wait(STORY_S) == -signal.SIGKILL
        here.agent.process = None
        here.agent.start()
        here.reached("succeeded", 2)
        assert here.device.status().active == 2


def test_predictions_go_on_while_broker_and_repository_are_away_and_the_outbox_drains(
    tmp_path: Path,
) -> None:
    with site(tmp_path, "[telemetry]\ninterval_s = 0.3\n") as here:
        here.agent.start()
        eventually(lambda: bool(here.operator.of(Kind.METRICS)), "a batch", STORY_S)
        here.broker.stop()
        eventually(lambda: not here.agent.status()["broker"]["is_connected"], "the loss", STORY_S)
        eventually(
            lambda: here.agent.status()["outbox"]["metrics"] > 3, "metrics that wait", STORY_S
        )
        assert not here.agent.status()["broker"]["is_connected"]  # as long as it is away
        asked = len(here.device.traffic.asked)
        eventually(lambda: len(here.device.traffic.asked) > asked + 10, "more predictions")
        here.broker.restart()
        eventually(lambda: here.agent.status()["outbox"]["metrics"] == 0, "the drain", STORY_S)
        numbers = sorted(
            {(each["boot_id"], each["seq"]) for each in here.operator.of(Kind.METRICS)}
        )
        assert len({boot for boot, _ in numbers}) == 1
        assert here.device.traffic.faults() == []


def test_the_daemons_owner_wins_over_the_fleet(tmp_path: Path) -> None:
    with site(tmp_path) as here:
        assert here.device.order("hold", reason="demo day").status == 200
        here.agent.start()
        here.publish(2, here.bundle("good", 2))
        eventually(here.agent.is_up, "the agent", STORY_S)
        here.agent.command("check-now")
        # The look that it waited for may have begun before the plan was there.
        eventually(lambda: "demo day" in here.agent.command("explain", "m").stdout, "why not")
        assert here.device.status().active in {None, 1}
        assert here.device.order("clear").status == 200
        here.agent.command("check-now")
        here.reached("succeeded", 2)


def test_an_order_to_revert_leads_back_without_a_download(tmp_path: Path) -> None:
    with site(tmp_path) as here:
        here.agent.start()
        here.publish(2, here.bundle("two", 2))
        here.reached("succeeded", 2)
        here.publish(3, here.bundle("three", 3))
        here.reached("succeeded", 3)
        spent = here.agent.status()["bytes_this_month"]["artifact"]
        here.plan(3, order="revert", revert_to=2)
        eventually(lambda: here.device.status().active == 2, "the way back", STORY_S)
        assert here.agent.status()["bytes_this_month"]["artifact"] == spent
        assert here.device.status().override is None


def edge_fleet(*arguments: str) -> int:
    command = str(Path(sys.executable).with_name("edge-fleet"))
    return subprocess.run([command, *arguments], check=False).returncode


def test_an_export_is_imported_where_there_is_no_network(tmp_path: Path) -> None:
    with site(tmp_path) as here:
        here.repository.add(here.bundle("good", 2))
        here.repository.set_plan(model="m", version=2)
        export = tmp_path / "export.tar"
        assert (
            edge_fleet(
                "repo",
                "export",
                str(here.repository.folder),
                "-o",
                str(export),
                "--channel",
                "stable",
            )
            == 0
        )
        here.agent.go_offline()
        here.agent.start()
        eventually(here.agent.is_up, "the agent", STORY_S)
        assert here.agent.command("check-now", expect=1).returncode == 1
        shown = here.agent.command("import", str(export)).stdout
        assert "every signature was right" in shown
        here.reached("succeeded", 2)
