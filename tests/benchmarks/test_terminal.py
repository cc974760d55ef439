"""The table in the terminal, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from longstrand.benchmarks.terminal import result_lines


def row(
    arm: str, mean: float | None, *, sd: float | None = None, rows: int | None = None, **more: Any
) -> dict[str, Any]:
    interval = (None, None) if mean is None else (mean - 0.1, mean + 0.1)
    return {"task": "own/a", "arm": arm, "num_train": rows, "mean": mean, "sd": sd, "low": interval[0],
            "high": interval[1], "cost": {"seconds": 125.0}, "flags": [], **more}  # fmt: skip


def against(arm: str, difference: float, p: float, what: str = "best baseline") -> dict[str, Any]:
    name = "k-mer regression" if what == "best baseline" else "random init"
    corrected = 2 * p if what == "best baseline" else None
    return {"task": "own/a", "arm": arm, "against": name, "what": what, "difference": difference, "p": p,
            "p_holm": corrected}  # fmt: skip


def results(metric: str, summary: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> dict[str, Any]:
    facts = {"metric": metric, "rows": {"train": 1200, "valid": 30, "test": 300}, "split_rule": "by chromosome"}
    return {"tasks": {"own/a": facts}, "summary": summary, "comparisons": comparisons}


def test_best_first_and_starred() -> None:
    rows = [
        row("majority", 0.0),
        row("k-mer regression", 0.5, cost={"seconds": 1.26}),
        row("m: full", 0.75, sd=0.01, flags=["constant prediction"]),
        row("broken", None, cost={"seconds": None}),
        row("m: full", 0.9, rows=1000),
    ]
    told = [against("m: full", 0.25, 0.01), against("m: lora", 0.1, 0.03), against("m: probe", -0.2, 0.001)]
    found = result_lines(results("mcc", rows, [*told, against("m: full", 0.1, 0.04, "random start")]))
    assert found == [
        "own/a: mcc on 300 test rows, after 1,200 training rows (higher is better)",
        "  split: by chromosome",
        "  line                  mean ± sd of seeds  95 % interval    time",
        "* m: full               0.750 ± 0.010       0.650 to 0.850   2 min  constant prediction",
        "  k-mer regression      0.500               0.400 to 0.600   1.3 s",
        "  majority              0.000               -0.100 to 0.100  2 min",
        "  broken                undefined",
        "  m: full (1,000 rows)  0.900               0.800 to 1.000   2 min",
        "  Better than the best baseline (k-mer regression): m: full (+0.250, p 0.02). "
        "Worse: m: probe (-0.200, p 0.002).",
        "  Better than the same network without pre-training: m: full (+0.100, p 0.04).",
        "",
    ]


@pytest.mark.parametrize(("metric", "best"), [("mse", "b"), ("pearson", "a")])
def test_low_errors_are_best(metric: str, best: str) -> None:
    found = result_lines(results(metric, [row("a", 0.4), row("b", 0.2)], [against("a", 0.1, float("nan"))]))
    assert next(line for line in found if line.startswith("*")).split()[1] == best
    assert "  Better than the best baseline (k-mer regression): no line, beyond chance." in found
