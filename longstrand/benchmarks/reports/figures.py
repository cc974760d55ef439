"""The view ``curve``: a value against a numeric column, as a table and as an SVG figure that is the same every time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.reports.tidy import Tidy, as_text, seeds_of
from longstrand.benchmarks.reports.views import (
    View,
    chosen_rows,
    column_of,
    digits_of,
    markdown_table,
    metric_of,
    spread,
)
from longstrand.errors import InputError, UsageError, one_of
from longstrand.report.sections import metric_title
from longstrand.runtime import write_atomically

X_LABELS = {
    "num_train": "training rows",
    "tokens": "tokens seen",
    "length": "length (bases)",
    "segments": "segments",
    "layer": "layer",
}
DIGEST = re.compile(r"^<!-- longstrand (\w+) -->")


@dataclass(frozen=True)
class Curves:
    """Lines of one or more panels.

    Attributes:
        x: the column.
        panels: each ``{"title", "series"}``; a series is ``{"name", "x", "y", "low", "high", "cells"}``.
        y_label: the metric.
        log: whether the horizontal axis is logarithmic.
    """

    x: str
    panels: list[dict[str, Any]]
    y_label: str
    log: bool

    def drawn(self) -> dict[str, Any]:
        """Give what the figure shows, as plain values."""
        panels = [
            {**panel, "series": [{key: line[key] for key in line if key != "cells"} for line in panel["series"]]}
            for panel in self.panels
        ]
        label = X_LABELS.get(self.x, self.x.replace("_", " "))
        return {"panels": panels, "x_label": label, "y_label": self.y_label, "log": self.log}


def curves_of(tidy: Tidy, options: Mapping[str, str]) -> Curves:
    """Group the rows by task, series and x.

    With ``x=num_train`` cells of all rows stand at their number of rows, if the table has ``train_rows``.

    Raises:
        UsageError: there is no x, it is not numeric, or metrics are mixed.
    """
    if "x" not in options:
        raise UsageError("a curve needs x=, a numeric column.")
    x = column_of(tidy, options, "x", "")
    series = column_of(tidy, options, "series", "arm")
    value = column_of(tidy, options, "column", "value")
    kept, names = chosen_rows(tidy, options, free=(x, series))
    rows = [row | {x: row.get("train_rows") if x == "num_train" and row[x] is None else row[x]} for row in kept.rows]
    rows = [row for row in rows if row[x] is not None]
    if not rows or not all(isinstance(row[x], float) for row in rows):
        raise UsageError(f"the column {x} of {tidy.name} is not numeric, so it cannot be the x of a curve.")
    metric = metric_of(kept, "a curve")
    cells = seeds_of(rows, ("task", series, x), value)
    panels = []
    for task in kept.values("task"):
        lines = []
        for name in _in_order(kept.values(series), names):
            found = sorted((key[2], seeds) for key, seeds in cells.items() if key[:2] == (task, name))
            if found:
                shown = names.get(name, as_text(name)) if series == "arm" else as_text(name)
                lines.append(_line(shown, found))
        if lines:
            panels.append({"title": task, "series": lines})
    places = [place for panel in panels for line in panel["series"] for place in line["x"]]
    wide = min(places) > 0 and max(places) >= 8 * min(places) and x != "layer"
    log = one_of(options.get("log", "yes" if wide else "no"), ("yes", "no"), "log") == "yes"
    return Curves(x, panels, metric_title(metric), log and min(places) > 0)


def _in_order(found: Sequence[Any], names: Mapping[str, str]) -> list[Any]:
    asked = list(names)
    return sorted(found, key=lambda name: asked.index(name) if name in asked else len(asked))


def _line(name: str, found: Sequence[tuple[float, Mapping[Any, float]]]) -> dict[str, Any]:
    means = [float(np.mean(list(seeds.values()))) for _, seeds in found]
    deviations = [float(np.std(list(seeds.values()), ddof=1)) if len(seeds) > 1 else 0.0 for _, seeds in found]
    band = any(deviations)
    return {
        "name": name,
        "x": [place for place, _ in found],
        "y": means,
        "low": [mean - deviation for mean, deviation in zip(means, deviations)] if band else None,
        "high": [mean + deviation for mean, deviation in zip(means, deviations)] if band else None,
        "cells": dict(found),
    }


def make_curve(tidy: Tidy, options: Mapping[str, str]) -> str:
    """Write the table of the curves, under the figure if one is asked for."""
    curves, digits = curves_of(tidy, options), digits_of(options)
    places = sorted({place for panel in curves.panels for line in panel["series"] for place in line["x"]})
    several = len(curves.panels) > 1
    rows = [
        [
            *([f"`{panel['title']}`"] if several else []),
            line["name"],
            *(spread(line["cells"][place], digits) if place in line["cells"] else "–" for place in places),
        ]
        for panel in curves.panels
        for line in panel["series"]
    ]
    label = X_LABELS.get(curves.x, curves.x.replace("_", " "))
    counts = {len(seeds) for panel in curves.panels for line in panel["series"] for seeds in line["cells"].values()}
    seeds = f"{max(counts)} seeds" if max(counts) > 1 else "one seed"
    what = f"{(options.get('series') or 'arm').replace('_', ' ')}, by {label}"
    head = [*(["task"] if several else []), what, *(f"{int(p):,}" if p.is_integer() else as_text(p) for p in places)]
    parts = [markdown_table(head, rows, texts=2 if several else 1)]
    if options.get("table") == "no":
        parts = []
    if "figure" in options:
        parts.insert(0, f"![{curves.y_label} against {label}]({options['figure']})")
    spread_is = "mean ± standard deviation over" if max(counts) > 1 else "of"
    parts.append(f"*{curves.y_label[0].upper()}{curves.y_label[1:]}, {spread_is} {seeds}.*")
    return "\n\n".join(parts)


def figure_digest(tidy: Tidy, options: Mapping[str, str]) -> str:
    """Give a fingerprint of all that a figure shows (numbers as written, names, scale), whatever draws it."""
    drawn = json.dumps(_plain(curves_of(tidy, options).drawn()), sort_keys=True)
    return hashlib.sha256(drawn.encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def write_figure(path: Path, tidy: Tidy, options: Mapping[str, str]) -> None:
    """Draw the curves into an SVG file; a file that shows the same already is left alone.

    Raises:
        InputError: the file cannot be written.
    """
    from longstrand.report.plots import draw_curves, to_svg
    from longstrand.report.sections import Line

    digest = figure_digest(tidy, options)
    if drawn_digest(path) == digest:
        return
    drawn = curves_of(tidy, options).drawn()
    panels = {panel["title"]: [Line(name=line["name"], x=line["x"], y=line["y"], style="points", low=line["low"] or (),
                                    high=line["high"] or ()) for line in panel["series"]]
              for panel in drawn.pop("panels")}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    svg = to_svg(draw_curves(panels, **drawn), f"{drawn['y_label']} against {drawn['x_label']}", file=True)
    write_atomically(path, f"<!-- longstrand {digest} -->\n{svg}\n")


def drawn_digest(path: Path) -> str | None:
    """Read the fingerprint of the numbers that a figure was drawn from; None if there is no such figure.

    Raises:
        InputError: there is a file that is no text.
    """
    try:
        found = DIGEST.match(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as SVG ({error}).") from None
    return found.group(1) if found else None


CURVE = View(make_curve, ("x", "series", "column", "figure", "table", "log", "digits"))
