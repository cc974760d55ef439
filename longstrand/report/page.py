"""Turn a dictionary of sections into one self-contained HTML page and its JSON.

The page needs no network and no script: styles and pictures are inside. The dictionary is
``{"title", "subtitle", "summary": [sentences], "warnings": [sentences], "sections": [...]}``, with the sections of
`longstrand.report.sections`; ``report.json`` is the same dictionary, so no number exists only in a picture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from longstrand.report import plots
from longstrand.report.sections import metric_meaning, metric_title
from longstrand.runtime import write_atomically, write_json

FORMAT = {"format": "longstrand.report.page", "format_version": 1}


def write_report(folder: Path, report: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` into a folder (made if missing).

    Returns:
        The two paths.

    Raises:
        InputError: the folder cannot be written.
        ValueError: a section has an unknown kind.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page, data = folder / "report.html", folder / "report.json"
    write_atomically(page, render_html(report))
    write_json(data, {**FORMAT, **report})
    return page, data


def render_html(report: Mapping[str, Any]) -> str:
    """Give the whole page as text.

    Raises:
        ValueError: a section has an unknown kind.
    """
    sections = list(report.get("sections", []))
    links = _links([part["title"] for part in sections])
    body = "".join(_section(part) for part in sections)
    css = resources.files("longstrand.report").joinpath("page.css").read_text()
    title, subtitle = escape(report["title"]), escape(report.get("subtitle", ""))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{css}</style>\n</head>\n<body>\n<header><h1>{title}</h1><p>{subtitle}</p></header>\n<main>\n"
        f"{_sentences('summary', 'What came out', report.get('summary', []), f'<nav>{links}</nav>')}"
        f"{_sentences('warnings', 'Mind these', report.get('warnings', []))}"
        f"{body}</main>\n<footer>Made by Longstrand. Every number of this page is in report.json.</footer>\n"
        "</body>\n</html>\n"
    )


def _links(titles: Sequence[str]) -> str:
    """Link to the sections; those of one subject ("subject: part") stand on one line under its name."""
    lines: list[tuple[str, list[str]]] = []
    subjects = {title for title in titles if any(other.startswith(f"{title}: ") for other in titles)}
    for title in titles:
        subject = next((name for name in subjects if title == name or title.startswith(f"{name}: ")), "")
        if not lines or lines[-1][0] != subject:
            lines.append((subject, []))
        shown = title if title == subject or not subject else title.removeprefix(f"{subject}: ")
        lines[-1][1].append(f'<a href="#{_anchor(title)}">{escape(shown)}</a>')
    return "".join(f"<div>{' '.join(links)}</div>" for _, links in lines)


def _sentences(name: str, title: str, sentences: Sequence[str], more: str = "") -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<section class="{name}"><h2>{title}</h2><ul>{items}</ul>{more}</section>\n'


def _section(section: Mapping[str, Any]) -> str:
    kind = section.get("kind")
    if kind not in RENDERERS:
        raise ValueError(f"a report has no section of the kind '{kind}'; known: {', '.join(RENDERERS)}.")
    explain = f'<p class="explain">{escape(section["explain"])}</p>' if section.get("explain") else ""
    title = escape(section["title"])
    inner = RENDERERS[kind](section)
    return f'<section id="{_anchor(section["title"])}"><h2>{title}</h2>{explain}{inner}</section>\n'


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, raw: bool = False) -> str:
    """Make a table; numbers are set right and grouped by thousands. ``raw`` cells are HTML already."""
    numeric = [_is_numeric([row[place] for row in rows]) for place in range(len(columns))]
    marks = [' class="number"' if flag else "" for flag in numeric]
    head = "".join(f"<th{mark}>{escape(str(name))}</th>" for mark, name in zip(marks, columns))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{_cell(value, raw)}</td>" for mark, value in zip(marks, row)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _is_numeric(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float) for value in known)


def _cell(value: Any, raw: bool = False) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value) if raw else escape(str(value))


def _curves(section: Mapping[str, Any]) -> str:
    svg = plots.draw_curves(
        section["series"], x_label=section["x_label"], y_label=section["y_label"], references=section["references"]
    )
    if "table" in section:
        return _figure(svg) + _details("The numbers", _table(section["table"]["columns"], section["table"]["rows"]))
    rows = [
        [line["name"], len(line["x"]), line["y"][0], line["y"][-1], min(line["y"])]
        for line in section["series"]
        if line["x"]
    ]
    return _figure(svg) + _details("The numbers", _table(["curve", "points", "first", "last", "lowest"], rows))


def _points(section: Mapping[str, Any]) -> str:
    groups = [point["group"] for point in section["points"]]
    svg = plots.draw_points(
        section["points"],
        x_label=section["x_label"],
        y_label=section["y_label"],
        colours=plots.model_colours(groups),
    )
    if "table" in section:
        return _figure(svg) + _details("The numbers", _table(section["table"]["columns"], section["table"]["rows"]))
    rows = [[point["name"], point["x"], point["y"]] for point in section["points"]]
    return _figure(svg) + _details("The numbers", _table(["name", section["x_label"], section["y_label"]], rows))


def _metrics(section: Mapping[str, Any]) -> str:
    rows, main = section["rows"], section["main"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    metrics = [main, *dict.fromkeys(row["metric"] for row in rows if row["metric"] != main)]
    groups = section.get("groups") or {}
    legend = plots.model_colours(list(groups.values()))
    colours = {model: legend[groups[model]] for model in models} if groups else plots.model_colours(models)
    shown = [row for row in rows if row["metric"] == main and row["value"] is not None and row["value"] == row["value"]]
    forest = f"<p>{escape(metric_title(main))} is undefined for these labels.</p>"
    if shown:
        forest = _figure(plots.draw_forest(shown, x_label=metric_title(main), colours=colours, legend=legend))
    cells = {(row["model"], row["metric"]): row for row in rows}
    lines = [
        [f'<span class="dot" style="background:{colours[model]}"></span>{escape(model)}']
        + [_interval(cells.get((model, metric))) for metric in metrics]
        for model in models
    ]
    table = _table(["model", *map(metric_title, metrics)], lines, raw=True)
    meanings = [(metric_title(name), metric_meaning(name)) for name in metrics if metric_meaning(name)]
    glossary = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meaning)}</dd>" for name, meaning in meanings)
    if not groups:
        return forest + table + f"<dl>{glossary}</dl>"
    if all(row.get("low") is None for row in rows):
        table = _details("The numbers", table)
    return forest + table + (_details("What is measured", f"<dl>{glossary}</dl>") if glossary else "")


def _grid(section: Mapping[str, Any]) -> str:
    """Make a table whose cells are the darker the better they are within their column; the best is bold."""
    columns = list(zip(*(line["scores"] for line in section["rows"])))
    lines = []
    for line in section["rows"]:
        cells = []
        for place, score in enumerate(line["scores"]):
            known = [-other if section["lower"][place] else other for other in columns[place] if other is not None]
            if score is None:
                cells.append('<td class="number">–</td>')
                continue
            rank = -score if section["lower"][place] else score
            share = max(0.0, rank - min(known)) / ((max(known) - min(known)) or 1.0)
            text = f"<b>{score:.3f}</b>" if rank == max(known) else f"{score:.3f}"
            cells.append(
                f'<td class="number" style="background:rgba(11,110,117,{0.32 * share * share:.2f})">{text}</td>'
            )
        lines.append(f"<tr><td>{escape(line['name'])}</td>{''.join(cells)}</tr>")
    head = "".join(f'<th class="number">{escape(name)}</th>' for name in section["columns"])
    body = "".join(lines)
    table = f'<table class="grid"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _interval(row: Mapping[str, Any] | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    value = f"<b>{row['value']:.3f}</b>"
    if row.get("low") is None or row.get("high") is None:
        return value
    return f"{value}<br><small>{row['low']:.3f} to {row['high']:.3f}</small>"


def _confusion(section: Mapping[str, Any]) -> str:
    svg = _figure(plots.draw_confusion(section["counts"], section["classes"])) if len(section["classes"]) <= 12 else ""
    rows = [[name, *row] for name, row in zip(section["classes"], section["counts"])]
    table = _table(["true / predicted", *section["classes"]], rows)
    return svg + _details("The counts", table) if svg else table


def _ranking(section: Mapping[str, Any]) -> str:
    colours = plots.model_colours([line["name"] for line in section["series"]])
    left = plots.draw_roc(section["series"], colours)
    right = plots.draw_precision_recall(section["series"], colours, prevalence=section["prevalence"])
    return f'<div class="plots">{_figure(left)}{_figure(right)}</div>'


def _tokens(section: Mapping[str, Any]) -> str:
    lengths = [entry["bases"] for entry in section["bases"]]
    total = max(1, sum(entry["count"] for entry in section["bases"]))
    shares = [100 * entry["count"] / total for entry in section["bases"]]
    svg = plots.draw_histogram(
        lengths, shares, x_label="bases in a token", y_label="share of tokens (%)", mean=section["mean_bases"]
    )
    rows = [[f"<code>{escape(entry['token'])}</code>", entry["bases"], entry["count"]] for entry in section["longest"]]
    longest = f"<h3>The longest tokens seen</h3>{_table(['token', 'bases', 'times'], rows, raw=True)}" if rows else ""
    return _figure(svg) + longest


def _leakage(section: Mapping[str, Any]) -> str:
    columns = ["sequences of", "found in", "rows", "identical", "as reverse complement"]
    rows = [[p["of"], p["in"], p["rows"], p["exact"], p["reverse_complement"]] for p in section["pairs"]]
    return _table(columns, rows)


def _plain_table(section: Mapping[str, Any]) -> str:
    return _table(section["columns"], section["rows"])


def _text(section: Mapping[str, Any]) -> str:
    return "".join(f"<p>{escape(paragraph)}</p>" for paragraph in section["paragraphs"])


def _provenance(section: Mapping[str, Any]) -> str:
    rows = [[escape(name), f"<code>{escape(value)}</code>"] for name, value in flatten(section["facts"])]
    return _table(["what", "value"], rows, raw=True)


def _commands(section: Mapping[str, Any]) -> str:
    parts = (f"<p>{escape(entry['what'])}</p><pre>{escape(entry['command'])}</pre>" for entry in section["commands"])
    return "".join(parts)


def _details(title: str, inner: str) -> str:
    return f"<details><summary>{title}</summary>{inner}</details>"


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """List ``(dotted name, text)`` of a nested dictionary; lists are joined by spaces, None and "" are left out."""
    if isinstance(value, Mapping):
        return [
            pair for key, inner in value.items() for pair in flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list | tuple):
        return [(prefix, " ".join(map(str, value)))] if value else []
    return [] if value in (None, "") else [(prefix, str(value))]


RENDERERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "curves": _curves,
    "metrics": _metrics,
    "points": _points,
    "grid": _grid,
    "confusion": _confusion,
    "ranking": _ranking,
    "tokens": _tokens,
    "leakage": _leakage,
    "table": _plain_table,
    "text": _text,
    "provenance": _provenance,
    "commands": _commands,
}
