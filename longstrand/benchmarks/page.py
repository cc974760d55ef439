"""The report of a benchmark: one HTML page in which every number has its baselines, its interval and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longstrand.report import write_report
from longstrand.report_sections import (
    Section,
    curves_section,
    metric_title,
    metrics_section,
    points_section,
    provenance_section,
    table_section,
)
from longstrand.training.metrics import LOWER_IS_BETTER

GROUPS = {"baseline": "no language model", "model": "pre-trained", "control": "random start"}
MAX_METRICS = 4
Collected = Mapping[str, Any]


def write_page(folder: Path, collected: Collected) -> Path:
    """Write ``report.html`` and ``report.json`` into the run folder."""
    page, _ = write_report(folder, make_page(collected))
    return page


def make_page(collected: Collected) -> dict[str, Any]:
    """Make the report from what `longstrand.benchmarks.results.collect` gives."""
    full = [row for row in collected["summary"] if row["num_train"] is None]
    sections: list[Section] = []
    if len(collected["tasks"]) > 1 and collected["ranks"]:
        sections.append(rank_section(collected["ranks"], len(collected["tasks"])))
    for task, facts in collected["tasks"].items():
        sections += task_sections(task, facts, [row for row in full if row["task"] == task], collected)
    sections += [*paired_sections(collected["comparisons"]), *problem_sections(collected)]
    sections.append(_protocol_section(collected))
    sections.append(provenance_section(collected["provenance"], data=_fingerprints(collected)))
    seeds = sorted({seed for row in full for seed in row["seeds"]})
    return {
        "title": "Benchmark",
        "subtitle": f"{_count(len(collected['tasks']), 'task')}, {_count(len({row['arm'] for row in full}), 'line')} a "
        f"table, {_count(len(seeds), 'seed')}",
        "summary": summary_sentences(collected),
        "warnings": warning_sentences(collected),
        "sections": sections,
    }


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def summary_sentences(collected: Collected) -> list[str]:
    """Say for each task who is best, and whether a language model is worth it."""
    sentences = []
    for task, facts in collected["tasks"].items():
        rows = [row for row in collected["summary"] if row["task"] == task and row["num_train"] is None]
        models = [row for row in rows if row["group"] == "model" and row["mean"] is not None]
        baselines = [row for row in rows if row["group"] == "baseline" and row["mean"] is not None]
        name = metric_title(facts["metric"])
        if not models:
            if baselines:
                sentences.append(f"{task}: best without a language model: {_best(baselines)['arm']}.")
            continue
        best = _best(models)
        text = f"{task}: the best way with a language model is {best['arm']} ({name} {best['mean']:.3f})"
        test = _comparison(collected, task, best["arm"], "best baseline")
        if test is not None and test["difference"] is not None:
            word = "above" if test["difference"] > 0 else "below"
            sure = "clearly " if test["p_holm"] is not None and test["p_holm"] < 0.05 else "not clearly "
            text += f", {sure}{word} {test['against']} (difference {test['difference']:+.3f}, p {test['p_holm']:.3g})"
        control = _comparison(collected, task, best["arm"], "random start")
        if control is not None and control["difference"] is not None:
            worth = "helps" if control["difference"] > 0 and control["p"] < 0.05 else "is not shown to help"
            text += (
                f"; pre-training {worth} (against the random start {control['difference']:+.3f}, p {control['p']:.3g})"
            )
        sentences.append(text + ".")
    return sentences


def _best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    sign = -1 if rows[0]["metric"] in LOWER_IS_BETTER else 1
    return max(rows, key=lambda row: sign * row["mean"])


def _comparison(collected: Collected, task: str, arm: str, what: str) -> Mapping[str, Any] | None:
    return next(
        (row for row in collected["comparisons"] if (row["task"], row["arm"], row["what"]) == (task, arm, what)), None
    )


def warning_sentences(collected: Collected) -> list[str]:
    """Say what a reader must know before believing the numbers."""
    sentences = []
    for row in collected["summary"]:
        for flag in row["flags"]:
            rows = "" if row["num_train"] is None else f" with {row['num_train']:,} rows"
            sentences.append(f"{row['task']}: {row['arm']}{rows} has collapsed: {flag}.")
    for task, facts in collected["tasks"].items():
        for finding in (facts["sanity"] or {}).get("findings", []):
            if finding["severity"] in ("leak", "bias"):
                sentences.append(f"{task}: {finding['severity']}: {finding['text']}")
    if collected["errors"]:
        sentences.append(
            f"{_count(len(collected['errors']), 'cell')} failed and are missing; the same command tries them again."
        )
    if any(len(row["seeds"]) == 1 and row["group"] != "baseline" for row in collected["summary"]):
        sentences.append("Some lines have one seed: their spread over seeds is unknown.")
    return sentences


def task_sections(
    task: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], collected: Collected
) -> list[Section]:
    """Make the table, the cost, the curves, the sanity notes and the published numbers of a task."""
    if not rows:
        return []
    sections = [_table_of(task, facts, rows), _quality_and_cost(task, facts, rows), _cost_table(task, rows)]
    sections += layer_sections(task, [part for part in collected["probes"] if part["task"] == task])
    sections += fewshot_sections(task, facts["metric"], [row for row in collected["summary"] if row["task"] == task])
    if facts["sanity"]:
        findings = [[finding["severity"], finding["text"]] for finding in facts["sanity"]["findings"]]
        explain = "Found before any training. A leak makes every line of the table look better than it is."
        rows_found = findings or [["-", "nothing suspicious was found"]]
        sections.append(table_section(f"{task}: is the data sane?", explain, ["kind", "finding"], rows_found))
    if facts["published"]:
        sections.append(_published_section(task, facts, rows))
    return sections


def _table_of(task: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Section:
    main = facts["metric"]
    names = [main, *(name for name in rows[0]["metrics"] if name != main)][:MAX_METRICS]
    entries = [
        {"model": row["arm"], "metric": name, **row["metrics"][name]}
        for row in rows
        for name in names
        if row["metrics"].get(name, {}).get("value") is not None
    ]
    sizes = facts["rows"]
    rule = f" Rows: {facts['split_rule']}." if facts["split_rule"] else ""
    explain = (
        f"{facts['title'] or task}. {sizes['train']:,} training, {sizes['valid']:,} validation, {sizes['test']:,} test "
        f"rows.{rule} Dots are means over seeds (rings: single seeds), bars the 95 % interval for other such rows. "
        "All choices were made on validation rows."
    )
    return metrics_section(task, explain, entries, main=main)


def _quality_and_cost(task: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Section:
    points = [
        {"name": row["arm"], "group": GROUPS[row["group"]], "x": max(row["cost"]["seconds"], 0.1), "y": row["mean"]}
        for row in rows
        if row["mean"] is not None
    ]
    explain = "Up is better, left is cheaper: seconds of training here (a probe: embedding and choosing), 0.1 at least."
    y_label = metric_title(facts["metric"])
    return points_section(f"{task}: what quality costs", explain, points, x_label="seconds", y_label=y_label)


def _cost_table(task: str, rows: Sequence[Mapping[str, Any]]) -> Section:
    def size(value: float | None, unit: float) -> float | None:
        return None if value is None else round(value / unit, 3)

    lines = [
        [
            row["arm"],
            None if row["cost"]["trained_parameters"] is None else int(row["cost"]["trained_parameters"]),
            size(row["cost"]["storage_bytes"], 1e6),
            size(row["cost"]["seconds"], 1),
            size(row["cost"]["peak_memory_bytes"], 1e6),
            row["sd"],
            len(row["values"]),
        ]
        for row in rows
    ]
    columns = ["model", "trained parameters", "to store (MB)", "seconds", "peak memory (MB)", "sd over seeds", "seeds"]
    explain = (
        "What each way costs. To store: what it adds to the base model. Memory: of the GPU, or on a CPU of the whole "
        "process, data and libraries included."
    )
    return table_section(f"{task}: cost of each way", explain, columns, lines)


def layer_sections(task: str, probes: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Draw score against layer, one line a pooling, with one standard deviation over the folds."""
    sections = []
    for arm in dict.fromkeys(part["arm"] for part in probes):
        first = next(part for part in probes if part["arm"] == arm)
        series = []
        for pooling in dict.fromkeys(point["pooling"] for point in first["curve"]):
            points = [point for point in first["curve"] if point["pooling"] == pooling]
            series.append(
                {
                    "name": pooling,
                    "x": [point["layer"] for point in points],
                    "y": [point["mean"] for point in points],
                    "low": [point["mean"] - point["sd"] for point in points],
                    "high": [point["mean"] + point["sd"] for point in points],
                    "style": "points",
                }
            )
        chosen = first["chosen"]
        explain = (
            "The same linear probe on every layer (0: embeddings) and pooling, scored without the test rows; bands are "
            f"one standard deviation over folds. Chosen: layer {chosen['layer']}, {chosen['pooling']}, "
            f"{chosen['kind']} ({chosen['mean']:.3f})."
        )
        labels = {"x_label": "layer", "y_label": metric_title(first["metric"])}
        sections.append(curves_section(f"{task}: layers of {arm}", explain, series, **labels))
    return sections


def fewshot_sections(task: str, metric: str, rows: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Draw test score against training rows, one line an arm; nothing if only all rows were used."""
    sizes = sorted({row["num_train"] for row in rows if row["num_train"] is not None})
    if not sizes:
        return []
    series = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        points = sorted(
            (row for row in rows if row["arm"] == arm and row["num_train"] is not None and row["mean"] is not None),
            key=lambda row: row["num_train"],
        )
        spread = [row["sd"] or 0.0 for row in points]
        line: dict[str, Any] = {"x": [row["num_train"] for row in points], "y": [row["mean"] for row in points]}
        line |= {"name": arm, "style": "points", "scale": "log"}
        if any(spread):
            line |= {"low": [row["mean"] - sd for row, sd in zip(points, spread)]}
            line |= {"high": [row["mean"] + sd for row, sd in zip(points, spread)]}
        series.append(line)
    explain = (
        "Subsets of one seed are nested, and the validation rows shrink with them. Bands: one standard deviation over "
        "seeds. Where the lines cross, a language model begins to be worth it."
    )
    labels = {"x_label": "training rows", "y_label": metric_title(metric)}
    return [curves_section(f"{task}: with few rows", explain, series, **labels)]


def rank_section(ranks: Sequence[Mapping[str, Any]], num_tasks: int) -> Section:
    """Show mean ranks over tasks, with the rank in each task as rings."""
    rows = [
        {"model": entry["arm"], "metric": "mean rank", "value": entry["mean"], "seeds": entry["ranks"]}
        for entry in ranks
    ]
    explain = f"Rank within each of {num_tasks} tasks, averaged (1 is best); rings are single tasks."
    return metrics_section("Mean rank", explain, rows, main="mean rank")


def paired_sections(comparisons: Sequence[Mapping[str, Any]]) -> list[Section]:
    """List the paired tests."""
    if not comparisons:
        return []
    lines = [
        [
            row["task"],
            row["arm"],
            row["against"],
            row["difference"],
            None if row["low"] is None else f"{row['low']:+.3f} to {row['high']:+.3f}",
            row["p"],
            row["p_holm"],
        ]
        for row in comparisons
    ]
    explain = (
        "Paired bootstrap on the same test rows: positive differences are in favour of the first. The best baseline is "
        "the one with the best validation score. Corrected p: for several lines on one task (Holm)."
    )
    columns = ["task", "model", "against", "difference", "95 % interval", "p", "corrected p"]
    return [table_section("Is the difference real?", explain, columns, lines)]


def problem_sections(collected: Collected) -> list[Section]:
    """List cells that failed, and what runs said on the way."""
    sections = []
    if collected["errors"]:
        lines = [[error["task"], error["arm"], error["seed"], error["reason"][:400]] for error in collected["errors"]]
        explain = "They are not in the tables. The same command tries them again and leaves the others alone."
        sections.append(table_section("What failed", explain, ["task", "model", "seed", "reason"], lines))
    said = [[cell["task"], cell["arm"], notice] for cell in collected["cells"] for notice in cell["notices"]]
    cut = [
        [cell["task"], cell["arm"], f"{count:,} {split} sequences were cut to {cell['facts']['max_tokens']:,} tokens"]
        for cell in collected["cells"]
        for split, count in cell["facts"].get("truncated", {}).items()
        if count
    ]
    if said or cut:
        explain = "Smaller batches for lack of memory (same effective batch), sequences that were cut, and the like."
        sections.append(table_section("Said on the way", explain, ["task", "model", "notice"], said + cut))
    return sections


def _published_section(task: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Section:
    explain = "Published numbers stand beside ours for orientation; read the protocol before comparing."
    lines = [[f"{row['arm']} (here)", row["metric"], row["mean"], "this run", "this run's protocol"] for row in rows]
    for model, entry in facts["published"].items():
        same = (
            "the same metric" if entry["metric"] == facts["metric"] else f"another metric than here ({facts['metric']})"
        )
        protocol = entry["protocol"] or f"{same}; the authors' own training protocol, not ours"
        lines.append([model, entry["metric"], entry["value"], entry["source"], protocol])
    columns = ["model", "metric", "value", "source", "protocol"]
    return table_section(f"{task}: published numbers", explain, columns, lines)


def _protocol_section(collected: Collected) -> Section:
    first = collected["cells"][0]["protocol"]
    lines = [[key, _words(value)] for key, value in first.items()]
    changed = ", ".join(f"{key}={_words(value)}" for key, value in collected["settings"]["protocol"].items())
    explain = "The same for every line. " + (
        f"Changed for this run: {changed}." if changed else "As fixed for the suite."
    )
    return table_section("Protocol", explain, ["setting", "value"], lines)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "default"
    return "default" if value is None else str(value)


def _fingerprints(collected: Collected) -> dict[str, str]:
    return {cell["task"]: cell["data"] for cell in collected["cells"]}
