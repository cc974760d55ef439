"""The report of a benchmark: one HTML page in which every number has its baselines, its interval and its cost.

The same as lines of text for a terminal. A method is called better or worse by the paired test alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.results import Benchmark, Comparison, Line, metric_frame, ranks_of, read_benchmark, sign_of
from longstrand.benchmarks.tasks.task import TaskData
from longstrand.evaluation.metrics import LOWER_IS_BETTER, Scores, evaluate
from longstrand.report import sections as page
from longstrand.report.page import write_report
from longstrand.report.runs import answers_sections
from longstrand.report.sections import MetricRow, Section, Table, metric_title, text
from longstrand.runtime import write_frame, write_json
from longstrand.training.measure import worst_of

GROUPS = {"baseline": "no language model", "model": "pre-trained", "control": "random start"}
MAX_METRICS = 4
MAX_LINES = 8
"""Lines of a picture with training rows on the axis; further baselines are left to the table under it."""


def write_results(folder: Path, tasks: Mapping[str, TaskData] | None = None) -> Benchmark:
    """Write ``results.json``, ``results.parquet`` and ``report.html`` of a run folder; see `read_benchmark`."""
    found = read_benchmark(folder, tasks)
    write_json(Path(folder) / "results.json", found.to_dict())
    write_frame(Path(folder) / "results.parquet", metric_frame(found.results))
    write_report(
        Path(folder), make_page(found), files=[Path(folder) / "results.json", Path(folder) / "results.parquet"]
    )
    return found


def make_page(found: Benchmark) -> page.Report:
    """Make the report."""
    full = [line for line in found.lines if line.first.num_train is None]
    facts = {task: found.facts(task) for task in found.names()}
    parts: list[Section] = []
    if len(facts) > 1:
        parts.append(_overview(full, list(facts)))
    for task in facts:
        if found.lines_of(task):
            parts += _task_sections(task, facts[task], found)
    parts += [*_paired(found.comparisons), *_problems(found), _protocol(found)]
    parts.append(page.provenance_table(found.provenance, data={task: each["data"] for task, each in facts.items()}))
    methods = count(len({line.first.method for line in full}), "line")
    seeds = count(len({result.seed for line in full for result in line.results}), "seed")
    summary = [sentence for task in facts if (sentence := summary_sentence(found, task))]
    size = f"{count(len(facts), 'task')}, {methods} a table, {seeds}"
    return page.Report("Benchmark", parts, size, summary, warning_sentences(found, facts))


def count(number: int, what: str) -> str:
    """Write a number of things."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _best(lines: Sequence[Line], split: str = "test") -> Line:
    return max(lines, key=lambda line: line.height(split))


def _against(found: Benchmark, line: Line, what: str) -> Comparison | None:
    key = line.first.task, line.first.method, what
    return next((each for each in found.comparisons if (each.task, each.method, each.what) == key), None)


def summary_sentence(found: Benchmark, task: str) -> str:
    """Say which method with a model is best, and whether a language model is worth it there; "" without a result."""
    known = [line for line in found.lines_of(task) if line.mean() is not None]
    models = [line for line in known if line.first.group == "model"]
    if not models:
        return f"{task}: best without a language model: {_best(known).first.method}." if known else ""
    best = _best(models)
    sentence = f"{task}: best with a language model is {best.first.method} "
    sentence += f"({metric_title(best.first.metric)} {best.mean():.3f})"
    against = _against(found, best, "best baseline")
    if against is not None and against.found.difference is not None:
        words = {"better": "better than", "worse": "worse than", "unclear": "not clearly different from"}
        sentence += f", {words[against.verdict]} {against.against} (difference {_numbers(against)})"
    control = _against(found, best, "random start")
    if control is not None and control.collapsed:
        sentence += "; whether pre-training helps is open, for its random start collapsed"
    elif control is not None and control.found.difference is not None:
        words = {"better": "helps", "worse": "does harm", "unclear": "is not shown to help"}
        sentence += f"; pre-training {words[control.verdict]} (against the random start {_numbers(control)})"
    return sentence + "."


def _p_value(each: Comparison) -> float:
    p = each.found.p if each.found.p_corrected is None else each.found.p_corrected
    return 1.0 if p is None else p


def _numbers(each: Comparison) -> str:
    return f"{each.found.difference:+.3f}, p {_p_value(each):.2g}"


def warning_sentences(found: Benchmark, facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what a reader must know before believing the numbers: collapse, rows left out, leaks, failures."""
    sentences = [collapse_sentence(task, found.lines_of(task, full=False)) for task in facts]
    for task, fact in facts.items():
        sentences += left_out_sentences(task, found.lines_of(task))
        findings = (fact["sanity"] or {}).get("findings", [])
        sentences += [f"{task}: {each['severity']}: {each['text']}" for each in findings if each["severity"] != "note"]
    if found.errors:
        sentences.append(
            f"{count(len(found.errors), 'trial')} failed and are missing; the same command tries them again."
        )
    if any(len(line.results) == 1 and line.first.group != "baseline" for line in found.lines):
        sentences.append("Some lines have one seed: their spread over seeds is unknown.")
    return [sentence for sentence in sentences if sentence]


def collapse_sentence(task: str, lines: Sequence[Line]) -> str:
    """Name the lines of a task that collapsed with all rows, and count those that did with fewer; "" if none did."""
    parts = [line.first.method for line in lines if line.flags and line.first.num_train is None]
    for size in sorted({line.first.num_train for line in lines if line.first.num_train is not None}):
        flags = [bool(line.flags) for line in lines if line.first.num_train == size]
        parts += [f"{sum(flags)} of {len(flags)} lines with {size:,} rows"] if any(flags) else []
    what = f"{task}: collapsed (a constant prediction, or no better than the majority): {'; '.join(parts)}."
    return what if parts else ""


def left_out_sentences(task: str, lines: Sequence[Line]) -> list[str]:
    """Say which test rows (or bases) and classes the numbers of a task do not count."""
    tests = [line.first.test for line in lines]
    lost = {line.first.method: line.first.test["num_not_predicted"] for line in lines}
    most = max(lost, key=lost.__getitem__)
    found = []
    if lost[most]:
        share = lost[most] / (lost[most] + lines[0].first.test["num_evaluated"])
        found.append(
            f"{task}: {lost[most]:,} labelled test rows or bases ({share:.0%}) were not predicted by {most} and count "
            "nowhere."
        )
    if tests[0].get("undefined"):
        names = ", ".join(map(str, tests[0]["undefined"][:5]))
        found.append(f"{task}: the test rows have only one side of {names}; means over classes leave these out.")
    return found


def _overview(lines: Sequence[Line], tasks: Sequence[str]) -> Section:
    """Put the main metric of every line and task into one table, with the mean rank over tasks."""
    metrics = {line.first.task: line.first.metric for line in lines}
    scores = {(line.first.method, line.first.task): line.mean() for line in lines}
    ranks = {method: sum(each) / len(each) for method, each in ranks_of(lines).items()}
    rows = {method: [*(scores.get((method, task)) for task in tasks), ranks.get(method)] for method, _ in scores}
    rows = {method: values for method, values in rows.items() if any(value is not None for value in values)}
    named = ", ".join(dict.fromkeys(metric_title(metrics[task]) for task in tasks))
    explain = text("overview", first=named[0].upper(), rest=named[1:])
    lower = [*(metrics[task] in LOWER_IS_BETTER for task in tasks), True]
    return page.grid("All tasks", explain, [*tasks, "mean rank"], rows, lower)


def _task_sections(task: str, facts: Mapping[str, Any], found: Benchmark) -> list[Section]:
    """Make the table, the cost, the curves, the sanity notes and the published numbers of a task."""
    lines = found.lines_of(task)
    parts = [_scores(task, facts, lines), *_answers(task, lines), _cost(task, lines)]
    probes = [(each.method, each.details["probe"]) for line in lines for each in line.results if each.kind == "probe"]
    parts += layer_sections(task, probes)
    parts += few_row_sections(task, found.lines_of(task, full=False), facts["rows"]["train"])
    if facts["sanity"]:
        findings = [[each["severity"], each["text"]] for each in facts["sanity"]["findings"]]
        explain = "Found before any training. A leak makes every line of the table look better than it is."
        nothing = [["none", "nothing suspicious was found"]]
        parts.append(Table(f"{task}: is the data sane?", explain, ["kind", "finding"], findings or nothing))
    return [*parts, _published(task, facts, lines)] if facts["published"] else parts


def _scores(task: str, facts: Mapping[str, Any], lines: Sequence[Line]) -> Section:
    main = facts["metric"]
    names = [main, *(name for name in lines[0].first.test["metrics"] if name != main)][:MAX_METRICS]
    rows = [
        MetricRow(
            line.first.method, name, line.mean(name), line.mean(name, end="low"), line.mean(name, end="high"),
            line.values(name),
        )
        for line in lines for name in names if line.mean(name) is not None
    ]  # fmt: skip
    rule = f" Rows: {facts['split_rule']}." if facts["split_rule"] else ""
    explain = text("scores", title=facts["title"] or task, rule=rule, **facts["rows"])
    return page.Metrics(
        task, explain, rows, main=main, groups={each.first.method: GROUPS[each.first.group] for each in lines}
    )


def _answers(task: str, lines: Sequence[Line]) -> list[Section]:
    """Draw the answers of the best line with a model and the best without one, of their first seeds."""
    shown = {}
    for group in ("model", "baseline"):
        own = [line for line in lines if line.first.group == group and line.first.folder and line.mean() is not None]
        if own:
            result = _best(own).first
            scores = result.scores()
            named = replace(scores.task, names=tuple(result.test["per_class"]))
            shown[result.method] = replace(scores, task=named)
    found = {method: evaluate(scores, num_resamples=0) for method, scores in shown.items()}
    seeds = max(len(line.results) for line in lines)
    return [*answers_sections(found, subject=f"{task}: ", seeds=seeds), *_worst(task, shown)] if found else []


def _worst(task: str, shown: Mapping[str, Scores]) -> list[Section]:
    """List the test rows that the first method got most wrong; none for labels per base and bin."""
    method, scores = next(iter(shown.items()))
    if scores.task.problem == "token" or scores.unit is None or len(np.unique(scores.unit)) < len(scores.unit):
        return []
    rows = [[int(scores.unit[place]), *row.values()] for place, row in worst_of(scores)]
    explain = f"{text('errors')} Those of {method}; rows of the test table count from 0."
    return [Table(f"{task}: the ten worst rows", explain, ["row", "label", "predicted", "error"], rows)] if rows else []


def _cost(task: str, lines: Sequence[Line]) -> Section:
    explain = text("cost")
    columns = ["model", "trained parameters", "to store (MB)", "seconds", "peak memory (MB)", "score", "sd", "seeds"]
    units = {"trained_parameters": (1, 0), "storage_bytes": (1e6, 3), "seconds": (1, 3), "peak_memory_bytes": (1e6, 0)}
    rows = []
    for line in lines:
        costs = [(line.cost(key), *unit) for key, unit in units.items()]
        shown = [None if cost is None else round(cost / unit, digits or None) for cost, unit, digits in costs]
        rows.append([line.first.method, *shown, line.mean(), line.sd, len(line.values())])
    return Table(f"{task}: what quality costs", explain, columns, rows)


def without_model(methods: Sequence[str]) -> dict[str, str]:
    """Leave the name of the model away where there is only one."""
    models = {method.split(": ", 1)[0] for method in methods if ": " in method}
    return {name: name.split(": ", 1)[1] if ": " in name and len(models) == 1 else name for name in methods}


def _band(means: Sequence[float], spread: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Return the ends of mean ± spread, empty where nothing is spread."""
    if not any(spread):
        return (), ()
    return [mean - sd for mean, sd in zip(means, spread)], [mean + sd for mean, sd in zip(means, spread)]


def layer_sections(task: str, probes: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Section]:
    """Draw score against layer, one line a pooling; the random start of a model is dashed in the same picture.

    Args:
        task: heading.
        probes: method and what `longstrand.benchmarks.probing.probe.ProbeResult.to_dict` gives, one a seed.
    """
    models: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for method, found in probes:
        models.setdefault(method.split(": ", 1)[0], []).append((method, found))
    return [_layers_of(task, members) for members in models.values()]


def _layers_of(task: str, probes: Sequence[tuple[str, Mapping[str, Any]]]) -> Section:
    lines, rows = [], []
    poolings = list(dict.fromkeys(point["pooling"] for point in probes[0][1]["curve"]))
    for random in (False, True):
        mine = [found for method, found in probes if method.endswith("of random init") == random]
        for number, pooling in enumerate(poolings if mine else ()):
            found: dict[int, list[Mapping[str, Any]]] = {}
            for point in (point for each in mine for point in each["curve"] if point["pooling"] == pooling):
                if not undefined(point):
                    found.setdefault(point["layer"], []).append(point)
            means = [sum(point["mean"] for point in points) / len(points) for points in found.values()]
            spread = [sum(point["sd"] for point in points) / len(points) for points in found.values()]
            name = f"{pooling}, random start" if random else pooling
            style: Any = "dashed" if random else "points"
            lines.append(
                page.Line(name, list(found), means, style, *((), ()) if random else _band(means, spread), number)
            )
            rows += [[name, layer, mean, sd] for layer, mean, sd in zip(found, means, spread)]
    first = next((each for each in probes if not each[0].endswith("of random init")), probes[0])
    kind = first[0].endswith("of random init")
    chosen = [found["chosen"] for method, found in probes if method.endswith("of random init") == kind]
    picks = ", ".join(dict.fromkeys(f"layer {pick['layer']} {pick['pooling']} {pick['kind']}" for pick in chosen))
    explain = text("layers", picks=picks)
    labels = {"x_label": "layer", "y_label": metric_title(first[1]["metric"])}
    table = (["line", "layer", "score", "sd over folds"], rows)
    return page.Curves(f"{task}: layers of {first[0]}", explain, lines, table=table, **labels)


def undefined(point: Mapping[str, Any]) -> bool:
    """Return whether no fold of a probed layer has a score: constant vectors, as of the first token's embedding."""
    return bool(point["mean"] == -1.0 and point["sd"] == 0.0)


def few_row_sections(task: str, lines: Sequence[Line], num_rows: int) -> list[Section]:
    """Draw test score against training rows, one line a method; nothing if only all rows were used.

    Trials with all training rows stand at ``num_rows``.
    """
    sizes = sorted({line.first.num_train for line in lines if line.first.num_train is not None})
    if not sizes:
        return []
    methods = list(dict.fromkeys(line.first.method for line in lines))
    short, drawn = without_model(methods), []
    for method in few_lines(lines):
        mine = [line for line in lines if line.first.method == method and line.mean() is not None]
        mine.sort(key=lambda line: line.first.num_train or num_rows)
        places, means = [line.first.num_train or num_rows for line in mine], [line.mean() or 0.0 for line in mine]
        is_baseline = mine[0].first.group == "baseline"
        ends = ((), ()) if is_baseline else _band(means, [line.sd or 0.0 for line in mine])
        drawn.append(page.Line(short[method], places, means, "dashed" if is_baseline else "points", *ends))
    known = {(line.first.method, line.first.num_train): line for line in lines}
    rows = [[method, *(_mean_and_sd(known.get((method, size))) for size in [*sizes, None])] for method in methods]
    left_out = len(methods) - len(drawn)
    explain = text("few_rows") + (
        f" {count(left_out, 'line')} with lower validation scores stand in the table only." if left_out else ""
    )
    columns = ["model", *(f"{size:,} rows" for size in sizes), "all rows"]
    labels = {"x_label": "training rows", "y_label": metric_title(lines[0].first.metric)}
    return [page.Curves(f"{task}: with few rows", explain, drawn, log=True, table=(columns, rows), **labels)]


def few_lines(lines: Sequence[Line]) -> list[str]:
    """Choose the methods of a picture: all that have a model, and the baselines with the best validation scores."""
    few = [line for line in lines if line.first.num_train is not None and line.mean() is not None]
    groups = {line.first.method: line.first.group for line in few}
    heights: dict[str, list[float]] = {}
    for line in lines:
        heights.setdefault(line.first.method, []).append(line.height("valid"))
    baselines = [method for method, group in groups.items() if group == "baseline"]
    room = max(2, MAX_LINES - (len(groups) - len(baselines)))
    best = sorted(baselines, key=lambda name: sum(heights[name]) / len(heights[name]), reverse=True)[:room]
    return [method for method in groups if method not in baselines or method in best]


def _mean_and_sd(line: Line | None) -> str | None:
    if line is None or line.mean() is None:
        return None
    return f"{line.mean():.3f}" + (f" ± {line.sd:.3f}" if line.sd is not None else "")


def _paired(comparisons: Sequence[Comparison]) -> list[Section]:
    """List the paired tests."""
    if not comparisons:
        return []
    short = without_model([name for each in comparisons for name in (each.method, each.against)])
    rows = [
        [
            each.task,
            short[each.method],
            short[each.against] + (" (collapsed)" if each.collapsed else ""),
            each.found.difference,
            None if each.found.low is None else f"{each.found.low:+.3f}\u00a0to\u00a0{each.found.high:+.3f}",
            each.found.p,
            each.found.p_corrected,
            each.verdict,
        ]
        for each in comparisons
    ]
    explain = text("paired")
    columns = ["task", "model", "against", "difference", "95 % interval", "p", "corrected p", "verdict"]
    return [Table("Is the difference real?", explain, columns, rows)]


def _problems(found: Benchmark) -> list[Section]:
    """List trials that failed, and what runs reported on the way."""
    parts: list[Section] = []
    if found.errors:
        rows = [[error["task"], error["method"], error["seed"], error["reason"][:400]] for error in found.errors]
        explain = "They are not in the tables. The same command tries them again and leaves the others alone."
        parts.append(Table("What failed", explain, ["task", "model", "seed", "reason"], rows))
    notices = [[each.task, each.method, notice] for each in found.results for notice in each.notices]
    notices += [
        [each.task, each.method, f"{number:,} {split} sequences were cut to {each.details['max_tokens']:,} tokens"]
        for each in found.results
        for split, number in each.details.get("truncated", {}).items()
        if number
    ]
    if notices:
        explain = "Smaller batches for lack of memory (same effective batch), sequences that were cut, and the like."
        parts.append(Table("Notices of the runs", explain, ["task", "model", "notice"], notices))
    return parts


def _published(task: str, facts: Mapping[str, Any], lines: Sequence[Line]) -> Section:
    """Put the published numbers beside the best lines of each kind, with a note on what differs."""
    explain = text("published")
    rows: list[list[Any]] = []
    for group, which in zip(GROUPS, ("without a language model", "with pre-training", "random start")):
        mine = [line for line in lines if line.mean() is not None and line.first.group == group]
        if mine:
            best = _best(mine, "valid")
            rows.append([best.first.method, facts["metric"], best.mean(), "here", f"this run; best {which}"])
    for model, entry in sorted(facts["published"].items(), key=lambda item: -item[1]["value"]):
        same = "the same metric" if entry["metric"] == facts["metric"] else f"not the metric here ({facts['metric']})"
        protocol = entry["protocol"] or f"{same}; the authors' own training protocol, not ours"
        rows.append([model, entry["metric"], entry["value"], entry["source"], protocol])
    columns = ["model", "metric", "value", "source", "protocol"]
    return Table(f"{task}: published numbers", explain, columns, rows)


def _protocol(found: Benchmark) -> Section:
    changed = ", ".join(f"{key}={value}" for key, value in page.flatten(found.settings["protocol"]))
    explain = (
        f"The same for every line. {f'Changed for this run: {changed}.' if changed else 'As fixed for the suite.'}"
    )
    rows = page.flatten(found.results[0].protocol.model_dump(mode="json"))
    return Table("Protocol", explain, ["setting", "value"], rows)


def text_lines(found: Benchmark) -> list[str]:
    """Write the results for a terminal: a table and the sentence of the report for each task."""
    lines: list[str] = []
    for task in found.names():
        facts = found.facts(task)
        metric, sizes = facts["metric"], facts["rows"]
        direction = "lower is better" if sign_of(metric) < 0 else "higher is better"
        lines += [
            f"{task}: {metric} on {sizes['test']:,} test rows, after {sizes['train']:,} training rows ({direction})",
            *([f"  split: {facts['split_rule']}"] if facts["split_rule"] else []),
            *text_table(found.lines_of(task, full=False), found.comparisons),
            *(f"  note: {sentence}" for sentence in left_out_sentences(task, found.lines_of(task))),
            f"  {summary_sentence(found, task)}".rstrip(),
            "",
        ]
    return lines


def text_table(lines: Sequence[Line], comparisons: Sequence[Comparison] = ()) -> list[str]:
    """Write the lines of a task below each other, from best to worst; those with fewer rows below, by their number.

    The best has a star. At the end of a line stands whether it is better or worse than the best baseline (by the paired
    test, p corrected by Holm), and why it is not to be trusted.
    """
    ordered = sorted(lines, key=lambda line: (line.first.num_train or 0, -line.height()))
    verdicts = {
        (each.task, each.method): f"{each.verdict} than {each.against} ({_numbers(each)})"
        for each in comparisons
        if each.what == "best baseline" and each.verdict != "unclear"
    }
    spread = any(line.sd is not None for line in lines)
    rows = [(" ", "line", "mean ± sd of seeds" if spread else "value", "95 % interval", "time", "")]
    for place, line in enumerate(ordered):
        size, low, seconds = line.first.num_train, line.mean(end="low"), line.cost("seconds")
        name = line.first.method if size is None else f"{line.first.method} ({size:,} rows)"
        interval = "" if low is None else f"{low:.3f} to {line.mean(end='high'):.3f}"
        time = "" if seconds is None else f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
        star = "*" if place == 0 and line.mean() is not None and size is None else " "
        verdict = verdicts.get((line.first.task, line.first.method), "") if size is None else ""
        notes = ", ".join(filter(None, [verdict, *line.flags]))
        rows.append((star, name, _mean_and_sd(line) or "undefined", interval, time, notes))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [" ".join((row[0], "  ".join(map(str.ljust, row[1:], widths[1:])))).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """Write a time in the largest unit that it fills: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
