"""Metrics of predicted tracks, each named by the axes that it runs over; all sums in float64.

``regions x bins``: one correlation a track over all bins of all regions (Enformer's, baskerville's PearsonR). ``bins``:
over the bins of one region, the shape. ``tracks``: after quantile normalisation and without the mean over tracks, which
a baseline that predicts the mean track cannot fake (baskerville's hound_eval_spec). ``totals``: of log1p sums of
regions. ``profile``: Jensen-Shannon divergence of a region's shape (BPNet).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from longstrand.genome.annotation import Transcript
from longstrand.genome.intervals import Interval, merge_intervals

MIN_TRACKS = 20
"""Fewer tracks have no mean that one of them could differ from."""
Arrays = Sequence[np.ndarray]


def pearson(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Correlate columns, (n, C) each -> (C,); NaN where one is constant; missing cells (NaN) are left out."""
    known = ~np.isnan(truth) & ~np.isnan(predicted)
    count = np.maximum(known.sum(axis=0), 1)
    a, b = (np.where(known, part, 0).astype(np.float64) for part in (truth, predicted))
    a, b = (np.where(known, part - part.sum(axis=0) / count, 0) for part in (a, b))
    scale = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    found: np.ndarray = np.divide((a * b).sum(axis=0), scale, out=np.full(a.shape[1], np.nan), where=scale > 0)
    return found


def track_metrics(
    truth: Arrays, predicted: Arrays, *, natural: tuple[Arrays, Arrays] | None = None
) -> dict[str, float | list[float] | None]:
    """Measure predicted tracks.

    Args:
        truth: n regions (bins, C), NaN where missing.
        predicted: the same shapes.
        natural: the same two in the unit of the measurement, for totals and profiles; None: as they are.

    Returns:
        ``regions x bins`` (mean over tracks, and ``per track`` a list), ``bins`` (mean over tracks and regions),
        ``tracks`` (None with fewer than `MIN_TRACKS`), ``totals pearson``, ``totals spearman`` (mean over tracks),
        ``profile JSD`` (mean; 0 is perfect, 1 the worst); NaN where nothing varies.
    """
    whole = [np.concatenate(part).astype(np.float64) for part in (truth, predicted)]
    each = pearson(*whole)
    shapes = np.array([pearson(a, b) for a, b in zip(truth, predicted)])
    counted, guessed = natural or (truth, predicted)
    totals = [np.log1p(np.maximum([np.nansum(one, axis=0) for one in part], 0)) for part in (counted, guessed)]
    ranks = [np.apply_along_axis(stats.rankdata, 0, part) for part in totals]
    return {
        "regions x bins": _mean(each), "per track": each.tolist(), "bins": _mean(shapes),
        "tracks": across_tracks(*whole) if whole[0].shape[1] >= MIN_TRACKS else None,
        "totals pearson": _mean(pearson(*totals)), "totals spearman": _mean(pearson(*ranks)),
        "profile JSD": _mean(np.array([_divergence(a, b) for a, b in zip(counted, guessed)])),
    }  # fmt: skip


def across_tracks(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Correlate what is specific to each track: quantile-normalised, without the mean over tracks; mean over them."""
    specific = []
    for part in (truth, predicted):
        order = np.sort(part, axis=0).mean(axis=1)
        even = order[np.argsort(np.argsort(part, axis=0, kind="stable"), axis=0, kind="stable")]
        specific.append(even - even.mean(axis=1, keepdims=True))
    return _mean(pearson(*specific))


def _divergence(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence (base 2) of two profiles of one region, (bins, C) -> (C,)."""
    a, b = (np.maximum(np.nan_to_num(part.astype(np.float64)), 0) for part in (truth, predicted))
    sums = [part.sum(axis=0) for part in (a, b)]
    there = (sums[0] > 0) & (sums[1] > 0)
    a, b = (np.divide(part, total, out=np.zeros_like(part), where=there) for part, total in zip((a, b), sums))
    middle = (a + b) / 2
    logs = [np.log2(np.where(part > 0, part, 1) / np.where(middle > 0, middle, 1)) for part in (a, b)]
    return np.where(there, ((a * logs[0]).sum(axis=0) + (b * logs[1]).sum(axis=0)) / 2, np.nan)


def gene_metrics(
    truth: Arrays, predicted: Arrays, places: Sequence[Interval], found: Sequence[Transcript], bin_bases: int
) -> dict[str, float | int | None]:
    """Correlate genes: log2(1 + sum over exons), of genes whose exons lie in one region each; natural units.

    Args:
        truth: n regions (bins, C).
        predicted: the same shapes.
        places: n regions on the genome.
        found: transcripts of the annotation.
        bin_bases: bases of a bin.

    Returns:
        ``genes`` (their number), ``genes pearson`` (over genes, mean over tracks), and ``genes across tracks``
        (normalised; None with fewer than `MIN_TRACKS` tracks or two genes).
    """
    genes: dict[str, list[Interval]] = {}
    for item in found:
        genes.setdefault(item.gene or item.name, []).extend(Interval(item.chrom, *exon) for exon in item.exons)
    sums: list[list[np.ndarray]] = [[], []]
    for exons in map(merge_intervals, genes.values()):
        owner = next((n for n, place in enumerate(places) if _holds(place, exons)), None)
        if owner is None:
            continue
        weights = _overlaps(places[owner], exons, bin_bases, len(truth[owner]))
        for side, part in zip(sums, (truth, predicted)):
            side.append(np.log2(1 + np.maximum(np.nan_to_num(part[owner]) * weights[:, None], 0).sum(axis=0)))
    number = len(sums[0])
    if number < 2:
        return {"genes": number, "genes pearson": None, "genes across tracks": None}
    tables = [np.stack(side) for side in sums]
    many = tables[0].shape[1] >= MIN_TRACKS
    return {
        "genes": number,
        "genes pearson": _mean(pearson(*tables)),
        "genes across tracks": across_tracks(*tables) if many else None,
    }


def _holds(place: Interval, exons: Sequence[Interval]) -> bool:
    return all(exon.chrom == place.chrom and place.start <= exon.start and exon.end <= place.end for exon in exons)


def _overlaps(place: Interval, exons: Sequence[Interval], bin_bases: int, number: int) -> np.ndarray:
    """Give the share of each bin of a region that exons cover, in the order of its strand."""
    starts = place.start + np.arange(number) * bin_bases
    covered = np.zeros(number)
    for exon in exons:
        covered += np.clip(np.minimum(exon.end, starts + bin_bases) - np.maximum(exon.start, starts), 0, None)
    shares: np.ndarray = covered / bin_bases
    return shares if place.strand == "+" else shares[::-1]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def examples(truth: Arrays) -> list[int]:
    """Choose three regions to look at by the total over all tracks: the highest, the upper quartile, the middle."""
    totals = np.array([np.nansum(part) for part in truth])
    order = np.argsort(-totals, kind="stable")
    places = sorted({round(share * (len(order) - 1)) for share in (0.0, 0.25, 0.5)})
    return [int(order[place]) for place in places]
