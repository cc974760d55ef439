"""Results of trials made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from longstrand.benchmarks.protocol import Protocol
from longstrand.benchmarks.results import Benchmark, Comparison, Result, lines_of, sort_and_flag
from longstrand.evaluation.compare import PairedDifference


def result(method: str, value: float | None, **changes: Any) -> Result:
    """A trial with one metric; ``valid`` is its value on validation rows."""
    group = "baseline" if ": " not in method else "control" if "random init" in method else "model"
    kind = "baseline" if group == "baseline" else "probe" if "probe" in method else "finetune"
    metric = changes.setdefault("metric", "mcc")
    entry: dict[str, float | None] = {"value": value}
    if value is not None:
        entry |= {"low": value - 0.1, "high": value + 0.1}
    valid = changes.pop("valid", value)
    test = {"metrics": {metric: entry}, "num_not_predicted": 0, "num_evaluated": 300, "problem": "single_label"}
    values: dict[str, Any] = {
        "task": "own/a", "method": method, "group": group, "kind": kind, "seed": 0, "data": "sha256:0123456789abcdef",
        "baseline": method if group == "baseline" else None, "model": None if group == "baseline" else "m",
        "rows": {"train": 1200, "valid": 30, "test": 300}, "valid": {"metrics": {metric: {"value": valid}}},
        "test": test | changes.pop("test", {}), "cost": {"seconds": 125.0} | changes.pop("cost", {}), "details": {},
        "protocol": Protocol(), "provenance": {"commit": "c"}, "wall_seconds": 1.0,
    }  # fmt: skip
    return Result(**values | changes)


def against(method: str, difference: float, p: float, what: Any = "best baseline", **more: Any) -> Comparison:
    """A comparison with the k-mer regression or the random start."""
    corrected = 2 * p if what == "best baseline" else None
    found = PairedDifference(0.5 + difference, 0.5, difference, difference - 0.1, difference + 0.1, p, corrected)
    other = "kmer" if what == "best baseline" else "m: random init"
    return Comparison("own/a", method, other, what, found, **more)


def run_of(results: list[Result], comparisons: list[Comparison] | None = None, **changes: Any) -> Benchmark:
    """A benchmark of these results."""
    settings = {"protocol": {}} | changes.pop("settings", {})
    ordered = sort_and_flag(results)
    values = {"comparisons": comparisons or [], "errors": [], "tasks": {}, "provenance": {}} | changes
    return Benchmark(settings, ordered, lines_of(ordered), **values)


def folder_of(result: Result, folder: Path) -> Result:
    """The result as if it lay in a folder."""
    return result.model_copy(update={"folder": folder})
