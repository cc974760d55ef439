"""Draw a region of a genome with matplotlib: ruler, signals, letters, tokens, genes, marked intervals.

`plot` puts components under each other on one horizontal axis. A component is a small frozen dataclass of plain values.
On that axis base ``i`` (counted from 0) covers ``i`` to ``i + 1``; printed positions count from 1, and the axis always
runs along the ``+`` strand. Values that cover more than `MAX_BINS` bases are drawn by bins of equal length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection, PathCollection
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Arc, Rectangle
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator

from longstrand.genome.annotation import Transcript, transcripts
from longstrand.genome.features import Feature
from longstrand.genome.intervals import Interval, parse_region
from longstrand.report.plots import COLOURS, FAINT, INK, SOFT, STYLE, Canvas
from longstrand.report.sections import Section

FloatArray = npt.NDArray[np.float64]
MAX_BINS = 1200
"""Points that a drawn line has; longer values are averaged in bins."""
MAX_LETTERS = 240
"""Bases whose letters are still legible; longer logos are drawn as bars, longer sequences not at all."""
MAX_TOKENS = 400
MAX_ROWS = 8
"""Rows of transcripts; more are drawn as one row a strand."""
BASES = "ACGT"
BASE_COLOURS = {"A": "#2e8b57", "C": "#3f7fbf", "G": "#d9822b", "T": "#c8485a"}


class Component:
    """One row of the picture: a name at its left, a height, and how it is drawn."""

    name: str
    inches: ClassVar[float]

    def height(self, region: Interval) -> float:
        """Return the height in inches."""
        return self.inches

    def draw(self, axes: Axes, region: Interval) -> None:
        """Draw into axes whose horizontal limits are already those of the region."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Ruler(Component):
    """Positions of the region, counted from 1, and its letters where they are legible.

    Attributes:
        sequence: letters of the whole region (one a base), or empty.
        name: text at the left.
    """

    sequence: str = ""
    name: str = ""

    def height(self, region: Interval) -> float:
        """Return the height in inches."""
        return 0.42 if self._legible(region) else 0.22

    def _legible(self, region: Interval) -> bool:
        return bool(self.sequence) and region.length <= MAX_LETTERS

    def draw(self, axes: Axes, region: Interval) -> None:
        """Draw the axis at the top, and the letters under it.

        Raises:
            ValueError: the sequence is not as long as the region.
        """
        if self.sequence and len(self.sequence) != region.length:
            raise ValueError(f"the ruler has {len(self.sequence):,} letters, the region {region.length:,} bases.")
        found = MaxNLocator(nbins=7, integer=True).tick_values(region.start + 1, region.end)
        ticks = [int(tick) for tick in found if region.start < tick <= region.end]
        axes.xaxis.set_visible(True)
        axes.xaxis.tick_top()
        axes.set_xticks([tick - 0.5 for tick in ticks], [f"{tick:,}" for tick in ticks], fontsize=8)
        axes.spines["top"].set_visible(True)
        axes.set_ylim(0, 1)
        if self._legible(region):
            known = np.array([[0.8 * (letter == base) for base in BASES] for letter in self.sequence.upper()])
            _draw_letters(axes, known.reshape(-1, 4), region.start)


@dataclass(frozen=True, eq=False)
class Track(Component):
    """Numbers along the genome.

    Attributes:
        values: ``(n,)``, or ``(n, k)`` for k signals; NaN leaves a gap.
        name: text at the left, with the unit.
        kind: ``line``, ``fill`` (down to 0) or ``heat`` (one coloured row a signal).
        labels: names of the k signals.
        start: first base of the values (0-based); None: that of the region.
        bin_size: bases that one value covers.
        limits: lowest and highest value shown; None: those of the values in the region (and 0 for ``fill``).
    """

    values: npt.ArrayLike
    name: str = ""
    kind: Literal["line", "fill", "heat"] = "line"
    labels: Sequence[str] = ()
    start: int | None = None
    bin_size: int = 1
    limits: tuple[float, float] | None = None

    def height(self, region: Interval) -> float:
        """Return the height in inches."""
        return max(0.3, 0.16 * _columns(self.values).shape[1]) if self.kind == "heat" else 0.8

    def draw(self, axes: Axes, region: Interval) -> None:
        """Draw the part of the values that lies in the region.

        Raises:
            ValueError: the values have no or more than two dimensions, or there is not one label a signal.
        """
        values = _columns(self.values)
        if self.labels and len(self.labels) != values.shape[1]:
            raise ValueError(f"'{self.name}' has {values.shape[1]} signals but {len(self.labels)} labels.")
        edges, mean, low, high = _in_region(values, self.start, self.bin_size, region)
        if self.kind == "heat":
            _draw_heat(axes, edges, mean, self.limits, self.labels)
            return
        for number in range(values.shape[1]):
            colour = COLOURS[number % len(COLOURS)]
            label = self.labels[number] if self.labels else None
            if self.kind == "fill":
                top, bottom = np.maximum(high[:, number], 0), np.minimum(low[:, number], 0)
                axes.stairs(top, edges, baseline=bottom, fill=True, color=colour, alpha=0.75, label=label)
                continue
            if not np.array_equal(low, high):
                axes.stairs(high[:, number], edges, baseline=low[:, number], fill=True, color=colour, alpha=0.25)
            axes.plot((edges[:-1] + edges[1:]) / 2, mean[:, number], color=colour, lw=1.3, label=label)
        if self.kind == "fill":
            axes.axhline(0, color=SOFT, lw=0.6)
        if self.limits:
            axes.set_ylim(*self.limits)
        _values_axis(axes)
        if self.labels:
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, handlelength=1.2)


@dataclass(frozen=True, eq=False)
class Logo(Component):
    """Letters as tall as their values: what a model expects at each base, or how much each base matters.

    Attributes:
        values: ``(n, 4)`` in the order A, C, G, T; or ``(n,)``, heights of the letters of ``sequence``.
        name: text at the left.
        kind: ``information``: rows are probabilities, a stack is as tall as their information (0 to 2 bits);
            ``height``: the values are the heights. Negative letters hang below 0, upside down.
        sequence: n letters for values ``(n,)``; a letter other than A, C, G, T is left out.
        start: first base of the values (0-based); None: that of the region.
    """

    values: npt.ArrayLike
    name: str = ""
    kind: Literal["information", "height"] = "information"
    sequence: str = ""
    start: int | None = None
    inches: ClassVar[float] = 0.9

    def heights(self) -> FloatArray:
        """Compute the height of every letter, ``(n, 4)``.

        Raises:
            ValueError: the values have another shape, or are no probabilities where probabilities are asked for.
        """
        values = np.asarray(self.values, dtype=np.float64)
        if values.ndim == 1 and len(self.sequence) == len(values):
            letters = np.array([[letter == base for base in BASES] for letter in self.sequence.upper()]).reshape(-1, 4)
            return values[:, None] * letters
        if values.ndim != 2 or values.shape[1] != 4:
            raise ValueError(f"a logo needs values (n, 4), or (n,) and n letters; got {values.shape}.")
        if self.kind == "height":
            return values
        if (values < 0).any() or (np.abs(values.sum(axis=1) - 1) > 1e-3).any():
            raise ValueError("rows of a logo of the kind 'information' are probabilities; use kind='height'.")
        bits = 2 + (values * np.log2(np.where(values > 0, values, 1.0))).sum(axis=1)
        return values * bits[:, None]

    def draw(self, axes: Axes, region: Interval) -> None:
        """Draw letters; over more than `MAX_LETTERS` bases, bars from the lowest to the highest stack of each bin."""
        heights = self.heights()
        first = region.start if self.start is None else self.start
        left, right = max(0, region.start - first), min(len(heights), region.end - first)
        if region.length > MAX_LETTERS:
            stacks = np.stack([heights.clip(min=0).sum(axis=1), heights.clip(max=0).sum(axis=1)], axis=1)
            edges, _, low, high = _in_region(stacks, first, 1, region)
            axes.stairs(high[:, 0], edges, baseline=low[:, 1], fill=True, color=COLOURS[0])
        else:
            _draw_letters(axes, heights[left : max(left, right)], first + left)
        axes.axhline(0, color=SOFT, lw=0.6)
        _values_axis(axes)
        if self.kind == "information":
            axes.set_ylim(0, 2)
            axes.set_yticks([0, 1, 2])


@dataclass(frozen=True, eq=False)
class Tokens(Component):
    """How a tokenizer cuts the region: one box a token.

    Attributes:
        offsets: ``(n, 2)``, first base of each token and one past its last, as in ``Encoding.offsets``; tokens that
            cover no base (``[CLS]``) are left out.
        name: text at the left.
        start: what is added to the offsets (0-based); None: the start of the region.
    """

    offsets: npt.ArrayLike
    name: str = "tokens"
    start: int | None = None

    def height(self, region: Interval) -> float:
        """Return the height in inches."""
        return 0.3 if len(self._boxes(region)) <= MAX_TOKENS else 0.6

    def _boxes(self, region: Interval) -> npt.NDArray[np.int64]:
        boxes = np.asarray(self.offsets, dtype=np.int64).reshape(-1, 2)
        boxes = boxes[boxes[:, 1] > boxes[:, 0]] + (region.start if self.start is None else self.start)
        return boxes[(boxes[:, 1] > region.start) & (boxes[:, 0] < region.end)]

    def draw(self, axes: Axes, region: Interval) -> None:
        """Draw boxes (overlapping k-mers in rows); more than `MAX_TOKENS` are drawn as bases per token."""
        boxes = self._boxes(region)
        if len(boxes) > MAX_TOKENS:
            bins = np.linspace(region.start, region.end, min(MAX_BINS, region.length) // 4 + 1)
            count, _ = np.histogram(boxes[:, 0], bins)
            total, _ = np.histogram(boxes[:, 0], bins, weights=boxes[:, 1] - boxes[:, 0])
            axes.stairs(total / np.maximum(count, 1), bins, fill=True, color=COLOURS[2], alpha=0.7)
            axes.text(1.01, 0.5, "bases\nper token", transform=axes.transAxes, va="center", fontsize=7, color=SOFT)
            _values_axis(axes)
            return
        rows = pack_rows([(int(left), int(right)) for left, right in boxes])
        patches = [Rectangle((left, -row - 0.9), right - left, 0.8) for (left, right), row in zip(boxes, rows)]
        shade = [COLOURS[2] if number % 2 else COLOURS[3] for number in range(len(patches))]
        axes.add_collection(PatchCollection(patches, facecolor=shade, edgecolor="white", lw=0.6, alpha=0.6))
        axes.set_ylim(-max(rows, default=0) - 1, 0)


@dataclass(frozen=True, eq=False)
class Genes(Component):
    """Transcripts: introns as lines with arrows along the strand, exons as boxes, coding exons (CDS) as tall boxes.

    Attributes:
        features: of `longstrand.genome.annotation.read_annotation`; those outside the region are left out.
        name: text at the left.
    """

    features: Sequence[Feature]
    name: str = "genes"

    def height(self, region: Interval) -> float:
        """Return the height in inches."""
        return 0.32 * max(1, len({row for _, row, _ in self.layout(region)}))

    def layout(self, region: Interval) -> list[tuple[Transcript, int, list[tuple[int, int]]]]:
        """Put the transcripts that overlap the region into rows.

        Returns:
            Transcript, its row (0 is the top), and its coding stretches. Up to `MAX_ROWS` rows keep the transcripts
            and their names apart; beyond that, row 0 has those of ``+`` and row 1 those of ``-``.
        """
        features = [item for item in self.features if item.chrom == region.chrom]
        coding: dict[str, list[tuple[int, int]]] = {}
        for item in features:
            if item.kind == "CDS":
                coding.setdefault(item.parent, []).append((item.start, item.end))
        found = [item for item in transcripts(features) if item.start < region.end and item.end > region.start]
        letter = region.length * 0.011  # bases that one letter of a name covers in a picture of the usual width
        spans = [
            (item.start, max(item.end, item.start + int(letter * (len(item.gene or item.name) + 1)))) for item in found
        ]
        rows = pack_rows(spans)
        if max(rows, default=0) >= MAX_ROWS:
            rows = [int(item.strand == "-") for item in found]
        return [(item, row, coding.get(item.name, [])) for item, row in zip(found, rows)]

    def draw(self, axes: Axes, region: Interval) -> None:
        """Draw the transcripts that overlap the region."""
        placed = self.layout(region)
        rows = max((row for _, row, _ in placed), default=0) + 1
        named = len(placed) <= 40
        step = region.length / 40
        for item, row, coding in placed:
            middle, colour = -row - 0.35, COLOURS[0] if item.strand == "+" else COLOURS[4]
            left, right = max(item.start, region.start), min(item.end, region.end)
            axes.plot([left, right], [middle, middle], color=colour, lw=0.8, zorder=1)
            arrows = np.arange(left + step / 2, right - step / 2, step)
            axes.plot(
                arrows, np.full(len(arrows), middle), ">" if item.strand == "+" else "<", color=colour, ms=3, lw=0
            )
            boxes = [Rectangle((start, middle - 0.1), end - start, 0.2) for start, end in item.exons]
            boxes += [Rectangle((start, middle - 0.2), end - start, 0.4) for start, end in coding]
            axes.add_collection(PatchCollection(boxes, facecolor=colour, edgecolor="none", zorder=2))
            if named:
                axes.text(left, middle - 0.2, (item.gene or item.name), fontsize=7, va="top", color=INK, clip_on=True)
        if not placed:
            axes.text(0.5, 0.5, "no gene here", transform=axes.transAxes, ha="center", va="center", color=SOFT)
        axes.set_ylim(-rows, 0)


@dataclass(frozen=True, eq=False)
class Marks(Component):
    """Intervals to point at: boxes in a row of their own, shaded through all rows.

    Attributes:
        intervals: 0-based half-open; those outside the region are left out.
        labels: one text an interval, or empty.
        name: text at the left.
    """

    intervals: Sequence[Interval]
    labels: Sequence[str] = ()
    name: str = ""
    inches: ClassVar[float] = 0.26

    def draw(self, axes: Axes, region: Interval) -> None:
        """Draw the boxes and their labels.

        Raises:
            ValueError: there is not one label an interval.
        """
        if self.labels and len(self.labels) != len(self.intervals):
            raise ValueError(f"{len(self.intervals)} marks have {len(self.labels)} labels.")
        axes.set_ylim(0, 1)
        for number, item in enumerate(self.intervals):
            if not region.overlaps(item):
                continue
            axes.add_patch(Rectangle((item.start, 0.05), item.length, 0.2, facecolor=COLOURS[1], edgecolor="none"))
            if self.labels:
                middle = (max(item.start, region.start) + min(item.end, region.end)) / 2
                axes.text(middle, 0.35, self.labels[number], ha="center", fontsize=8, color=INK)

    def shade(self, axes: Axes, region: Interval) -> None:
        """Shade the intervals in another row."""
        for item in self.intervals:
            if region.overlaps(item):
                axes.axvspan(item.start, item.end, facecolor=COLOURS[1], alpha=0.13, lw=0, zorder=0)


@dataclass(frozen=True, eq=False)
class Arcs(Component):
    """Pairs of places that belong together, as half circles; the strongest are the darkest.

    Attributes:
        pairs: ``(n, 2)`` bases (0-based); pairs that leave the region are left out.
        weights: ``(n,)``, above 0.
        name: text at the left.
    """

    pairs: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    name: str = ""
    inches: ClassVar[float] = 1.1

    def draw(self, axes: Axes, region: Interval) -> None:
        """Draw the arcs."""
        inside = ((self.pairs >= region.start) & (self.pairs < region.end)).all(axis=1)
        pairs, weights = self.pairs[inside], self.weights[inside]
        wide = np.abs(np.diff(pairs, axis=1))[:, 0]
        axes.set_ylim(0, 1.05)
        for (one, other), size, weight in zip(pairs.tolist(), wide.tolist(), weights.tolist()):
            high, strength = 2 * (0.15 + 0.85 * size / wide.max()), weight / weights.max()
            shape = Arc(((one + other) / 2, 0), size, high, theta2=180, color=COLOURS[0], alpha=strength, lw=0.9)
            axes.add_patch(shape)


def plot(components: Sequence[Component], region: Interval | str, *, width: float = 9.0, title: str = "") -> Canvas:
    """Draw components under each other along a region.

    Args:
        components: `Ruler`, `Track`, `Logo`, `Tokens`, `Genes`, `Marks`, `Arcs`, from top to bottom. A ruler is put on
            top if there is none.
        region: an `Interval` (0-based half-open) or text such as ``"chr1:1,001-2,000"`` (counted from 1, both ends
            included). For a sequence that lies on no genome: ``Interval("sequence", 0, len(sequence))``.
        width: of the picture, in inches.
        title: above the picture; empty: the region and its length.

    Returns:
        A matplotlib figure, which notebooks show and ``savefig`` writes.

    Raises:
        InputError: the text is no region.
        ValueError: the region is empty, or a component has values of a wrong shape.
    """
    region = parse_region(region) if isinstance(region, str) else region
    if region.length == 0:
        raise ValueError(f"the region {region.chrom}:{region.start} has no base.")
    rows: list[Component] = list(components)
    if not any(isinstance(item, Ruler) for item in rows):
        rows.insert(0, Ruler())
    heights = [item.height(region) for item in rows]
    marks = [item for item in rows if isinstance(item, Marks)]
    with rc_context({**STYLE, "axes.grid": False}):
        figure = Canvas(figsize=(width, sum(heights) + 0.08 * len(rows) + 0.35), layout="constrained")
        grid = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
        for item, axes in zip(rows, grid[:, 0]):
            _draw_row(item, axes, region, [mark for mark in marks if mark is not item])
        figure.suptitle(title or f"{region} · {region.length:,} bases", fontsize=10, x=0.01, ha="left")
    return figure


def _draw_row(item: Component, axes: Axes, region: Interval, marks: Sequence[Marks]) -> None:
    axes.set_xlim(region.start, region.end)
    axes.xaxis.set_visible(False)
    axes.yaxis.set_ticks([])
    axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
    item.draw(axes, region)
    axes.set_ylabel(item.name, rotation=0, ha="right", va="center", fontsize=9)
    for mark in marks:
        mark.shade(axes, region)


@dataclass(frozen=True)
class Locus(Section):
    """The section of a report that shows a picture of a region, drawn by `plot`."""

    components: Sequence[Component]
    region: Interval | str


def pack_rows(spans: Sequence[tuple[int, int]]) -> list[int]:
    """Give each span (start, end) the first row in which it overlaps no other; spans are taken in order."""
    ends: list[int] = []
    rows = []
    for start, end in spans:
        row = next((number for number, last in enumerate(ends) if last <= start), len(ends))
        if row == len(ends):
            ends.append(end)
        ends[row] = end
        rows.append(row)
    return rows


def marked(bases: npt.NDArray[np.bool_], region: Interval) -> list[Interval]:
    """List the stretches of a region whose bases ``(region.length,)`` are True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bases.astype(np.int8), [0]]))).reshape(-1, 2)
    return [Interval(region.chrom, region.start + int(a), region.start + int(b)) for a, b in edges]


def _columns(values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (1, 2):
        raise ValueError(f"a track needs values (n,) or (n, k), got {array.shape}.")
    return array.reshape(len(array), -1) if array.size else array.reshape(0, 1)


def _in_region(
    values: FloatArray, start: int | None, size: int, region: Interval
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Cut ``(n, k)`` values to the region and average them in bins.

    Returns:
        Edges of the bins ``(b + 1,)`` and their mean, lowest and highest value, each ``(b, k)``.
    """
    first = region.start if start is None else start
    left = max(0, (region.start - first) // size)
    kept = values[left : max(left, -(-(region.end - first) // size))]
    join = -(-len(kept) // MAX_BINS) or 1
    edges = first + size * (left + np.minimum(np.arange(-(-len(kept) // join) + 1) * join, len(kept)))
    if join == 1:
        return edges.astype(np.float64), kept, kept, kept
    padded = np.full((join * (len(edges) - 1), kept.shape[1]), np.nan)
    padded[: len(kept)] = kept
    blocks = padded.reshape(-1, join, kept.shape[1])
    known = ~np.isnan(blocks)
    some = known.any(axis=1)
    mean = np.where(known, blocks, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    low, high = np.where(known, blocks, np.inf).min(axis=1), np.where(known, blocks, -np.inf).max(axis=1)
    return edges.astype(np.float64), *(np.where(some, part, np.nan) for part in (mean, low, high))


def _draw_heat(
    axes: Axes, edges: FloatArray, values: FloatArray, limits: tuple[float, float] | None, labels: Sequence[str]
) -> None:
    low, high = limits or (None, None)
    axes.pcolormesh(edges, np.arange(values.shape[1] + 1), values.T, cmap="viridis", vmin=low, vmax=high)
    axes.invert_yaxis()
    if labels:
        axes.set_yticks(np.arange(len(labels)) + 0.5, labels, fontsize=7)
        axes.tick_params(axis="y", length=0)


def _draw_letters(axes: Axes, heights: FloatArray, start: int) -> None:
    """Draw a stack of letters at each base: positive ones upwards with the largest on top, negative ones downwards."""
    shapes: dict[str, list[Path]] = {base: [] for base in BASES}
    for place, column in enumerate(np.nan_to_num(heights)):
        top = bottom = 0.0
        for number in np.argsort(np.abs(column), kind="stable"):
            size = column[number]
            if abs(size) < 1e-9:
                continue
            foot = top if size > 0 else bottom
            vertices = letter_shape(BASES[number]).vertices * (0.94, size) + (start + place + 0.03, foot)
            shapes[BASES[number]].append(Path(vertices, letter_shape(BASES[number]).codes))
            if size > 0:
                top += size
            else:
                bottom += size
    for base, paths in shapes.items():
        if paths:
            axes.add_collection(PathCollection(paths, facecolor=BASE_COLOURS[base], edgecolor="none", label=base))


@cache
def letter_shape(letter: str) -> Path:
    """Return the outline of a letter, scaled to the square from (0, 0) to (1, 1)."""
    outline = TextPath((0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans", weight="bold"))
    box = outline.get_extents()
    return Path((outline.vertices - (box.x0, box.y0)) / (box.width, box.height), outline.codes)


def _values_axis(axes: Axes) -> None:
    axes.autoscale_view(scalex=False)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3))
    axes.tick_params(axis="y", labelsize=7)
    axes.spines["left"].set_visible(True)
    axes.spines["left"].set_color(FAINT)
