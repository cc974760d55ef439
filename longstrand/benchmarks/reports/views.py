"""Views of tidy results as Markdown: tables, differences, single values, wins, cost. `document` puts them into a text.

A view is a function ``(tidy, options) -> text`` in `VIEWS`. Options are text, as written in a marker; those that name a
column of the table choose rows: ``length=4096``, ``task="gue/tf_0; gue/tf_1"``, ``arm="*: full"``. Several values stand
with ``;`` between them, an arm is renamed by ``arm="mixed_6mer_1m: full as fine-tuned"``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longstrand.benchmarks.reports.differences import Difference, compare
from longstrand.benchmarks.reports.page import GROUPS
from longstrand.benchmarks.reports.tidy import (
    CHOSEN,
    Tidy,
    as_text,
    choose_by_validation,
    lower_is_better,
    seeds_of,
    select,
)
from longstrand.errors import UsageError, one_of
from longstrand.report.sections import metric_title

Options = Mapping[str, str]
MINUS = "−"


@dataclass(frozen=True)
class View:
    """What a marker may ask for.

    Attributes:
        make: gives the text.
        options: names it takes beside columns of the table.
        block: it stands on lines of its own.
        inline: it stands within a line.
    """

    make: Callable[[Tidy, Options], str]
    options: Collection[str]
    block: bool = True
    inline: bool = False


def render(view: str, tidy: Tidy, options: Options) -> str:
    """Make the text of a view.

    Raises:
        UsageError: the view, an option, a column or a value does not exist, or the rows are ambiguous.
    """
    found = VIEWS[one_of(view, VIEWS, "view")]
    for key in options:
        one_of(key, [*found.options, *tidy.columns], f"option of {view}, or column of {tidy.name},")
    return found.make(tidy, options)


def words(text: str) -> list[str]:
    """Split an option at semicolons."""
    return [part.strip() for part in text.split(";") if part.strip()]


def renamed(text: str) -> dict[str, str]:
    """Read ``a as b; c``: name in the table to name for the reader."""
    parts = [part.split(" as ", 1) for part in words(text)]
    return {part[0].strip(): part[-1].strip() for part in parts}


def chosen_rows(tidy: Tidy, options: Options, *, free: Collection[str] = ()) -> tuple[Tidy, dict[str, str]]:
    """Keep the rows that the options name; also give the names of arms for the reader."""
    filters = {key: words(value) for key, value in options.items() if key in tidy.columns}
    names = renamed(options.get("arm", ""))
    if names:
        filters["arm"] = list(names)
    return select(tidy, filters, free=free), names


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Write a number with a true minus sign; None is a dash.

    Example:
        >>> number(0.5), number(-0.25, 2, sign=True), number(None)
        ('0.500', '−0.25', '–')
    """
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def digits_of(options: Options) -> int:
    """Read how many digits are shown.

    Raises:
        UsageError: it is no number from 0 to 6.
    """
    text = options.get("digits", "3")
    if text not in {str(digit) for digit in range(7)}:
        raise UsageError(f"digits={text} is not a number from 0 to 6.")
    return int(text)


def spread(seeds: Mapping[Any, float], digits: int) -> str:
    """Write mean ± sample standard deviation over seeds; one seed has no deviation."""
    values = np.array(list(seeds.values()))
    mean = number(float(values.mean()), digits)
    return f"{mean} ± {number(float(values.std(ddof=1)), digits)}" if len(values) > 1 else mean


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """Write a Markdown table; the first ``texts`` columns are set left, the others right."""
    lines = [head, ["---" if place < texts else "---:" for place in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def column_of(tidy: Tidy, options: Options, key: str, default: str) -> str:
    """Read an option that names a column."""
    return one_of(options.get(key, default), tidy.columns, f"column of {tidy.name}")


def metric_of(tidy: Tidy, where: str) -> str:
    """Give the only metric of a table.

    Raises:
        UsageError: there are several.
    """
    found = tidy.values("metric")
    if len(found) > 1:
        raise UsageError(f"{where} mixes the metrics {', '.join(found)}; choose one by metric=.")
    return found[0]


def make_table(tidy: Tidy, options: Options) -> str:
    """Mean ± deviation over seeds, ``rows=task columns=arm`` unless said otherwise, the best arm in bold."""
    down = column_of(tidy, options, "rows", "task")
    across = column_of(tidy, options, "columns", "arm")
    if down == across:
        raise UsageError(f"the rows and the columns of a table are both '{down}'.")
    value = column_of(tidy, options, "column", "value")
    kept, names = chosen_rows(tidy, options, free=(down, across))
    digits = digits_of(options)
    cells = seeds_of(kept.rows, (down, across), value)
    lines, heads = _ordered(kept, down, names), _ordered(kept, across, names)
    bold = _best(kept, cells, (lines, heads), (down, across), digits) if options.get("best") != "no" else set()
    flagged = {(row[down], row[across]) for row in kept.rows if row.get("flags")}
    metrics = None if "metric" in (down, across) else _metrics_by_row(kept, down)
    table = []
    for line in lines:
        texts = []
        for head in heads:
            text = spread(cells[line, head], digits) if (line, head) in cells else "–"
            text = f"**{text}**" if (line, head) in bold else text
            texts.append(text + ("†" if (line, head) in flagged else ""))
        table.append([_label(line, down, names), *([metric_title(metrics[line])] if metrics else []), *texts])
    table += _summary_lines(kept, cells, (lines, heads), (down, across), bool(metrics), digits, options)
    title = [down, *(["metric"] if metrics else []), *(_label(head, across, names) for head in heads)]
    caption = _caption(kept, cells, value, bool(bold), bool(flagged), len(kept.values("metric")) > 1)
    return f"{markdown_table(title, table, texts=2 if metrics else 1)}\n\n{caption}"


def _ordered(tidy: Tidy, column: str, names: Mapping[str, str]) -> list[Any]:
    """Order the values of a column: arms as they were asked for, numbers by size, others as in the file."""
    found = tidy.values(column)
    if column == "arm":
        asked = list(names)
        return sorted(found, key=lambda name: asked.index(name) if name in asked else len(asked))
    if any(isinstance(value, float) for value in found):
        return sorted(found, key=lambda value: float("inf") if value is None else value)
    return found


def _label(value: Any, column: str, names: Mapping[str, str]) -> str:
    if column == "task":
        return f"`{value}`"
    if column == "metric":
        return metric_title(value)
    text = as_text(value)
    return names.get(text, text) if column == "arm" else f"{int(text):,}" if text.isdigit() else text


def _metrics_by_row(tidy: Tidy, down: str) -> dict[Any, str] | None:
    """Give the metric of each row of a table of tasks, or None if all have the same."""
    if len(tidy.values("metric")) == 1:
        return None
    if down != "task":
        metric_of(tidy, f"a table with rows={down}")
    return {row["task"]: row["metric"] for row in tidy.rows}


def _best(
    tidy: Tidy,
    cells: Mapping[tuple[Any, ...], Mapping[Any, float]],
    sides: tuple[list[Any], list[Any]],
    columns: tuple[str, str],
    digits: int,
) -> set[tuple[Any, Any]]:
    """Find the best arm of each row or column; equal as written is equally good. Nothing if arms are not compared."""
    if "arm" not in columns:
        return set()
    place = columns.index("arm")
    metrics = {(row[columns[0]], row[columns[1]]): row["metric"] for row in tidy.rows}
    found = set()
    for other in sides[1 - place]:
        rivals = {}
        for arm in sides[place]:
            key = (other, arm) if place else (arm, other)
            if key in cells:
                sign = -1 if lower_is_better(metrics[key]) else 1
                rivals[key] = round(sign * float(np.mean(list(cells[key].values()))), digits)
        if len(rivals) > 1:
            found |= {key for key, score in rivals.items() if score == max(rivals.values())}
    return found


def _summary_lines(
    tidy: Tidy,
    cells: Mapping[tuple[Any, ...], Mapping[Any, float]],
    sides: tuple[list[Any], list[Any]],
    columns: tuple[str, str],
    mixed: bool,
    digits: int,
    options: Options,
) -> list[list[str]]:
    """Add the mean over tasks (of one metric) and the mean rank, for arms that every task has."""
    from scipy.stats import rankdata

    tasks, arms = sides
    if columns != ("task", "arm") or len(tasks) < 2 or options.get("summary") == "no":
        return []
    whole = [arm for arm in arms if all((task, arm) in cells for task in tasks)]
    if not whole:
        return []
    means = np.array([[np.mean(list(cells[task, arm].values())) for arm in whole] for task in tasks])
    metrics = {row["task"]: row["metric"] for row in tidy.rows}
    signs = np.array([-1 if lower_is_better(metrics[task]) else 1 for task in tasks])
    ranks = np.stack([rankdata(np.round(-sign * line, 9)) for sign, line in zip(signs, means)]).mean(axis=0)
    blank = ["–"] if mixed else []
    lines = []
    if not mixed:
        average = dict(zip(whole, means.mean(axis=0)))
        lines.append(["mean", *(number(average.get(arm), digits) for arm in arms)])
    if len(whole) > 1:
        rank = dict(zip(whole, ranks))
        lines.append(["mean rank", *blank, *(number(rank.get(arm), 1) for arm in arms)])
    return lines


def _caption(
    tidy: Tidy,
    cells: Mapping[tuple[Any, ...], Mapping[Any, float]],
    value: str,
    bold: bool,
    flagged: bool,
    mixed: bool,
) -> str:
    counts = sorted({len(seeds) for seeds in cells.values()})
    what = value.replace("_", " ") if value != "value" else "" if mixed else metric_title(tidy.values("metric")[0])
    parts = [f"{what}: mean ± standard deviation" if what else "Mean ± standard deviation"]
    parts[0] = parts[0][0].upper() + parts[0][1:]
    if counts[-1] == 1:
        parts[0] = parts[0].replace("ean ± standard deviation", "eans") + ", one seed"
    elif len(counts) == 1:
        parts[0] += f" over {counts[0]} seeds"
    else:
        alone = "; without ±: one seed" if counts[0] == 1 else ""
        several = [count for count in counts if count > 1]
        many = f"{several[0]}" if len(several) == 1 else f"{several[0]} to {several[-1]}"
        parts[0] += f" over {many} seeds{alone}"
    if bold:
        parts.append("best in bold")
    if flagged:
        parts.append("† a run that collapsed (see `flags`)")
    return f"*{'; '.join(parts)}.*"


def make_value(tidy: Tidy, options: Options) -> str:
    """One cell, ``mean ± sd``; with ``over=tasks`` the mean over tasks of their means. ``show=mean`` drops the sd."""
    value = column_of(tidy, options, "column", "value")
    show = one_of(options.get("show", "full"), ("full", "mean", "sd", "percent"), "show")
    kept, _ = chosen_rows(tidy, options)
    digits = digits_of(options)
    one_arm = kept.values("arm")
    if len(one_arm) > 1:
        raise UsageError(
            f"a value is of one arm, but {len(one_arm)} are left ({', '.join(one_arm[:3])}, ...); give arm=."
        )
    cells = seeds_of(kept.rows, ("task",), value)
    if not cells:
        raise UsageError(f"the column {value} is empty in the rows asked for.")
    if one_of(options.get("over", "seeds"), ("seeds", "tasks"), "over") == "tasks":
        metric_of(kept, "a mean over tasks")
        means = [float(np.mean(list(seeds.values()))) for seeds in cells.values()]
        cells = {("all",): {None: float(np.mean(means))}}
    elif len(cells) > 1:
        raise UsageError(f"a value is of one task, but {len(cells)} are left; give task=, or over=tasks.")
    (seeds,) = cells.values()
    mean = float(np.mean(list(seeds.values())))
    if show == "sd":
        return number(float(np.std(list(seeds.values()), ddof=1)) if len(seeds) > 1 else None, digits)
    if show == "percent":
        return f"{number(100 * mean, max(0, digits - 2))} %"
    if value != "value":
        return measured(value, mean)
    return number(mean, digits) if show == "mean" else spread(seeds, digits)


def measured(column: str, value: float | None) -> str:
    """Write a cost in a unit that a person reads.

    Example:
        >>> measured("seconds", 75.0), measured("storage_bytes", 5.4e6), measured("trained_parameters", 1234567.0)
        ('75 s', '5.4 MB', '1.2 M')
    """
    if value is None:
        return "–"
    if column.endswith("seconds"):
        if value < 0.1:
            return "< 0.1 s"
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"
    if column.endswith("bytes"):
        units, step = (("B", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)), 1000
    elif column.endswith("parameters"):
        units, step = (("", 1), ("k", 1e3), ("M", 1e6), ("G", 1e9)), 1000
    else:
        return as_text(value)
    name, size = next(unit for unit in reversed(units) if value >= unit[1] or unit[1] == 1)
    digits = 0 if size == 1 or value / size >= step / 10 else 1
    return f"{value / size:.{digits}f} {name}".strip()


def difference_of(tidy: Tidy, options: Options) -> Difference:
    """Compare ``ours`` with ``against``: two arms, or two values of another column (``compare=length``)."""
    column = column_of(tidy, options, "compare", "arm")
    value = column_of(tidy, options, "column", "value")
    for key in ("ours", "against"):
        if key not in options:
            raise UsageError(f"a difference needs {key}=, a value of the column {column}.")
    kept, _ = chosen_rows(tidy, options, free=(column,))
    names = [next(iter(renamed(options[key])), "") for key in ("ours", "against")]
    sides = [_side(kept, column, name, value) for name in names]
    both = [task for task in kept.values("task") if all(task in side for side in sides)]
    if not both:
        raise UsageError(f"no task has both '{names[0]}' and '{names[1]}'.")
    metrics = {row["task"]: row["metric"] for row in kept.rows}
    return compare({task: (sides[0][task], sides[1][task], lower_is_better(metrics[task])) for task in both})


def _side(tidy: Tidy, column: str, name: str, value: str) -> dict[str, dict[Any, float]]:
    """Give the values of one side: {task: {seed: value}}."""
    if column == "arm" and name in CHOSEN:
        chosen = choose_by_validation(tidy, CHOSEN[name])
        rows = [row for row in tidy.rows if row["arm"] == chosen[row["task"]]]
    else:
        known = [as_text(found) for found in tidy.values(column)]
        wanted = one_of(name, [*known, *(CHOSEN if column == "arm" else ())], f"{column} of {tidy.name}")
        rows = [row for row in tidy.rows if as_text(row[column]) == wanted]
    return {key[0]: seeds for key, seeds in seeds_of(rows, ("task",), value).items()}


def make_difference(tidy: Tidy, options: Options) -> str:
    """The mean paired difference with its interval, in words; ``by=task`` gives a table, ``show=`` a part."""
    by = one_of(options.get("by", "all"), ("all", "task"), "by")
    found, digits = difference_of(tidy, options), digits_of(options)
    if by == "task":
        return _difference_table(found, options, digits)
    parts = difference_parts(found, digits)
    show = one_of(options.get("show", "full"), ("full", *parts), "show")
    if show != "full":
        return parts[show]
    listed = [f"95 % interval {parts['interval']}" if found.low is not None else "one seed, no interval"]
    if len(found.tasks) > 1:
        listed += [f"better on {parts['tasks']} tasks", f"sign test p {parts['p']}"]
    return f"{parts['mean']} ({', '.join(listed)})"


def difference_parts(found: Difference, digits: int) -> dict[str, str]:
    """Write each part of a difference by itself."""
    means = [task.mean for task in found.tasks]
    low, high = (number(end, digits, sign=True) for end in (found.low, found.high))
    ends = [number(end, digits, sign=True) for end in (min(means), max(means))]
    return {
        "mean": number(found.mean, digits, sign=True),
        "interval": "–" if found.low is None else f"{low} to {high}",
        "tasks": f"{found.num_up} of {len(found.tasks)}",
        "range": f"{ends[0]} to {ends[1]}",
        "p": f"{found.p:.2g}",
    }


def _difference_table(found: Difference, options: Options, digits: int) -> str:
    names = [renamed(options[key]) for key in ("ours", "against")]
    heads = [next(iter(name.values())) for name in names]
    rows = []
    for task in found.tasks:
        interval = (
            "–"
            if task.low is None
            else f"{number(task.low, digits, sign=True)} to {number(task.high, digits, sign=True)}"
        )
        sides = [number(side, digits) for side in (task.ours, task.against)]
        ups = f"{sum(each > 0 for each in task.each)} of {len(task.each)}" if len(task.each) > 1 else "–"
        rows.append([f"`{task.task}`", *sides, number(task.mean, digits, sign=True), interval, ups])
    columns = ["task", *heads, "difference", "95 % interval over seeds", "seeds up"]
    return markdown_table(columns, rows)


def make_wins(tidy: Tidy, options: Options) -> str:
    """How often each kind of arm is best; ``of=baseline`` gives only ``7 of 12``.

    Of each kind the arm with the best validation score stands for it, so that a kind with many arms gains nothing from
    looking at the test rows. Ties count for each.
    """
    kept, _ = chosen_rows(tidy, options)
    groups = [group for group in GROUPS if group in kept.values("group")] if "group" in kept.columns else []
    if len(groups) < 2:
        raise UsageError(f"{tidy.name} has fewer than two kinds of arms (column group) to compare.")
    chosen = {group: choose_by_validation(kept, group) for group in groups}
    cells = seeds_of(kept.rows, ("task", "arm"))
    metrics = {row["task"]: row["metric"] for row in kept.rows}
    won: dict[str, list[str]] = {group: [] for group in groups}
    for task in kept.values("task"):
        sign = -1 if lower_is_better(metrics[task]) else 1
        scores = {
            group: round(sign * float(np.mean(list(cells[task, chosen[group][task]].values()))), 4)
            for group in groups
            if (task, chosen[group][task]) in cells
        }
        for group in [group for group, score in scores.items() if score == max(scores.values())]:
            won[group].append(task)
    total = len(kept.values("task"))
    if "of" in options:
        return f"{len(won[one_of(options['of'], groups, 'group')])} of {total}"
    rows = [
        [GROUPS[group], f"{len(won[group])} of {total}", ", ".join(f"`{t}`" for t in won[group]) or "–"]
        for group in groups
    ]
    caption = "*Best mean on the test rows; of each kind the arm with the best validation score is counted.*"
    return f"{markdown_table(['kind', 'best on', 'tasks'], rows, texts=3)}\n\n{caption}"


def make_cost(tidy: Tidy, options: Options) -> str:
    """What each arm costs: trained parameters, storage, time and memory, means over tasks and seeds."""
    kept, names = chosen_rows(tidy, options)
    titles = {
        "trained_parameters": "trained parameters",
        "storage_bytes": "to store",
        "seconds": "time to train",
        "peak_memory_bytes": "peak memory",
    }
    there = [name for name in titles if name in kept.columns]
    if not there:
        raise UsageError(f"{tidy.name} has no column of costs ({', '.join(titles)}).")
    rows = []
    for arm in _ordered(kept, "arm", names):
        values = [[row[name] for row in kept.rows if row["arm"] == arm and row[name] is not None] for name in there]
        texts = [measured(name, float(np.mean(each)) if each else None) for name, each in zip(there, values)]
        rows.append([names.get(arm, arm), *texts])
    return markdown_table(["arm", *(titles[name] for name in there)], rows)


def make_count(tidy: Tidy, options: Options) -> str:
    """How many different tasks, arms, seeds or other values of a column there are (``of=task``), or rows."""
    of = one_of(options.get("of", "rows"), ("rows", *tidy.columns), "column")
    kept, _ = chosen_rows(tidy, options, free=tidy.columns)
    return f"{len(kept.rows) if of == 'rows' else len([v for v in kept.values(of) if v is not None]):,}"


def make_source(tidy: Tidy, options: Options) -> str:
    """Where a table comes from: file, cells, seeds, commit, machine, protocol."""
    seeds = sorted({as_text(row["seed"]) for row in tidy.rows if row["seed"] is not None}, key=float)
    count = f"{len(tidy.rows):,} cells, {len(tidy.values('task'))} tasks, {len(tidy.values('arm'))} arms"
    lines = [f"- Numbers: `{tidy.name}.csv` ({count}; seeds {', '.join(seeds)})."]
    runs = tidy.about.get("runs") or [_as_run(tidy)]
    if runs[0]:
        places = list(dict.fromkeys(_machine(run.get("machine") or {}) for run in runs))
        commits = sorted({commit for run in runs for commit in run["commits"]})
        days = sorted({date[:10] for run in runs for date in run["dates"]})
        hours = sum(run.get("seconds", 0) for run in runs) / 3600
        facts = ["; ".join(places), " to ".join(dict.fromkeys((days[0], days[-1])))]
        facts += [f"{hours:.1f} hours in all"] if hours else []
        lines.append(f"- Computed on {'; '.join(facts)}; commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}.")
        lines += [f"- Command: `{command}`" for command in dict.fromkeys(run.get("command") for run in runs) if command]
    return "\n".join(lines)


def _as_run(tidy: Tidy) -> dict[str, Any]:
    """Read the ``provenance`` that a recipe wrote beside its table; empty if there is none."""
    made = tidy.about.get("provenance")
    if not made:
        return {}
    command = " ".join(map(str, made["command"]))
    dates, commits = [str(made["date"])], [str(made["commit"])]
    return {"dates": dates, "commits": commits, "machine": made["machine"], "command": command}


def _machine(machine: Mapping[str, Any]) -> str:
    threads = machine.get("threads") or 1
    return machine.get("gpu") or f"{machine.get('processor')}, {threads} thread{'' if threads == 1 else 's'}"


VIEWS: dict[str, View] = {
    "table": View(make_table, ("rows", "columns", "column", "digits", "best", "summary")),
    "difference": View(make_difference, ("ours", "against", "compare", "column", "by", "show", "digits"), inline=True),
    "value": View(make_value, ("column", "show", "over", "digits"), block=False, inline=True),
    "wins": View(make_wins, ("of",), inline=True),
    "cost": View(make_cost, ()),
    "count": View(make_count, ("of",), block=False, inline=True),
    "source": View(make_source, ()),
}
"""Every view but ``curve``, which may also draw a figure (`longstrand.benchmarks.reports.figures`)."""
