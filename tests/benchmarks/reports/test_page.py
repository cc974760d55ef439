"""The benchmark page on rows written by hand: warnings, overview, layers, few rows, published numbers."""

from __future__ import annotations

from typing import Any

import pytest

from longstrand.benchmarks.reports.page import (
    collapse_sentence,
    few_lines,
    fewshot_sections,
    layer_sections,
    overview_section,
    paired_sections,
    rank_section,
    task_sections,
    undefined,
)
from longstrand.report.page import render_html
from longstrand.report.sections import Report

GROUP_OF = {"kmer": "baseline", "cnn": "baseline", "m: full": "model", "m: random init": "control"}


def row(arm: str, mean: float | None, num_train: int | None = None, **changes: Any) -> dict[str, Any]:
    cost = {"seconds": 2.0, "trained_parameters": 10, "storage_bytes": 4e6, "peak_memory_bytes": 5e8}
    return {
        "task": "t", "arm": arm, "group": GROUP_OF[arm], "metric": "mcc", "num_train": num_train, "mean": mean,
        "sd": 0.125, "valid": mean, "values": [mean], "seeds": [0, 1], "flags": [], "cost": cost,
        "metrics": {"mcc": {"value": mean, "low": None, "high": None, "seeds": [mean]}},
    } | changes  # fmt: skip


def test_collapsed_lines_are_one_sentence() -> None:
    bad = {"flags": ["constant prediction", "no better than the majority"]}
    rows = [row("kmer", 0.5), row("cnn", 0.0, **bad), row("m: full", 0.0, 10, **bad), row("cnn", 0.0, 10, **bad)]
    rows += [row("kmer", 0.1, 10), row("kmer", 0.2, 20)]
    assert collapse_sentence("t", rows) == (
        "t: collapsed (a constant prediction, or no better than the majority): cnn; 2 of 3 lines with 10 rows."
    )
    assert collapse_sentence("t", [row("kmer", 0.5)]) == ""


def test_overview() -> None:
    rows = [row("kmer", 0.5), row("kmer", 0.25, task="u", metric="mse"), row("m: full", 0.75), row("cnn", None)]
    section = overview_section(rows, {"t": {"metric": "mcc"}, "u": {"metric": "mse"}})
    assert section.rows == {"kmer": [0.5, 0.25], "m: full": [0.75, None]}
    assert section.lower == [False, True] and section.explain.startswith("Matthews correlation, mean squared")


def test_ranks_have_the_colours_of_the_tables() -> None:
    ranks = [{"arm": "m: full", "group": "model", "mean": 1.0, "ranks": [1, 1]}]
    ranks += [{"arm": "kmer", "group": "baseline", "mean": 2.0, "ranks": [2, 2]}]
    assert list(rank_section(ranks, 2).groups.items()) == [("kmer", "no language model"), ("m: full", "pre-trained")]


def probed(arm: str, seed: int, *means: float) -> dict[str, Any]:
    curve = [{"layer": layer, "pooling": "cls", "mean": mean, "sd": 0.25} for layer, mean in enumerate(means)]
    curve[0]["sd"] = 0.0
    chosen = {"layer": 1, "pooling": "cls", "kind": "linear", "mean": means[1]}
    return {"task": "t", "arm": arm, "seed": seed, "metric": "mcc", "curve": curve, "chosen": chosen}


def test_layers_are_means_over_seeds_beside_the_random_start() -> None:
    parts = [probed("m: probe", 0, -1.0, 0.5, 0.5), probed("m: probe", 1, -1.0, 0.25, 0.75)]
    parts += [probed("m: probe of random init", 0, 0.0, 0.125, 0.0)]
    (section,) = layer_sections("t", parts)
    assert section.title == "t: layers of m: probe"
    first, second = section.lines
    assert (first.x, first.y) == ([1, 2], [0.375, 0.625])  # layer 0: constant vectors, no score
    assert first.low == [0.125, 0.375] and first.high == [0.625, 0.875]
    assert second.name == "cls, random start" and second.style == "dashed" and second.low == ()
    assert second.colour == first.colour and len(section.table[1]) == 5
    assert undefined({"mean": -1.0, "sd": 0.0}) and not undefined({"mean": 0.0, "sd": 0.0})


def test_few_rows_end_at_all_rows() -> None:
    rows = [row("kmer", 0.25, 10), row("kmer", 0.5), row("m: full", 0.125, 10), row("m: full", 0.75)]
    (section,) = fewshot_sections("t", "mcc", rows, 1000)
    assert [(line.name, line.x, line.y) for line in section.lines] == [
        ("kmer", [10, 1000], [0.25, 0.5]),
        ("full", [10, 1000], [0.125, 0.75]),
    ]
    assert section.table[1][0] == ["kmer", "0.250 ± 0.125", "0.500 ± 0.125"]
    (section,) = fewshot_sections("t", "mcc", rows)
    assert [line.x for line in section.lines] == [[10], [10]]


def test_pictures_hold_the_best_baselines_by_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longstrand.benchmarks.reports.page.MAX_LINES", 3)
    for name in ("a", "b", "c"):
        monkeypatch.setitem(GROUP_OF, name, "baseline")
    rows = [row(name, 0.5, 10, valid=valid) for name, valid in (("a", 0.1), ("b", 0.9), ("c", 0.3), ("m: full", 0.0))]
    assert few_lines(rows) == ["b", "c", "m: full"]
    assert few_lines([entry | {"metric": "mse"} for entry in rows]) == ["a", "c", "m: full"]
    assert "1 line with lower validation scores" in fewshot_sections("t", "mcc", rows)[0].explain


def test_published_numbers_stand_beside_the_best_of_each_kind() -> None:
    published = {
        "Old": {"metric": "accuracy", "value": 0.5, "source": "A 2020", "protocol": None},
        "New": {"metric": "mcc", "value": 0.875, "source": "B 2024", "protocol": "10 epochs"},
    }
    facts = {"metric": "mcc", "rows": {"train": 9, "valid": 9, "test": 9}, "title": None, "split_rule": None}
    facts |= {"sanity": None, "published": published}
    rows = [row("kmer", 0.25, valid=0.5), row("cnn", 0.375, valid=0.125), row("m: full", 0.5)]
    collected: dict[str, Any] = {"probes": [], "summary": rows}
    table = task_sections("t", facts, rows, collected)[-1]
    assert table.title == "t: published numbers" and "Read the protocol before comparing" in table.explain
    assert [line[0] for line in table.rows] == ["kmer", "m: full", "New", "Old"]  # cnn is better on test rows only
    assert table.rows[0][3:] == ["here", "this run; best without a language model"]
    assert table.rows[2][4] == "10 epochs" and "another metric than here (mcc)" in table.rows[3][4]
    page = render_html(Report("t", task_sections("t", facts, rows, collected)))
    assert ">1  full</text>" in page and "peak memory (MB)" in page
    one = task_sections("t", facts | {"published": {"New": published["New"]}}, rows, collected)[-1]
    assert one.rows[-1] == ["New", "mcc", 0.875, "published"] and one.explain.endswith("B 2024; 10 epochs.")


def test_paired_tests_leave_out_the_name_of_the_only_model() -> None:
    found = {"task": "t", "arm": "m: full", "against": "kmer", "difference": 0.5, "low": 0.25, "high": 0.75}
    (section,) = paired_sections([found | {"p": 0.125, "p_holm": 0.25}])
    assert section.rows == [["t", "full", "kmer", 0.5, "+0.250\u00a0to\u00a0+0.750", 0.125, 0.25]]
    assert paired_sections([]) == []
