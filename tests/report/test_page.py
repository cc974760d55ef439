"""The report: sections computed by hand on toys, a page that is complete in itself, numbers that survive as JSON."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from longstrand.report import sections
from longstrand.report.page import RENDERERS, flatten, render_html, write_report
from longstrand.report.plots import draw_points
from longstrand.report.runs import evaluation_sections, learning_curve, write_run_page

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


def every_kind() -> list[dict[str, Any]]:
    rows = [
        {"model": "a<b", "metric": "mcc", "value": 0.5, "low": 0.25, "high": 0.75, "seeds": [0.5, 0.625]},
        {"model": "other", "metric": "mcc", "value": 0.125},
        {"model": "other", "metric": "accuracy", "value": 0.875},
    ]
    line = {"name": "training", "x": [1, 2, 3], "y": [3.0, 2.0, 1.5]}
    return [
        sections.metrics_section("Quality", "How good?", rows, main="mcc"),
        sections.curves_section(
            "Curve", "Learning.", [line], x_label="step", y_label="loss", references={"chance": 2.5}
        ),
        sections.confusion_section("Calls", [[1, 1, 0], [0, 1, 0], [1, 0, 2]], ["no", "yes", "maybe"]),
        sections.ranking_section("Ranking", {"a<b": evaluation()}, positive="yes"),
        sections.tokens_section({1: 3, 4: 1}, [("ACGT", 1)]),
        sections.leakage_section({"train": ["ACG"], "test": ["CGT"]}),
        sections.points_section(
            "Cost", "", [{"name": "a<b", "group": "g", "x": 2.0, "y": 0.5}], x_label="seconds", y_label="accuracy"
        ),
        sections.grid_section("All", "", ["t<1>", "u"], {"a<b": [0.5, 2.0], "c": [0.25, None]}, [False, True]),
        sections.table_section("Table", "", ["name", "rows"], [["x", 1200], ["y", None]]),
        {"kind": "text", "title": "Words", "paragraphs": ["One & two."]},
        sections.provenance_section({"command": ["longstrand", "demo"], "versions": {"torch": "2"}}, genome="sha256:1"),
        sections.commands_section("Next", "Try.", [("Look:", "longstrand info FOLDER")]),
    ]


def report() -> dict[str, Any]:
    return {"title": "T <1>", "subtitle": "s", "summary": ["Good."], "warnings": ["Cut."], "sections": every_kind()}


def test_every_kind_is_tested() -> None:
    assert {section["kind"] for section in every_kind()} == set(RENDERERS)


def test_the_page_is_whole_and_fetches_nothing() -> None:
    text = render_html(report())
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
    text = Page(render_html(report())).text
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
    text = render_html(report())
    pictures = ["<svg" + part.split("</svg>")[0] + "</svg>" for part in text.split("<svg")[1:]]
    assert len(pictures) == 7
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        assert root.get("role") == "img"
        assert root.get("aria-label")


def test_the_page_is_the_same_twice() -> None:
    assert render_html(report()) == render_html(report())


def test_json_holds_the_same_numbers(tmp_path: Path) -> None:
    page, data = write_report(tmp_path / "new", report())
    assert page.read_text() == render_html(report())
    read = json.loads(data.read_text())
    assert read["format"] == "longstrand.report.page"
    assert read["sections"][0]["rows"][0]["value"] == 0.5
    assert render_html(read) == page.read_text()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no section of the kind 'pie'; known: curves, metrics"):
        render_html({"title": "t", "sections": [{"kind": "pie", "title": "x"}]})


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
    (row,) = sections.metric_rows("m", [evaluation(0.5), evaluation(0.75)])
    assert row == {"model": "m", "metric": "mcc", "value": 0.625, "low": 0.375, "high": 0.75, "seeds": [0.5, 0.75]}


def test_an_undefined_metric_has_no_mean() -> None:
    undefined = {"metrics": {"mcc": {"value": float("nan")}}}
    (row,) = sections.metric_rows("m", [undefined])
    assert (row["value"], row["low"]) == (None, None)


def test_ranking_by_hand() -> None:
    section = sections.ranking_section("t", {"m": evaluation()}, positive="yes")
    assert section["prevalence"] == 3 / 5
    assert section["series"][0]["roc_auc"] == 0.625
    assert section["series"][0]["precision"] == [1.0, 0.6]


def test_ranking_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="'m' has no curves for the class 'no': the test set needs both classes"):
        sections.ranking_section("t", {"m": evaluation()}, positive="no")


def test_tokens_by_hand() -> None:
    section = sections.tokens_section({1: 3, 4: 1}, [("ACGT", 1)])
    assert section["mean_bases"] == 7 / 4
    assert "about 896 bases" in section["explain"]
    assert section["longest"] == [{"token": "ACGT", "bases": 4, "count": 1}]


def test_leakage_by_hand() -> None:
    # ACGT is its own reverse complement; 'aag' is in train as AAG, CTT is its reverse complement.
    splits = {"train": ["ACGT", "AAG"], "dev": ["CTT", "CCC"], "test": ["aag", "acgt", "GGG", "TTT"]}
    assert sections.count_leakage(splits) == [
        {"of": "dev", "in": "train", "rows": 2, "exact": 0, "reverse_complement": 1},
        {"of": "test", "in": "train", "rows": 4, "exact": 2, "reverse_complement": 0},
        {"of": "test", "in": "dev", "rows": 4, "exact": 0, "reverse_complement": 2},
    ]
    assert "5 sequences occur in two splits" in sections.leakage_section(splits)["explain"]
    assert "No sequence" in sections.leakage_section({"train": ["AC"], "test": ["GG"]})["explain"]


def test_curves_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="series 'a' has 2 x but 1 y values"):
        sections.curves_section("t", "", [{"name": "a", "x": [1, 2], "y": [1]}], x_label="x", y_label="y")


def test_a_missing_main_metric_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no row has the metric 'mcc'; there are \['f1'\]"):
        sections.metrics_section("t", "", [{"model": "m", "metric": "f1", "value": 1.0}], main="mcc")


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": None}, "d": ["x", "y"], "e": []}) == [("a.b", "1"), ("d", "x y")]


def test_metrics_are_explained() -> None:
    assert sections.metric_title("test_mcc") == "Matthews correlation"
    assert sections.metric_title("my_own") == "my own"
    assert sections.metric_meaning("my_own") == ""


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
        "leakage": {"test": {"num_rows_also_in_train": 3}},
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
    (series,) = learning_curve({"m": finetuning_record()})["series"]
    assert (series["x"], series["y"]) == ([4.0, 12.0], [0.25, 0.5])


def test_multi_label_calls_are_a_table() -> None:
    found = {
        **evaluation(),
        "primary": "mcc",
        "confusion": {"labels": ["a"], "classes": ["no", "yes"], "counts": [[[1, 2], [3, 4]]]},
    }
    (table,) = [part for part in evaluation_sections({"m": [found]}, "") if part["kind"] == "table"]
    assert table["rows"] == [["a", 4, 3, 2, 1]]


@pytest.mark.parametrize(("loss", "words"), [(2.25, "so it is better"), (2.75, "so it is not better")])
def test_the_page_of_a_pre_training_run(tmp_path: Path, loss: float, words: str) -> None:
    rows = [{"step": 1, "loss": 4.0}, {"step": 2, "eval_loss": loss}]
    text = Page(write_run_page(tmp_path, pretraining_record(loss), rows).read_text()).text
    assert words in text and "1.5 million bases" in text


def test_other_runs_have_no_page(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a run of the kind 'probing' has no page; known: pretraining, finetuning"):
        write_run_page(tmp_path, {"kind": "probing"}, [])


def test_links_stand_by_subject() -> None:
    titles = ["All tasks", "a/b", "a/b: cost", "a/c", "a/c: cost", "Protocol"]
    parts = [sections.table_section(title, "", ["x"], [[1]]) for title in titles]
    page = render_html({"title": "t", "summary": ["s"], "sections": parts})
    links = [part.split("</div>")[0] for part in page.split("<nav>")[1].split("</nav>")[0].split("<div>")[1:]]
    assert links == [
        '<a href="#all-tasks">All tasks</a>',
        '<a href="#a-b">a/b</a> <a href="#a-b-cost">cost</a>',
        '<a href="#a-c">a/c</a> <a href="#a-c-cost">cost</a>',
        '<a href="#protocol">Protocol</a>',
    ]


def test_the_grid_marks_the_best_of_each_column() -> None:
    lines = {"a": [0.5, 2.0], "b": [0.25, 1.0], "c": [None, 3.0]}
    section = sections.grid_section("All", "", ["up", "down"], lines, [False, True])
    page = render_html({"title": "t", "sections": [section]})
    assert page.count("<b>") == 2 and "<b>0.500</b>" in page and "<b>1.000</b>" in page
    assert 'rgba(11,110,117,0.32)"><b>0.500' in page and 'rgba(11,110,117,0.08)">2.000' in page  # (1/2)^2 of the way
    with pytest.raises(ValueError, match="a row of 'All' has not 2 scores"):
        sections.grid_section("All", "", ["up", "down"], {"a": [1.0]}, [False, True])


def test_kinds_share_a_colour_and_a_legend() -> None:
    rows = [{"model": name, "metric": "mcc", "value": 0.1 * place} for place, name in enumerate("abcdefgh")]
    groups = {name: "plain" if name < "e" else "deep" for name in "abcdefgh"}
    page = render_html({"title": "t", "sections": [sections.metrics_section("Q", "", rows, main="mcc", groups=groups)]})
    assert {part.split('"')[0] for part in page.split('style="background:')[1:]} == {"#0b6e75", "#d9822b"}
    assert ">plain</text>" in page and ">deep</text>" in page
    assert "<details><summary>The numbers" in page  # no intervals: the picture says it all


def names_and_boxes(svg: str, names: list[str]) -> list[tuple[float, float, float, float]]:
    """Find where the names of a picture stand, in points: left, top, right, bottom."""
    boxes = []
    for name in names:
        found = re.search(rf'text-anchor: (\w+)[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>{name}</text>', svg)
        assert found, name
        x, y, width = float(found.group(2)), float(found.group(3)), 0.5 * 8.5 * len(name)
        left = x - width * {"start": 0, "middle": 0.5, "end": 1}[found.group(1)]
        boxes.append((left, y - 6, left + width, y))
    return boxes


def test_names_of_points_keep_clear_of_each_other() -> None:
    names = [f"model number {place}" for place in range(12)]
    points = [
        {"name": name, "group": "g", "x": 1.0 + 0.15 * place, "y": 0.5 + 0.004 * (place % 3)}
        for place, name in enumerate(names)
    ]
    svg = draw_points(points, x_label="seconds", y_label="score", colours={"g": "#000000"})
    assert svg == draw_points(points, x_label="seconds", y_label="score", colours={"g": "#000000"})
    boxes = names_and_boxes(svg, names)
    for place, one in enumerate(boxes):
        for other in boxes[:place]:
            wide, high = (min(one[side + 2], other[side + 2]) - max(one[side], other[side]) for side in (0, 1))
            assert wide < 1 or high < 1


def test_an_undefined_main_metric_is_said_instead_of_drawn() -> None:
    rows = [{"model": "m", "metric": "pearson", "value": None}, {"model": "m", "metric": "mse", "value": 0.25}]
    page = render_html({"title": "t", "sections": [sections.metrics_section("Q", "", rows, main="pearson")]})
    assert "is undefined for these labels" in page and "0.250" in page
    nan = [{"model": "m", "metric": "pearson", "value": float("nan"), "low": None, "high": None}]
    assert "is undefined" in render_html(
        {"title": "t", "sections": [sections.metrics_section("Q", "", nan, main="pearson")]}
    )
