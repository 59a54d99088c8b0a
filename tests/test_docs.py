"""What README and `docs/` name exists: tests above all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"`((?:tests|docs|benchmarks|notebooks|nbparallel)/[\w/.*]+?)(?:::(\w+))?`")
LINKED = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file, test in NAMED.findall(text):
        found = sorted(ROOT.glob(file))
        assert found, file
        if test:
            assert f"\ndef {test}(" in found[0].read_text(encoding="utf-8"), f"{file}::{test}"
    for link in LINKED.findall(text):
        assert (page.parent / link).exists(), link


def test_every_promise_names_its_test() -> None:
    lines = [line for line in (ROOT / "docs/promises.md").read_text(encoding="utf-8").splitlines() if "|" in line]
    promises = [line for line in lines if line not in ("| promise | shown by |", "|---|---|")]
    assert len(promises) > 20
    assert [line for line in promises if not NAMED.search(line.split("|")[2])] == []
