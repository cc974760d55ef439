"""Compare motifs with a database: which known motif does one look like, and how often would chance do as well?

As Tomtom does (Gupta 2007, complete scores): a pair of columns scores minus its Euclidean distance, counted from the
median of the query's column, so that a column without a partner scores 0. The p value of the best alignment comes from
the distribution of each query column's scores over all columns of the database, by dynamic programming, and allows for
the number of alignments on both strands. With fewer than about 25 targets it says little.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from longstrand.explain.motifs import FloatArray, Motif
from longstrand.explain.scan import q_values

BINS = 100
"""Whole-number steps between the lowest and the highest score of a query's columns."""
FEW_TARGETS = 25


def compare(queries: Sequence[Motif], targets: Sequence[Motif], *, top: int | None = 10) -> pl.DataFrame:
    """Find the targets that look most like each query.

    Args:
        queries: motifs to name.
        targets: the database.
        top: targets kept for each query, by p; None: all.

    Returns:
        Columns query, target, target_name, p, e (p times targets), q (Benjamini and Hochberg over the targets of a
        query), offset (first column of the query minus that of the target, as aligned), overlap (columns), strand
        (of the target).
    """
    views = [*targets, *(target.reverse_complement() for target in targets)]
    widths = np.array([view.width for view in views])
    columns = np.concatenate([view.frequencies for view in views]) if views else np.empty((0, 4))
    rows = []
    for query in queries:
        p, where = _p_values(query, columns, widths)
        count = len(targets)
        both = np.minimum(p[:count], p[count:])
        q = q_values(both)
        for target in np.argsort(both, kind="stable")[:top].tolist():
            view = target if p[target] <= p[target + count] else target + count
            offset = int(where[view])
            overlap = min(query.width, offset + int(widths[view])) - max(0, offset)
            names = query.name, targets[target].name, targets[target].other_name
            chance = float(both[target]), float(both[target]) * count, float(q[target])
            rows.append((*names, *chance, -offset, overlap, "+-"[view >= count]))
    heads = ["query", "target", "target_name", "p", "e", "q", "offset", "overlap", "strand"]
    kinds = [pl.String] * 3 + [pl.Float64] * 3 + [pl.Int64] * 2 + [pl.String]
    return pl.DataFrame(rows, schema=dict(zip(heads, kinds)), orient="row")


def _p_values(query: Motif, columns: FloatArray, widths: np.ndarray) -> tuple[FloatArray, np.ndarray]:
    """Give the p value of the best alignment with each target (of both strands' alignments), and its offset."""
    distance = np.sqrt(((query.frequencies[:, None] - columns[None]) ** 2).sum(-1))
    scores = np.median(distance, axis=1, keepdims=True) - distance
    step = (scores.max() - scores.min()) / BINS or 1.0
    whole = np.rint(scores / step).astype(np.int64)
    begins = np.cumsum(widths) - widths
    place = np.arange(len(columns)) - np.repeat(begins, widths)
    room = query.width + widths - 1
    first = np.cumsum(room) - room
    sums = np.zeros(int(room.sum()), dtype=np.int64)
    at = np.repeat(first + widths - 1, widths) - place
    for row in range(query.width):
        sums[at + row] += whole[row]
    spans = _Spans(whole)
    p, where = np.empty(len(widths)), np.empty(len(widths), dtype=np.int64)
    for target, width in enumerate(widths.tolist()):
        own = sums[first[target] : first[target] + room[target]]
        best = int(own.argmax())
        p[target] = spans.p(int(own[best]), width)
        where[target] = best - (width - 1)
    return p, where


class _Spans:
    """Chances that the best alignment of a target of some width scores below a sum."""

    def __init__(self, whole: np.ndarray) -> None:
        self.width = len(whole)
        self.lowest = int(np.minimum(whole.min(1), 0).sum())
        size = int(np.maximum(whole.max(1), 0).sum()) - self.lowest + 2
        self.above: dict[tuple[int, int], FloatArray] = {}
        shares = [np.bincount(row - row.min()) / len(row) for row in whole]
        for start in range(self.width):
            known, low = np.ones(1), 0
            for end in range(start + 1, self.width + 1):
                known, low = np.convolve(known, shares[end - 1]), low + int(whole[end - 1].min())
                chances = np.zeros(size)
                chances[low - self.lowest : low - self.lowest + len(known)] = known
                self.above[start, end] = np.cumsum(chances[::-1])[::-1].clip(0, 1)
        self.all: dict[int, FloatArray] = {}

    def p(self, score: int, width: int) -> float:
        if width not in self.all:
            spans = [(max(0, offset), min(self.width, offset + width)) for offset in range(1 - width, self.width)]
            with np.errstate(divide="ignore"):
                self.all[width] = sum(np.log1p(-self.above[span]) for span in spans)  # type: ignore[assignment]
        return float(-np.expm1(2 * self.all[width][score - self.lowest]))
