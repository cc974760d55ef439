"""Collect the cells of a run folder: results.json, results.parquet and the report, all from what is on the disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.baselines.ladder import LADDER
from longstrand.benchmarks.reports.compare import flags_of, ranks, summarise
from longstrand.benchmarks.tasks.task import TaskData
from longstrand.config import read_yaml
from longstrand.data.targets import Task
from longstrand.errors import InputError
from longstrand.evaluation.compare import compare_predictions, holm
from longstrand.evaluation.metrics import LOWER_IS_BETTER, Scores
from longstrand.runtime import provenance, read_json, write_json

FORMAT = {"format": "longstrand.benchmark", "format_version": 1}


def write_results(folder: Path, tasks: Mapping[str, TaskData] | None = None) -> dict[str, Any]:
    """Write ``results.json``, ``results.parquet`` and ``report.html`` of a run folder.

    Args:
        folder: of the run.
        tasks: built tasks, for sanity reports and published numbers; None finds them again.

    Raises:
        InputError: the folder holds no benchmark, or no cell has a result.
    """
    from longstrand.benchmarks.reports.page import write_page

    folder = Path(folder)
    results = read_results(folder)
    tasks = find_tasks(folder) if tasks is None else tasks
    collected = collect(folder, results, tasks)
    write_json(folder / "results.json", collected)
    _write_table(results, folder / "results.parquet")
    write_page(folder, collected)
    return collected


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Read the results of all finished cells, flagged where they collapsed, in a fixed order.

    Raises:
        InputError: there is none.
    """
    if not (Path(folder) / "config.yaml").exists():
        raise InputError(f"{folder}: no benchmark run (no config.yaml); make one with 'longstrand benchmark run'.")
    results = [
        read_json(path) | {"folder": str(path.parent)} for path in sorted((folder / "cells").rglob("result.json"))
    ]
    if not results:
        raise InputError(f"{folder}: no cell has a result yet; run the same 'longstrand benchmark run' command again.")
    return sort_and_flag(results)


def sort_and_flag(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put results into a fixed order, and flag those that collapsed."""
    order = {"baseline": 0, "model": 1, "control": 2}
    rungs = {name: place for place, name in enumerate(LADDER)}
    results.sort(
        key=lambda result: (
            result["task"],
            order[result["group"]],
            rungs.get(result["baseline"], 0),
            result["arm"],
            result["num_train"] or 1e12,
            result["seed"],
        )
    )
    majority = {result["task"]: result for result in results if result["baseline"] == "majority"}
    for result in results:
        is_majority = result["baseline"] == "majority"
        result["flags"] = [] if is_majority else flags_of(result, majority.get(result["task"]))
    return results


def find_tasks(folder: Path) -> dict[str, TaskData]:
    """Find the tasks of a run again; those whose folder is gone are left out of the report."""
    from longstrand.benchmarks.tasks.task import find_built

    settings = read_yaml(folder / "config.yaml")
    place = folder / "tasks" if settings.get("data") else Path(settings["tasks"])
    try:
        return {data.id: data for data in find_built(place)}
    except InputError:
        return {}


def collect(folder: Path, results: Sequence[Mapping[str, Any]], tasks: Mapping[str, TaskData]) -> dict[str, Any]:
    """Put everything that the report shows into one dictionary."""
    rows = summarise(results)
    full = [row for row in rows if row["num_train"] is None]
    errors = [read_json(path) for path in sorted((folder / "cells").rglob("error.json"))]
    facts = {}
    for name in dict.fromkeys(row["task"] for row in rows):
        data = tasks.get(name)
        facts[name] = {
            "metric": next(row["metric"] for row in rows if row["task"] == name),
            "rows": max(
                (result["rows"] for result in results if result["task"] == name), key=lambda rows: rows["train"]
            ),
            "title": data.facts.get("title") if data else None,
            "split_rule": data.facts.get("split_rule") if data else None,
            "sanity": read_json(data.sanity) if data and data.sanity.exists() else None,
            "published": {model: vars(entry) for model, entry in data.published.items()} if data else {},
        }
    return {
        **FORMAT,
        "settings": read_yaml(folder / "config.yaml"),
        "tasks": facts,
        "summary": rows,
        "ranks": ranks(full) if full else [],
        "comparisons": compare_arms(results),
        "probes": [
            {"task": result["task"], "arm": result["arm"], "seed": result["seed"], **result["facts"]["probe"]}
            for result in results
            if result["kind"] == "probe" and result["num_train"] is None
        ],
        "cells": [{key: value for key, value in result.items() if key != "folder"} for result in results],
        "errors": [{key: error[key] for key in ("task", "arm", "seed", "num_train", "reason")} for error in errors],
        "provenance": provenance(),
    }


def compare_arms(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare every model arm with the best baseline, and with the random start where there is one, task by task.

    The best baseline is the one with the best validation score, so the test rows choose nothing. Within a task the p
    values against the baseline are corrected for the number of arms (Holm).
    """
    found: list[dict[str, Any]] = []
    tasks = dict.fromkeys(result["task"] for result in results)
    for task in tasks:
        mine = [result for result in results if result["task"] == task and result["num_train"] is None]
        arms: dict[str, list[Mapping[str, Any]]] = {}
        for result in mine:
            arms.setdefault(result["arm"], []).append(result)
        baselines = {name: members for name, members in arms.items() if members[0]["group"] == "baseline"}
        best = max(baselines, key=lambda name: _validation(baselines[name]), default=None)
        rows = []
        for name, members in arms.items():
            if members[0]["group"] != "baseline" and best is not None:
                rows.append(_comparison(task, name, members, best, baselines[best], "best baseline"))
        for row, chance in zip(rows, holm([row["p"] for row in rows])):
            row["p_holm"] = chance
        found += rows
        for name, members in arms.items():
            control = _control_of(members[0], arms)
            if control is not None:
                found.append(_comparison(task, name, members, control, arms[control], "random start"))
    return found


def _control_of(result: Mapping[str, Any], arms: Mapping[str, Sequence[Mapping[str, Any]]]) -> str | None:
    """Find the random start of the same model: fine-tuned for fine-tuning, probed for probing."""
    if result["group"] != "model":
        return None
    for name, members in arms.items():
        first = members[0]
        if first["group"] == "control" and first["model"] == result["model"] and first["kind"] == result["kind"]:
            return name
    return None


def _validation(members: Sequence[Mapping[str, Any]]) -> float:
    metric = members[0]["metric"]
    values = [member["valid"]["metrics"][metric]["value"] for member in members]
    known = [value for value in values if value is not None]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    return sign * float(np.mean(known)) if known else float("-inf")


def _comparison(
    task: str,
    name: str,
    ours: Sequence[Mapping[str, Any]],
    other: str,
    theirs: Sequence[Mapping[str, Any]],
    what: str,
) -> dict[str, Any]:
    metric = ours[0]["metric"]
    resamples = max(ours[0]["protocol"]["resamples"], 200)
    sides = [[read_scores(member) for member in members] for members in (ours, theirs)]
    compared = compare_predictions(sides[0], sides[1], metric, num_resamples=resamples)
    found = {key: getattr(compared, key) for key in ("difference", "low", "high", "p")}
    return {"task": task, "arm": name, "against": other, "what": what, "metric": metric, **found, "p_holm": None}


def read_scores(result: Mapping[str, Any]) -> Scores:
    """Read the test predictions of a cell.

    Raises:
        InputError: they are missing or damaged.
    """
    import polars as pl

    path = Path(result["folder"]) / "test.parquet"
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError):
        raise InputError(
            f"{path}: the predictions of this cell are missing or damaged; delete its folder, and run the same "
            "'longstrand benchmark run' command again."
        ) from None
    values = frame.select(pl.col("^value_.*$")).to_numpy()
    targets = frame.select(pl.col("^target_.*$")).to_numpy()
    problem: Any = result["test"]["problem"]
    if problem in ("single_label", "token"):
        targets = targets[:, 0]
    names = tuple(map(str, range(values.shape[1])))
    return Scores(Task(problem, names, ("label",)), targets, values, frame["unit"].to_numpy())


def _write_table(results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write one row a cell, split and metric."""
    import polars as pl

    rows = [
        {
            **{key: result[key] for key in ("task", "arm", "group", "kind", "model", "init", "seed", "num_train")},
            "split": split,
            "metric": metric,
            "value": entry["value"],
            "low": entry.get("low"),
            "high": entry.get("high"),
            **{f"cost_{key}": result["cost"].get(key) for key in ("trained_parameters", "storage_bytes", "seconds",
                                                                "peak_memory_bytes")},
            "flags": "; ".join(result["flags"]),
            "commit": result["provenance"]["commit"],
            "data": result["data"],
        }
        for result in results
        for split in ("valid", "test")
        for metric, entry in result[split]["metrics"].items()
    ]  # fmt: skip
    temporary = path.with_name(f".tmp-{path.name}")
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(temporary)
    temporary.replace(path)
