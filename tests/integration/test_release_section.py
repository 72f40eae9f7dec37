"""A section of the configuration that only sets options of a model that releases brought."""

from pathlib import Path

import pytest

from tests.integration.test_release_crashes import QUICKLY, commit
from tests.release_device import MODEL, Device, bundle

pytestmark = pytest.mark.integration


def test_options_of_a_model_that_releases_brought_are_no_error(tmp_path: Path) -> None:
    with Device(tmp_path, **QUICKLY) as on:
        commit(on, bundle(tmp_path / "v1", 1), 1)
        with on.config.open("a", encoding="utf-8") as file:
            file.write(f"\n[models.{MODEL}]\nidle_unload_s = 600.0\n")
            file.write("\n[models.other]\nidle_unload_s = 600.0\n")
        on.restart()
        commit(on, bundle(tmp_path / "v2", 2), 2)
        assert on.ask().version == "2"
        log = on.daemon.log()
        assert "model 'other' is in none of the repositories" in log, "of it nothing is known"
        assert f"model {MODEL!r} is in none of the repositories" not in log
