"""docs/README.md leads to each page, and no link between pages leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)")


def headings(page: Path) -> set[str]:
    """As anchors, by the rules of the usual forges."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text()):
        if "://" in path:
            continue
        target = page.parent / path
        assert target.exists(), path
        assert not anchor or anchor in headings(target), f"{path}#{anchor}"


def test_the_index_has_every_page() -> None:
    text = (ROOT / "docs/README.md").read_text()
    assert {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"} <= {path for path, _ in LINK.findall(text)}
