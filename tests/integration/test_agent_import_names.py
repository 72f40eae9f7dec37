"""An export whose model and files have every name that a manifest allows, taken from a tar."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent_site import STORY_S, AgentProcess
from tests.daemons import eventually
from tests.repositories import new_repository, tree
from tests.store_bundles import ONNX

pytestmark = pytest.mark.integration

MODEL = "vision:digits@eu"
FILES = {
    "model #1 [fp32].onnx": ONNX,
    "größe/模型.onnx": ONNX,
    "data/.hidden-part": ONNX,
    "50%/a+b=c;d&e'f(1)!,$~.bin": ONNX,
}


@pytest.mark.parametrize("is_running", [False, True], ids=["alone", "running"])
def test_names_that_a_manifest_allows_come_in_and_every_signature_is_right(
    tmp_path: Path, *, is_running: bool
) -> None:
    for name in ("a", "origin"):
        (tmp_path / name).mkdir()
    repository = new_repository(tmp_path / "origin", fleet="shop")
    repository.add_bundle(FILES, model=MODEL)
    repository.set_plan(model=MODEL)
    export = tmp_path / "export.tar"
    command = [str(Path(sys.executable).with_name("edge-fleet")), "repo", "export"]
    command += [str(repository.folder), "-o", str(export), "--channel", "stable"]
    subprocess.run(command, check=True, capture_output=True)
    agent = AgentProcess(
        tmp_path / "a",
        '[device]\nid = "till-7"\nfleet = "shop"\nclock_is_trusted = "yes"\n'
        f'[runtime]\nadmin_socket = "{tmp_path}/nobody.sock"\n'
        f'[repository]\nroot = "{repository.root}"\n[downloads]\nreserve_bytes = 0\n',
    )
    try:
        if is_running:
            agent.start()
            eventually(agent.is_up, "the agent", STORY_S)
        shown = agent.command("import", str(export)).stdout
        assert "every signature was right" in shown
        # No daemon runs here: what came in is known all the same, and that is said.
        assert "decided later" in shown
        came = tree(agent.state / "imported" / "artifacts" / "models")
        for name in FILES:
            folder, _, last = name.rpartition("/")
            assert any(
                path.endswith(f".{last}") and (not folder or f"/{folder}/" in path) for path in came
            )
        assert any(path.startswith(MODEL) for path in came)
        again = agent.command("import", str(export)).stdout
        assert "every signature was right" in again
    finally:
        agent.close()
