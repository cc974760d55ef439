"""Summaries over seeds, paired comparisons on the same test rows, and ranks over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longstrand.evaluation.metrics import LOWER_IS_BETTER

COLLAPSED = 0.01
"""A result is at the level of the majority if its main metric is no more than this above it."""


def summarise(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put the seeds of each task, arm and number of rows together.

    Args:
        results: as in ``result.json`` of the cells.

    Returns:
        One row each: ``task, arm, group, kind, num_train, metric, seeds, values, mean, sd`` (sample standard deviation,
        None for one seed), ``low, high`` (means of the ends of the 95 % intervals), ``valid`` (mean on validation),
        ``metrics`` {name: {value, low, high, seeds}}, ``cost`` (means), ``flags``.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["task"], result["arm"], result["num_train"]), []).append(result)
    return [_row(members) for members in groups.values()]


def _row(members: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = members[0]
    metric = first["metric"]
    metrics = {
        name: {
            **{end: _mean([member["test"]["metrics"][name].get(end) for member in members]) for end in ("low", "high")},
            "value": _mean([member["test"]["metrics"][name]["value"] for member in members]),
            "seeds": [member["test"]["metrics"][name]["value"] for member in members],
        }
        for name in first["test"]["metrics"]
    }
    values = [value for value in metrics[metric]["seeds"] if value is not None and value == value]
    cost = {
        key: _mean([member["cost"].get(key) for member in members])
        for key in ("parameters", "trained_parameters", "storage_bytes", "seconds", "peak_memory_bytes")
    }
    flags = sorted({flag for member in members for flag in member["flags"]})
    return {
        **{key: first[key] for key in ("task", "arm", "group", "kind", "model", "num_train", "metric")},
        "seeds": [member["seed"] for member in members],
        "values": values,
        "mean": metrics[metric]["value"],
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "low": metrics[metric]["low"],
        "high": metrics[metric]["high"],
        "valid": _mean([member["valid"]["metrics"][metric]["value"] for member in members]),
        "metrics": metrics,
        "cost": cost,
        "flags": flags,
    }


def _mean(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if value is not None and value == value]
    return float(np.mean(known)) if known else None


def flags_of(result: Mapping[str, Any], majority: Mapping[str, Any] | None) -> list[str]:
    """Say whether a run collapsed: the same answer for all rows, or no better than the majority.

    Args:
        result: with ``test`` and ``metric``.
        majority: the majority's result on the same task, if there is one.
    """
    flags = []
    if result["test"].get("constant_prediction"):
        flags.append("constant prediction")
    if majority is not None:
        metric = result["metric"]
        ours, theirs = (part["test"]["metrics"][metric]["value"] for part in (result, majority))
        theirs = 0.0 if theirs is None or theirs != theirs else theirs
        sign = -1 if metric in LOWER_IS_BETTER else 1
        if ours is None or ours != ours or sign * (ours - theirs) <= COLLAPSED:
            flags.append("no better than the majority")
    return flags


def ranks(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rank the arms within each task (1 is best, ties share the mean rank), and average over tasks.

    Only arms that every task has are ranked, so that no arm gains by being absent.

    Args:
        rows: of `summarise`, all with the same number of training rows.

    Returns:
        ``arm, group, mean, ranks`` by mean rank.
    """
    from scipy.stats import rankdata

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    cells = {(row["task"], row["arm"]): row for row in rows if row["mean"] is not None}
    arms = [arm for arm in dict.fromkeys(row["arm"] for row in rows) if all((task, arm) in cells for task in tasks)]
    if not arms:
        return []
    collected: dict[str, list[float]] = {arm: [] for arm in arms}
    for task in tasks:
        sign = 1 if cells[task, arms[0]]["metric"] in LOWER_IS_BETTER else -1
        for arm, rank in zip(arms, rankdata([sign * cells[task, arm]["mean"] for arm in arms])):
            collected[arm].append(float(rank))
    found = [
        {"arm": arm, "group": cells[tasks[0], arm]["group"], "mean": float(np.mean(each)), "ranks": each}
        for arm, each in collected.items()
    ]
    return sorted(found, key=lambda entry: entry["mean"])
