"""Documents that are facts of the code are what the code says, and links lead somewhere."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.daemons import Daemon

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generate()


@pytest.mark.parametrize("name", GENERATE.GENERATED)
def test_a_generated_document_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "commands.md" and sys.version_info >= (3, 12):
        pytest.skip("argparse words its help a little differently in every version; CI has 3.11")
    monkeypatch.setenv("COLUMNS", "90")
    assert (DOCS / name).read_text("utf-8") == GENERATE.GENERATED[name](), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.integration
def test_every_metric_is_documented(digits: Daemon) -> None:
    page = (DOCS / "metrics.md").read_text("utf-8")
    text = digits.request("GET", "/metrics").body.decode()
    ours = [
        family
        for family in text_string_to_metric_families(text)
        if family.name.startswith("edge_runtime")
    ]
    assert ours
    for family in ours:
        total = "_total" if family.type == "counter" else ""
        assert f"`{family.name}{total}`" in page, family.name
