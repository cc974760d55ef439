"""Sections about signal tracks: how they look before training, how well they are predicted, regions to look at."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from longstrand.genome.intervals import Interval
from longstrand.report.sections import Curves, Line, Report, Section, Table, text

Record = Mapping[str, Any]
DRAWN = 8
"""Tracks in a picture; tables have all of them."""
METRICS = ("regions x bins", "bins", "tracks", "totals pearson", "totals spearman", "profile JSD")
GENES = ("genes", "genes pearson", "genes across tracks")


def looks_page(signals: Record) -> Report:
    """Make the page on the tracks before anything is trained."""
    tracks = signals["tracks"]
    signed = [track["name"] for track in tracks if track["look"]["kind"] == "signed"]
    warnings = [f"{name} has negative values: squared error, not Poisson." for name in signed]
    warnings += [
        f"{track['name']} looks like a {track['look']['kind']}, no coverage."
        for track in tracks
        if track["look"]["kind"] in ("fold change", "-log10 p")
    ]
    subtitle = f"{len(tracks)} tracks in bins of {signals['bin_bases']} bases; loss: {signals['loss']}"
    return Report("Signal tracks", looks_sections(signals), subtitle, [], warnings)


def looks_sections(signals: Record) -> list[Section]:
    """Show range, spread and transform of each track, as table and histograms."""
    rows, lines = [], []
    for track in signals["tracks"]:
        look, made = track["look"], track["transform"]
        partner = track["partner"] if track["partner"] != track["name"] else None
        seen = [look[key] for key in ("kind", "covered", "zero", "low", "mean", "high")]
        rows.append([track["name"], *seen, made["statistic"], made["clip"], made["scale"], partner])
        edges, shares = look["histogram"]
        size = max(abs(edges[0]), abs(edges[-1])) or 1.0
        middle = [(low + high) / 2 / size for low, high in pairwise(edges)]
        lines.append(Line(track["name"], middle, [max(share, 1e-6) for share in shares]))
    columns = ["track", "looks like", "covered", "zero", "lowest", "mean", "highest", "bin", "clip", "scale",
               "other strand"]  # fmt: skip
    more = f" The first {DRAWN} of {len(lines)}." * (len(lines) > DRAWN)
    return [
        Table("The tracks", text("signals_looks"), columns, rows),
        Curves("How the bins spread", text("signals_histogram") + more, lines[:DRAWN], "share of the 99.9 % quantile",
               "share of the bins", log=True),
    ]  # fmt: skip


def signals_sections(signals: Record, names: Mapping[str, str]) -> list[Section]:
    """Show the metrics by their axes, beside baselines, and regions observed against predicted.

    Args:
        signals: entry ``signals`` of the report of a run.
        names: what baselines are called.
    """
    found: Record = signals["metrics"]
    keys = [*METRICS, *(key for key in GENES if any(key in part for part in found.values()))]
    rows = [[names.get(name, name), *(part.get(key) for key in keys)] for name, part in found.items()]
    ours = found["this model"]["per track"]
    each = [[track["name"], value] for track, value in zip(signals["tracks"], ours)]
    return [
        Table("Tracks: agreement by axis", text("signals_metrics"), ["method", *keys], rows),
        Table("Tracks: each of them", text("signals_each"), ["track", "regions x bins"], each),
        *_loci(signals),
        *looks_sections(signals),
    ]


def _loci(signals: Record) -> list[Section]:
    """Draw observed above predicted for each track, on one scale."""
    from longstrand.report.locus import Locus, Ruler, Track  # draws with matplotlib, which takes a moment to import

    sections: list[Section] = []
    words, size = ("the highest", "a high", "a middle"), signals["bin_bases"]
    for word, shown in zip(words, signals["examples"]):
        pair = [np.array(shown[key], dtype=float) for key in ("observed", "predicted")]
        pair = pair if shown["strand"] == "+" else [values[::-1] for values in pair]
        start, drawn = shown["start"], list[Any]()
        for place, track in enumerate(signals["tracks"][:DRAWN]):
            high = float(np.nanmax([values[:, place] for values in pair], initial=1e-9))
            low = min(0.0, float(np.nanmin([values[:, place] for values in pair], initial=0.0)))
            for values, title in zip(pair, ("observed", "predicted")):
                drawn.append(Track(values[:, place], f"{track['name']}\n{title}", "fill", start=start, bin_size=size,
                                   limits=(low, high)))  # fmt: skip
        region = Interval(shown["chrom"], start, start + size * len(pair[0]))
        explain = text("signals_locus", word=word)
        sections.append(Locus(f"Observed and predicted: {shown['region']}", explain, [Ruler(), *drawn], region))
    return sections
