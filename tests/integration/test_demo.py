"""``make demo`` as a newcomer runs it: every door answers, and both releases end as they must."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO_S = 600.0

pytestmark = [pytest.mark.integration, pytest.mark.timeout(DEMO_S + 10)]


def test_the_demo_serves_rolls_a_bad_version_back_and_commits_a_good_one() -> None:
    ended = subprocess.run(
        [sys.executable, "examples/digits/demo.py"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=DEMO_S,
    )
    story = f"{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == 0, story
    assert "rolled-back, cause verdict" in ended.stdout, story
    assert "It ended committed" in ended.stdout, story
    assert "failed: 0, right" in ended.stdout, story
