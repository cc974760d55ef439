"""The results of a benchmark as lines of text, for a terminal: a table and a verdict for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from longstrand.benchmarks.progress import duration
from longstrand.evaluation.metrics import LOWER_IS_BETTER

RELIABLE = 0.05
"""Highest corrected p of a difference that a verdict calls reliable."""


def result_lines(results: Mapping[str, Any]) -> list[str]:
    """Write ``results.json`` as text.

    Lines of a task are sorted from best to worst (few-shot lines: below, by number of rows); the best is marked by a
    star. The verdict compares with the baseline that is best on validation rows, with p corrected by Holm.
    """
    lines: list[str] = []
    for task, facts in results["tasks"].items():
        metric = facts["metric"]
        direction = "lower is better" if metric in LOWER_IS_BETTER else "higher is better"
        rows = [row for row in results["summary"] if row["task"] == task]
        sizes = facts["rows"]
        lines += [
            f"{task}: {metric} on {sizes['test']:,} test rows, after {sizes['train']:,} training rows ({direction})",
            *([f"  split: {facts['split_rule']}"] if facts.get("split_rule") else []),
            *_table(rows, metric),
            *_verdict([entry for entry in results["comparisons"] if entry["task"] == task]),
            "",
        ]
    return lines


def _table(rows: Sequence[Mapping[str, Any]], metric: str) -> list[str]:
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return (row["num_train"] or float("inf"), row["mean"] is None, sign * (row["mean"] or 0.0))

    full = sorted((row for row in rows if row["num_train"] is None), key=place)
    few = sorted((row for row in rows if row["num_train"] is not None), key=place)
    best = next((row for row in full if row["mean"] is not None), None)
    spread = any(row["sd"] is not None for row in rows)
    head = ("", "line", "mean ± sd of seeds" if spread else "value", "95 % interval", "time", "")
    cells = [head, *(_cells(row, starred=row is best) for row in (*full, *few))]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    padded = [[text.ljust(width) for text, width in zip(line, widths)] for line in cells]
    return [f"{star} {'  '.join(rest)}".rstrip() for star, *rest in padded]


def _cells(row: Mapping[str, Any], *, starred: bool) -> tuple[str, ...]:
    name = row["arm"] if row["num_train"] is None else f"{row['arm']} ({row['num_train']:,} rows)"
    value = "undefined" if row["mean"] is None else f"{row['mean']:.3f}"
    spread = "" if row["sd"] is None else f" ± {row['sd']:.3f}"
    interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
    seconds = row["cost"]["seconds"]
    time = "" if seconds is None else f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
    return ("*" if starred else " ", name, value + spread, interval, time, ", ".join(row["flags"]))


def _verdict(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which lines differ from the best baseline, and which gain from pre-training, beyond chance."""
    against = [entry for entry in comparisons if entry["what"] == "best baseline"]
    lines = []
    if against:
        name = against[0]["against"]
        better, worse = ([_said(entry) for entry in _reliable(against, sign)] for sign in (1, -1))
        lines.append(
            f"  Better than the best baseline ({name}): {'; '.join(better) or 'no line, beyond chance'}."
            + (f" Worse: {'; '.join(worse)}." if worse else "")
        )
    starts = [entry for entry in comparisons if entry["what"] == "random start"]
    if starts:
        better = [_said(entry) for entry in _reliable(starts, 1)]
        lines.append(f"  Better than the same network without pre-training: {'; '.join(better) or 'no line'}.")
    return lines


def _reliable(comparisons: Sequence[Mapping[str, Any]], sign: int) -> list[Mapping[str, Any]]:
    return [entry for entry in comparisons if sign * entry["difference"] > 0 and _chance(entry) <= RELIABLE]


def _chance(entry: Mapping[str, Any]) -> float:
    chance = entry["p"] if entry["p_holm"] is None else entry["p_holm"]
    return 1.0 if chance is None or chance != chance else float(chance)


def _said(entry: Mapping[str, Any]) -> str:
    return f"{entry['arm']} ({entry['difference']:+.3f}, p {_chance(entry):.2g})"
