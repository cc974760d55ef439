"""README.md and docs/ADDING.md are executed; links and named files of all documents exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents import BLOCK, ROOT, check_command, run_blocks

DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
]


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    run_blocks(["README.md", "docs/ADDING.md"], capsys)


def page_source(page: Path) -> Path:
    """Find what a page of the site is made from: notebooks and the changelog become pages when the site is built."""
    if page.parent == ROOT / "docs" / "examples":
        return ROOT / "examples" / f"{page.stem}.py"
    return ROOT / "CHANGELOG.md" if page == ROOT / "docs" / "changes.md" else page


def anchors_of(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_resolve(document: str) -> None:
    source = ROOT / document
    text = BLOCK.sub("", source.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+://", target):
            continue
        path, _, anchor = target.partition("#")
        file = page_source((source.parent / path).resolve()) if path else source
        assert file.exists(), f"{document} links to {target}, which does not exist"
        assert not anchor or anchor in anchors_of(file), f"{document} links to {target}, which has no such heading"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document: str) -> None:
    text = BLOCK.sub("", (ROOT / document).read_text())
    for name in re.findall(r"`((?:longstrand|tests|docs|perf|recipes|tools|examples)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"{document} names {name}, which does not exist"


def test_the_checks_can_fail(capsys: pytest.CaptureFixture[str]) -> None:
    for words, problem in [
        (["make", "coffee"], "no target coffee"),
        (["longstrand", "fold"], "no verb fold"),
        (["longstrand", "info", "x", "--colour"], "info has no --colour"),
        (["rm", "-r", "x"], "unknown command rm"),
    ]:
        with pytest.raises(AssertionError, match=problem):
            check_command(words, capsys)
