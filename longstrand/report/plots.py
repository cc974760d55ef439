"""Draw the pictures of a report with matplotlib, as inline SVG: text stays text, nothing is fetched from anywhere.

Every function takes plain numbers and returns one figure; `to_svg` turns it into an element of a page. Colours stay
apart for colour-blind readers (Okabe and Ito, 2008). No global matplotlib state is touched.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from longstrand.report.sections import Line, MetricRow

COLOURS = ["#0b6e75", "#d9822b", "#7a5195", "#9aa3ab", "#c8485a", "#3f7fbf", "#8a9a2b", "#6b4a33"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "p"]
INK, SOFT, FAINT = "#24343c", "#5b6b73", "#dfe5e8"
DASHES = (0, (4, 3))
STYLE = rc_params_from_file(Path(__file__).with_name("longstrand.mplstyle"), use_default_template=False)


class Canvas(Figure):
    """A figure that notebooks show by itself, without the global state of pyplot."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png", dpi=130)
        return target.getvalue()


def draw_curves(
    panels: Mapping[str, Sequence[Line]],
    *,
    x_label: str,
    y_label: str,
    log: bool = False,
    references: Mapping[str, float] | None = None,
) -> Canvas:
    """Draw lines over a common horizontal axis, in one panel or several side by side, with one legend.

    Args:
        panels: title of a panel to its lines; a line has the same colour in all of them.
        x_label: what the horizontal axis counts, with its unit.
        y_label: what the vertical axis measures, with its unit.
        log: whether the horizontal axis is logarithmic.
        references: name to height of dashed horizontal lines.
    """
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    count = -(-len(panels) // columns)
    names = list(dict.fromkeys(line.name for lines in panels.values() for line in lines))
    colours = colours_of(names)
    colours |= {
        line.name: COLOURS[line.colour] for lines in panels.values() for line in lines if line.colour is not None
    }
    size = (3.3 * columns, 2.7 * count) if len(panels) > 1 else (6.4, 3.4)
    below = max(1, min(len(names), int(size[0] / (0.085 * max(map(len, names), default=1) + 0.6))))
    with rc_context(STYLE):
        figure = Canvas(figsize=(size[0], size[1] + 0.24 * -(-len(names) // below)), layout="constrained")
        grid = list(figure.subplots(count, columns, squeeze=False, sharex=True).flat)
        for place, (axes, (title, lines)) in enumerate(zip(grid, panels.items())):
            for line in lines:
                _draw_line(axes, line, colours[line.name], MARKERS[names.index(line.name) % len(MARKERS)])
            for colour, (name, height) in zip([SOFT, "#a3743c", "#7a5195"], (references or {}).items()):
                axes.axhline(height, color=colour, lw=1, ls=DASHES, label=name)
            axes.set_title(title)
            axes.margins(x=0.03)
            axes.set(
                xlabel=x_label if place + columns >= len(panels) else "", ylabel="" if place % columns else y_label
            )
            places = [x for lines in panels.values() for line in lines for x in line.x]
            if log:
                _log_ticks(axes, places)
            elif all(float(x).is_integer() for x in places):
                axes.xaxis.get_major_locator().set_params(integer=True)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        handles = {name: handle for axes in grid for handle, name in zip(*axes.get_legend_handles_labels())}
        if len(handles) > 1:
            figure.legend(handles.values(), handles, loc="outside lower center", ncols=below)
    return figure


def _draw_line(axes: Axes, line: Line, colour: str, marker: str) -> None:
    if line.style == "dots":
        axes.plot(line.x, line.y, color=colour, label=line.name, marker=marker, ms=3.5, lw=0, alpha=0.6)
        return
    width, alpha = {"faint": (1.0, 0.45), "dashed": (1.3, 0.9)}.get(line.style, (1.9, 1.0))
    shown = marker if line.style == "points" or len(line.x) < 3 else None
    dash = DASHES if line.style == "dashed" else "-"
    axes.plot(line.x, line.y, color=colour, label=line.name, marker=shown, ms=4.5, lw=width, alpha=alpha, ls=dash)
    if line.low:
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.13, lw=0)


def _log_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic with ticks at measured values, leaving out those that would touch."""
    ticks: list[float] = []
    for value in sorted(set(values), reverse=True):
        if value > 0 and (not ticks or ticks[-1] / value > 1.45):
            ticks.append(value)
    axes.set_xscale("log")
    axes.set_xticks(ticks, [_short(tick) for tick in ticks], minor=False)
    axes.minorticks_off()


def _short(value: float) -> str:
    """Write a count as briefly as an axis needs: 4,096; 16k; 2.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= max(size, 1e4):
            return f"{value / size:.3g}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def draw_forest(
    rows: Sequence[MetricRow], *, x_label: str, colours: Mapping[str, str], legend: Mapping[str, str]
) -> Canvas:
    """Draw a dot with its interval for each row, and the single seeds as small rings.

    Args:
        rows: from top to bottom; all have a value.
        x_label: name of the metric.
        colours: model name to colour.
        legend: what the colours mean, if several models share one; may be empty.
    """
    with rc_context({**STYLE, "axes.spines.left": False}):
        height = 0.9 + (0.34 if len(rows) > 6 else 0.5) * len(rows) + (0.3 if legend else 0)
        figure = Canvas(figsize=(6.4, height), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(reversed(rows)):
            colour = colours[row.model]
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=colour, lw=3, solid_capstyle="round", alpha=0.45)
            if len(row.seeds) > 1:
                axes.plot(row.seeds, [place - 0.28] * len(row.seeds), "o", mfc="none", mec=colour, ms=4)
            axes.plot([row.value], [place], "o", color=colour, ms=7.5)
        axes.set_yticks(range(len(rows)), [row.model for row in reversed(rows)])
        axes.set(xlabel=x_label, ylim=(-0.6, len(rows) - 0.4))
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(axis="y", visible=False)
        if legend:
            handles = [axes.plot([], [], "o", color=colour, ms=7)[0] for colour in legend.values()]
            figure.legend(handles, legend, loc="outside upper left", ncols=4)
    return figure


def draw_boxes(boxes: Mapping[str, Sequence[float]], *, y_label: str) -> Canvas:
    """Draw a box for each name from five numbers: low end, quartile, median, quartile, high end."""
    with rc_context(STYLE):
        figure = Canvas(figsize=(1.6 + 1.3 * len(boxes), 3.2), layout="constrained")
        axes = figure.add_subplot()
        keys = ("whislo", "q1", "med", "q3", "whishi")
        drawn = axes.bxp(
            [dict(zip(keys, map(float, five))) | {"label": name} for name, five in boxes.items()],
            showfliers=False, patch_artist=True, widths=0.55, medianprops={"color": INK, "lw": 1.6},
        )  # fmt: skip
        for patch, colour in zip(drawn["boxes"], COLOURS * len(boxes)):
            patch.set(facecolor=colour, alpha=0.55, edgecolor=INK)
        axes.set_ylabel(y_label)
        axes.grid(axis="x", visible=False)
        axes.tick_params(axis="x", labelcolor=INK)
    return figure


def draw_ranking(models: Mapping[str, Mapping[str, Any]], prevalence: float) -> Canvas:
    """Draw the ROC curves (left) and the precision-recall curves (right); dashed lines are what guessing reaches."""
    with rc_context(STYLE):
        figure = Canvas(figsize=(8.4, 3.6 + 0.22 * len(models)), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=SOFT, lw=1, ls=DASHES)
        right.axhline(prevalence, color=SOFT, lw=1, ls=DASHES)
        for (name, each), colour in zip(models.items(), COLOURS * len(models)):
            label = f"{name}: area {each['roc_auc']:.3f}, average precision {each['average_precision']:.3f}"
            left.plot(each["fpr"], each["tpr"], color=colour, lw=2, label=label)
            right.plot(each["recall"], each["precision"], color=colour, lw=2)
        left.set(xlabel="share of negatives called positive", ylabel="share of positives found", title="ROC")
        right.set(
            xlabel="share of positives found", ylabel="share of calls that are right", title="Precision and recall"
        )
        for axes in (left, right):
            axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.01))
        figure.legend(loc="outside lower center", fontsize=8.5)  # never over the curves
    return figure


def colours_of(names: Sequence[str]) -> dict[str, str]:
    """Give every name one colour, in the order of first mention."""
    return dict(zip(dict.fromkeys(names), COLOURS * (len(names) // len(COLOURS) + 1)))


def to_svg(figure: Figure, description: str, *, file: bool = False) -> str:
    """Turn a figure into one SVG element that screen readers read out; the same figure gives the same text.

    Args:
        figure: of one of the functions above, or of `longstrand.report.locus.plot`.
        description: what a reader who does not see the picture is told.
        file: True: a whole file on white with a size of its own. False: an element that scales with its page and takes
            the colours of its text from the page (light or dark).
    """
    target = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": description}):
        figure.savefig(target, format="svg", transparent=not file, metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r"#([\w.]+)", text))
    text = re.sub(r' id="([\w.]+)"', lambda match: match.group() if match.group(1) in used else "", text)
    width, height = (72 * float(inches) for inches in figure.get_size_inches())
    size = f'style="width:100%;max-width:{width * 1.4:.0f}px;height:auto"'
    if file:
        size = f'width="{width * 1.25:.0f}" height="{height * 1.25:.0f}"'
    else:
        for colour, name in ((INK, "ink"), (SOFT, "soft"), (FAINT, "line"), (COLOURS[0], "accent")):
            text = text.replace(f": {colour}", f": var(--{name}, {colour})")
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    attributes = f'role="img" aria-label="{html.escape(description, quote=True)}"'
    head = f'<svg viewBox="0 0 {width:g} {height:g}" {attributes} {size} {spaces}>'
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1)
