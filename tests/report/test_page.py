"""The report: sections computed by hand on toys, a page that is complete in itself, numbers that survive as JSON."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longstrand.report.locus import Locus, Track
from longstrand.report.page import VIEWS, render_html, write_report
from longstrand.report.plots import draw_curves, to_svg
from longstrand.report.runs import evaluation_sections, learning_curve, write_run_page
from longstrand.report.sections import (
    Boxes,
    Commands,
    Curves,
    Line,
    MetricRow,
    Metrics,
    Report,
    Section,
    Table,
    confusion,
    flatten,
    grid,
    metric_meaning,
    metric_rows,
    metric_title,
    provenance_table,
    ranking,
)

VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """Collect tags, attributes and text, and check that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def every_kind() -> list[Section]:
    rows = [
        MetricRow("a<b", "mcc", 0.5, 0.25, 0.75, [0.5, 0.625]),
        MetricRow("other", "mcc", 0.125),
        MetricRow("other", "accuracy", 0.875),
    ]
    line = Line("training", [1, 2, 3], [3.0, 2.0, 1.5], low=[2.5, 1.5, 1.0], high=[3.5, 2.5, 2.0])
    labels = {"x_label": "step", "y_label": "loss"}
    return [
        Metrics("Quality", "How good?", rows, main="mcc"),
        Curves("Curve", "Learning.", [line], **labels, references={"chance": 2.5}),
        confusion("Calls", [[1, 1, 0], [0, 1, 0], [1, 0, 2]], ["no", "yes", "maybe"]),
        ranking("Ranking", {"a<b": evaluation()}, positive="yes"),
        grid("All", "", ["t<1>", "u"], {"a<b": [0.5, 2.0], "c": [0.25, None]}, [False, True]),
        Table("Table", "", ["name", "rows"], [["x", 1200], ["y", None]]),
        Locus("Region", "", [Track(np.arange(3.0), "signal")], "chr1:11-13"),
        Boxes("Boxes", "", {"in": [0, 1, 2, 3, 4], "out": [1, 1, 1, 1, 2]}, "height", (["class", "n"], [["in", 5]])),
        Section("Words", "One & two."),
        provenance_table({"command": ["longstrand", "demo"], "versions": {"torch": "2"}}, genome="sha256:1"),
        Commands("Next", "Try.", [("Look:", "longstrand info FOLDER")]),
    ]


def report() -> Report:
    return Report("T <1>", every_kind(), "s", ["Good."], ["Cut."], {"difference": 0.5})


@cache
def page_text() -> str:
    return render_html(report())


def test_every_kind_is_tested() -> None:
    assert {type(section) for section in every_kind()} == set(VIEWS)


def test_the_page_is_whole_and_fetches_nothing() -> None:
    text = page_text()
    page = Page(text)
    tags = {tag for tag, _ in page.seen}
    assert tags & {"script", "link", "iframe", "object"} == set()
    outside = [value for _, attributes in page.seen for name, value in attributes.items()
               if name in {"src", "href", "xlink:href"} and not str(value).startswith("#")]  # fmt: skip
    assert outside == []
    assert "@import" not in text and "url(http" not in text
    ids = [attributes["id"] for _, attributes in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.seen:
        if tag == "a":
            assert str(attributes["href"])[1:] in ids


def test_the_page_says_the_numbers() -> None:
    text = Page(page_text()).text
    for words in [
        "T <1>",
        "a<b",
        "0.500",
        "0.250 to 0.750",
        "1,200",
        "Good.",
        "Cut.",
        "longstrand info FOLDER",
        "Matthews",
    ]:
        assert words in text


def test_pictures_are_described_and_well_formed() -> None:
    text = page_text()
    pictures = ["<svg" + part.split("</svg>")[0] + "</svg>" for part in text.split("<svg")[1:]]
    assert len(pictures) == 5
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        assert root.get("role") == "img"
        assert root.get("aria-label")


def test_the_page_is_the_same_twice() -> None:
    assert render_html(report()) == page_text()


def test_json_holds_the_same_numbers(tmp_path: Path) -> None:
    page, data = write_report(tmp_path / "new", report())
    assert page.read_text() == page_text()
    read = json.loads(data.read_text())
    assert (read["format"], read["difference"]) == ("longstrand.report.page", 0.5)
    by_kind = {section["kind"]: section for section in read["sections"]}
    assert by_kind["metrics"]["rows"][0] == {
        "model": "a<b", "metric": "mcc", "value": 0.5, "low": 0.25, "high": 0.75, "seeds": [0.5, 0.625],
    }  # fmt: skip
    assert by_kind["curves"]["lines"][0]["y"] == [3.0, 2.0, 1.5]
    assert by_kind["locus"]["components"][0]["values"] == [0.0, 1.0, 2.0]


def test_text_takes_the_colours_of_the_page() -> None:
    page = page_text()
    assert "var(--ink, #24343c)" in page and ": #24343c" not in page.split("</style>")[1]


def evaluation(value: float = 0.5) -> dict[str, Any]:
    """Write the evaluation of five sequences, three of them positive, by hand."""
    curves = {
        "roc": {"fpr": [0.0, 0.5, 1.0], "tpr": [0.0, 0.75, 1.0]},
        "pr": {"recall": [0.0, 1.0], "precision": [1.0, 0.6]},
    }
    return {
        "metrics": {"mcc": {"value": value, "low": value - 0.25, "high": value + 0.125}},
        "per_class": {"no": {"num_true": 2}, "yes": {"num_true": 3, "roc_auc": 0.625, "average_precision": 0.8}},
        "curves": {"yes": curves},
    }


def test_rows_are_means_over_seeds() -> None:
    (row,) = metric_rows("m", [evaluation(0.5), evaluation(0.75)])
    assert row == MetricRow("m", "mcc", 0.625, 0.375, 0.75, [0.5, 0.75])


def test_an_undefined_metric_has_no_mean() -> None:
    undefined = {"metrics": {"mcc": {"value": float("nan")}}}
    (row,) = metric_rows("m", [undefined])
    assert (row.value, row.low) == (None, None)


def test_ranking_by_hand() -> None:
    section = ranking("t", {"m": evaluation()}, positive="yes")
    assert section.prevalence == 3 / 5
    assert section.models["m"]["roc_auc"] == 0.625
    assert section.models["m"]["precision"] == [1.0, 0.6]


def test_ranking_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="'m' has no curves for the class 'no': the test set needs both classes"):
        ranking("t", {"m": evaluation()}, positive="no")


def test_calls_are_shaded_by_their_share_of_the_row() -> None:
    first, second = confusion("t", [[1, 3], [0, 0]], ["no", "yes"]).rows
    assert first[0] == "no" and [(cell["value"], cell["note"], cell["shade"]) for cell in first[1:]] == [
        (1, "25 %", 0.25),
        (3, "75 %", 0.75),
    ]
    assert [cell["shade"] for cell in second[1:]] == [0, 0]


def test_lines_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="line 'a' has 2 x but 1 y values"):
        Line("a", [1, 2], [1])


def test_a_missing_main_metric_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no row has the metric 'mcc'; there are \['f1'\]"):
        Metrics("t", "", [MetricRow("m", "f1", 1.0)], main="mcc")


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": None}, "d": ["x", "y"], "e": []}) == [("a.b", "1"), ("d", "x y")]


def test_metrics_are_explained() -> None:
    assert metric_title("test_mcc") == "Matthews correlation"
    assert metric_title("my_own") == "my own"
    assert metric_meaning("my_own") == ""


def finetuning_record() -> dict[str, Any]:
    """Write the record of a fine-tuning run by hand, with the keys of `longstrand.training.measure`."""
    counts = {"num_rows": 5, "num_bases": 50, "num_unknown_letters": 1, "num_truncated": 2, "tokens": {"median": 9.0}}
    confusion = {"classes": ["no", "yes"], "counts": [[1, 1], [0, 3]]}
    return {
        "kind": "finetuning",
        "init": "random",
        "task": {"problem": "single_label", "columns": ["label"]},
        "split_origin": "given files",
        "splits": {"train": {**counts, "num_rows": 7}, "test": counts},
        "metric": "mcc",
        "curve": [{"step": 4, "eval_mcc": 0.25}, {"step": 8, "eval_mcc": float("nan")}, {"step": 12, "eval_mcc": 0.5}],
        "test": {**evaluation(), "primary": "mcc", "confusion": confusion},
        "baselines": {"kmer": {"test": evaluation(0.75), "settings": {}}},
        "sanity": {
            "splits": {"test": {"num_rows": 4}},
            "across": {"test in train": {"num_identical": 2, "num_reverse_complement": 1, "num_near_duplicates": 0}},
        },
        "warnings": ["test: k-mer regression is better."],
        "provenance": {"command": ["longstrand"]},
        "inputs": {},
    }


def pretraining_record(loss: float) -> dict[str, Any]:
    """Write the record of a pre-training run by hand."""
    numbers = ["training_bases", "hold_out_bases", "parameters", "steps", "bases_seen", "tokens_seen"]
    return {
        "kind": "pretraining",
        **dict.fromkeys(numbers, 1_500_000),
        "bases_per_token": 4.5,
        "hold_out": {"loss": loss, "accuracy": 0.5},
        "references": {"unigram": 3.0, "two_neighbour": {"loss": 2.5}},
        "provenance": {},
        "inputs": {},
    }


def test_the_page_of_a_fine_tuning_run(tmp_path: Path) -> None:
    text = Page(write_run_page(tmp_path, finetuning_record(), []).read_text()).text
    for words in [
        "this model 0.500, k-mer regression 0.750",
        "k-mer regression is better",
        "same 7 sequences",
        "start: random",
    ]:
        assert words in text


def test_a_learning_curve_leaves_out_what_is_undefined() -> None:
    (line,) = learning_curve({"m": finetuning_record()}).lines
    assert (line.x, line.y) == ([4.0, 12.0], [0.25, 0.5])


def test_multi_label_calls_are_a_table() -> None:
    found = {
        **evaluation(),
        "primary": "mcc",
        "confusion": {"labels": ["a"], "classes": ["no", "yes"], "counts": [[[1, 2], [3, 4]]]},
    }
    (table,) = [part for part in evaluation_sections({"m": [found]}, "") if isinstance(part, Table)]
    assert table.rows == [["a", 4, 3, 2, 1]]


@pytest.mark.parametrize(("loss", "words"), [(2.25, "so it is better"), (2.75, "so it is not better")])
def test_the_page_of_a_pre_training_run(tmp_path: Path, loss: float, words: str) -> None:
    rows = [{"step": 1, "loss": 4.0}, {"step": 2, "eval_loss": loss}]
    text = Page(write_run_page(tmp_path, pretraining_record(loss), rows).read_text()).text
    assert words in text and "1.5 million bases" in text


def test_other_runs_have_no_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a run of the kind 'probing' has no page; known: pretraining, finetuning"):
        write_run_page(tmp_path, {"kind": "probing"}, [])


def test_links_are_grouped_by_subject() -> None:
    titles = ["All tasks", "a/b", "a/b: cost", "a/c", "a/c: cost", "Protocol"]
    page = render_html(Report("t", [Table(title, "", ["x"], [[1]]) for title in titles], summary=["s"]))
    links = [part.split("</div>")[0].strip() for part in page.split("<nav>")[1].split("</nav>")[0].split("<div>")[1:]]
    assert links == [
        '<a href="#all-tasks">All tasks</a>',
        '<a href="#a-b">a/b</a> <a href="#a-b-cost">cost</a>',
        '<a href="#a-c">a/c</a> <a href="#a-c-cost">cost</a>',
        '<a href="#protocol">Protocol</a>',
    ]


def test_the_grid_marks_the_best_of_each_column() -> None:
    lines = {"a": [0.5, 2.0], "b": [0.25, 1.0], "c": [None, 3.0]}
    table = grid("All", "", ["up", "down"], lines, [False, True])
    assert [[cell["shade"] for cell in row[1:]] for row in table.rows] == [[1, 0.25], [0, 1], [0, 0]]  # (1/2)^2
    assert [[cell["bold"] for cell in row[1:]] for row in table.rows] == [[True, False], [False, True], [False, False]]
    page = render_html(Report("t", [table]))
    assert page.count("<b>") == 2 and 'var(--accent) 40.0%, transparent)"><b>0.500</b>' in page
    with pytest.raises(ValueError, match="zip"):
        grid("All", "", ["up", "down"], {"a": [1.0]}, [False, True])


def test_kinds_share_a_colour_and_a_legend() -> None:
    rows = [MetricRow(name, "mcc", 0.1 * place) for place, name in enumerate("abcdefgh")]
    groups = {name: "plain" if name < "e" else "deep" for name in "abcdefgh"}
    page = render_html(Report("t", [Metrics("Q", "", rows, main="mcc", groups=groups)]))
    assert {part.split('"')[0] for part in page.split('style="background:')[1:]} == {"#0b6e75", "#d9822b"}
    assert ">plain</text>" in page and ">deep</text>" in page
    assert "<details><summary>The numbers" in page  # no intervals: the picture says it all


def test_panels_share_colours_and_one_legend() -> None:
    panels = {"one": [Line("a", [1, 2], [0.5, 0.75])], "two": [Line("b", [1], [0.5]), Line("a", [1, 2], [0.25, 0.5])]}
    figure = draw_curves(panels, x_label="x", y_label="y")
    colours = {(axes.get_title(), line.get_label()): line.get_color() for axes in figure.axes for line in axes.lines}
    assert colours["one", "a"] == colours["two", "a"] != colours["two", "b"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    file = to_svg(figure, "y against x", file=True)
    assert "var(--" not in file and ElementTree.fromstring(file).get("height")


def test_rows_that_nothing_was_read_of_have_no_metrics():
    (table,) = evaluation_sections({"m": [{"primary": "mcc", "metrics": {}}]}, "")
    assert isinstance(table, Table) and "No row could be measured" in table.explain and table.rows == [[0]]


def test_dna_that_comes_first_stands_above_the_summary() -> None:
    dna = Locus("Genes", "x", [Track(np.arange(3.0), "p")], "chr1:11-13")
    curve = Curves("Loss", "y", [Line("a", [1], [2])], x_label="step", y_label="loss")
    for sections, above in (([dna, curve], True), ([curve, dna], False)):
        page = render_html(Report("T", sections, summary=["It works."]))
        assert (page.index("<h2>Genes</h2>") < page.index("It works.")) == above
        assert page.index("It works.") < page.index("<h2>Loss</h2>")
