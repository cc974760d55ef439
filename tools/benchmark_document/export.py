"""Export benchmark runs: tidy CSVs of their cells and probed layers, and a JSON that says where they come from.

The files hold no path of the machine: models stand with their short names, data with the ids of tasks and fingerprints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from longstrand.benchmarks.cells import model_names, way_name
from longstrand.benchmarks.protocol import Protocol
from longstrand.benchmarks.reports.page import undefined
from longstrand.benchmarks.results import compare_arms, find_tasks, read_results, sort_and_flag
from longstrand.config import read_yaml
from longstrand.errors import InputError, UsageError
from longstrand.runtime import read_json, write_atomically, write_json
from longstrand.training.methods import FinetuneMethod

FORMAT = {"format": "longstrand.results", "format_version": 1}
COLUMNS = (
    "task", "method", "group", "kind", "model", "init", "training", "seed", "num_train", "metric", "value", "low",
    "high", "valid", "train_rows", "test_rows", "seconds", "trained_parameters", "storage_bytes", "peak_memory_bytes",
    "flags", "data",
)  # fmt: skip
LAYER_COLUMNS = (
    "task", "method", "model", "init", "seed", "layer", "pooling", "metric", "value", "valid_sd", "test", "chosen",
)  # fmt: skip
PATH = re.compile(r"(?<![\w.:/])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\",;:=()]+[/\\])*[^\s/\\'\",;:=()]*")
Result = Mapping[str, Any]
Change = Callable[[Path, dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        files: their paths.
        num_cells: lines of the main table.
        num_twice: cells that several runs hold; those of the first run were kept.
        largest_gap: between the values of such cells; 0 if there is none.
    """

    files: tuple[Path, ...]
    num_cells: int
    num_twice: int
    largest_gap: float


def export_runs(folders: Sequence[Path], path: Path, *, compare: bool = True, change: Change | None = None) -> Export:
    """Write the finished cells of runs as ``NAME.csv``, ``NAME-layers.csv`` (if anything was probed) and ``NAME.json``.

    Args:
        folders: of runs; together they are one experiment.
        path: of ``NAME.csv``.
        compare: also do the paired tests of all arms against the best baseline and the random start (the slow part).
        change: called with run folder and cell before cells are joined; gives the cell with another ``task`` or
            ``arm``, or with ``extra`` {column: number} such as tokens seen in pre-training, or None to leave it out.

    Raises:
        InputError: a folder is no run, or runs cannot be joined: other data, weights or settings under one name.
        UsageError: the path does not end in .csv.
    """
    path = Path(path)
    if path.suffix != ".csv" or path.stem.endswith("-layers"):
        raise UsageError(f"{path}: results are written to a file NAME.csv (and NAME-layers.csv, NAME.json beside it).")
    runs = {str(folder): _changed(Path(folder), change) for folder in folders}
    results, num_twice, gap = join_runs(runs)
    names = _short_names(results)
    rows = [tidy_row(result, names) for result in results]
    layers = [row for result in results for row in layer_rows(result, names)]
    extra = list(dict.fromkeys(name for result in results for name in result.get("extra", ())))
    write_table(path, rows, [*COLUMNS, *extra])
    files = [path]
    layer_path = path.with_name(f"{path.stem}-layers.csv")
    if layers:
        write_table(layer_path, layers, LAYER_COLUMNS)
        files.append(layer_path)
    elif layer_path.exists():
        layer_path.unlink()
    about = {
        **FORMAT,
        "name": path.stem,
        "tasks": _tasks(results, [Path(folder) for folder in folders]),
        "models": _models(results, names),
        "runs": [describe_run(Path(folder), members) for folder, members in runs.items()],
        "comparisons": _compared(results) if compare else [],
        "failed": [error for folder in folders for error in _failures(Path(folder))],
        "cells_in_several_runs": {"count": num_twice, "largest_gap": gap},
    }
    write_json(path.with_suffix(".json"), _tidied(about))
    return Export((*files, path.with_suffix(".json")), len(rows), num_twice, gap)


def _changed(folder: Path, change: Change | None) -> list[dict[str, Any]]:
    results = [result | {"built": result["task"]} for result in read_results(folder)]
    if change is None:
        return results
    return [result for result in (change(folder, result) for result in results) if result is not None]


def _compared(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Compare arms by paired tests; cells with columns of their own are one arm at many places, and are left out."""
    return compare_arms([result for result in results if not result.get("extra")])


def join_runs(runs: Mapping[str, Sequence[Result]]) -> tuple[list[dict[str, Any]], int, float]:
    """Put the cells of several runs together; of a cell that several hold, the first run's stays.

    Returns:
        The cells in order, how many were left out as known, and the largest gap between the values of such cells.

    Raises:
        InputError: runs have other data under the same task, other weights under the same model name, or computed one
            cell by other protocols.
    """
    kept: dict[tuple[Any, ...], tuple[str, Result]] = {}
    seen: dict[tuple[str, str], tuple[str, Any]] = {}
    twice, gap = 0, 0.0
    for folder, results in runs.items():
        for result in results:
            facts = [("task", result["task"], result["data"])]
            if result["model"] and not result.get("extra"):
                facts.append(("arm", result["arm"], result["weights"]))
            for what, name, mark in facts:
                place, before = seen.setdefault((what, name), (folder, mark))
                if before != mark:
                    thing = "data" if what == "task" else "weights"
                    raise InputError(f"{folder} and {place}: {what} '{name}' has other {thing} in the two runs.")
            place_of = tuple(sorted(result.get("extra", {}).items()))
            key = (result["task"], result["arm"], result["num_train"], result["seed"], place_of)
            if key not in kept:
                kept[key] = (folder, result)
                continue
            other, first = kept[key]
            if _whole(first["protocol"]) != _whole(result["protocol"]):
                raise InputError(f"{folder} and {other}: '{result['arm']}' on {result['task']} has other protocols.")
            twice += 1
            values = [_value(each, "test") for each in (first, result)]
            if None not in values:
                gap = max(gap, abs(values[0] - values[1]))  # type: ignore[operator]
    return sort_and_flag([dict(result) for _, result in kept.values()]), twice, gap


def _whole(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in settings that did not exist yet when a cell was computed."""
    return Protocol().model_dump(mode="json") | dict(protocol)


def _value(result: Result, split: str) -> float | None:
    return result[split]["metrics"][result["metric"]]["value"]


def tidy_row(result: Result, names: Mapping[str, str]) -> dict[str, Any]:
    """Make the line of a cell: its main metric on the test rows."""
    entry, cost = result["test"]["metrics"][result["metric"]], result["cost"]
    memory = cost.get("peak_memory_bytes")
    way = FinetuneMethod.model_validate(result["way"]) if result["way"] else None
    return {
        **{key: result[key] for key in ("task", "group", "kind", "init", "seed", "num_train", "metric")},
        "method": result["arm"],
        "model": names.get(result["model"] or ""),
        "training": way_name(way) if way else result["kind"] if result["kind"] == "probe" else result["baseline"],
        **{key: entry.get(key) for key in ("value", "low", "high")},
        "valid": _value(result, "valid"),
        "train_rows": result["rows"]["train"],
        "test_rows": result["rows"]["test"],
        "seconds": float(f"{cost['seconds']:.3g}"),
        "trained_parameters": cost.get("trained_parameters"),
        "storage_bytes": cost.get("storage_bytes"),
        "peak_memory_bytes": None if memory is None else int(float(f"{memory:.3g}")),
        "flags": "; ".join(result["flags"]),
        "data": result["data"].removeprefix("sha256:")[:12],
        **result.get("extra", {}),
    }


def layer_rows(result: Result, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Make the lines of a probe: each layer and pooling; ``value`` is the mean validation score over folds.

    ``test`` is the score on the test rows where the run measured it; choices never look at it.
    """
    found = result["facts"].get("probe")
    if not found or result["num_train"] is not None:
        return []
    chosen = (found["chosen"]["layer"], found["chosen"]["pooling"])
    return [
        {
            **{key: result[key] for key in ("task", "init", "seed")},
            "method": result["arm"],
            "model": names.get(result["model"] or ""),
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


def _short_names(results: Iterable[Result]) -> dict[str, str]:
    """Give each model path the name that its arms begin with."""
    paths = list(dict.fromkeys(result["model"] for result in results if result["model"]))
    spoken = {result["model"]: result["arm"].rsplit(": ", 1)[0] for result in results if result["model"]}
    fallback = dict(zip(paths, model_names([Path(path) for path in paths])))
    return {path: spoken.get(path) or fallback[path] for path in paths}


def _models(results: Sequence[Result], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[result["model"]]: result["weights"] for result in results if result["model"]}


def _tasks(results: Sequence[Result], folders: Sequence[Path]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for folder in folders:
        built = {**find_tasks(folder), **built}
    found: dict[str, Any] = {}
    for result in results:
        rows = result["rows"]
        entry = found.setdefault(result["task"], {"metric": result["metric"], "data": result["data"], "rows": rows})
        entry["rows"] = max(entry["rows"], rows, key=lambda counts: counts["train"])
    for name, entry in found.items():
        original = next(result["built"] for result in results if result["task"] == name)
        if original in built:
            data = built[original]
            sane = read_json(data.sanity)["findings"] if data.sanity.exists() else []
            entry |= {"title": data.facts.get("title"), "split_rule": data.facts.get("split_rule")}
            entry["findings"] = [f"{finding['severity']}: {finding['text']}" for finding in sane]
    return found


def describe_run(folder: Path, results: Sequence[Result]) -> dict[str, Any]:
    """Say what made a run: settings, protocol by suite, commits, versions, machine, dates, command."""
    made = [result["provenance"] for result in results]
    first = made[0]
    protocols: dict[str, Any] = {}
    for result in results:
        protocols.setdefault(result["task"].split("/")[0], result["protocol"])
    settings = read_yaml(folder / "config.yaml")
    return {
        "name": folder.resolve().name,
        "settings": settings,
        "protocols": protocols,
        "commits": sorted({str(each["commit"]) for each in made}),
        "versions": first["versions"],
        "machine": {**first["machine"], "os": str(first["machine"].get("os")).split("-")[0]},
        "dates": sorted(each["date"] for each in made)[:: max(1, len(made) - 1)][:2],
        "command": " ".join(str(word) for word in first["command"]),
        "seconds": sum(result.get("wall_seconds", 0.0) for result in results),
    }


def _failures(folder: Path) -> list[dict[str, Any]]:
    errors = [read_json(path) for path in sorted((folder / "cells").rglob("error.json"))]
    return [
        {key: error[key] for key in ("task", "seed", "num_train", "reason")} | {"method": error["arm"]}
        for error in errors
    ]


def _tidied(value: Any) -> Any:
    """Round floats and cut paths of the machine to their last part, everywhere in a value."""
    if isinstance(value, Mapping):
        return {without_paths(str(key)): _tidied(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_tidied(inner) for inner in value]
    if isinstance(value, str):
        return without_paths(value)
    if isinstance(value, float):
        text = rounded(value)
        return float(text) if text else None
    return value


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
