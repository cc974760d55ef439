"""Write a report: one self-contained HTML page from the template ``page.html.j2``, and its numbers as JSON.

The page needs no network and no script: styles and pictures are inside. ``report.json`` holds the same sections, so no
number exists only in a picture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.figure import Figure

from longstrand.evaluation.metrics import LOWER_IS_BETTER
from longstrand.report import locus, plots
from longstrand.report.sections import (
    Boxes,
    Cell,
    Commands,
    Curves,
    MetricRow,
    Metrics,
    Ranking,
    Report,
    Section,
    Table,
    files_table,
    metric_meaning,
    metric_title,
    text,
)
from longstrand.runtime import write_atomically, write_json

FORMAT = {"format": "longstrand.report.page", "format_version": 2}


@dataclass(frozen=True)
class View:
    """What the template shows of a section, in this order.

    Attributes:
        figures: pictures.
        columns, rows: a table.
        folded: name under which the table is folded away; empty: it is shown.
        terms: words and their meaning.
        commands: what a command does, and the command.
    """

    figures: Sequence[Figure] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    folded: str = ""
    terms: Sequence[tuple[str, str]] = ()
    commands: Sequence[tuple[str, str]] = ()


def write_report(
    folder: Path,
    report: Report,
    *,
    files: Sequence[Path] | None = None,
    commands: Sequence[tuple[str, str]] = (),
    record: bool = True,
) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` into a folder (made if missing) and return the two paths.

    Args:
        folder: where they go.
        report: its last section says where the results come from; above it stand what to do next and the files.
        files: listed with sizes and hashes; a folder stands for all files in it. None: the files beside the page.
        commands: what to do next: (what, command).
        record: write ``report.json``; else the caller writes its own.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    *parts, origin = report.sections
    parts += [Commands("What to do next", text("commands"), commands)] if commands else []
    beside = [path for path in sorted(folder.iterdir()) if path.is_file()] if files is None else files
    parts += [table] if (table := files_table(beside, folder=folder)).rows else []
    report = replace(report, sections=[*parts, origin])
    page, data = folder / "report.html", folder / "report.json"
    write_atomically(page, render_html(report))
    if record:
        plain = _plain(report)
        write_json(data, {**FORMAT, **plain.pop("facts"), **plain})
    return page, data


def render_html(report: Report) -> str:
    """Return the whole page as text; a picture of DNA that is the first section stands above the summary."""
    views = [(section, VIEWS[type(section)](section)) for section in report.sections]
    links = _links([section.title for section in report.sections])
    lead = int(bool(views) and isinstance(views[0][0], locus.Locus))
    return _template().render(report=report, views=views, lead=lead, links=links, svg=plots.to_svg)


@cache
def _template() -> Template:
    """Compile the template, once in a process."""
    environment = Environment(
        loader=PackageLoader("longstrand.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"anchor": _anchor, "number": _number}
    return environment.get_template("page.html.j2")


def _plain(value: Any) -> Any:
    """Turn dataclasses, whatever their depth, into dictionaries; a section keeps its kind."""
    if hasattr(value, "__dataclass_fields__"):
        kind = {"kind": type(value).__name__.lower()} if isinstance(value, Section) else {}
        return kind | {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _links(titles: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Link to the sections (shown, title); those of one subject ("subject: part") make one line, after its name."""
    subjects = {title for title in titles if any(other.startswith(f"{title}: ") for other in titles)}
    owners = [next((s for s in subjects if title == s or title.startswith(f"{s}: ")), "") for title in titles]
    lines = [list(group) for _, group in groupby(zip(owners, titles), key=lambda pair: pair[0])]
    return [[(title.removeprefix(f"{owner}: "), title) for owner, title in line] for line in lines]


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _number(value: Any) -> str:
    """Write a cell: counts in groups of three digits, others with three places or digits, None and NaN as a dash."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and 0 < abs(value) < 0.001:
        return f"{value:.3g}"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _curves(section: Curves) -> View:
    labels = {"x_label": section.x_label, "y_label": section.y_label, "references": section.references}
    figure = plots.draw_curves({"": section.lines}, log=section.log, **labels)
    ends = [[line.name, len(line.x), line.y[0], line.y[-1], min(line.y)] for line in section.lines if line.x]
    columns, rows = section.table or (["curve", "points", "first", "last", "lowest"], ends)
    return View([figure], columns, rows, "The numbers")


def _metrics(section: Metrics) -> View:
    rows, main, groups = section.rows, section.main, section.groups
    models = list(dict.fromkeys(row.model for row in rows))
    metrics = list(dict.fromkeys([main, *(row.metric for row in rows)]))
    legend = plots.colours_of(list(groups.values()))
    colours = {model: legend[groups[model]] for model in models} if groups else plots.colours_of(models)
    shown = [row for row in rows if row.metric == main and row.value is not None and row.value == row.value]
    figures = [plots.draw_forest(shown, x_label=metric_title(main), colours=colours, legend=legend)] if shown else []
    cells = {(row.model, row.metric): row for row in rows}
    best = {metric: _best(metric, rows) for metric in metrics}
    lines = [
        [{"value": model, "colour": colours[model]},
         *(_interval(cells.get((model, metric)), best[metric]) for metric in metrics)]
        for model in models
    ]  # fmt: skip
    terms = [(metric_title(name), metric_meaning(name)) for name in metrics if metric_meaning(name)]
    if not shown:
        terms.insert(0, (metric_title(main), "undefined for these labels."))
    folded = "The numbers" if groups and all(row.low is None for row in rows) else ""
    return View(figures, ["model", *map(metric_title, metrics)], lines, folded, terms)


def _best(metric: str, rows: Sequence[MetricRow]) -> float | None:
    """Return the best value of a metric, or None if there is only one to choose from."""
    known = [row.value for row in rows if row.metric == metric and row.value is not None and row.value == row.value]
    if len(known) < 2:
        return None
    return min(known) if metric.removeprefix("test_") in LOWER_IS_BETTER else max(known)


def _interval(row: MetricRow | None, best: float | None) -> Cell:
    """Show a value with its interval; the best of its column is bold."""
    if row is None or row.value is None:
        return None
    note = "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
    return {"value": row.value, "bold": row.value == best, "note": note}


VIEWS: dict[type[Section], Callable[[Any], View]] = {
    Section: lambda section: View(),
    Table: lambda section: View((), section.columns, section.rows),
    Curves: _curves,
    Boxes: lambda s: View([plots.draw_boxes(s.boxes, y_label=s.y_label)], *s.table),
    Metrics: _metrics,
    Ranking: lambda section: View([plots.draw_ranking(section.models, section.prevalence)]),
    locus.Locus: lambda section: View([locus.plot(section.components, section.region)]),
    Commands: lambda section: View(commands=section.commands),
}
