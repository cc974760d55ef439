"""Draw the pictures of a report as inline SVG: text stays text, nothing is fetched from anywhere.

Every function takes plain numbers and returns one ``<svg>`` element as a string. Colours are assigned in the order of
the names and stay apart for colour-blind readers (Okabe and Ito, 2008). No global matplotlib state is touched.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

COLOURS = ["#0b6e75", "#d9822b", "#7a5195", "#9aa3ab", "#c8485a", "#3f7fbf", "#8a9a2b", "#6b4a33"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "p"]
INK, SOFT, FAINT = "#24343c", "#5b6b73", "#dfe5e8"
BLUES = LinearSegmentedColormap.from_list("report", ["#f4f8f8", "#0b6e75"])
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "longstrand",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#9fb0b8",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": "#4b5d66",
    "ytick.color": "#4b5d66",
    "legend.frameon": False,
}


def draw_curves(
    series: Sequence[Mapping[str, Any]], *, x_label: str, y_label: str, references: Mapping[str, float]
) -> str:
    """Draw lines over a common axis, with dashed horizontal references.

    Args:
        series: each ``{"name", "x", "y"}`` with lists of equal length; ``"style": "points"`` adds markers, ``"faint"``
            pales the line, ``"dashed"`` is a thin dashed one; ``"low"``, ``"high"`` a band (bars, if more than four
            lines have one); ``"colour"`` a number of `COLOURS`; ``"scale": "log"`` of the first one makes the
            horizontal axis logarithmic.
        x_label: what the horizontal axis counts, with its unit.
        y_label: what the vertical axis measures, with its unit.
        references: name to height of the dashed lines.
    """
    many = len(series) > 4
    bands = sum(bool(line.get("low")) for line in series) <= 4
    axes = _axes(8.0 if many else 5.6, 3.8 if many else 3.4)
    for number, line in enumerate(series):
        style = line.get("style")
        colour = _colours()[line.get("colour", number)]
        marker = "o" if style == "points" or len(line["x"]) < 3 else None
        width, alpha = (1.0, 0.45) if style == "faint" else (1.3, 0.9) if style == "dashed" else (2.0, 1.0)
        dash = (0, (4, 2)) if style == "dashed" else "-"
        label = line["name"]
        axes.plot(line["x"], line["y"], color=colour, label=label, marker=marker, ms=4, lw=width, alpha=alpha, ls=dash)
        if line.get("low") and line.get("high") and bands:
            axes.fill_between(line["x"], line["low"], line["high"], color=colour, alpha=0.12, lw=0)
        elif line.get("low") and line.get("high"):
            axes.vlines(line["x"], line["low"], line["high"], color=colour, alpha=0.5, lw=1.2)
    for colour, (name, height) in zip(["#5b6b73", "#a3743c", "#7a5195"], references.items()):
        axes.axhline(height, color=colour, lw=1, ls=(0, (4, 3)))
        axes.annotate(name, (1.0, height), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", fontsize=9, color=colour)  # fmt: skip
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.margins(x=0.02)
    if series and series[0].get("scale") == "log":
        _log_places(axes, [x for line in series for x in line["x"]])
    elif all(float(x).is_integer() for line in series for x in line["x"]):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if many:
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
    elif len(series) > 1:
        axes.legend(loc="upper right" if references == {} else "best", fontsize=9)
    return _svg(axes, f"{y_label} against {x_label}")


def draw_panels(panels: Sequence[Mapping[str, Any]], *, x_label: str, y_label: str, log: bool) -> str:
    """Draw curves side by side on equal horizontal axes, one panel a task, with one legend below.

    Args:
        panels: each ``{"title", "series"}``; series as in `draw_curves` with ``low`` and ``high`` or None.
        x_label: what the horizontal axis counts.
        y_label: what the vertical axis measures.
        log: whether the horizontal axis is logarithmic.

    Returns:
        A whole SVG file on white, for pages that may be dark.
    """
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    lines = -(-len(panels) // columns)
    names = list(dict.fromkeys(line["name"] for panel in panels for line in panel["series"]))
    per_line = max(1, min(len(names), int(3.3 * columns / (0.085 * max(map(len, names)) + 0.6))))
    height = 2.7 * lines + 0.24 * -(-len(names) // per_line) + 0.3
    looks = dict(zip(names, zip(_colours(), MARKERS * 8)))
    with rc_context(STYLE):
        figure = Figure(figsize=(max(4.8, 3.3 * columns), height), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(panels):
            axes.set_visible(False)
            continue
        _dress(axes)
        for line in panels[place]["series"]:
            colour, marker = looks[line["name"]]
            axes.plot(line["x"], line["y"], color=colour, marker=marker, ms=4.5, lw=1.8, label=line["name"])
            if line.get("low"):
                axes.fill_between(line["x"], line["low"], line["high"], color=colour, alpha=0.13, lw=0)
        axes.set_title(panels[place]["title"], fontsize=10, color=INK)
        axes.margins(x=0.04)
        if log:
            _log_places(axes, [x for panel in panels for line in panel["series"] for x in line["x"]])
        below = place + columns >= len(panels)
        axes.tick_params(labelbottom=below)
        axes.set(xlabel=x_label if below else "", ylabel=y_label if place % columns == 0 else "")
    handles = {name: handle for axes in grid.flat for handle, name in zip(*axes.get_legend_handles_labels())}
    if len(names) > 1:
        figure.legend(
            [handles[name] for name in names],
            names,
            loc="outside lower center",
            ncols=per_line,
            fontsize=9,
            frameon=False,
        )
    return _svg(grid.flat[0], f"{y_label} against {x_label}", transparent=False)


def _log_places(axes: Axes, values: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic with marks at measured values, leaving out those that would touch."""
    axes.set_xscale("log")
    places: list[float] = []
    for place in sorted(set(values), reverse=True):
        if place > 0 and (not places or places[-1] / place > 1.45):
            places.append(place)
    axes.set_xticks(places, [_short(place) for place in places], minor=False)
    axes.minorticks_off()


def _short(value: float) -> str:
    """Write a count as briefly as an axis needs: 4,096; 16k; 2.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= max(size, 1e4):
            return f"{value / size:.3g}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def draw_points(points: Sequence[Mapping[str, Any]], *, x_label: str, y_label: str, colours: Mapping[str, str]) -> str:
    """Draw named points over a logarithmic horizontal axis; names keep clear of each other and of the points.

    Args:
        points: each ``{"name", "group", "x", "y"}``; points without x above zero are left out.
        x_label: what the horizontal axis measures, with its unit.
        y_label: what the vertical axis measures.
        colours: group to colour.
    """
    axes = _axes(8.0, 4.8)
    shown = [point for point in points if point["x"] and point["x"] > 0 and point["y"] is not None]
    for group in dict.fromkeys(point["group"] for point in shown):
        members = [point for point in shown if point["group"] == group]
        places = [point["x"] for point in members], [point["y"] for point in members]
        axes.scatter(*places, color=colours.get(group, INK), s=46, label=group, edgecolors="white", lw=0.8, zorder=3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value < 1e4 else _short(value))
    axes.margins(x=0.14, y=0.1)
    axes.set(xlabel=x_label, ylabel=y_label)
    if shown:
        _legend_above(axes)
        axes.get_figure().draw_without_rendering()
        _name_points(axes, shown, colours)
    return _svg(axes, f"{y_label} against {x_label}")


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=9, frameon=False, borderaxespad=0.2)


def _name_points(axes: Axes, points: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    """Write each name at the nearest free place around its point; a thin line leads to names that stand further off."""
    frame = axes.get_window_extent()
    scale = axes.get_figure().dpi / 72
    size, radius = 8.5 * scale, 5.5 * scale
    spots = [axes.transData.transform((point["x"], point["y"])) for point in points]
    taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in spots]
    for index in sorted(range(len(points)), key=lambda place: -spots[place][1]):
        x, y = spots[index]
        width, height = 0.56 * size * len(points[index]["name"]), 1.25 * size
        others = taken[:index] + taken[index + 1 :]
        best: tuple[float, tuple[float, float, float, float], str] | None = None
        for dx, dy, side in _places_around(radius, height):
            left = {"left": x + dx, "center": x + dx - width / 2, "right": x + dx - width}[side]
            box = (left, y + dy - height / 2, left + width, y + dy + height / 2)
            outside = max(0, frame.x0 - box[0]) + max(0, box[2] - frame.x1) + max(0, frame.y0 - box[1])
            outside += max(0, box[3] - frame.y1)
            cost = (dx * dx + dy * dy) ** 0.5 + 20 * outside + sum(map(_overlap(box), others))
            if best is None or cost < best[0]:
                best = (cost, box, side)
        assert best is not None
        _, box, side = best
        taken.append(box)
        anchor = ({"left": box[0], "center": (box[0] + box[2]) / 2, "right": box[2]}[side], (box[1] + box[3]) / 2)
        far = abs(anchor[0] - x) + abs(anchor[1] - y) > 3.2 * radius
        line = {"arrowstyle": "-", "color": "#9fb0b8", "lw": 0.7, "shrinkA": 1, "shrinkB": 4} if far else None
        offset = ((anchor[0] - x) / scale, (anchor[1] - y) / scale)
        look = {"color": colours.get(points[index]["group"], INK), "fontsize": 8.5, "ha": side, "va": "center"}
        spot = (points[index]["x"], points[index]["y"])
        axes.annotate(points[index]["name"], spot, offset, textcoords="offset points", arrowprops=line, **look)


def _places_around(radius: float, height: float) -> list[tuple[float, float, str]]:
    """List where a name may stand around its point: shift right, shift up, side of the name that is held."""
    near = 1.5 * radius
    places: list[tuple[float, float, str]] = [(near, 0, "left"), (-near, 0, "right")]
    places += [(0, sign * (radius + height * 0.6), "center") for sign in (1, -1)]
    for step in range(1, 9):
        for sign in (1, -1):
            places += [(near + 2 * step, sign * step * 0.55 * height, "left")]
            places += [(-near - 2 * step, sign * step * 0.55 * height, "right")]
            places += [(near + 12 * step, sign * step * 0.55 * height, "left")]
    return places


def _overlap(box: tuple[float, float, float, float]) -> Callable[[tuple[float, float, float, float]], float]:
    """Give a function for the price of covering another box: by area, and something for touching at all."""

    def price(other: tuple[float, float, float, float]) -> float:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        return 200 + width * height if width > 0 and height > 0 else 0.0

    return price


def draw_forest(
    rows: Sequence[Mapping[str, Any]],
    *,
    x_label: str,
    colours: Mapping[str, str],
    legend: Mapping[str, str] | None = None,
) -> str:
    """Draw one dot with its interval per row, and the single seeds as small rings.

    Args:
        rows: each ``{"model", "value", "low", "high", "seeds"}``; ``low``, ``high`` and ``seeds`` may be None.
        x_label: name of the metric.
        colours: model name to colour.
        legend: what the colours mean, if several models share one.
    """
    many = len(rows) > 6
    axes = _axes(7.2 if many else 5.6, 0.9 + (0.34 if many else 0.5) * len(rows) + (0.3 if legend else 0))
    for height, row in enumerate(reversed(rows)):
        colour = colours.get(row["model"], INK)
        if row.get("low") is not None and row.get("high") is not None:
            axes.plot(
                [row["low"], row["high"]], [height, height], color=colour, lw=3, solid_capstyle="round", alpha=0.45
            )
        seeds = row.get("seeds") or []
        if len(seeds) > 1:
            axes.plot(seeds, [height - 0.28] * len(seeds), "o", mfc="none", mec=colour, ms=4 if many else 5, mew=1)
        axes.plot([row["value"]], [height], "o", color=colour, ms=7.5 if many else 9)
    axes.set_yticks(range(len(rows)), [row["model"] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(x_label)
    if x_label == "mean rank":
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(left=0.5)
    elif min(row["value"] for row in rows) <= 0 < max(row["value"] for row in rows):
        axes.axvline(0, color="#9fb0b8", lw=1, zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    if legend:
        for name, colour in legend.items():
            axes.plot([], [], "o", color=colour, label=name, ms=7)
        _legend_above(axes)
    return _svg(axes, f"{x_label} of each model with its interval")


def draw_confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Draw a confusion matrix; rows are the truth, columns the prediction, shading is the share of the row."""
    size = max(2.7, 0.75 * len(classes) + 1.2)
    axes = _axes(size + 0.7, size)
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.pcolormesh(shares, cmap=BLUES, vmin=0, vmax=1)
    axes.invert_yaxis()
    for row, line in enumerate(counts):
        for column, count in enumerate(line):
            colour = "white" if shares[row][column] > 0.55 else INK
            label = f"{count:,}\n{100 * shares[row][column]:.0f} %"
            axes.text(column + 0.5, row + 0.5, label, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks([place + 0.5 for place in range(len(classes))], classes, rotation=30 if len(classes) > 4 else 0)
    axes.set_yticks([place + 0.5 for place in range(len(classes))], classes)
    axes.set(xlabel="predicted", ylabel="true")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    return _svg(axes, "Confusion matrix")


def draw_roc(series: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    """Draw receiver operating characteristics; each series has ``name``, ``fpr``, ``tpr``, ``roc_auc``."""
    axes = _axes(3.9, 3.6)
    axes.plot([0, 1], [0, 1], color="#9fb0b8", lw=1, ls=(0, (4, 3)))
    for line in series:
        label = f"{line['name']} ({line['roc_auc']:.3f})"
        axes.plot(line["fpr"], line["tpr"], color=colours.get(line["name"], INK), lw=2, label=label)
    axes.set(
        xlabel="share of negatives called positive",
        ylabel="share of positives found",
        xlim=(-0.01, 1.01),
        ylim=(0, 1.01),
    )
    axes.legend(loc="lower right", fontsize=8.5, title="area under the curve", title_fontsize=8.5)
    return _svg(axes, "Receiver operating characteristic")


def draw_precision_recall(series: Sequence[Mapping[str, Any]], colours: Mapping[str, str], *, prevalence: float) -> str:
    """Draw precision against recall; the dashed line is what guessing reaches (the share of positives)."""
    axes = _axes(3.9, 3.6)
    axes.axhline(prevalence, color="#9fb0b8", lw=1, ls=(0, (4, 3)))
    for line in series:
        label = f"{line['name']} ({line['average_precision']:.3f})"
        axes.plot(line["recall"], line["precision"], color=colours.get(line["name"], INK), lw=2, label=label)
    axes.set(
        xlabel="share of positives found", ylabel="share of calls that are right", xlim=(-0.01, 1.01), ylim=(0, 1.01)
    )
    axes.legend(loc="lower left", fontsize=8.5, title="average precision", title_fontsize=8.5)
    return _svg(axes, "Precision and recall")


def draw_histogram(
    values: Sequence[float], counts: Sequence[float], *, x_label: str, y_label: str, mean: float | None
) -> str:
    """Draw bars at ``values`` with heights ``counts``; a dashed line marks the mean."""
    axes = _axes(5.6, 2.9)
    axes.bar(values, counts, width=0.85, color=COLOURS[0])
    if mean is not None:
        axes.axvline(mean, color=COLOURS[1], lw=1.5, ls=(0, (4, 3)))
        axes.annotate(f"mean {mean:.2f}", (mean, 0.98), (4, 0), xycoords=("data", "axes fraction"),
                      textcoords="offset points", va="top", fontsize=9, color=COLOURS[1])  # fmt: skip
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _svg(axes, f"{y_label} by {x_label}")


def model_colours(names: Sequence[str]) -> dict[str, str]:
    """Give every model one colour, the same in all pictures of a report."""
    return dict(zip(dict.fromkeys(names), _colours()))


def _colours() -> list[str]:
    return COLOURS * 8


class Canvas(Figure):
    """A figure that notebooks show by itself, without any global state of pyplot."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png", dpi=130)
        return target.getvalue()


def _axes(width: float, height: float) -> Axes:
    with rc_context(STYLE):
        axes = Canvas(figsize=(width, height), layout="constrained").add_subplot()
        _dress(axes)
    return axes


def _dress(axes: Axes) -> None:
    axes.grid(color=FAINT, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _svg(axes: Axes, description: str, *, transparent: bool = True) -> str:
    """Turn a figure into one element that scales with its container and is read out by screen readers."""
    target = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": description}):
        axes.get_figure().savefig(
            target, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None}
        )
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.]+)", text))
    text = re.sub(r' id="([\w.]+)"', lambda match: match.group() if match.group(1) in used else "", text)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()  # type: ignore[union-attr]
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(description, quote=True)}" '
    size = f'style="width:100%;max-width:{float(width) * 1.25:.0f}px;height:auto"'
    if not transparent:  # a file that pages show as an image needs a size of its own
        size = f'width="{float(width) * 1.25:.0f}" height="{float(height) * 1.25:.0f}"'
    head += f'{size} xmlns="http://www.w3.org/2000/svg" '
    return re.sub(r"<svg[^>]*>", head + 'xmlns:xlink="http://www.w3.org/1999/xlink">', text, count=1)
