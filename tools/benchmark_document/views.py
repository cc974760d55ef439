"""What a marker of a document can show of a table of results: each view is a function ``(results, options) -> text``.

Options are text, as written in the marker. Those that name a column choose rows: ``length=4096``, ``task="a; b"``,
``method="*: full"``; ``method="mixed_6mer_1m: full as fine-tuned"`` also renames, ``num_train=all`` is an empty cell.
Without ``num_train`` only cells with all training rows count. Rows that stay ambiguous are an error, not a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import rankdata

from longstrand.errors import InputError, UsageError, one_of
from longstrand.evaluation.compare import PairedDifference, compare_over_tasks
from longstrand.evaluation.metrics import LOWER_IS_BETTER
from longstrand.report.sections import metric_title

REQUIRED = ("task", "method", "seed", "metric", "value")
TEXTS = frozenset({"task", "method", "metric", "group", "kind", "model", "init", "training", "flags", "data"})
MEASURED = frozenset(
    [
        "value",
        "valid",
        "valid_sd",
        "test",
        "low",
        "high",
        "seconds",
        "flags",
        "peak_memory_bytes",
        "chosen",
        "storage_bytes",
        "trained_parameters",
        "train_rows",
        "test_rows",
    ]
)
"""Columns that follow from the others: two rows that differ only there are the same cell twice."""
GROUPS = {"baseline": "no language model", "model": "pre-trained", "control": "random start"}
CHOSEN = {f"best {group}": group for group in GROUPS}
"""Names that stand for another method in each task: of a group the one with the best validation score."""
AXES = {"num_train": "training rows", "tokens": "tokens seen", "length": "length (bases)"}
Options = Mapping[str, str]
Cells = dict[tuple[Any, ...], dict[Any, float]]


@dataclass(frozen=True)
class Results:
    """A table of results: one row a measured cell.

    Attributes:
        name: of the experiment (the file without its ending).
        frame: text columns, and numeric ones as float.
    """

    name: str
    frame: pl.DataFrame

    def values(self, column: str) -> list[Any]:
        """List the different values of a column, in the order of the file."""
        return self.frame[column].unique(maintain_order=True).to_list()

    def column(self, name: str) -> str:
        """Return the name of a column that exists.

        Raises:
            UsageError: it does not.
        """
        return one_of(name, self.frame.columns, f"column of {self.name}")

    def metrics(self) -> dict[str, str]:
        """Return {task: metric}."""
        return dict(self.frame.select("task", "metric").rows())

    def only_metric(self, where: str) -> str:
        """Return the only metric.

        Raises:
            UsageError: there are several.
        """
        found = self.values("metric")
        if len(found) > 1:
            raise UsageError(f"{where} mixes the metrics {', '.join(found)}; choose one by metric=.")
        return str(found[0])


def read_results(folder: Path, name: str) -> Results:
    """Read ``NAME.csv`` of a folder of results.

    Raises:
        UsageError: there is no such experiment.
        InputError: the file is not a table of results.
    """
    path = Path(folder) / f"{one_of(name, sorted(each.stem for each in Path(folder).glob('*.csv')), 'experiment')}.csv"
    try:
        frame = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: not readable as CSV ({str(error).splitlines()[0]}).") from None
    missing = [column for column in REQUIRED if column not in frame.columns]
    if missing or frame.is_empty():
        raise InputError(f"{path}: no {'column ' + missing[0] if missing else 'row'}; see {', '.join(REQUIRED)}.")
    for column in set(frame.columns) - TEXTS:
        numbers = frame[column].cast(pl.Float64, strict=False)
        wrong = (numbers.is_null() & frame[column].is_not_null()).arg_true()
        if not len(wrong):
            frame = frame.with_columns(numbers.fill_nan(None))
        elif column in ("seed", "value"):
            raise InputError(f"{path}:{wrong[0] + 2}: the {column} '{frame[column][wrong[0]]}' is not a number.")
    return Results(path.stem, frame)


def rename(results: Results, column: str, old: str, new: str) -> Results:
    """Give a value of a text column another name; ``*`` at the end of both stands for the rest of the word."""
    if column not in results.frame.columns:
        return results
    start, end = old.removesuffix("*"), new.removesuffix("*")
    text = pl.col(column)
    if old.endswith("*"):
        named = (
            pl.when(text.str.starts_with(start)).then(end + text.str.strip_prefix(start)).otherwise(text).alias(column)
        )
    else:
        named = text.replace(old, new)
    return Results(results.name, results.frame.with_columns(named))


def as_text(value: Any) -> str:
    """Write a value as a filter names it: 4096, ``all`` for an empty cell, text as it is."""
    if value is None or value == "":
        return "all"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def words(text: str) -> list[str]:
    """Split an option at semicolons."""
    return [part.strip() for part in text.split(";") if part.strip()]


def choose(results: Results, options: Options, free: Collection[str] = ()) -> tuple[Results, dict[str, str]]:
    """Keep the rows that the options name; also return the names of methods for the reader.

    Args:
        results: all rows.
        options: of the marker.
        free: columns that the view varies.

    Raises:
        UsageError: a value does not occur, or nothing is left.
    """
    renamed = [part.partition(" as ") for part in words(options.get("method", ""))]
    names = {old.strip(): new.strip() or old.strip() for old, _, new in renamed}
    wanted = {key: words(value) for key, value in options.items() if key in results.frame.columns}
    wanted |= {"method": list(names)} if names else {}
    if "num_train" in results.frame.columns and "num_train" not in {*wanted, *free}:
        wanted["num_train"] = ["all"]
    frame = results.frame
    for column, choices in wanted.items():
        known = {as_text(value): value for value in results.values(column)}
        kept = []
        for choice in choices:
            found = [text for text in known if "*" in choice and fnmatchcase(text, choice.replace("[", "[[]"))]
            kept += [known[text] for text in found or [one_of(choice, known, f"{column} of {results.name}")]]
        frame = frame.filter(pl.col(column).is_in(kept, nulls_equal=True))
    if frame.is_empty():
        raise UsageError(f"{results.name} has no row with {dict(options)}.")
    return Results(results.name, frame), names


def by_seed(results: Results, keys: Sequence[str], column: str = "value") -> Cells:
    """Group rows: {values of ``keys``: {seed: value of ``column``}}; undefined values are left out.

    Raises:
        UsageError: two rows have the same keys and seed, so that a filter is missing.
    """
    frame = results.frame
    twice = frame.filter(pl.struct(*keys, "seed").is_duplicated())
    if len(twice):
        same = twice.filter(pl.struct(*keys, "seed") == pl.struct(*keys, "seed").first())
        apart = [name for name in same.columns if name not in MEASURED and same[name].n_unique() > 1]
        what = ", ".join(as_text(value) for value in same.select(*keys, "seed").row(0))
        raise UsageError(
            f"several rows for {what}: they differ in {', '.join(apart) or 'nothing'}; choose one of them."
        )
    cells: Cells = {}
    for *key, seed, value in frame.drop_nulls(column).select(*keys, "seed", column).rows():
        cells.setdefault(tuple(key), {})[seed] = value
    return cells


def lower_is_better(metric: str) -> bool:
    """Return whether smaller values of a metric are better: losses, errors, bits and times."""
    parts = set(metric.lower().replace("-", "_").split("_"))
    return metric in LOWER_IS_BETTER or bool({"loss", "error", "bits", "perplexity", "seconds"} & parts)


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Write a number with a true minus sign; None is a dash."""
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "−")


def interval(found: PairedDifference) -> str:
    """Write the ends of an interval."""
    return "–" if found.low is None else f"{number(found.low, sign=True)} to {number(found.high, sign=True)}"


def mean_of(seeds: Mapping[Any, float]) -> float:
    """Return the mean over seeds."""
    return float(np.mean(list(seeds.values())))


def spread(seeds: Mapping[Any, float]) -> str:
    """Write mean ± sample standard deviation over seeds; one seed has no deviation."""
    deviation = f" ± {number(float(np.std(list(seeds.values()), ddof=1)))}" if len(seeds) > 1 else ""
    return number(mean_of(seeds)) + deviation


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """Write a Markdown table; the first ``texts`` columns are set left, the others right."""
    lines = [head, ["---" if place < texts else "---:" for place in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def in_order(results: Results, column: str, names: Mapping[str, str]) -> list[Any]:
    """Order the values of a column: methods as they were asked for, numbers by size, others as in the file."""
    found, asked = results.values(column), list(names)
    if column == "method":
        return sorted(found, key=lambda name: asked.index(name) if name in asked else len(asked))
    if results.frame[column].dtype.is_float():
        return sorted(found, key=lambda value: float("inf") if value is None else value)
    return found


def label(value: Any, column: str, names: Mapping[str, str]) -> str:
    """Write a value as the head of a row or column."""
    if column in ("task", "metric"):
        return f"`{value}`" if column == "task" else metric_title(value)
    return f"{int(value):,}" if isinstance(value, float) and value.is_integer() else names.get(value, as_text(value))


def make_table(results: Results, options: Options) -> str:
    """Write mean ± deviation over seeds, ``rows=task columns=method`` unless said otherwise, the best in bold."""
    sides = results.column(options.get("rows", "task")), results.column(options.get("columns", "method"))
    kept, names = choose(results, options, free=sides)
    cells, metrics = by_seed(kept, sides), kept.metrics()
    lines, heads = (in_order(kept, side, names) for side in sides)
    mixed = sides[0] == "task" and len(kept.values("metric")) > 1
    bold = _best(kept, cells, sides)
    flags = kept.frame.filter(pl.col("flags") > "") if "flags" in kept.frame.columns else kept.frame.clear()
    flagged = set(flags.select(*sides).rows())
    rows = []
    for line in lines:
        texts = [spread(cells[line, head]) if (line, head) in cells else "–" for head in heads]
        texts = [f"**{text}**" if (line, head) in bold else text for text, head in zip(texts, heads)]
        texts = [text + ("†" if (line, head) in flagged else "") for text, head in zip(texts, heads)]
        rows.append([label(line, sides[0], names), *([metric_title(metrics[line])] if mixed else []), *texts])
    if sides == ("task", "method") and len(lines) > 1 and options.get("summary") != "no":
        rows += _summary(cells, lines, heads, metrics, mixed)
    title = [sides[0], *(["metric"] if mixed else []), *(label(head, sides[1], names) for head in heads)]
    what = "" if len(kept.values("metric")) > 1 else metric_title(kept.values("metric")[0])
    caption = [_caption(what, sorted({len(seeds) for seeds in cells.values()})), *(["best in bold"] if bold else [])]
    caption += ["† a run that collapsed (see `flags`)"] if flagged else []
    return f"{markdown(title, rows, texts=2 if mixed else 1)}\n\n*{'; '.join(caption)}.*"


def _best(results: Results, cells: Cells, sides: tuple[str, str]) -> set[tuple[Any, ...]]:
    """Find the best method of each row or column; equal as written is equally good. Nothing if none are compared."""
    if "method" not in sides:
        return set()
    other = 1 - sides.index("method")
    metric = dict(zip(results.frame.select(*sides).rows(), results.frame["metric"]))
    rivals: dict[Any, dict[tuple[Any, ...], float]] = {}
    for key, seeds in cells.items():
        sign = -1 if lower_is_better(metric[key]) else 1
        rivals.setdefault(key[other], {})[key] = round(sign * mean_of(seeds), 3)
    several = [scores for scores in rivals.values() if len(scores) > 1]
    return {key for scores in several for key, score in scores.items() if score == max(scores.values())}


def _summary(
    cells: Cells, tasks: Sequence[Any], methods: Sequence[Any], metrics: Mapping[str, str], mixed: bool
) -> list[list[str]]:
    """Write the mean over tasks (of one metric) and the mean rank, for methods that every task has."""
    whole = [method for method in methods if all((task, method) in cells for task in tasks)]
    if not whole:
        return []
    means = np.array([[mean_of(cells[task, method]) for method in whole] for task in tasks])
    signs = np.array([-1 if lower_is_better(metrics[task]) else 1 for task in tasks])
    ranks = dict(zip(whole, rankdata(np.round(-signs[:, None] * means, 9), axis=1).mean(axis=0)))
    average = dict(zip(whole, means.mean(axis=0)))
    lines = [] if mixed else [["mean", *(number(average.get(method)) for method in methods)]]
    if len(whole) > 1:
        lines.append(["mean rank", *(["–"] if mixed else []), *(number(ranks.get(each), 1) for each in methods)])
    return lines


def _caption(what: str, counts: Sequence[int]) -> str:
    over = f"{what}: " if what else ""
    if counts[-1] == 1:
        text = f"{over}means, one seed"
    else:
        several = [count for count in counts if count > 1]
        many = f"{several[0]}" if len(several) == 1 else f"{several[0]} to {several[-1]}"
        text = f"{over}mean ± standard deviation over {many} seeds" + (
            "; without ±: one seed" if counts[0] == 1 else ""
        )
    return text[0].upper() + text[1:]


def make_value(results: Results, options: Options) -> str:
    """Write one cell, ``mean ± sd``; ``show=mean`` drops the deviation."""
    cells = by_seed(choose(results, options)[0], ("task", "method"))
    if len(cells) != 1:
        raise UsageError(f"a value is of one task and method, but {len(cells)} are left; give task= and method=.")
    (seeds,) = cells.values()
    return number(mean_of(seeds)) if options.get("show") == "mean" else spread(seeds)


def make_difference(results: Results, options: Options) -> str:
    """Write ``ours`` minus ``against`` over tasks with its interval; ``show=mean`` the mean, ``by=task`` a table."""
    kept, _ = choose(results, options, free=("method",))
    heads = [words(options.get(key, ""))[0] if options.get(key) else "" for key in ("ours", "against")]
    if "" in heads:
        raise UsageError("a difference needs ours= and against=, two methods.")
    sides, metrics = [_side(kept, name) for name in heads], kept.metrics()
    both = [task for task in kept.values("task") if all(task in side for side in sides)]
    if not both:
        raise UsageError(f"no task has both '{heads[0]}' and '{heads[1]}'.")
    found = compare_over_tasks(
        {task: (sides[0][task], sides[1][task], lower_is_better(metrics[task])) for task in both}
    )
    if options.get("by") == "task":
        rows = [
            [f"`{part.name}`", number(part.ours), number(part.theirs), number(part.difference, sign=True),
             interval(part), f"{sum(each > 0 for each in part.each)} of {len(part.each)}" if part.each[1:] else "–"]
            for part in found.parts
        ]  # fmt: skip
        return markdown(["task", *heads, "difference", "95 % interval over seeds", "seeds up"], rows)
    mean = number(found.difference, sign=True)
    if options.get("show") == "mean":
        return mean
    listed = ["one seed, no interval" if found.low is None else f"95 % interval {interval(found)}"]
    if len(both) > 1:
        ups = sum((part.difference or 0) > 0 for part in found.parts)
        listed += [f"better on {ups} of {len(both)} tasks", f"sign test p {found.p:.2g}"]
    return f"{mean} ({', '.join(listed)})"


def _side(results: Results, name: str) -> dict[str, dict[Any, float]]:
    """Return the values of one side: {task: {seed: value}}."""
    if name in CHOSEN:
        chosen = best_by_validation(results, CHOSEN[name])
        mine = pl.struct("task", "method").is_in([{"task": task, "method": each} for task, each in chosen.items()])
    else:
        mine = pl.col("method") == one_of(name, [*results.values("method"), *CHOSEN], f"method of {results.name}")
    kept = Results(results.name, results.frame.filter(mine))
    return {key[0]: seeds for key, seeds in by_seed(kept, ("task",)).items()}


def best_by_validation(results: Results, group: str) -> dict[str, str]:
    """Name for each task the method of a group with the best mean validation score; the test rows choose nothing.

    Raises:
        UsageError: a task has no method of the group.
    """
    mine = Results(results.name, results.frame.filter(pl.col(results.column("group")) == group))
    metrics, best = results.metrics(), dict[str, tuple[float, str]]()
    for (task, method), seeds in by_seed(mine, ("task", "method"), results.column("valid")).items():
        score = mean_of(seeds) * (-1 if lower_is_better(metrics[task]) else 1)
        if task not in best or score > best[task][0]:
            best[task] = (score, method)
    absent = [task for task in results.values("task") if task not in best]
    if absent:
        raise UsageError(f"{results.name} has no {group} with a validation score in the task '{absent[0]}'.")
    return {task: method for task, (_, method) in best.items()}


def make_wins(results: Results, options: Options) -> str:
    """Write how often each kind of method is best; ``of=baseline`` only ``7 of 12``. Ties count for each.

    Of each kind the method with the best validation score stands for it, so that many methods gain nothing.
    """
    kept, _ = choose(results, options)
    cells, metrics, tasks = by_seed(kept, ("task", "method")), kept.metrics(), kept.values("task")
    chosen = {group: best_by_validation(kept, group) for group in GROUPS if group in kept.values("group")}
    won: dict[str, list[str]] = {group: [] for group in chosen}
    for task in tasks:
        sign = -1 if lower_is_better(metrics[task]) else 1
        scores = {group: round(sign * mean_of(cells[task, best[task]]), 4) for group, best in chosen.items()}
        for group in (group for group in scores if scores[group] == max(scores.values())):
            won[group].append(task)
    if "of" in options:
        return f"{len(won[one_of(options['of'], won, 'group')])} of {len(tasks)}"
    rows = [
        [GROUPS[group], f"{len(mine)} of {len(tasks)}", ", ".join(f"`{task}`" for task in mine) or "–"]
        for group, mine in won.items()
    ]
    caption = "*Best mean on the test rows; of each kind the method with the best validation score is counted.*"
    return f"{markdown(['kind', 'best on', 'tasks'], rows, texts=3)}\n\n{caption}"


def make_cost(results: Results, options: Options) -> str:
    """Write what each method costs: trained parameters, storage, time and memory, means over tasks and seeds."""
    kept, names = choose(results, options)
    titles = {"trained_parameters": "trained parameters", "storage_bytes": "to store", "seconds": "time to train",
              "peak_memory_bytes": "peak memory"}  # fmt: skip
    means = {row["method"]: row for row in kept.frame.group_by("method").agg(pl.col(*titles).mean()).to_dicts()}
    rows = [
        [names.get(method, method), *(measured(name, means[method][name]) for name in titles)]
        for method in in_order(kept, "method", names)
    ]
    return markdown(["method", *titles.values()], rows)


def measured(column: str, value: float | None) -> str:
    """Write a cost in a unit that a person reads: 75 s, 5.4 MB, 1.2 M."""
    if value is None:
        return "–"
    if column == "seconds":
        if value < 0.1:
            return "< 0.1 s"
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"
    units = ("B", "kB", "MB", "GB") if column.endswith("bytes") else ("", "k", "M", "G")
    power = min(3, int(np.log10(max(value, 1)) // 3))
    size = value / 1000**power
    return f"{size:.{0 if power == 0 or size >= 100 else 1}f} {units[power]}".strip()


def make_count(results: Results, options: Options) -> str:
    """Write how many different tasks, methods, seeds or other values of a column there are (``of=task``)."""
    kept, _ = choose(results, options, free=results.frame.columns)
    return f"{kept.frame[results.column(options.get('of', 'task'))].drop_nulls().n_unique():,}"


def curves(results: Results, options: Options) -> tuple[dict[str, Any], list[list[Any]]]:
    """Group the rows by task, method and ``x``.

    With ``x=num_train`` cells of all rows stand at their number of rows.

    Returns:
        What a figure shows (``panels`` with ``series``, ``x_label``, ``y_label``, ``log``), and [task, name, {x: {seed:
        value}}] for a table.

    Raises:
        UsageError: there is no x, it is not numeric, or metrics are mixed.
    """
    x = results.column(options.get("x", ""))
    kept, names = choose(results, options, free=(x, "method"))
    if x == "num_train":
        kept = Results(kept.name, kept.frame.with_columns(pl.col(x).fill_null(pl.col("train_rows"))))
    kept = Results(kept.name, kept.frame.drop_nulls(x))
    if kept.frame.is_empty() or not kept.frame[x].dtype.is_float():
        raise UsageError(f"the column {x} of {results.name} is not numeric, so it cannot be the x of a curve.")
    title = metric_title(kept.only_metric("a curve"))
    cells = by_seed(kept, ("task", "method", x))
    panels: list[dict[str, Any]] = []
    table: list[list[Any]] = []
    for task in kept.values("task"):
        series = []
        for method in in_order(kept, "method", names):
            found = dict(sorted((key[2], seeds) for key, seeds in cells.items() if key[:2] == (task, method)))
            if found:
                series.append(_line(names.get(method, method), found))
                table.append([task, series[-1]["name"], found])
        panels += [{"title": task, "series": series}] if series else []
    places = kept.frame[x].unique()
    log = x != "layer" and places.min() > 0 and places.max() >= 8 * places.min()  # type: ignore[operator]
    return {"panels": panels, "x_label": AXES.get(x, x.replace("_", " ")), "y_label": title, "log": log}, table


def _line(name: str, found: Mapping[float, Mapping[Any, float]]) -> dict[str, Any]:
    means = [mean_of(seeds) for seeds in found.values()]
    sds = [float(np.std(list(seeds.values()), ddof=1)) if len(seeds) > 1 else 0.0 for seeds in found.values()]
    ends = [[mean + sign * sd for mean, sd in zip(means, sds)] if any(sds) else None for sign in (-1, 1)]
    return {"name": name, "x": list(found), "y": means, "low": ends[0], "high": ends[1]}


def make_curve(results: Results, options: Options) -> str:
    """Write the table of the curves, under the figure if one is asked for."""
    drawn, table = curves(results, options)
    places = sorted({place for *_, found in table for place in found})
    several, title, across = len(drawn["panels"]) > 1, drawn["y_label"], drawn["x_label"]
    rows = [
        [*([f"`{task}`"] if several else []), name, *(spread(found[x]) if x in found else "–" for x in places)]
        for task, name, found in table
    ]
    head = [*(["task"] if several else []), f"method, by {across}", *(label(place, "x", {}) for place in places)]
    most = max(len(seeds) for *_, found in table for seeds in found.values())
    over = f"mean ± standard deviation over {most} seeds" if most > 1 else "of one seed"
    parts = [f"![{title} against {across}]({options['figure']})"] if "figure" in options else []
    parts += [] if options.get("table") == "no" else [markdown(head, rows, texts=2 if several else 1)]
    return "\n\n".join([*parts, f"*{title[0].upper()}{title[1:]}, {over}.*"])


@dataclass(frozen=True)
class View:
    """What a marker may ask for.

    Attributes:
        make: gives the text.
        options: names it takes beside columns of the table.
        block: it may stand on lines of its own.
        inline: it may stand within a line.
    """

    make: Callable[[Results, Options], str]
    options: str = ""
    block: bool = True
    inline: bool = False


VIEWS: dict[str, View] = {
    "table": View(make_table, "rows columns summary"),
    "difference": View(make_difference, "ours against by show", inline=True),
    "value": View(make_value, "show", block=False, inline=True),
    "wins": View(make_wins, "of", inline=True),
    "cost": View(make_cost),
    "count": View(make_count, "of", block=False, inline=True),
    "curve": View(make_curve, "x figure table"),
}
