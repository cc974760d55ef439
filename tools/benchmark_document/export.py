"""Export benchmark runs: CSVs of their trials and probed layers, and a JSON that says where they come from.

The files hold no path of the machine: models stand with their short names, data with the ids of tasks and fingerprints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from longstrand.benchmarks.page import undefined
from longstrand.benchmarks.results import (
    Benchmark,
    Result,
    compare_methods,
    lines_of,
    read_benchmark,
    result_frame,
    sort_and_flag,
)
from longstrand.errors import InputError, UsageError
from longstrand.runtime import write_atomically, write_json

FORMAT = {"format": "longstrand.results", "format_version": 2}
PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\",;:=()]+[/\\])*[^\s/\\'\",;:=()]*")
Change = Callable[[Path, Result], Result | None]


def export_runs(
    folders: Sequence[Path], path: Path, *, compare: bool = True, change: Change | None = None
) -> list[Path]:
    """Write finished trials of runs as ``NAME.csv``, ``NAME-layers.csv`` (if anything was probed) and ``NAME.json``.

    Args:
        folders: of runs; together they are one experiment.
        path: of ``NAME.csv``.
        compare: also do the paired tests of all methods against best baseline and random start (the slow part).
        change: called with run folder and result before runs are joined; gives the result with another ``task`` or
            ``method``, or with ``extra`` {column: number} such as tokens seen in pre-training, or None to leave it out.

    Raises:
        InputError: a folder is no run, or runs cannot be joined: other data, weights or settings under one name.
        UsageError: the path does not end in .csv.
    """
    path = Path(path)
    if path.suffix != ".csv" or path.stem.endswith("-layers"):
        raise UsageError(f"{path}: results are written to a file NAME.csv (and NAME-layers.csv, NAME.json beside it).")
    runs = {Path(folder): read_benchmark(folder, compare=False) for folder in folders}
    members = {
        folder: [kept for result in run.results if (kept := change(folder, result) if change else result) is not None]
        for folder, run in runs.items()
    }
    results, gaps = join_runs(members)
    names = {result.model: result.method.rsplit(": ", 1)[0] for result in results if result.model}
    frame = result_frame(results).with_columns(pl.col("model").replace(names))
    write_table(path, frame.to_dicts(), frame.columns)
    files, layer_path = [path], path.with_name(f"{path.stem}-layers.csv")
    layers = [row | {"model": names[result.model or ""]} for result in results for row in layer_rows(result)]
    if layers:
        write_table(layer_path, layers, list(layers[0]))
        files.append(layer_path)
    else:
        layer_path.unlink(missing_ok=True)
    same = lines_of([result for result in results if not result.extra])  # with columns of its own a method is several
    described = {
        **FORMAT,
        "name": path.stem,
        "tasks": {result.task: _task(result, results, runs, members) for result in results},
        "models": {names[result.model]: result.weights for result in results if result.model},
        "runs": [describe_run(folder, run) for folder, run in runs.items()],
        "comparisons": [asdict(each) for each in compare_methods(same)] if compare else [],
        "failed": [dict(error) for run in runs.values() for error in run.errors],
        "trials_in_several_runs": {"count": len(gaps), "largest_gap": max(gaps, default=0.0)},
    }
    write_json(path.with_suffix(".json"), _tidied(described))
    return [*files, path.with_suffix(".json")]


def join_runs(runs: Mapping[Path, Sequence[Result]]) -> tuple[list[Result], list[float]]:
    """Put the results of several runs together; of a trial that several hold, the first run's stays.

    Returns:
        The results in order, and of each trial that was left out as known the gap between the two values.

    Raises:
        InputError: runs have other data under the same task, other weights under the same model name, or computed one
            trial by other protocols.
    """
    kept: dict[tuple[Any, ...], tuple[Path, Result]] = {}
    seen: dict[tuple[str, str], tuple[Path, Any]] = {}
    gaps: list[float] = []
    for folder, results in runs.items():
        for result in results:
            marks: list[tuple[str, str, Any]] = [("data", result.task, result.data)]
            if result.model and not result.extra:
                marks.append(("weights", result.method, result.weights))
            for what, name, mark in marks:
                other, before = seen.setdefault((what, name), (folder, mark))
                if before != mark:
                    raise InputError(f"{folder} and {other}: '{name}' has other {what} in the two runs.")
            key = (result.task, result.method, result.num_train, result.seed, tuple(sorted(result.extra.items())))
            if key not in kept:
                kept[key] = (folder, result)
                continue
            other, first = kept[key]
            if first.protocol != result.protocol:
                raise InputError(f"{folder} and {other}: '{result.method}' on {result.task} has other protocols.")
            gaps.append(abs((first.value() or 0.0) - (result.value() or 0.0)))
    return sort_and_flag([result for _, result in kept.values()]), gaps


def layer_rows(result: Result) -> list[dict[str, Any]]:
    """Return the rows of a probe: each layer and pooling; ``value`` is the mean validation score over folds.

    ``test`` is the score on the test rows where the run measured it; choices never look at it.
    """
    found = result.details.get("probe")
    if not found or result.num_train is not None:
        return []
    chosen = (found["chosen"]["layer"], found["chosen"]["pooling"])
    return [
        {
            **{key: getattr(result, key) for key in ("task", "method", "model", "init", "seed")},
            "layer": point["layer"],
            "pooling": point["pooling"],
            "metric": found["metric"],
            "value": None if undefined(point) else point["mean"],
            "valid_sd": point["sd"],
            "test": point.get("test"),
            "chosen": int((point["layer"], point["pooling"]) == chosen),
        }
        for point in found["curve"]
    ]


def _task(
    result: Result, results: Sequence[Result], runs: Mapping[Path, Benchmark], members: Mapping[Path, Sequence[Result]]
) -> dict[str, Any]:
    """Describe a task by the run that it comes from, which may know it under another name."""
    folder = next(folder for folder, mine in members.items() if any(each.task == result.task for each in mine))
    built = next(each.task for each in runs[folder].results if each.data == result.data)
    facts = runs[folder].facts(built)
    rows = max((each.rows for each in results if each.task == result.task), key=lambda counts: counts["train"])
    sane = (facts["sanity"] or {}).get("findings", [])
    found = {"metric": result.metric, "data": result.data, "rows": rows}
    found |= {"title": facts["title"], "split_rule": facts["split_rule"]}
    return found | {"findings": [f"{finding['severity']}: {finding['text']}" for finding in sane]}


def describe_run(folder: Path, run: Benchmark) -> dict[str, Any]:
    """Say what made a run: settings, protocol by suite, commits, versions, machine, dates, command."""
    made = [result.provenance for result in run.results]
    dates = sorted(each["date"] for each in made)
    return {
        "name": folder.resolve().name,
        "settings": run.settings,
        "protocols": {result.task.split("/")[0]: result.protocol.model_dump(mode="json") for result in run.results},
        "commits": sorted({str(each["commit"]) for each in made}),
        "versions": made[0]["versions"],
        "machine": {**made[0]["machine"], "os": str(made[0]["machine"].get("os")).split("-")[0]},
        "dates": [dates[0], dates[-1]],
        "command": " ".join(map(str, made[0]["command"])),
        "seconds": sum(result.wall_seconds for result in run.results),
    }


def _tidied(value: Any) -> Any:
    """Round floats and cut paths of the machine to their last part, everywhere in a value."""
    if isinstance(value, Mapping):
        return {without_paths(str(key)): _tidied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_tidied(inner) for inner in value]
    if isinstance(value, str):
        return without_paths(value)
    text = rounded(value)
    return (float(text) if text else None) if isinstance(value, float) else value


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a table of results, floats rounded to five significant digits, None and NaN as empty cells."""
    lines = [{name: rounded(row.get(name)) for name in columns} for row in rows]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, pl.DataFrame(lines, schema=dict.fromkeys(columns, pl.String)).write_csv())


def rounded(value: Any) -> str | None:
    """Round a float to five significant digits and write it shortly; whole numbers and text stay, None and NaN go."""
    if value is None or value == "" or value != value:
        return None
    if not isinstance(value, float):
        return str(value)
    return str(round(value)) if abs(value) >= 1e5 else f"{value:.5g}"


def without_paths(text: str) -> str:
    """Cut every absolute path in a text to its last part; relative ones stay.

    Example:
        >>> without_paths("run --data=/a/b/yeast -o runs/x")
        'run --data=yeast -o runs/x'
    """
    return PATH.sub(lambda found: re.split(r"[/\\]", found.group().rstrip("/\\"))[-1], text)
