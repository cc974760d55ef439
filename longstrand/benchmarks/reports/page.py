"""The report of a benchmark: one HTML page in which every number has its baselines, its interval and its cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longstrand.evaluation.metrics import LOWER_IS_BETTER
from longstrand.report.page import write_report
from longstrand.report.sections import (
    Curves,
    Grid,
    Line,
    MetricRow,
    Metrics,
    Point,
    Points,
    Report,
    Section,
    Table,
    metric_title,
    provenance_table,
)

GROUPS = {"baseline": "no language model", "model": "pre-trained", "control": "random start"}
MAX_METRICS = 4
MAX_LINES = 8
"""Lines of a picture with training rows on the axis; further baselines are left to the table under it."""
Collected = Mapping[str, Any]


def write_page(folder: Path, collected: Collected) -> Path:
    """Write ``report.html`` and ``report.json`` into the run folder."""
    page, _ = write_report(folder, make_page(collected))
    return page


def make_page(collected: Collected) -> Report:
    """Make the report from what `longstrand.benchmarks.results.collect` gives."""
    full = [row for row in collected["summary"] if row["num_train"] is None]
    sections: list[Section] = []
    if len(collected["tasks"]) > 1:
        sections.append(overview_section(full, collected["tasks"]))
        if collected["ranks"]:
            sections.append(rank_section(collected["ranks"], len(collected["tasks"])))
    for task, facts in collected["tasks"].items():
        sections += task_sections(task, facts, [row for row in full if row["task"] == task], collected)
    sections += [*paired_sections(collected["comparisons"]), *problem_sections(collected)]
    sections.append(_protocol_section(collected))
    sections.append(provenance_table(collected["provenance"], data=_fingerprints(collected)))
    seeds = sorted({seed for row in full for seed in row["seeds"]})
    lines = _count(len({row["arm"] for row in full}), "line")
    size = f"{_count(len(collected['tasks']), 'task')}, {lines} a table, {_count(len(seeds), 'seed')}"
    return Report("Benchmark", sections, size, summary_sentences(collected), warning_sentences(collected))


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
    sentences = [
        collapse_sentence(task, [row for row in collected["summary"] if row["task"] == task])
        for task in collected["tasks"]
    ]
    sentences = [sentence for sentence in sentences if sentence]
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


def collapse_sentence(task: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Name the lines of a task that collapsed with all rows, and count those that did with fewer; "" if none did."""
    full = [row["arm"] for row in rows if row["flags"] and row["num_train"] is None]
    few: dict[int, list[bool]] = {}
    for row in rows:
        if row["num_train"] is not None:
            few.setdefault(row["num_train"], []).append(bool(row["flags"]))
    parts = list(full)
    parts += [
        f"{sum(flags)} of {len(flags)} lines with {size:,} rows" for size, flags in sorted(few.items()) if any(flags)
    ]
    if not parts:
        return ""
    return f"{task}: collapsed (a constant prediction, or no better than the majority): {'; '.join(parts)}."


def overview_section(rows: Sequence[Mapping[str, Any]], tasks: Mapping[str, Any]) -> Section:
    """Put the main metric of every line and task into one table."""
    scores = {(row["arm"], row["task"]): row["mean"] for row in rows}
    lines = {row["arm"]: [scores.get((row["arm"], task)) for task in tasks] for row in rows}
    lines = {arm: values for arm, values in lines.items() if any(value is not None for value in values)}
    metrics = [facts["metric"] for facts in tasks.values()]
    named = ", ".join(dict.fromkeys(metric_title(metric) for metric in metrics))
    explain = f"{named[0].upper()}{named[1:]} on the test rows, mean over seeds: the darker, the better; best in bold."
    return Grid("All tasks", explain, list(tasks), lines, [metric in LOWER_IS_BETTER for metric in metrics])


def task_sections(
    task: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], collected: Collected
) -> list[Section]:
    """Make the table, the cost, the curves, the sanity notes and the published numbers of a task."""
    if not rows:
        return []
    sections = [_table_of(task, facts, rows), _quality_and_cost(task, facts, rows)]
    sections += layer_sections(task, [part for part in collected["probes"] if part["task"] == task])
    every = [row for row in collected["summary"] if row["task"] == task]
    sections += fewshot_sections(task, facts["metric"], every, facts["rows"]["train"])
    if facts["sanity"]:
        findings = [[finding["severity"], finding["text"]] for finding in facts["sanity"]["findings"]]
        explain = "Found before any training. A leak makes every line of the table look better than it is."
        rows_found = findings or [["none", "nothing suspicious was found"]]
        sections.append(Table(f"{task}: is the data sane?", explain, ["kind", "finding"], rows_found))
    if facts["published"]:
        sections.append(_published_section(task, facts, rows))
    return sections


def _table_of(task: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Section:
    main = facts["metric"]
    names = [main, *(name for name in rows[0]["metrics"] if name != main)][:MAX_METRICS]
    entries = [
        MetricRow(row["arm"], name, **row["metrics"][name])
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
    groups = {row["arm"]: GROUPS[row["group"]] for row in rows}
    return Metrics(task, explain, entries, main=main, groups=groups)


def _quality_and_cost(task: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Section:
    shorter = _without_model([row["arm"] for row in rows])
    points = [
        Point(shorter[row["arm"]], GROUPS[row["group"]], max(row["cost"]["seconds"], 0.1), row["mean"])
        for row in rows
        if row["mean"] is not None
    ]
    explain = (
        "Up is better, left is cheaper: seconds of training here (a probe: embedding and choosing), 0.1 at least. "
        "Under the picture: what each way adds to the base model to be stored; memory of the GPU, or on a CPU of the "
        "whole process, data and libraries included."
    )
    labels = {"x_label": "seconds of training", "y_label": metric_title(facts["metric"])}
    return Points(f"{task}: what quality costs", explain, points, table=_cost_table(rows), **labels)


def _without_model(arms: Sequence[str]) -> dict[str, str]:
    """Leave the name of the model away where there is only one."""
    models = {arm.split(": ", 1)[0] for arm in arms if ": " in arm}
    return {arm: arm.split(": ", 1)[1] if ": " in arm and len(models) == 1 else arm for arm in arms}


def _cost_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    def size(value: float | None, unit: float) -> float | None:
        return None if value is None else round(value / unit, 3)

    lines = [
        [
            row["arm"],
            None if row["cost"]["trained_parameters"] is None else int(row["cost"]["trained_parameters"]),
            size(row["cost"]["storage_bytes"], 1e6),
            size(row["cost"]["seconds"], 1),
            None if row["cost"]["peak_memory_bytes"] is None else round(row["cost"]["peak_memory_bytes"] / 1e6),
            row["mean"],
            row["sd"],
            len(row["values"]),
        ]
        for row in rows
    ]
    columns = ["model", "trained parameters", "to store (MB)", "seconds", "peak memory (MB)", "score", "sd", "seeds"]
    return columns, lines


def layer_sections(task: str, probes: Sequence[Mapping[str, Any]]) -> list[Section]:
    """Draw score against layer, one line a pooling; the random start of a model is dashed in the same picture."""
    models: dict[str, dict[bool, list[Mapping[str, Any]]]] = {}
    for part in probes:
        name = part["arm"].split(": ", 1)[0]
        models.setdefault(name, {}).setdefault(part["arm"].endswith("of random init"), []).append(part)
    return [_layers_of(task, both) for both in models.values()]


def _layers_of(task: str, both: Mapping[bool, Sequence[Mapping[str, Any]]]) -> Section:
    series, lines = [], []
    poolings = list(dict.fromkeys(point["pooling"] for parts in both.values() for point in parts[0]["curve"]))
    for random, parts in sorted(both.items()):
        for number, pooling in enumerate(poolings):
            found: dict[int, list[Mapping[str, Any]]] = {}
            for point in (point for part in parts for point in part["curve"] if point["pooling"] == pooling):
                if undefined(point):
                    continue
                found.setdefault(point["layer"], []).append(point)
            means = [sum(point["mean"] for point in points) / len(points) for points in found.values()]
            spread = [sum(point["sd"] for point in points) / len(points) for points in found.values()]
            name = f"{pooling}, random start" if random else pooling
            low = () if random else [mean - sd for mean, sd in zip(means, spread)]
            high = () if random else [mean + sd for mean, sd in zip(means, spread)]
            series.append(Line(name, list(found), means, "dashed" if random else "points", low, high, number))
            lines += [[name, layer, mean, sd] for layer, mean, sd in zip(found, means, spread)]
    first = next(iter(both[min(both)]))
    chosen = [part["chosen"] for part in both[min(both)]]
    picks = ", ".join(dict.fromkeys(f"layer {pick['layer']} {pick['pooling']} {pick['kind']}" for pick in chosen))
    explain = (
        "The same linear probe on every layer (0: embeddings) and pooling, scored without the test rows; bands are one "
        f"standard deviation over folds, lines means over seeds. Chosen, seed by seed: {picks}."
    )
    labels = {"x_label": "layer", "y_label": metric_title(first["metric"])}
    table = (["line", "layer", "score", "sd over folds"], lines)
    return Curves(f"{task}: layers of {first['arm']}", explain, series, table=table, **labels)


def undefined(point: Mapping[str, Any]) -> bool:
    """Say whether no fold of a probed layer has a score: constant vectors, as of the first token before any layer."""
    return point["mean"] == -1.0 and point["sd"] == 0.0


def fewshot_sections(
    task: str, metric: str, rows: Sequence[Mapping[str, Any]], num_rows: int | None = None
) -> list[Section]:
    """Draw test score against training rows, one line an arm; nothing if only all rows were used.

    ``num_rows`` is where cells with all training rows stand; None leaves them out.
    """
    sizes = sorted({row["num_train"] for row in rows if row["num_train"] is not None})
    if not sizes:
        return []
    shorter = _without_model([row["arm"] for row in rows])
    shown = few_lines(rows)
    series = []
    for arm in shown:
        points = sorted(
            (row for row in rows if row["arm"] == arm and (row["num_train"] or num_rows) and row["mean"] is not None),
            key=lambda row: row["num_train"] or num_rows,
        )
        if not any(row["num_train"] for row in points):
            continue
        spread = [row["sd"] or 0.0 for row in points]
        baseline = points[0]["group"] == "baseline"
        places, means = [row["num_train"] or num_rows for row in points], [row["mean"] for row in points]
        band = any(spread) and not baseline
        low = [mean - sd for mean, sd in zip(means, spread)] if band else ()
        high = [mean + sd for mean, sd in zip(means, spread)] if band else ()
        series.append(Line(shorter[arm], places, means, "dashed" if baseline else "points", low, high))
    cells = {(row["arm"], row["num_train"]): row for row in rows}
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    table = [[arm, *(_mean_and_spread(cells.get((arm, size))) for size in [*sizes, None])] for arm in arms]
    left_out = len(arms) - len(series)
    explain = (
        "Subsets of one seed are nested, and the validation rows shrink with them. Dashed: without a language model; "
        "bands or bars: one standard deviation over seeds. Where lines cross, a language model begins to be worth it."
    ) + (f" {_count(left_out, 'line')} with lower validation scores stand in the table only." if left_out else "")
    labels = {"x_label": "training rows", "y_label": metric_title(metric)}
    columns = ["model", *(f"{size:,} rows" for size in sizes), "all rows"]
    return [Curves(f"{task}: with few rows", explain, series, log=True, table=(columns, table), **labels)]


def few_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Choose the arms of a picture: all that have a model, and the baselines with the best validation scores."""
    arms = {row["arm"]: row["group"] for row in rows if row["num_train"] is not None and row["mean"] is not None}
    baselines = [arm for arm, group in arms.items() if group == "baseline"]
    room = max(2, MAX_LINES - (len(arms) - len(baselines)))

    def valid(arm: str) -> float:
        mine = [row["valid"] for row in rows if row["arm"] == arm and row["valid"] is not None]
        sign = -1 if rows[0]["metric"] in LOWER_IS_BETTER else 1
        return sign * sum(mine) / len(mine) if mine else float("-inf")

    best = sorted(baselines, key=valid, reverse=True)[:room]
    return [arm for arm in arms if arm not in baselines or arm in best]


def _mean_and_spread(row: Mapping[str, Any] | None) -> str | None:
    if row is None or row["mean"] is None:
        return None
    return f"{row['mean']:.3f}" + (f" ± {row['sd']:.3f}" if row["sd"] is not None else "")


def rank_section(ranks: Sequence[Mapping[str, Any]], num_tasks: int) -> Section:
    """Show mean ranks over tasks, with the rank in each task as rings."""
    rows = [MetricRow(entry["arm"], "mean rank", entry["mean"], seeds=entry["ranks"]) for entry in ranks]
    explain = f"Rank within each of {num_tasks} tasks, averaged (1 is best); rings are single tasks."
    order = list(GROUPS)
    kinds = sorted(ranks, key=lambda entry: order.index(entry["group"]))
    groups = {entry["arm"]: GROUPS[entry["group"]] for entry in kinds}
    return Metrics("Mean rank", explain, rows, main="mean rank", groups=groups)


def paired_sections(comparisons: Sequence[Mapping[str, Any]]) -> list[Section]:
    """List the paired tests."""
    if not comparisons:
        return []
    shorter = _without_model([row[side] for row in comparisons for side in ("arm", "against")])
    lines = [
        [
            row["task"],
            shorter[row["arm"]],
            shorter[row["against"]],
            row["difference"],
            None if row["low"] is None else f"{row['low']:+.3f}\u00a0to\u00a0{row['high']:+.3f}",
            row["p"],
            row["p_holm"],
        ]
        for row in comparisons
    ]
    explain = (
        "On the same test rows; positive differences are in favour of the first. The best baseline is the one with the "
        "best validation score. Intervals: paired bootstrap. p: paired permutation test, which swaps the answers of "
        "both lines sequence by sequence. Corrected p: for several lines on one task (Holm)."
    )
    columns = ["task", "model", "against", "difference", "95 % interval", "p", "corrected p"]
    return [Table("Is the difference real?", explain, columns, lines)]


def problem_sections(collected: Collected) -> list[Section]:
    """List cells that failed, and what runs said on the way."""
    sections = []
    if collected["errors"]:
        lines = [[error["task"], error["arm"], error["seed"], error["reason"][:400]] for error in collected["errors"]]
        explain = "They are not in the tables. The same command tries them again and leaves the others alone."
        sections.append(Table("What failed", explain, ["task", "model", "seed", "reason"], lines))
    said = [[cell["task"], cell["arm"], notice] for cell in collected["cells"] for notice in cell["notices"]]
    cut = [
        [cell["task"], cell["arm"], f"{count:,} {split} sequences were cut to {cell['facts']['max_tokens']:,} tokens"]
        for cell in collected["cells"]
        for split, count in cell["facts"].get("truncated", {}).items()
        if count
    ]
    if said or cut:
        explain = "Smaller batches for lack of memory (same effective batch), sequences that were cut, and the like."
        sections.append(Table("Said on the way", explain, ["task", "model", "notice"], said + cut))
    return sections


def _published_section(task: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Section:
    """Put the published numbers beside the best lines of each kind, with a note on what differs."""
    explain = (
        "Published numbers stand beside ours for orientation: other training, other tuning, often other metrics, and "
        "the whole published training set. Read the protocol before comparing. Ours: of each kind the line with the "
        "best validation score."
    )
    known = [row for row in rows if row["mean"] is not None]
    kinds = [[row for row in known if row["group"] == group] for group in GROUPS]
    lines: list[list[Any]] = [
        [_by_validation(kind)["arm"], facts["metric"], _by_validation(kind)["mean"], "here", f"this run; best {which}"]
        for kind, which in zip(kinds, ("without a language model", "with pre-training", "random start"))
        if kind
    ]
    for model, entry in sorted(facts["published"].items(), key=lambda item: -item[1]["value"]):
        same = (
            "the same metric" if entry["metric"] == facts["metric"] else f"another metric than here ({facts['metric']})"
        )
        protocol = entry["protocol"] or f"{same}; the authors' own training protocol, not ours"
        lines.append([model, entry["metric"], entry["value"], entry["source"], protocol])
    columns = ["model", "metric", "value", "source", "protocol"]
    origins = {(line[3], line[4]) for line in lines if line[3] != "here"}
    if len(origins) == 1:
        ((source, protocol),) = origins
        explain += f" The published ones: {source}; {protocol}."
        columns = [*columns[:3], "from"]
        lines = [[*line[:3], line[4] if line[3] == "here" else "published"] for line in lines]
    return Table(f"{task}: published numbers", explain, columns, lines)


def _by_validation(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    sign = -1 if rows[0]["metric"] in LOWER_IS_BETTER else 1
    return max(rows, key=lambda row: float("-inf") if row["valid"] is None else sign * row["valid"])


def _protocol_section(collected: Collected) -> Section:
    first = collected["cells"][0]["protocol"]
    lines = [[key, _words(value)] for key, value in first.items()]
    changed = ", ".join(f"{key}={_words(value)}" for key, value in collected["settings"]["protocol"].items())
    explain = "The same for every line. " + (
        f"Changed for this run: {changed}." if changed else "As fixed for the suite."
    )
    return Table("Protocol", explain, ["setting", "value"], lines)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_words(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "default"
    return "default" if value is None else str(value)


def _fingerprints(collected: Collected) -> dict[str, str]:
    return {cell["task"]: cell["data"] for cell in collected["cells"]}
