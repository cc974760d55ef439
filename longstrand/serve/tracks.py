"""Predictions along one region: windows through the queue, put together, reduced to bins on the grid of the contig.

Everything is counted in units: the bases of a model's bin, else single bases.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from longstrand.data.rows import Record
from longstrand.genome.intervals import Interval
from longstrand.inference.predict import probabilities
from longstrand.inference.writers import TrackLayout, track_file
from longstrand.serve.refusals import Refusal
from longstrand.serve.schemas import TracksRequest
from longstrand.serve.served import ServedModel

BPE_SHARE = 0.8
"""Share of the bases that fit on average which a window has where tokens differ in length."""
FREE_WINDOW = 20_000
"""Bases of a window for a model that reads any length and does not say what it was trained on."""
MOST_READ = 16
"""How many times the limit of bases the windows of one request may have together."""
SEAM_NOTE = 0.3


@dataclass(frozen=True)
class Plan:
    """How a region is read.

    Attributes:
        region: what is answered, whole bins of the contig.
        read: what the windows lie on: the region with its flanks.
        window: bases of a window.
        step: bases from window to window.
        starts: first base of each window, counted from the start of ``read``.
        unit: bases of a number.
    """

    region: Interval
    read: Interval
    window: int
    step: int
    starts: tuple[int, ...]
    unit: int


def plan_of(model: ServedModel, body: TracksRequest, asked: Interval, length: int, most_bases: int) -> Plan:
    """Choose windows.

    Args:
        model: with a head.
        body: the request.
        asked: the region, or a pasted sequence from its base 0.
        length: bases of its contig.
        most_bases: limit of a request.

    Raises:
        Refusal: bins or windows do not fit the model, or there are too many.
    """
    unit = (model.head.bin_bases if model.head else None) or 1
    size = bin_size_of(body, unit)
    start, end = asked.start // size * size, min(-(-asked.end // size) * size, length)
    window = body.window or default_window(model, end - start)
    window = max(unit, window - window % unit)
    step = body.step or max(unit, window // 4 if model.kind == "sequence" else window * 3 // 4)
    if step > window:
        raise Refusal(422, f"step {step:,} leaves gaps between windows of {window:,} bases.", "option", "step")
    step = max(unit, step - step % unit)
    flank = (window - step) // 2 // unit * unit if model.kind == "sequence" or end - start > window else 0
    first, last = max(0, start - flank), min(length - length % unit, end + flank)
    first -= first % unit
    last = max(first, last - (last - first) % unit)
    total = last - first
    starts = [*range(0, max(total - window, 0), step), max(total - window, 0)]
    if len(starts) * min(window, total) > MOST_READ * most_bases:
        raise Refusal(413, f"{len(starts):,} windows of {window:,} bases are too many for a request; choose a larger "
                      "step, or send it as a job to /v1/jobs.", "too_many_windows")  # fmt: skip
    return Plan(Interval(asked.chrom, start, end), Interval(asked.chrom, first, last), min(window, total), step,
                tuple(starts), unit)  # fmt: skip


def bin_size_of(body: TracksRequest, unit: int) -> int:
    """Give the bases of a bin of the answer: by default one number of the model.

    Raises:
        Refusal: it is no multiple of the model's bins.
    """
    size = body.bin_size if "bin_size" in body.model_fields_set else unit
    if size % unit:
        raise Refusal(422, f"bin_size {size:,} is no multiple of the {unit:,} bases of the model's bins.", "option",
                      "bin_size")  # fmt: skip
    return size


def default_window(model: ServedModel, num_bases: int) -> int:
    """Choose how many bases the model reads at a time.

    Raises:
        Refusal: the model does not say what it was trained on.
    """
    trained = model.reading.window or model.reading.longest_bases
    if model.kind == "sequence":
        if trained is None:
            raise Refusal(422, "The model does not say how long its training sequences were; give a window.", "option",
                          "window")  # fmt: skip
        return trained
    if model.card["memory"]:
        return num_bases
    fits: int | None = model.card["max_bases"]
    if fits is None:
        return min(num_bases, trained or FREE_WINDOW)
    exact = model.tokenizer.kind == "kmer"
    return min(num_bases, fits if exact else int(fits * BPE_SHARE))


def windows_of(plan: Plan, letters: str, name: str, where: str) -> list[Record]:
    """Cut what is read into windows."""
    return [
        Record(number, name, letters[start : start + plan.window], where=where)
        for number, start in enumerate(plan.starts)
    ]


def put_together(plan: Plan, windows: Sequence[np.ndarray], blend: str) -> tuple[np.ndarray, float | None]:
    """Join the numbers of windows.

    Args:
        plan: where the windows lie.
        windows: of each window float32 (outputs,), or (units, outputs).
        blend: ``crop`` takes each place from the window whose middle is nearest, ``average`` weighs all windows that
            cover it the same, ``hann`` weighs their middles more.

    Returns:
        float32 (units of ``plan.region``, outputs), NaN where there is nothing to say; and the seam score: the mean
        difference of neighbouring windows where they overlap, by the spread of the track (None without overlap).
    """
    unit, size = plan.unit, plan.window // plan.unit
    total, width = plan.read.length // unit, windows[0].shape[-1]
    starts = [start // unit for start in plan.starts]
    spread = [np.broadcast_to(one, (size, width)) if one.ndim == 1 else one for one in windows]
    sums, weights = np.zeros((total, width)), np.zeros((total, width))
    borders = [0, *((left + size + right) // 2 for left, right in pairwise(starts)), total]
    shape = np.sin(np.pi * (np.arange(size) + 0.5) / size)[:, None] ** 2 if blend == "hann" else np.ones((size, 1))
    apart, overlap = np.zeros(width), np.zeros(width)
    for number, (start, values) in enumerate(zip(starts, spread)):
        weight = np.where(np.isnan(values), 0.0, shape)
        if blend == "crop":
            weight[: borders[number] - start] = 0
            weight[borders[number + 1] - start :] = 0
        sums[start : start + size] += np.where(weight > 0, np.nan_to_num(values), 0) * weight
        weights[start : start + size] += weight
        if number and (shared := starts[number - 1] + size - start) > 0:
            difference = np.abs(spread[number - 1][size - shared :] - values[:shared])
            apart += np.nansum(difference, axis=0)
            overlap += (~np.isnan(difference)).sum(0)
    track = np.divide(sums, weights, out=np.full(sums.shape, np.nan), where=weights > 0)
    seam = None
    if overlap.any():
        deviation = np.nanstd(track, axis=0)
        known = (overlap > 0) & (deviation > 0)
        seam = float((apart[known] / overlap[known] / deviation[known]).mean()) if known.any() else 0.0
    offset = (plan.region.start - plan.read.start) // unit
    wanted = -(-plan.region.length // unit)
    found = np.full((wanted, width), np.nan, dtype=np.float32)
    inside = track[offset : offset + wanted]
    found[: len(inside)] = inside
    return found, seam


def in_bins(values: np.ndarray, size: int, reduce: str) -> np.ndarray:
    """Reduce (units, outputs) to bins of ``size`` units, NaN left out; the last bin may be shorter."""
    if size == 1:
        return values
    edges = np.arange(0, len(values), size)
    known = ~np.isnan(values)
    counts = np.add.reduceat(known, edges, axis=0, dtype=np.int64)
    if reduce == "max":
        found = np.maximum.reduceat(np.where(known, values, -np.inf), edges, axis=0)
    else:
        found = np.add.reduceat(np.where(known, values, 0), edges, axis=0, dtype=np.float64)
        found = found / np.maximum(counts, 1) if reduce == "mean" else found
    return np.where(counts > 0, found, np.nan).astype(np.float32)


def finish(model: ServedModel, logits: np.ndarray, output: str) -> np.ndarray:
    """Turn blended logits into what is asked for."""
    return probabilities(logits, model.head.problem) if output == "probabilities" and model.head else logits


def as_file(
    kind: str, region: Interval, bin_size: int, columns: dict[str, np.ndarray], threshold: float | None,
    contigs: dict[str, int],
) -> bytes:  # fmt: skip
    """Write tracks as a file.

    Args:
        kind: ``bedgraph``, ``bed`` or ``bw``.
        region: of the tracks.
        bin_size: of the tracks.
        columns: name of each track to its bins.
        threshold: BED: bins of at least this value are joined to calls.
        contigs: of the genome.

    Raises:
        Refusal: a BED without threshold, several tracks in a format that holds one.
    """
    if kind == "bed":
        if threshold is None:
            raise Refusal(422, "A BED holds calls; give the threshold above which they are made.", "option",
                          "threshold")  # fmt: skip
        lines = [line for name, values in columns.items() for line in calls(name, values, region, bin_size, threshold)]
        return "".join(
            f"{region.chrom}\t{start}\t{end}\t{name}\t{score}\t.\n" for start, end, name, score in sorted(lines)
        ).encode()
    if len(columns) > 1:
        raise Refusal(422, f"This format holds one track, and there are {len(columns)}; choose one with outputs and a "
                      "strand other than separate.", "option", "outputs")  # fmt: skip
    layout = TrackLayout(contigs, bin_size, tuple(columns), {})
    (values,) = columns.values()
    with tempfile.TemporaryDirectory(prefix="longstrand-track-") as folder:
        target = Path(folder) / f"track.{kind}"
        track_file(target).write([(region.chrom, region.start // bin_size, values[:, None])], layout, target)
        return target.read_bytes()


def calls(
    name: str, values: np.ndarray, region: Interval, bin_size: int, threshold: float
) -> list[tuple[int, int, str, int]]:
    """Join neighbouring bins of at least a threshold: start, end, name, and 1000 times the highest value."""
    above = np.concatenate(([False], np.nan_to_num(values, nan=-np.inf) >= threshold, [False])).astype(np.int8)
    begins, ends = np.flatnonzero(np.diff(above) == 1), np.flatnonzero(np.diff(above) == -1)
    found = []
    for begin, end in zip(begins.tolist(), ends.tolist()):
        score = int(min(1000, max(0, round(1000 * float(values[begin:end].max())))))
        place = region.start + begin * bin_size
        found.append((place, min(region.start + end * bin_size, region.end), name, score))
    return found
