"""A document with regenerated numbers: markers, errors with their line, checking, figures; the real one."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from longstrand.benchmarks.reports.document import find_markers, update_document
from longstrand.benchmarks.reports.figures import curves_of, drawn_digest
from longstrand.benchmarks.reports.tidy import open_tidy
from longstrand.errors import InputError, UsageError

REAL = Path(__file__).resolve().parents[3] / "docs" / "BENCHMARK.md"
TABLE = """\
task,arm,group,seed,num_train,train_rows,metric,value,valid,layer
a,base,baseline,0,,1000,mcc,0.5,0.5,
a,base,baseline,0,100,100,mcc,0.3,0.3,
a,ours,model,0,,1000,mcc,0.7,0.6,
a,ours,model,1,,1000,mcc,0.9,0.6,
a,ours,model,0,100,100,mcc,0.1,0.6,
a,ours,model,1,100,100,mcc,0.2,0.6,
"""
TEXT = """\
# Title

Better by <!--= difference toy ours=ours against=base show=mean -->nothing<!--/--> (`<!--= x -->` stays), and \
<!--= value toy arm=ours -->x<!--/-->.

<!-- a remark -->
```
<!-- table toy -->
```

<!-- table toy arm="ours as tuned; base" -->
old

<!-- end -->
<!-- curve toy x=num_train figure=results/few.svg -->
<!-- end -->
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "toy.csv").write_text(TABLE)
    (tmp_path / "B.md").write_text(TEXT)
    return tmp_path


def test_update_and_check(place: Path) -> None:
    document, results = place / "B.md", place / "results"
    before = update_document(document, results, check=True)
    assert document.read_text() == TEXT and not (results / "few.svg").exists()
    assert before.num_markers == 4 and before.stale == (
        "B.md:3: difference toy ours=ours against=base show=mean",
        "B.md:3: value toy arm=ours",
        "B.md:10: table toy arm=ours as tuned; base",
        "B.md:14: curve toy x=num_train figure=results/few.svg",
        "B.md:14: figure results/few.svg",
    )
    assert update_document(document, results).stale == before.stale
    text = document.read_text()
    assert (
        "show=mean -->+0.300<!--/--> (`<!--= x -->` stays), and <!--= value toy arm=ours -->0.800 ± 0.141<!--" in text
    )
    assert "| `a` | **0.800 ± 0.141** | 0.500 |\n\n*Matthews" in text and "\nold\n" not in text
    assert "| arm, by training rows | 100 | 1,000 |" in text and "| ours | 0.150 ± 0.071 | 0.800 ± 0.141 |" in text
    assert "![Matthews correlation against training rows](results/few.svg)" in text
    assert "```\n<!-- table toy -->\n```" in text and "<!-- a remark -->" in text
    assert update_document(document, results, check=True).stale == ()
    (results / "toy.csv").write_text(TABLE.replace("0.9", "0.8"))
    stale = update_document(document, results, check=True).stale
    assert [title.split(" ")[1] for title in stale] == ["difference", "value", "table", "curve", "figure"]
    (results / "toy.csv").write_text(
        TABLE.replace("a,base,baseline,0,100,100,mcc,0.3", "a,base,baseline,0,100,100,mcc,0.2")
    )
    assert [title.split(" ")[1] for title in update_document(document, results, check=True).stale] == [
        "curve",
        "figure",
    ]


def test_names_hold_for_the_document(place: Path) -> None:
    text = '<!-- names arm="ours as tuned; b* as B*" task="a as A" -->\n<!-- table toy arm="tuned; Base" -->\n'
    text += "<!-- end -->\n"
    (place / "B.md").write_text(text)
    assert update_document(place / "B.md", place / "results").num_markers == 1
    assert "| task | tuned | Base |" in (place / "B.md").read_text() and "| `A` |" in (place / "B.md").read_text()
    assert update_document(place / "B.md", place / "results", check=True).stale == ()
    (place / "B.md").write_text(text.replace("ours as", "oars as"))
    with pytest.raises(UsageError, match="unknown arm of toy 'tuned'"):
        update_document(place / "B.md", place / "results")
    (place / "B.md").write_text(text.replace("a as A", "b as B"))
    with pytest.raises(UsageError, match=r"B\.md:1: no table that the document shows has the task 'b'"):
        update_document(place / "B.md", place / "results")
    for wrong in ("ours", "o* as x", "*o* as *x*", "a* as b", "*a as *b"):
        (place / "B.md").write_text(f'<!-- names arm="{wrong}" -->\n<!--= count toy -->x<!--/-->\n')
        with pytest.raises(InputError, match=r"B\.md:1: '.*' is not 'old as new'"):
            update_document(place / "B.md", place / "results")


def test_line_ends_stay(place: Path) -> None:
    (place / "B.md").write_bytes(b"a\r\n<!-- count toy -->\r\n")
    with pytest.raises(InputError, match=r"B.md:2: 'count' stands within a line: <!--= count toy -->text<!--/-->"):
        update_document(place / "B.md", place / "results")
    (place / "B.md").write_bytes(b"a\r\n<!--= count toy of=task -->9<!--/-->\r\n")
    update_document(place / "B.md", place / "results")
    assert (place / "B.md").read_bytes() == b"a\r\n<!--= count toy of=task -->1<!--/-->\r\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\n<!-- table toy -->\nb\n", "B.md:2: the block 'table toy' is not closed by '<!-- end -->'"),
        ("<!-- table toy -->\n<!-- cost toy -->\n", "B.md:2: the block of line 1 is not closed"),
        (
            "a\n<!-- tabel toy -->\n<!-- end -->\n",
            r"B.md:3: '<!-- end -->' without a block before it \(did you mean 'table'",
        ),
        ("<!-- end -->\n", r"B.md:1: '<!-- end -->' without a block before it\.$"),
        ("<!-- table -->\n<!-- end -->\n", "B.md:1: 'table' names no experiment"),
        ("<!-- table arm=x -->\n<!-- end -->\n", "B.md:1: 'table arm=x' names no experiment"),
        ('<!-- table toy arm="x -->\n<!-- end -->\n', "B.md:1: '.*' is not key=value or key=\"several words\""),
        ("<!-- table toy arm -->\n<!-- end -->\n", "B.md:1: 'arm' is not key=value"),
        ("<!-- table toy arm=x arm=y -->\n<!-- end -->\n", "B.md:1: 'arm' is given twice"),
        ("\n<!--= valu toy -->x<!--/-->\n", r"B.md:2: unknown view 'valu' \(did you mean 'value'\?\); known: table"),
        ("x <!--= value toy -->x\n", "B.md:1: '<!--= value toy -->' is not closed by '<!--/-->' on the same line"),
        ("<!--= value toy --><!--= value toy -->x<!--/-->\n", "B.md:1: .* is not closed"),
        ("x<!--/-->\n", "B.md:1: '<!--/-->' without '<!--= ... -->' before it"),
        ("<!--= value\ntoy -->x<!--/-->\n", "B.md:1: a marker that begins with '<!--=' ends on the same line"),
        ("<!--= table toy -->x<!--/-->\n", "B.md:1: 'table' is a block: <!-- table toy -->"),
    ],
    ids=range(15),
)
def test_malformed_markers(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_markers(text, "B.md")


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("table toi", r"B.md:3: unknown experiment 'toi' .*did you mean 'toy'"),
        ("table toy arm=bass", r"B.md:3: unknown arm of toy 'bass' \(did you mean 'base'"),
        ("curve toy", "B.md:3: a curve needs x=, a numeric column"),
        ("curve toy x=group", "B.md:3: the column group of toy is not numeric"),
        ("curve toy x=layer", "B.md:3: the column layer of toy is not numeric"),
        ("curve toy x=num_train serie=arm", r"B.md:3: unknown option of curve, .* 'serie' \(did you mean 'series'"),
        ("curve toy x=num_train figure=../a.svg", "B.md:3: figure=../a.svg is not an .svg file under the folder"),
        ("curve toy x=num_train figure=a.png", "B.md:3: figure=a.png is not an .svg file"),
    ],
    ids=range(8),
)
def test_wishes_that_cannot_be_met(place: Path, marker: str, words: str) -> None:
    (place / "B.md").write_text(f"x\n\n<!-- {marker} -->\n<!-- end -->\n")
    with pytest.raises(UsageError, match=words):
        update_document(place / "B.md", place / "results")


def test_unreadable_files(place: Path) -> None:
    with pytest.raises(InputError, match=r"none\.md: not readable as text"):
        update_document(place / "none.md", place / "results")
    update_document(place / "B.md", place / "results")
    figure = place / "results" / "few.svg"
    figure.write_text("<svg/>")
    assert drawn_digest(figure) is None
    figure.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"few.svg: not readable as SVG"):
        update_document(place / "B.md", place / "results")


def test_curves_and_their_figure(place: Path) -> None:
    tidy = open_tidy(place / "results", "toy")
    curves = curves_of(tidy, {"x": "num_train", "arm": "ours as tuned"})
    (panel,) = curves.panels
    (line,) = panel["series"]
    assert (line["name"], line["x"]) == ("tuned", [100, 1000]) and line["y"] == pytest.approx([0.15, 0.8])
    assert line["high"][0] == pytest.approx(0.15 + 0.1 / 2**0.5) and curves.log
    update_document(place / "B.md", place / "results")
    first = (place / "results" / "few.svg").read_bytes()
    root = ElementTree.fromstring(first.decode().split("\n", 1)[1])
    assert {"100", "1,000", "ours", "base", "training rows"} <= {node.text for node in root.iter() if node.text}
    assert root.get("width") and b"<dc:date>" not in first
    (place / "results" / "few.svg").unlink()
    update_document(place / "B.md", place / "results")
    assert (place / "results" / "few.svg").read_bytes() == first


def test_panels_of_several_tasks(place: Path) -> None:
    lines = TABLE.splitlines()
    more = [f"t{task}{line[1:]}" for task in range(4) for line in lines[1:]]
    (place / "results" / "toy.csv").write_text("\n".join([lines[0], *more]) + "\n")
    (place / "B.md").write_text("<!-- curve toy x=num_train figure=few.svg table=no -->\n<!-- end -->\n")
    update_document(place / "B.md", place / "results")
    text = (place / "few.svg").read_text()
    assert all(f">t{task}<" in text for task in range(4)) and text.count(">training rows<") == 2
    assert "|" not in (place / "B.md").read_text()


def test_the_real_document_is_up_to_date(tmp_path: Path) -> None:
    """Every number of docs/BENCHMARK.md between markers is what its results give."""
    assert find_markers(REAL.read_text(), REAL.name)
    found = update_document(REAL, REAL.parent / "results", check=True)
    assert found.num_markers > 0 and found.stale == (), (
        "run: longstrand benchmark report --document docs/BENCHMARK.md --results docs/results"
    )


def test_the_real_results_name_no_path() -> None:
    """What is published names no folder of the machine that made it."""
    files = [path for path in (REAL.parent / "results").glob("*") if path.suffix in (".csv", ".json", ".svg")]
    assert files
    pattern = re.compile(r"(?<![\w.:/])/(?:home|root|work|tmp|mnt|Users|data|opt|var)/")
    assert [path.name for path in files if pattern.search(path.read_text())] == []
    assert all(path.stat().st_size < 2_000_000 for path in files)
