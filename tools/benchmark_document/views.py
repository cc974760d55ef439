"""What docs/results/BENCHMARK.md.j2 shows of tables of results: the methods of `Views` are functions of the template.

Their first argument is an experiment: ``stage1`` is ``stage1.csv`` in the folder of results. Keywords that name a
column choose rows: ``length=4096``, ``task=["a", "b"]``, ``num_train=None`` (an empty cell). Without ``num_train`` only
cells with all training rows count. Rows that stay ambiguous are an error, not a mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from scipy.stats import rankdata

from longstrand.errors import InputError, UsageError, nearest, one_of
from longstrand.evaluation.compare import PairedDifference, compare_over_tasks
from longstrand.evaluation.metrics import LOWER_IS_BETTER
from longstrand.report.plots import draw_curves, to_svg
from longstrand.report.sections import Line, metric_title
from longstrand.runtime import write_atomically

REQUIRED = ("task", "method", "seed", "metric", "value")
TEXTS = frozenset({"task", "method", "metric", "group", "kind", "model", "init", "training", "flags", "data"})
COSTS = {"trained_parameters": "trained parameters", "storage_bytes": "to store", "seconds": "time to train",
         "peak_memory_bytes": "peak memory"}  # fmt: skip
GROUPS = {"baseline": "no language model", "model": "pre-trained", "control": "random start"}
CHOSEN = {f"best {group}": group for group in GROUPS}
"""Names that stand for another method in each task: of a group the one with the best validation score."""
AXES = {"num_train": "training rows", "tokens": "tokens seen", "length": "length (bases)"}
Cells = dict[tuple[Any, ...], dict[Any, float]]


def read_results(folder: Path, name: str) -> pl.DataFrame:
    """Read ``NAME.csv`` of a folder of results: text columns, and numeric ones as float.

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
    return frame


class Views:
    """Tables, numbers and figures of a document.

    Args:
        results: folder of CSV files.
        figures: folder that figures are named relative to.
        write: also draw figures whose numbers changed; else they are only listed in ``stale``.
    """

    def __init__(self, results: Path, figures: Path, *, write: bool = True) -> None:
        self._folder, self._figures, self._write = Path(results), Path(figures), write
        self._renamed: dict[str, dict[str, str]] = {}
        self.stale: list[str] = []

    def names(self, **columns: Mapping[str, str]) -> str:
        """Give values of a column other words in the whole document: ``names(method={"kmer": "6-mers"})``."""
        self._renamed |= {column: dict(pairs) for column, pairs in columns.items()}
        return ""

    def _choose(self, name: str, filters: Mapping[str, Any], free: Collection[str] = ()) -> pl.DataFrame:
        """Keep the rows that the filters name, except of the columns that the view varies.

        Raises:
            UsageError: a column or a value does not occur, or nothing is left.
        """
        frame = read_results(self._folder, name)
        for column in {*self._renamed} & {*frame.columns}:
            frame = frame.with_columns(pl.col(column).replace(self._renamed[column]))
        if "num_train" in frame.columns and "num_train" not in {*filters, *free}:
            filters = {**filters, "num_train": None}
        for column, value in filters.items():
            present = frame[one_of(column, frame.columns, f"option, or column of {name},")]
            known, wanted = present.unique(maintain_order=True).to_list(), value if isinstance(value, list) else [value]
            unknown = [each for each in wanted if each not in known]
            if unknown:
                close = nearest(str(unknown[0]), map(str, known))
                raise UsageError(
                    f"unknown {column} of {name} '{unknown[0]}'{close}; known: {', '.join(map(str, known))}."
                )
            frame = frame.filter(pl.col(column).is_in(pl.Series(wanted, dtype=present.dtype), nulls_equal=True))
        if frame.is_empty():
            raise UsageError(f"{name} has no row with {dict(filters)}.")
        if isinstance(filters.get("method"), list):
            return frame.sort(pl.col("method").cast(pl.Enum(filters["method"])), maintain_order=True)
        return frame

    def table(
        self, name: str, rows: str = "task", columns: str = "method", summary: bool = True, **filters: Any
    ) -> str:
        """Write mean ± deviation over seeds, the best method in bold, mean and mean rank over tasks."""
        kept, sides = self._choose(name, filters, free=(rows, columns)), (rows, columns)
        cells, metrics = by_seed(kept, sides), dict(kept.select("task", "metric").rows())
        lines, heads = (_in_order(kept, side) for side in sides)
        titles = list(dict.fromkeys(kept["metric"]))
        mixed = rows == "task" and len(titles) > 1
        bold = _best(kept, cells, sides)
        flags = kept.filter(pl.col("flags") > "") if "flags" in kept.columns else kept.clear()
        flagged = set(flags.select(*sides).rows())
        written = []
        for line in lines:
            texts = [_spread(cells[line, head]) if (line, head) in cells else "–" for head in heads]
            texts = [f"**{text}**" if (line, head) in bold else text for text, head in zip(texts, heads)]
            texts = [text + ("†" if (line, head) in flagged else "") for text, head in zip(texts, heads)]
            written.append([_label(line, rows), *([metric_title(metrics[line])] if mixed else []), *texts])
        if sides == ("task", "method") and len(lines) > 1 and summary:
            written += _summary(cells, lines, heads, metrics, mixed)
        title = [rows, *(["metric"] if mixed else []), *(_label(head, columns) for head in heads)]
        what = "" if len(titles) > 1 else metric_title(titles[0])
        caption = [_caption(what, sorted({len(seeds) for seeds in cells.values()}))]
        caption += ["best in bold"] if bold else []
        caption += ["† a run that collapsed (see `flags`)"] if flagged else []
        return f"{_markdown(title, written, texts=2 if mixed else 1)}\n\n*{'; '.join(caption)}.*"

    def value(self, name: str, show: Literal["all", "mean"] = "all", **filters: Any) -> str:
        """Write one cell, ``mean ± sd``; ``show="mean"`` drops the deviation."""
        cells = by_seed(self._choose(name, filters), ("task", "method"))
        if len(cells) != 1:
            raise UsageError(f"a value is of one task and method, but {len(cells)} are left; give task= and method=.")
        (seeds,) = cells.values()
        return _number(_mean(seeds)) if show == "mean" else _spread(seeds)

    def difference(
        self, name: str, ours: str, against: str, show: Literal["all", "mean"] = "all", by: str = "", **filters: Any
    ) -> str:
        """Write ``ours`` minus ``against`` over tasks with its interval, or the mean alone; ``by="task"`` a table."""
        kept = self._choose(name, filters, free=("method",))
        sides, metrics = [_side(kept, each) for each in (ours, against)], dict(kept.select("task", "metric").rows())
        both = [task for task in metrics if all(task in side for side in sides)]
        if not both:
            raise UsageError(f"no task has both '{ours}' and '{against}'.")
        found = compare_over_tasks(
            {task: (sides[0][task], sides[1][task], lower_is_better(metrics[task])) for task in both}
        )
        if by == "task":
            rows = [
                [f"`{part.name}`", _number(part.ours), _number(part.theirs), _number(part.difference, sign=True),
                 _interval(part),
                 f"{sum(each > 0 for each in part.each)} of {len(part.each)}" if part.each[1:] else "–"]
                for part in found.parts
            ]  # fmt: skip
            return _markdown(["task", ours, against, "difference", "95 % interval over seeds", "seeds up"], rows)
        mean = _number(found.difference, sign=True)
        if show == "mean":
            return mean
        listed = ["one seed, no interval" if found.low is None else f"95 % interval {_interval(found)}"]
        if len(both) > 1:
            ups = sum((part.difference or 0) > 0 for part in found.parts)
            listed += [f"better on {ups} of {len(both)} tasks", f"sign test p {found.p:.2g}"]
        return f"{mean} ({', '.join(listed)})"

    def wins(self, name: str, of: str = "", **filters: Any) -> str:
        """Write how often each kind of method is best; ``of="baseline"`` only ``7 of 12``. Ties count for each.

        Of each kind the method with the best validation score stands for it, so that many methods gain nothing.
        """
        kept = self._choose(name, filters)
        cells, metrics = by_seed(kept, ("task", "method")), dict(kept.select("task", "metric").rows())
        chosen = {group: best_by_validation(kept, group) for group in GROUPS if group in kept["group"]}
        won: dict[str, list[str]] = {group: [] for group in chosen}
        for task, metric in metrics.items():
            sign = _sign(metric)
            scores = {group: round(sign * _mean(cells[task, best[task]]), 4) for group, best in chosen.items()}
            for group in (group for group in scores if scores[group] == max(scores.values())):
                won[group].append(task)
        if of:
            return f"{len(won[one_of(of, won, 'group')])} of {len(metrics)}"
        rows = [
            [GROUPS[group], f"{len(mine)} of {len(metrics)}", ", ".join(f"`{task}`" for task in mine) or "–"]
            for group, mine in won.items()
        ]
        caption = "*Best mean on the test rows; of each kind the method with the best validation score is counted.*"
        return f"{_markdown(['kind', 'best on', 'tasks'], rows, texts=3)}\n\n{caption}"

    def cost(self, name: str, **filters: Any) -> str:
        """Write what each method costs: trained parameters, storage, time and memory, means over tasks and seeds."""
        means = self._choose(name, filters).group_by("method", maintain_order=True).agg(pl.col(*COSTS).mean())
        rows = [[row["method"], *(measured(column, row[column]) for column in COSTS)] for row in means.to_dicts()]
        return _markdown(["method", *COSTS.values()], rows)

    def count(self, name: str, of: str = "task", **filters: Any) -> str:
        """Write how many different values a column has."""
        kept = self._choose(name, filters, free=("num_train",))
        return f"{kept[one_of(of, kept.columns, f'column of {name}')].drop_nulls().n_unique():,}"

    def curve(self, name: str, x: str, figure: str = "", table: bool = True, **filters: Any) -> str:
        """Write values against a column, a line a method: a figure (an SVG file) and a table.

        With ``x="num_train"`` cells of all rows stand at their number of rows.

        Raises:
            UsageError: x is not numeric, or metrics are mixed.
        """
        kept = self._choose(name, filters, free=(x, "method"))
        if x == "num_train":
            kept = kept.with_columns(pl.col(x).fill_null(pl.col("train_rows")))
        kept = kept.drop_nulls(one_of(x, kept.columns, f"column of {name}"))
        if kept.is_empty() or not kept[x].dtype.is_float():
            raise UsageError(f"the column {x} of {name} is not numeric, so it cannot be the x of a curve.")
        if kept["metric"].n_unique() > 1:
            mixed = ", ".join(dict.fromkeys(kept["metric"]))
            raise UsageError(f"a curve mixes the metrics {mixed}; choose one by metric=.")
        title, across = metric_title(kept["metric"][0]), AXES.get(x, x.replace("_", " "))
        found: dict[tuple[str, str], dict[float, dict[Any, float]]] = {}
        for (task, method, place), seeds in sorted(by_seed(kept, ("task", "method", x)).items(), key=lambda c: c[0][2]):
            found.setdefault((task, method), {})[place] = seeds
        tasks, methods = (list(dict.fromkeys(kept[side])) for side in ("task", "method"))
        found = {key: found[key] for key in ((task, method) for task in tasks for method in methods) if key in found}
        places = sorted({place for each in found.values() for place in each})
        if figure:
            log = x != "layer" and places[0] > 0 and places[-1] >= 8 * places[0]
            self._draw(figure, found, x_label=across, y_label=title, log=log)
        several = len(tasks) > 1
        rows = [
            [*([f"`{task}`"] if several else []), name, *(_spread(each[x]) if x in each else "–" for x in places)]
            for (task, name), each in found.items()
        ]
        head = [*(["task"] if several else []), f"method, by {across}", *(_label(place, "x") for place in places)]
        most = max(len(seeds) for each in found.values() for seeds in each.values())
        over = f"mean ± standard deviation over {most} seeds" if most > 1 else "of one seed"
        parts = [f"![{title} against {across}]({figure})"] if figure else []
        parts += [_markdown(head, rows, texts=2 if several else 1)] if table else []
        return "\n\n".join([*parts, f"*{title[0].upper()}{title[1:]}, {over}.*"])

    def _draw(
        self, figure: str, found: Mapping[tuple[str, str], Mapping[float, Mapping[Any, float]]], **labels: Any
    ) -> None:
        """Draw a figure again if its numbers are not those that its file was made from (a digest in its first line)."""
        panels: dict[str, list[Line]] = {}
        for (task, name), each in found.items():
            means = [_mean(seeds) for seeds in each.values()]
            sds = [float(np.std(list(seeds.values()), ddof=1)) if len(seeds) > 1 else 0.0 for seeds in each.values()]
            ends = [[mean + sign * sd for mean, sd in zip(means, sds)] if any(sds) else [] for sign in (-1, 1)]
            panels.setdefault(task, []).append(Line(name, list(each), means, "points", *ends))
        drawn = {task: [[each.name, *map(_rounded, (each.x, each.y, each.low, each.high))] for each in lines]
                 for task, lines in panels.items()}  # fmt: skip
        digest = hashlib.sha256(json.dumps([drawn, labels], sort_keys=True).encode()).hexdigest()[:16]
        path, first = self._figures / figure, f"<!-- longstrand {digest} -->"
        if path.exists() and path.read_text().startswith(first):
            return
        self.stale.append(f"figure {figure}")
        if self._write:
            svg = to_svg(draw_curves(panels, **labels), f"{labels['y_label']} against {labels['x_label']}", file=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, f"{first}\n{svg}\n")


def by_seed(frame: pl.DataFrame, keys: Sequence[str], column: str = "value") -> Cells:
    """Group rows: {values of ``keys``: {seed: value of ``column``}}; undefined values are left out.

    Raises:
        UsageError: two rows have the same keys and seed, so that a filter is missing.
    """
    twice = frame.filter(pl.struct(*keys, "seed").is_duplicated())
    if len(twice):
        same = twice.filter(pl.struct(*keys, "seed") == pl.struct(*keys, "seed").first())
        apart = [name for name in same.columns if name not in ("value", "valid") and same[name].n_unique() > 1]
        what = ", ".join("all" if value is None else f"{value}" for value in same.select(*keys, "seed").row(0))
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


def best_by_validation(frame: pl.DataFrame, group: str) -> dict[str, str]:
    """Name for each task the method of a group with the best mean validation score; the test rows choose nothing.

    Raises:
        UsageError: a task has no method of the group.
    """
    metrics, best = dict(frame.select("task", "metric").rows()), dict[str, tuple[float, str]]()
    for (task, method), seeds in by_seed(frame.filter(pl.col("group") == group), ("task", "method"), "valid").items():
        score = _mean(seeds) * _sign(metrics[task])
        if task not in best or score > best[task][0]:
            best[task] = (score, method)
    absent = [task for task in metrics if task not in best]
    if absent:
        raise UsageError(f"there is no {group} with a validation score in the task '{absent[0]}'.")
    return {task: method for task, (_, method) in best.items()}


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


def _side(frame: pl.DataFrame, name: str) -> dict[str, dict[Any, float]]:
    """Return the values of one side of a difference: {task: {seed: value}}."""
    if name in CHOSEN:
        chosen = best_by_validation(frame, CHOSEN[name])
        mine = pl.struct("task", "method").is_in([{"task": task, "method": each} for task, each in chosen.items()])
    else:
        mine = pl.col("method") == one_of(name, [*frame["method"].unique(), *CHOSEN], "method")
    return {key[0]: seeds for key, seeds in by_seed(frame.filter(mine), ("task",)).items()}


def _best(frame: pl.DataFrame, cells: Cells, sides: tuple[str, str]) -> set[tuple[Any, ...]]:
    """Find the best method of each row or column; equal as written is equally good. Nothing if none are compared."""
    if "method" not in sides:
        return set()
    other = 1 - sides.index("method")
    metric = dict(zip(frame.select(*sides).rows(), frame["metric"]))
    rivals: dict[Any, dict[tuple[Any, ...], float]] = {}
    for key, seeds in cells.items():
        rivals.setdefault(key[other], {})[key] = round(_sign(metric[key]) * _mean(seeds), 3)
    several = [scores for scores in rivals.values() if len(scores) > 1]
    return {key for scores in several for key, score in scores.items() if score == max(scores.values())}


def _summary(
    cells: Cells, tasks: Sequence[Any], methods: Sequence[Any], metrics: Mapping[str, str], mixed: bool
) -> list[list[str]]:
    """Write the mean over tasks (of one metric) and the mean rank, for methods that every task has."""
    whole = [method for method in methods if all((task, method) in cells for task in tasks)]
    if not whole:
        return []
    means = np.array([[_mean(cells[task, method]) for method in whole] for task in tasks])
    signs = np.array([_sign(metrics[task]) for task in tasks])
    ranks = dict(zip(whole, rankdata(np.round(-signs[:, None] * means, 9), axis=1).mean(axis=0)))
    average = dict(zip(whole, means.mean(axis=0)))
    lines = [] if mixed else [["mean", *(_number(average.get(method)) for method in methods)]]
    if len(whole) > 1:
        lines.append(["mean rank", *(["–"] if mixed else []), *(_number(ranks.get(each), 1) for each in methods)])
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


def _sign(metric: str) -> int:
    return -1 if lower_is_better(metric) else 1


def _mean(seeds: Mapping[Any, float]) -> float:
    return float(np.mean(list(seeds.values())))


def _spread(seeds: Mapping[Any, float]) -> str:
    """Write mean ± sample standard deviation over seeds; one seed has no deviation."""
    deviation = f" ± {_number(float(np.std(list(seeds.values()), ddof=1)))}" if len(seeds) > 1 else ""
    return _number(_mean(seeds)) + deviation


def _number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Write a number with a true minus sign; None is a dash."""
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return (text.lstrip("+-") if float(text) == 0 else text).replace("-", "−")


def _rounded(values: Sequence[float]) -> list[str]:
    """Write the numbers of a figure so that its digest does not depend on their last bits."""
    return [f"{value:.6g}" for value in values]


def _interval(found: PairedDifference) -> str:
    return "–" if found.low is None else f"{_number(found.low, sign=True)} to {_number(found.high, sign=True)}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """Write a Markdown table; the first ``texts`` columns are set left, the others right."""
    lines = [head, ["---" if place < texts else "---:" for place in range(len(head))], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _in_order(frame: pl.DataFrame, column: str) -> list[Any]:
    """Order the values of a column: numbers by size, others as they come."""
    found = frame[column].unique(maintain_order=True).to_list()
    if frame[column].dtype.is_float():
        return sorted(found, key=lambda value: float("inf") if value is None else value)
    return found


def _label(value: Any, column: str) -> str:
    """Write a value as the head of a row or column."""
    if column in ("task", "metric"):
        return f"`{value}`" if column == "task" else metric_title(value)
    return f"{int(value):,}" if isinstance(value, float) and value.is_integer() else str(value)
