"""Typed results by hand: written and read back, summaries, ranks, flags, comparisons, what page and terminal say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longstrand.benchmarks import page
from longstrand.benchmarks.results import (
    compare_methods,
    lines_of,
    metric_frame,
    ranks_of,
    read_result,
    result_frame,
    sort_and_flag,
    write_scores,
)
from longstrand.data.targets import Task
from longstrand.errors import InputError
from longstrand.evaluation.metrics import Scores
from longstrand.report.page import render_html
from longstrand.runtime import write_json
from longstrand.training.methods import FinetuneMethod
from tests.benchmarks.results_toys import against, folder_of, result, run_of


def test_a_result_is_written_and_read_without_changing(tmp_path: Path) -> None:
    lora = FinetuneMethod.model_validate({"peft": "lora", "r": 4})
    made = result("m: lora (r=4)", 0.5, finetuning=lora, details={"learning_rate": 1e-3})
    write_json(tmp_path / "result.json", made.model_dump(mode="json"))
    found = read_result(tmp_path)
    assert found == made.model_copy(update={"folder": tmp_path}) and found.training == "lora (r=4)"
    assert (found.value(), found.value(end="low"), found.value("pearson")) == (0.5, 0.4, None)
    write_json(tmp_path / "result.json", made.model_dump(mode="json") | {"arm": "old"})
    with pytest.raises(InputError, match=r"a result of another version \(arm: "):
        read_result(tmp_path)
    row = result_frame([made, result("kmer", None, extra={"tokens": 5.0})]).to_dicts()
    assert row[0]["training"] == "lora (r=4)" and row[0]["data"] == "0123456789ab" and row[0]["value"] == 0.5
    assert (row[1]["training"], row[1]["value"], row[1]["tokens"]) == ("kmer", None, 5.0)
    assert metric_frame([made])["split"].to_list() == ["valid", "test"]


def test_predictions_are_kept_and_damage_is_named(tmp_path: Path) -> None:
    scores = Scores(Task("single_label", ("0", "1"), ("l",)), np.array([0, 1, 1]), np.eye(2)[[0, 1, 0]])
    write_scores(scores, tmp_path / "test.parquet")
    kept = folder_of(result("kmer", 0.5), tmp_path).scores()
    assert kept.targets.tolist() == [0, 1, 1] and kept.values.tolist() == scores.values.tolist()
    for damage in (lambda path: path.write_bytes(b"{"), lambda path: path.unlink()):
        damage(tmp_path / "test.parquet")
        with pytest.raises(InputError, match="the predictions of this trial are missing or damaged; delete"):
            folder_of(result("kmer", 0.5), tmp_path).scores()


def test_lines_and_ranks_by_hand() -> None:
    results = [result("m: a", 0.5), result("m: a", 0.7, seed=1), result("m: b", 0.6), result("m: c", 0.9)]
    results += [result("m: a", 0.1, task="u", metric="mse"), result("m: b", 0.3, task="u", metric="mse")]
    lines = lines_of(results)
    assert lines[0].mean() == pytest.approx(0.6) and lines[0].sd == pytest.approx(0.1414, abs=1e-4)
    assert lines[0].mean(end="low") == pytest.approx(0.5) and lines[1].sd is None
    assert lines[3].height() == -0.1 and lines[0].row()["seeds"] == [0, 1]
    assert ranks_of(lines) == {"m: a": [1.5, 1.0], "m: b": [1.5, 2.0]}  # c is not in every task
    assert ranks_of(lines_of([result("m: a", 0.5), result("m: b", 0.5, task="u")])) == {}


def test_collapse_is_flagged() -> None:
    def flags(value: float, metric: str = "mcc", majority: float | None = None, **test: Any) -> tuple[str, ...]:
        both = [result("majority", majority, metric=metric), result("m: full", value, metric=metric, test=test)]
        return sort_and_flag(both)[1].flags

    assert flags(0.005) == ("no better than the majority",) and flags(0.3) == ()
    assert "constant prediction" in flags(0.0, constant_prediction=True)
    assert flags(0.5, "mse", 1.0) == () and flags(1.2, "mse", 1.0) == ("no better than the majority",)
    assert sort_and_flag([result("majority", 0.0)])[0].flags == ()


def test_the_best_baseline_is_chosen_without_the_test_rows(tmp_path: Path) -> None:
    task, truth = Task("single_label", ("0", "1"), ("l",)), np.arange(40) % 2
    right = {"kmer": 0.9, "onehot": 0.7, "m: full": 0.8, "m: random init": 0.5}
    results = []
    for place, (name, share) in enumerate(right.items()):
        called = np.where(np.arange(40) < 40 * share, truth, 1 - truth)
        folder = tmp_path / str(place)
        folder.mkdir()
        write_scores(Scores(task, truth, np.eye(2)[called]), folder / "test.parquet")
        valid = {"kmer": 0.2, "onehot": 0.4}.get(name, share)
        made = result(name, 2 * share - 1, valid=valid, protocol={"resamples": 200})
        results.append(folder_of(made, folder))
    found = {(each.method, each.what): each for each in compare_methods(lines_of(results))}
    best = found["m: full", "best baseline"]
    assert best.against == "onehot" and best.found.difference == pytest.approx(0.6 - 0.4)
    start = found["m: full", "random start"]
    assert start.against == "m: random init" and start.verdict == "better" and start.found.p_corrected is None
    assert set(found) == {(name, "best baseline") for name in ("m: full", "m: random init")} | {
        ("m: full", "random start")
    }


def test_better_is_said_by_the_test_and_not_of_a_collapsed_control() -> None:
    lines = [result("kmer", 0.5), result("m: full", 0.75), result("m: random init", 0.0)]
    sure = run_of(lines, [against("m: full", 0.25, 0.01), against("m: full", 0.1, 0.04, "random start")])
    assert page.summary_sentence(sure, "own/a") == (
        "own/a: best with a language model is m: full (Matthews correlation 0.750), better than kmer "
        "(difference +0.250, p 0.02); pre-training helps (against the random start +0.100, p 0.04)."
    )
    control = against("m: full", 0.7, 0.001, "random start", collapsed=True)
    unsure = run_of(lines, [against("m: full", 0.25, 0.04), control])
    sentence = page.summary_sentence(unsure, "own/a")
    assert "not clearly different from kmer (difference +0.250, p 0.08); whether pre-training helps is open" in sentence
    assert (
        page.summary_sentence(run_of([result("kmer", 0.5)]), "own/a") == "own/a: best without a language model: kmer."
    )


def test_the_terminal_table() -> None:
    results = [
        result("majority", 0.0),
        result("kmer", 0.5, cost={"seconds": 1.26}),
        result("m: full", 0.75, test={"constant_prediction": True}),
        result("m: full", 0.77, seed=1),
        result("m: broken", None, cost={"seconds": None}),
        result("m: full", 0.9, num_train=1000),
    ]
    told = [against("m: full", 0.25, 0.01)]
    assert page.text_lines(run_of(results, told)) == [
        "own/a: mcc on 300 test rows, after 1,200 training rows (higher is better)",
        "  line                  mean ± sd of seeds  95 % interval    time",
        "* m: full               0.760 ± 0.014       0.660 to 0.860   2 min  better than kmer (+0.250, p 0.02), "
        "constant prediction",
        "  kmer                  0.500               0.400 to 0.600   1.3 s",
        "  majority              0.000               -0.100 to 0.100  2 min",
        "  m: broken             undefined                                   no better than the majority",
        "  m: full (1,000 rows)  0.900               0.800 to 1.000   2 min",
        "  own/a: best with a language model is m: full (Matthews correlation 0.760), better than kmer "
        "(difference +0.250, p 0.02).",
        "",
    ]
    low = page.text_table(lines_of([result("m: a", 0.4, metric="mse"), result("m: b", 0.2, metric="mse")]))
    assert low[1].startswith("* m: b")
    assert [page.duration(seconds) for seconds in (40, 89.6, 720, 12_600)] == ["40 s", "90 s", "12 min", "3.5 h"]


def test_rows_and_classes_that_do_not_count_are_named() -> None:
    test = {"num_not_predicted": 100, "undefined": ["rare"]}
    found = page.left_out_sentences("own/a", lines_of([result("kmer", 0.5), result("m: full", 1.0, test=test)]))
    assert found == ["own/a: 100 labelled test rows or bases (25%) were not predicted by m: full and count nowhere."]
    found = page.left_out_sentences("own/a", lines_of([result("m: full", 1.0, test=test | {"num_not_predicted": 0})]))
    assert found == ["own/a: the test rows have only one side of rare; means over classes leave these out."]


def test_warnings() -> None:
    bad = {"constant_prediction": True}
    rows = [result("kmer", 0.5), result("onehot", 0.0, test=bad), result("m: full", 0.0, num_train=10, test=bad)]
    rows += [result("kmer", 0.1, num_train=10), result("kmer", 0.2, num_train=20)]
    found = run_of(rows, errors=[{"task": "own/a", "method": "x", "seed": 0, "reason": "fire"}])
    sane = {"findings": [{"severity": "leak", "text": "a copy."}, {"severity": "note", "text": "fine."}]}
    assert page.warning_sentences(found, {"own/a": {"sanity": sane}}) == [
        "own/a: collapsed (a constant prediction, or no better than the majority): onehot; 1 of 2 lines with 10 rows.",
        "own/a: leak: a copy.",
        "1 trial failed and are missing; the same command tries them again.",
        "Some lines have one seed: their spread over seeds is unknown.",
    ]


def probed(method: str, *means: float) -> tuple[str, dict[str, Any]]:
    curve = [{"layer": layer, "pooling": "cls", "mean": mean, "sd": 0.25} for layer, mean in enumerate(means)]
    curve[0]["sd"] = 0.0
    return method, {"metric": "mcc", "curve": curve, "chosen": {"layer": 1, "pooling": "cls", "kind": "linear"}}


def test_layers_are_means_over_seeds_beside_the_random_start() -> None:
    parts = [probed("m: probe", -1.0, 0.5, 0.5), probed("m: probe", -1.0, 0.25, 0.75)]
    (section,) = page.layer_sections("t", [*parts, probed("m: probe of random init", 0.0, 0.125, 0.0)])
    assert section.title == "t: layers of m: probe"
    first, second = section.lines  # type: ignore[attr-defined]
    assert (first.x, first.y) == ([1, 2], [0.375, 0.625])  # layer 0: constant vectors, no score
    assert first.low == [0.125, 0.375] and first.high == [0.625, 0.875]
    assert second.name == "cls, random start" and second.style == "dashed" and second.low == ()


def test_few_rows_end_at_all_rows_and_hold_the_best_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [result("kmer", 0.25, num_train=10), result("kmer", 0.5)]
    rows += [result("m: full", 0.125, num_train=10), result("m: full", 0.75)]
    (section,) = page.few_row_sections("t", lines_of(rows), 1000)
    assert [(line.name, line.x, line.y) for line in section.lines] == [  # type: ignore[attr-defined]
        ("kmer", [10, 1000], [0.25, 0.5]),
        ("full", [10, 1000], [0.125, 0.75]),
    ]
    assert page.few_row_sections("t", lines_of(rows[1:2]), 1000) == []
    monkeypatch.setattr(page, "MAX_LINES", 3)
    several = [result(name, 0.5, num_train=10, valid=valid) for name, valid in (("a", 0.1), ("b", 0.9), ("c", 0.3))]
    several.append(result("m: full", 0.5, num_train=10, valid=0.0))
    assert page.few_lines(lines_of(several)) == ["b", "c", "m: full"]
    lower = [each.model_copy(update={"metric": "mse"}) for each in several]
    assert "1 line with lower validation scores" in page.few_row_sections("t", lines_of(several), 99)[0].explain
    assert lower[0].metric == "mse"


def test_the_page() -> None:
    published = {
        "Old": {"metric": "accuracy", "value": 0.5, "source": "A 2020", "protocol": None},
        "New": {"metric": "mcc", "value": 0.875, "source": "B 2024", "protocol": "10 epochs"},
    }
    rows = [result("kmer", 0.25, valid=0.5), result("onehot", 0.375, valid=0.125), result("m: full", 0.5)]
    table = page._published("t", {"metric": "mcc", "published": published}, lines_of(rows))
    assert [line[0] for line in table.rows] == ["kmer", "m: full", "New", "Old"]  # type: ignore[attr-defined]
    assert table.rows[0][3:] == ["here", "this run; best without a language model"]  # type: ignore[attr-defined]
    two = [*rows, *(each.model_copy(update={"task": "own/b"}) for each in rows)]
    made = page.make_page(run_of(two, [against("m: full", 0.5, 0.1)]))
    titles = [section.title for section in made.sections]
    assert titles[:2] == ["All tasks", "own/a"] and "Is the difference real?" in titles
    paired = next(section for section in made.sections if section.title == "Is the difference real?")
    assert paired.rows[0][1:4] == ["full", "kmer", 0.5] and paired.rows[0][-1] == "unclear"  # type: ignore[attr-defined]
    html = render_html(made)
    assert "own/a: what quality costs" in html and "peak memory (MB)" in html
