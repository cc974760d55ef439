"""Tidy tables: one row a fact, written by the ending of the file's name (`longstrand.runtime.write_frame`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from longstrand.data.rows import Record
from longstrand.explain.motifs import Motif
from longstrand.explain.scan import Hits


def hits_table(hits: Hits, motifs: Sequence[Motif], records: Sequence[Record]) -> pl.DataFrame:
    """List hits with their places: on the genome for records with an interval, else on the sequence.

    Args:
        hits: of `longstrand.explain.scan.scan`.
        motifs: what was scanned for.
        records: what was scanned; their letters are not looked at.

    Returns:
        Columns of BED first: chrom (or name of the sequence), start, end (0-based, half-open), name, score (bits),
        strand; then motif, p, q.
    """
    start, end, reverse = hits.start.copy(), hits.end.copy(), hits.reverse.copy()
    places = [record.interval for record in records]
    names = [record.name if place is None else place.chrom for record, place in zip(records, places)]
    if any(place is not None for place in places):
        first, last = (np.array([getattr(p, key) if p else 0 for p in places]) for key in ("start", "end"))
        minus = np.array([p is not None and p.strand == "-" for p in places])[hits.sequence]
        first, last = first[hits.sequence], last[hits.sequence]
        start, end = np.where(minus, last - end, first + start), np.where(minus, last - start, first + end)
        reverse ^= minus
    labels, identifiers = [m.label for m in motifs], [m.name for m in motifs]
    return pl.DataFrame({
        "chrom": [names[i] for i in hits.sequence.tolist()], "start": start, "end": end,
        "name": [labels[i] for i in hits.motif.tolist()], "score": hits.score,
        "strand": np.where(reverse, "-", "+").tolist(), "motif": [identifiers[i] for i in hits.motif.tolist()],
        "p": hits.p, "q": hits.q,
    }, schema_overrides=dict.fromkeys(("chrom", "name", "strand", "motif"), pl.String))  # fmt: skip
