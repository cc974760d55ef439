"""README.md and docs/ADDING.md are executed; links and named files of all documents exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from longstrand.demo.run import run_demo
from longstrand.demo.settings import DemoConfig
from tests.documents import BLOCK, ROOT, check_command, run_blocks

DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
]


@pytest.mark.docs
def test_every_block_runs_and_the_demo_resumes(folder_of_blocks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_blocks(["README.md", "docs/ADDING.md"], capsys)
    check_demo(folder_of_blocks / "demo_output")


def check_demo(folder: Path) -> None:
    """Check what the demo said and drew, and that the same command computes nothing of it anew."""
    report = json.loads((folder / "report.json").read_text())
    sections = {section["title"]: section for section in report["sections"]}
    assert [section["kind"] for section in report["sections"][:3]] == ["locus"] * 3
    models = {"pre-trained", "random start", "6-mer regression", "gapped 6-mer regression", "compact CNN"}
    table = sections["Enhancers: How well does each model do?"]
    read = {"pre-trained, token probabilities", "random start, token probabilities"}
    assert {row["model"] for row in table["rows"]} == {*models, *read, "majority class"}
    assert set(report["differences"]["enhancers"]) == {*models, "random start, token probabilities"}
    for name, pair in report["differences"]["enhancers"].items():
        shown = {row["model"]: row["value"] for row in table["rows"] if row["metric"] == table["main"]}
        assert pair["difference"] == pytest.approx(shown["pre-trained, token probabilities"] - shown[name], abs=1e-9)
    assert {row[0] for row in sections["Gene structure, base by base"]["rows"]} >= {"coding", "intron"}
    page = (folder / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "made up" in page and "docs/BENCHMARK" in page
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    again = run_demo(DemoConfig(output=Path("demo_output"), quick=True))
    assert list(again.verdict) == report["summary"] and len(kept) == 4
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


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
