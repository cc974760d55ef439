"""Tidy results: reading, choosing rows, differences by hand, views as text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from longstrand.benchmarks.reports.differences import compare, sign_test
from longstrand.benchmarks.reports.tidy import (
    Tidy,
    choose_by_validation,
    lower_is_better,
    open_tidy,
    read_tidy,
    rounded,
    seeds_of,
    select,
    write_tidy,
)
from longstrand.benchmarks.reports.views import measured, number, render
from longstrand.errors import InputError, UsageError

TABLE = """\
task,arm,group,seed,num_train,metric,value,valid,seconds,flags
a,base,baseline,0,,mcc,0.5,0.6,1,
a,base,baseline,0,100,mcc,0.3,0.6,1,
a,weak,baseline,0,,mcc,0.6,0.1,1,
a,ours,model,0,,mcc,0.7,0.7,20,
a,ours,model,1,,mcc,0.9,0.7,40,
a,start,control,0,,mcc,0.1,0.1,20,collapsed
a,start,control,1,,mcc,0.2,0.1,20,
b,base,baseline,0,,mcc,0.4,0.4,1,
b,weak,baseline,0,,mcc,0.2,0.2,1,
b,ours,model,0,,mcc,0.3,0.3,20,
b,ours,model,1,,mcc,0.3,0.3,20,
b,start,control,0,,mcc,0.2,0.2,20,
b,start,control,1,,mcc,0.4,0.2,20,
"""
LENGTHS = """\
task,arm,seed,length,metric,value
x,rmt,0,1024,loss,0.5
x,rmt,1,1024,loss,0.7
x,rmt,0,4096,loss,0.3
x,rmt,1,4096,loss,0.2
x,cut,0,1024,loss,0.6
x,cut,1,1024,loss,0.6
x,cut,0,4096,loss,0.6
x,cut,1,4096,loss,0.6
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "toy.csv").write_text(TABLE)
    (tmp_path / "lengths.csv").write_text(LENGTHS)
    return tmp_path


@pytest.fixture
def toy(results: Path) -> Tidy:
    return open_tidy(results, "toy")


def test_read(results: Path, toy: Tidy) -> None:
    assert toy.values("task") == ["a", "b"] and toy.values("num_train") == [None, 100.0]
    assert toy.rows[0]["value"] == 0.5 and toy.rows[0]["flags"] == "" and toy.rows[5]["flags"] == "collapsed"
    (results / "toy.json").write_text('{"name": "toy"}')
    assert open_tidy(results, "toy").about == {"name": "toy"}


def test_write_and_read_again(tmp_path: Path) -> None:
    rows = [{"task": "a", "arm": "x, y", "seed": 0, "metric": "m", "value": 1 / 3, "bytes": 5367648, "low": math.nan}]
    write_tidy(tmp_path / "new" / "t.csv", rows)
    assert (tmp_path / "new" / "t.csv").read_text() == (
        'task,arm,seed,metric,value,bytes,low\na,"x, y",0,m,0.33333,5367648,\n'
    )
    assert read_tidy(tmp_path / "new" / "t.csv").rows[0]["low"] is None
    with pytest.raises(ValueError, match="at least one row"):
        write_tidy(tmp_path / "t.csv", [])
    with pytest.raises(ValueError, match="needs the column 'arm'"):
        write_tidy(tmp_path / "t.csv", [{"task": "a"}])
    assert [rounded(value) for value in (0.123456789, 1234567.8, None, "a", 3)] == ["0.12346", "1234568", "", "a", 3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ("task,arm,seed,metric,value\n", "has no rows"),
        ("task,arm,seed,metric\na,b,0,m\n", "no column 'value'; a table of results needs task, arm, seed"),
        ("task,arm,seed,metric,value\na,b,0,m,1,2\n", "bad.csv:2: 6 cells under 5 columns"),
        ("task,arm,seed,metric,value\na,b,0,m,1\na,b,1,m,good\n", "bad.csv:3: the value 'good' is not a number"),
        ("task,arm,seed,metric,value\na,b,one,m,1\n", "bad.csv:2: the seed 'one' is not a number"),
    ],
    ids=["empty", "header", "column", "cells", "value", "seed"],
)
def test_bad_tables(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_tidy(tmp_path / "bad.csv")


def test_unreadable_tables(results: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"unknown experiment 'toi' in .* \(did you mean 'toy'\?\); known: lengths, toy"
    ):
        open_tidy(results, "toi")
    with pytest.raises(UsageError, match="holds no CSV file"):
        open_tidy(tmp_path / "none", "toy")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not readable as CSV"):
        read_tidy(tmp_path / "bytes.csv")


def test_select(toy: Tidy) -> None:
    assert len(select(toy, {}).rows) == 12  # cells with all training rows
    assert [row["value"] for row in select(toy, {"num_train": ["100"]}).rows] == [0.3]
    assert len(select(toy, {"num_train": ["*"]}).rows) == 13
    assert select(toy, {"arm": ["o*", "base"]}).values("arm") == ["base", "ours"]
    with pytest.raises(UsageError, match=r"unknown arm of toy 'oors' \(did you mean 'ours'\?\)"):
        select(toy, {"arm": ["oors"]})
    with pytest.raises(UsageError, match=r"unknown arm of toy 'z\*'; known: base, weak"):
        select(toy, {"arm": ["z*"]})
    with pytest.raises(UsageError, match=r"unknown column of toy 'grop' \(did you mean 'group'\?\)"):
        select(toy, {"grop": ["model"]})
    with pytest.raises(UsageError, match="toy has no row with task=b, num_train=100"):
        select(toy, {"task": ["b"], "num_train": ["100"]})


def test_ambiguous_rows_are_refused(results: Path, toy: Tidy) -> None:
    with pytest.raises(UsageError, match=r"several rows for x, rmt, 0: they differ in length; choose, .* length=1024"):
        seeds_of(open_tidy(results, "lengths").rows, ("task", "arm"))
    with pytest.raises(UsageError, match=r"two lines for the same cell \(a, base, 0\)"):
        seeds_of([toy.rows[0], toy.rows[0]], ("task", "arm"))


def test_the_choice_is_made_on_validation(results: Path, toy: Tidy) -> None:
    full = select(toy, {})
    assert choose_by_validation(full, "baseline") == {"a": "base", "b": "base"}  # though weak is better on a's test
    with pytest.raises(UsageError, match="lengths has no column 'group', so the best baseline cannot"):
        choose_by_validation(open_tidy(results, "lengths"), "baseline")
    with pytest.raises(UsageError, match="toy has no other with a validation score in the task 'a'"):
        choose_by_validation(full, "other")


def test_directions() -> None:
    assert lower_is_better("mse") and lower_is_better("bits_per_base") and lower_is_better("holdout_loss")
    assert not lower_is_better("mcc") and not lower_is_better("f1_macro")


# Differences


def test_one_task_is_students_interval() -> None:
    ours, against = {0: 0.5, 1: 0.7, 2: 0.9}, {0: 0.4, 1: 0.4, 2: 0.4}
    found = compare({"a": (ours, against, False)})
    reference = stats.ttest_rel(list(ours.values()), list(against.values())).confidence_interval(0.95)
    assert found.mean == pytest.approx(0.3) and (found.low, found.high) == pytest.approx(
        (reference.low, reference.high)
    )
    assert found.tasks[0].each == pytest.approx((0.1, 0.3, 0.5))
    turned = compare({"a": (ours, against, True)})
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-0.3, -found.high, -found.low))


def test_one_value_stands_against_every_seed() -> None:
    found = compare({"a": ({0: 0.5, 1: 0.7}, {5: 0.4}, False)})
    assert found.tasks[0].each == pytest.approx((0.1, 0.3)) and found.low is not None
    alone = compare({"a": ({0: 0.5}, {0: 0.4}, False)})
    assert alone.mean == pytest.approx(0.1) and alone.low is None


def test_other_seeds_are_welchs_interval() -> None:
    ours, against = [0.5, 0.7, 0.9], [0.1, 0.4]
    found = compare({"a": (dict(enumerate(ours)), dict(enumerate(against, 7)), False)})
    reference = stats.ttest_ind(ours, against, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high)) and found.tasks[0].each == ()
    flat = compare({"a": ({0: 0.5, 1: 0.5}, {2: 0.4, 3: 0.4}, False)})
    assert (flat.low, flat.high) == pytest.approx((0.1, 0.1))


def test_bootstrap_over_tasks() -> None:
    # Without noise over seeds it is the bootstrap of the task means: 3 of 3 draws give the extremes with 1/27 each.
    pairs = {
        name: ({0: value, 1: value}, {0: 0.0, 1: 0.0}, False) for name, value in (("a", 1.0), ("b", 2.0), ("c", 6.0))
    }
    found = compare(pairs)
    assert found.mean == pytest.approx(3) and (found.low, found.high) == pytest.approx((1, 6))
    assert (found.num_up, found.num_down) == (3, 0) and found.p == pytest.approx(0.25)
    assert compare(pairs) == found
    # The variance of the mean is that between tasks and that within, against a formula.
    random = np.random.default_rng(0)
    many = {}
    for task in range(40):
        effect = random.normal(0, 1)
        many[str(task)] = ({seed: effect + random.normal(0, 1) for seed in range(3)}, {0: 0.0}, False)
    wide = compare(many)
    means = np.array([task.mean for task in wide.tasks])
    within = np.mean([np.var(task.each) / 3 for task in wide.tasks])
    spread = math.sqrt((means.var() + within) / 40)
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * spread, rel=0.05)  # type: ignore[operator]


def test_unpaired_seeds_over_tasks() -> None:
    pairs = {name: ({0: 1.0, 1: 1.0}, {2: 0.5, 3: 0.5, 4: 0.5}, True) for name in "ab"}
    found = compare(pairs)
    assert (found.mean, found.low, found.high) == pytest.approx((-0.5, -0.5, -0.5)) and found.num_down == 2


def test_sign_test_by_hand() -> None:
    assert sign_test(np.array([1, 2, 3, 1, 2, 0.0])) == pytest.approx(2 / 32)
    assert sign_test(np.zeros(3)) == 1


def test_nothing_to_compare() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        compare({})
    with pytest.raises(ValueError, match="one value of each arm"):
        compare({"a": ({}, {0: 1.0}, False)})


# Views


def view(tidy: Tidy, name: str, **options: str) -> str:
    return render(name, tidy, options)


def test_table(toy: Tidy) -> None:
    text = view(toy, "table", arm="ours as tuned; base; start")
    assert text.splitlines() == [
        "| task | tuned | base | start |",
        "| --- | ---: | ---: | ---: |",
        "| `a` | **0.800 ± 0.141** | 0.500 | 0.150 ± 0.071† |",
        "| `b` | 0.300 ± 0.000 | **0.400** | 0.300 ± 0.141 |",
        "| mean | 0.550 | 0.450 | 0.225 |",
        "| mean rank | 1.8 | 1.5 | 2.8 |",
        "",
        "*Matthews correlation: mean ± standard deviation over 2 seeds; without ±: one seed; best in bold; † a run "
        "that collapsed (see `flags`).*",
    ]


def test_tables_of_other_columns(results: Path, toy: Tidy) -> None:
    lengths = open_tidy(results, "lengths")
    text = view(lengths, "table", rows="arm", columns="length", digits="2")
    assert text.splitlines()[0] == "| arm | 1,024 | 4,096 |"
    assert "| rmt | **0.60 ± 0.14** | **0.25 ± 0.07** |" in text and "| cut | **0.60 ± 0.00** | 0.60 ± 0.00 |" in text
    assert "**" not in view(lengths, "table", rows="arm", columns="length", best="no")
    assert "mean" not in view(toy, "table", summary="no").replace("mean ±", "")
    with pytest.raises(UsageError, match="are both 'arm'"):
        view(toy, "table", rows="arm")
    with pytest.raises(UsageError, match="digits=9 is not a number from 0 to 6"):
        view(toy, "table", digits="9")


def test_tables_of_several_metrics(toy: Tidy) -> None:
    rows = tuple(row | {"metric": "mse" if row["task"] == "b" else "mcc"} for row in toy.rows)
    mixed = Tidy("toy", toy.columns, rows)
    text = view(mixed, "table", arm="base; weak")
    assert "| `a` | Matthews correlation | 0.500 | **0.600** |" in text
    assert "| `b` | mean squared error | 0.400 | **0.200** |" in text  # smaller is better
    assert "| mean rank | – | 2.0 | 1.0 |" in text and "| mean |" not in text
    assert text.endswith("*Means, one seed; best in bold.*")
    with pytest.raises(UsageError, match="a table with rows=arm mixes the metrics mcc, mse; choose one by metric="):
        view(mixed, "table", rows="arm", columns="task")


def test_a_table_with_a_column_for_each_metric(toy: Tidy) -> None:
    first = [row for row in toy.rows if row["task"] == "a"]
    rows = [*first, *(row | {"metric": "mse"} for row in first)]
    text = view(
        Tidy("toy", toy.columns, tuple(rows)), "table", task="a", rows="arm", columns="metric", arm="base; weak"
    )
    assert text.splitlines()[0] == "| arm | Matthews correlation | mean squared error |"
    assert "| base | 0.500 | **0.500** |" in text and "| weak | **0.600** | 0.600 |" in text
    assert text.endswith("*Means, one seed; best in bold.*")


def test_values(toy: Tidy) -> None:
    assert view(toy, "value", task="a", arm="ours") == "0.800 ± 0.141"
    assert view(toy, "value", task="a", arm="ours", show="mean", digits="1") == "0.8"
    assert view(toy, "value", task="a", arm="ours", show="sd") == "0.141"
    assert view(toy, "value", task="a", arm="ours", show="percent") == "80.0 %"
    assert view(toy, "value", task="a", arm="base", show="sd") == "–"
    assert view(toy, "value", task="a", arm="ours", column="seconds") == "30 s"
    assert view(toy, "value", arm="ours", over="tasks") == "0.550"
    assert view(toy, "value", task="a", arm="base", num_train="100") == "0.300"
    for options, words in (
        ({"task": "a"}, "of one arm, but 4 are left"),
        ({"arm": "ours"}, "of one task, but 2 are left; give task=, or over=tasks"),
        ({"task": "a", "arm": "ours", "show": "all"}, "unknown show 'all'"),
        ({"tsk": "a"}, r"unknown option of value, or column of toy, 'tsk' \(did you mean 'task'\?\)"),
    ):
        with pytest.raises(UsageError, match=words):
            view(toy, "value", **options)
    with pytest.raises(UsageError, match=r"unknown view 'valu' \(did you mean 'value'\?\)"):
        view(toy, "valu")
    empty = Tidy("toy", toy.columns, tuple(row | {"valid": None} for row in toy.rows))
    with pytest.raises(UsageError, match="the column valid is empty in the rows asked for"):
        view(empty, "value", arm="ours", column="valid")


def test_numbers() -> None:
    assert [number(-0.0001), number(0.25, 1, sign=True), number(-1.5, 1)] == ["0.000", "+0.2", "−1.5"]
    pairs: list[tuple[str, Any, str]] = [
        ("seconds", 0.01, "< 0.1 s"),
        ("seconds", 5.0, "5.0 s"),
        ("seconds", 6000.0, "100 min"),
        ("storage_bytes", 5.4e6, "5.4 MB"),
        ("storage_bytes", 860.0, "860 B"),
        ("trained_parameters", 166562.0, "167 k"),
        ("trained_parameters", None, "–"),
        ("segments", 4.0, "4"),
    ]
    assert [measured(column, value) for column, value, _ in pairs] == [text for _, _, text in pairs]


def test_difference_in_words(results: Path, toy: Tidy) -> None:
    # a: 0.7, 0.9 against 0.5 -> +0.3; b: 0.3, 0.3 against 0.4 -> -0.1
    text = view(toy, "difference", ours="ours", against="best baseline", digits="2")
    assert text.startswith("+0.10 (95 % interval −0.1") and text.endswith("better on 1 of 2 tasks, sign test p 1)")
    parts = {
        show: view(toy, "difference", ours="ours", against="base", show=show) for show in ("mean", "tasks", "range")
    }
    assert parts == {"mean": "+0.100", "tasks": "1 of 2", "range": "−0.100 to +0.300"}
    assert view(toy, "difference", ours="ours", against="base", task="b") == "−0.100 (95 % interval −0.100 to −0.100)"
    assert view(toy, "difference", ours="weak", against="base", task="a") == "+0.100 (one seed, no interval)"
    table = view(toy, "difference", ours="ours as tuned", against="base", by="task", digits="1").splitlines()
    assert table[0] == "| task | tuned | base | difference | 95 % interval over seeds | seeds up |"
    assert table[2] == "| `a` | 0.8 | 0.5 | +0.3 | −1.0 to +1.6 | 2 of 2 |"
    lengths = open_tidy(results, "lengths")  # a loss: falling is better
    assert (
        view(lengths, "difference", compare="length", ours="4096", against="1024", arm="rmt", show="mean") == "+0.350"
    )


def test_difference_refuses(toy: Tidy) -> None:
    with pytest.raises(UsageError, match="a difference needs against=, a value of the column arm"):
        view(toy, "difference", ours="ours")
    with pytest.raises(UsageError, match=r"unknown arm of toy 'bass' \(did you mean 'base'\?\)"):
        view(toy, "difference", ours="ours", against="bass")
    apart = Tidy("toy", toy.columns, tuple(r for r in toy.rows if (r["task"] == "a") == (r["arm"] == "ours")))
    with pytest.raises(UsageError, match="no task has both 'ours' and 'base'"):
        view(apart, "difference", ours="ours", against="base")


def test_wins(results: Path, toy: Tidy) -> None:
    assert view(toy, "wins", of="model") == "1 of 2" and view(toy, "wins", of="control") == "0 of 2"
    text = view(toy, "wins")
    assert "| no language model | 1 of 2 | `b` |" in text and "| pre-trained | 1 of 2 | `a` |" in text
    with pytest.raises(UsageError, match="lengths has fewer than two kinds of arms"):
        view(open_tidy(results, "lengths"), "wins")


def test_cost_count_and_source(results: Path, toy: Tidy) -> None:
    assert view(toy, "cost", arm="ours; base").splitlines()[-2:] == ["| ours | 25 s |", "| base | 1.0 s |"]
    with pytest.raises(UsageError, match="lengths has no column of costs"):
        view(open_tidy(results, "lengths"), "cost")
    assert [view(toy, "count", of=of) for of in ("task", "arm", "num_train", "rows")] == ["2", "4", "1", "13"]
    run = {"commits": ["abc"], "dates": ["2026-01-02T03", "2026-01-03"], "command": "longstrand x", "seconds": 3600.0}
    run["machine"] = {"processor": "P", "threads": 2}
    about = {"runs": [run, run | {"commits": ["d"], "dates": ["2026-01-04"]}]}
    text = view(Tidy("toy", toy.columns, toy.rows, about), "source").splitlines()
    assert text == [
        "- Numbers: `toy.csv` (13 cells, 2 tasks, 4 arms; seeds 0, 1).",
        "- Computed on P, 2 threads; 2026-01-02 to 2026-01-04; 2.0 hours in all; commits abc, d.",
        "- Command: `longstrand x`",
    ]
    made = {"command": ["recipes/x.py", "--all"], "date": "2026-01-02", "commit": "abc", "machine": {"gpu": "H"}}
    text = view(Tidy("toy", toy.columns, toy.rows, {"provenance": made}), "source").splitlines()
    assert text[1:] == ["- Computed on H; 2026-01-02; commit abc.", "- Command: `recipes/x.py --all`"]
    assert len(view(toy, "source").splitlines()) == 1


def test_renamed(toy: Tidy) -> None:
    assert toy.renamed("arm", "ours", "tuned").values("arm") == ["base", "weak", "tuned", "start"]
    assert toy.renamed("arm", "b*", "B: *").values("arm") == ["B: ase", "weak", "ours", "start"]
    assert toy.renamed("nothing", "a", "b") == toy
