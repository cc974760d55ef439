"""Contigs or regions of a genome to tracks: all outputs and strands of a model in one pass, in bounded memory.

Windows lie on a fixed grid of each contig, whatever is asked for, so that regions get the numbers that the whole contig
has there. Neighbouring windows overlap; `Blend` puts them together in a buffer of about one window. A model with memory
that labels bases reads stretches from end to end instead (`longstrand.inference.streams`). What is finished goes to
parts of about `PART_BASES` bases (`longstrand.inference.resumable`), so that a killed process, or another rank, goes on
within a contig.

Legend: C columns (outputs, for each strand), n cells (bases or bins of the model), b bins of the track.
"""

from __future__ import annotations

import math
import os
import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import groupby, pairwise, tee
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.data.rows import Record, is_regions, read_regions
from longstrand.errors import InputError, UsageError, one_of
from longstrand.genome.intervals import Interval, merge_intervals, subtract_intervals
from longstrand.genome.regions import on_genome
from longstrand.genome.sequence import normalise
from longstrand.inference.loaded import fingerprint_input
from longstrand.inference.options import TrackOptions
from longstrand.inference.predict import head_of, longest_input, num_unknown, predict, probabilities
from longstrand.inference.resumable import Finished, ResumableOutput, cut_into_parts
from longstrand.inference.strands import average
from longstrand.inference.streams import MemoryReader
from longstrand.inference.writers import Bins, TrackLayout, track_file
from longstrand.models.ensemble import Ensemble
from longstrand.runtime import Advance, resolve_device

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome
    from longstrand.models.network import Network
    from longstrand.tokenization.base import Tokenizer

PART_BASES = 1 << 19
"""Bases between two safe points, unless windows are long (then eight steps) or outputs many."""
PART_PIECES = 1024
STREAM_BASES = 1 << 25
"""Bases of stretches that a model with memory reads side by side, between two parts."""
PIECE_BYTES = 1 << 26
HELD = 1 << 17
"""Numbers of a track that are held until they are turned into bins together."""
BASES_A_TOKEN = 4
"""Assumed for the size of a window when none is given; a window with more tokens is refused."""


def gap_free_regions(genome: Genome, contig: str, *, shortest_gap: int) -> list[Interval]:
    """Cut a contig at its runs of at least ``shortest_gap`` N (0: nowhere); such ends are left out, too."""
    whole = [Interval(contig, 0, genome.contigs[contig])]
    gaps = subtract_intervals(whole, [Interval(contig, *run) for run in genome.non_n_runs(contig)])
    return subtract_intervals(whole, [gap for gap in gaps if 0 < shortest_gap <= gap.length])


def near(items: Sequence[Interval], start: int, end: int) -> list[Interval]:
    """Give those of some sorted, disjoint intervals of a contig that have a base from ``start`` to ``end - 1``."""
    first, last = (bisect(items, at, key=key) for bisect, at, key in (
        (bisect_right, start, attrgetter("end")), (bisect_left, end, attrgetter("start"))))  # fmt: skip
    return list(items[first:last])


@dataclass(frozen=True)
class Piece:
    """Some consecutive bins of a contig, and the bases in them that get a value.

    Attributes:
        contig: its name.
        start, end: bases; multiples of the bin size, or the end of the contig.
        wanted: sorted, disjoint, inside.
    """

    contig: str
    start: int
    end: int
    wanted: tuple[Interval, ...]

    def num_bins(self, bin_size: int) -> int:
        """Count the bins."""
        return -(-(self.end - self.start) // bin_size)


@dataclass(frozen=True)
class Window:
    """A window of a contig: bases ``start`` to ``end - 1``, its own in the middle, and those that it counts for."""

    start: int
    end: int
    own: tuple[int, int]
    reach: tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Where the windows of any contig lie.

    Attributes:
        window: bases of a window.
        step: bases from one to the next.
        unit: bases of a bin of the model, or 1.
        grain: windows begin at multiples of it: of the unit, and of a non-overlapping k-mer.
        blend: ``crop`` (each window says what its middle is), ``average`` or ``hann`` (weights of the overlap).
    """

    window: int
    step: int
    unit: int = 1
    grain: int = 1
    blend: str = "crop"

    def over(self, length: int, start: int, end: int) -> Iterator[Window]:
        """Give the windows that say something about bases ``start`` to ``end - 1`` of a contig of some length.

        A window that would leave the contig is moved inwards; of a contig shorter than a window all is read. Only what
        is missing of the last bin of the model lies beyond the contig.
        """
        margin = (self.window - self.step) // 2 // self.grain * self.grain
        last = max(0, -(-(length - self.window) // self.grain) * self.grain)
        around = 0 if self.blend == "crop" else self.window
        numbers = range(max(0, (start - around) // self.step), -(-min(length, end + around) // self.step))
        stop = -(-length // self.unit) * self.unit
        for begin, group in groupby(numbers, key=lambda k: min(max(0, k * self.step - margin), last)):
            mine = list(group)
            own, past = (mine[0] * self.step, min(length, (mine[-1] + 1) * self.step)), min(begin + self.window, stop)
            yield Window(begin, past, own, own if self.blend == "crop" else (begin, past))

    def weights(self, window: Window, cell: int) -> np.ndarray:
        """Weigh the cells of a window (n,): what its middle, or all of it, counts in the average."""
        number = -(-(window.end - window.start) // cell)
        own = window.own[0] - window.start, window.own[1] - window.start
        return _weights(self.blend, number, cell, own if self.blend == "crop" else (0, 0))


@lru_cache(256)
def _weights(blend: str, number: int, cell: int, own: tuple[int, int]) -> np.ndarray:
    if blend == "hann":
        return np.sin(np.pi * (np.arange(number) + 0.5) / number) ** 2
    weights = np.ones(number)
    if blend == "crop":
        starts = np.arange(number) * cell
        weights[(starts + cell <= own[0]) | (starts >= own[1])] = 0
    weights.flags.writeable = False
    return weights


class Blend:
    """Bins of one piece from overlapping windows, which come in order; few cells before the last window are held.

    Attributes:
        seams: float64 (2, C): sum of |difference| of neighbouring windows where they overlap, and number of cells;
            known with the bins.
        waiting: windows that were added and not yet counted: many at once are faster.
    """

    def __init__(self, job: ContigJob, piece: Piece) -> None:
        self.job, self.piece, width = job, piece, job.width
        self.length = job.genome.contigs[piece.contig]
        self.cell = math.gcd(job.grid.unit, job.bin_size)
        self.begin = piece.start
        self.sums, self.weights = np.zeros((0, width)), np.zeros(0)
        self.waiting: list[tuple[int, np.ndarray, np.ndarray]] = []
        self.totals = np.zeros((piece.num_bins(job.bin_size), len(job.tracks)))
        self.counts = np.zeros_like(self.totals)
        self.seams = np.zeros((2, width))
        self._last: list[tuple[int, np.ndarray]] = []
        self._held = 0

    def add(self, start: int, values: np.ndarray, weights: np.ndarray) -> None:
        """Add a window that begins at a base: values (n, C) of its cells, NaN where missing, and weights (n,)."""
        if max(self._held, (start - self.begin) // self.cell * self.job.width) >= HELD:
            self.flush(start)
        self.waiting.append((start, values, weights))
        self._held += values.size

    def add_window(self, window: Window, values: np.ndarray) -> None:
        """Add what a model says about a window, (n, C), or (1, C) about all of it."""
        cells = -(-(window.end - window.start) // self.cell)
        spread = values if len(values) == cells else np.repeat(values, -(-cells // len(values)), axis=0)[:cells]
        self.add(window.start, spread, self.job.grid.weights(window, self.cell))

    def _settle(self) -> None:
        """Add the windows that wait to the sums."""
        starts, each, weights = zip(*self.waiting)
        self._compare(list(zip(starts, each)))
        values, weight = np.concatenate(each), np.concatenate(weights)
        if not np.isfinite(values).all():
            weight = np.where(np.isnan(values).any(axis=1), 0, weight)
            values = np.where(weight[:, None] > 0, values, 0)
        values = values * weight[:, None]
        end = min(max(start + len(one) * self.cell for start, one in zip(starts, each)), self.piece.end)
        if (more := -(-(end - self.begin) // self.cell) - len(self.sums)) > 0:
            self.sums = np.concatenate([self.sums, np.zeros((more, self.job.width))])
            self.weights = np.concatenate([self.weights, np.zeros(more)])
        first = 0
        for start, one in zip(starts, each):
            at = (start - self.begin) // self.cell
            low, high = max(0, -at), min(len(one), len(self.sums) - at)
            if low < high:
                self.sums[at + low : at + high] += values[first + low : first + high]
                self.weights[at + low : at + high] += weight[first + low : first + high]
            first += len(one)
        self.waiting, self._held = [], 0

    def _compare(self, windows: list[tuple[int, np.ndarray]]) -> None:
        """Add to the seams what neighbours say where they overlap."""
        if self.job.per == "sequence":
            return
        windows, pairs = [*self._last, *windows], []
        for (start, one), (after, other) in pairwise(windows):
            shared = one[(after - start) // self.cell :][: len(other)]
            pairs.append((shared, other[: len(shared)]))
        self._last = windows[-1:]
        if pairs:
            first, second = (self.job.as_output(np.concatenate(side)) for side in zip(*pairs))
            difference = np.abs(first - second)
            known = (~np.isnan(difference)).sum(axis=0)
            self.seams += np.nansum(difference, axis=0, dtype=np.float64), known

    def flush(self, upto: int) -> None:
        """Turn all cells before a base into bins; no window says more about them."""
        if self.waiting:
            self._settle()
        number = min(len(self.weights), (upto - self.begin) // self.cell)
        if number > 0:
            self._finish(number)
        if not len(self.weights):
            self.begin = max(self.begin, upto)

    def _finish(self, number: int) -> None:
        with np.errstate(invalid="ignore"):  # 0 / 0 where no window counts
            mean = self.sums[:number] / self.weights[:number, None]
        values = self.job.as_output(mean.astype(np.float32)).take(self.job.chosen, axis=1).astype(np.float64)
        starts = self.begin + np.arange(number) * self.cell
        bases = self._wanted_bases(starts)[:, None] * ~np.isnan(values)
        bins = (starts - self.piece.start) // self.job.bin_size
        totals, place = np.where(bases > 0, values * bases, 0), slice(bins[0], bins[-1] + 1)
        if self.cell < self.job.bin_size:
            edges = np.flatnonzero(np.diff(bins, prepend=-1))
            totals, bases = (np.add.reduceat(one, edges, axis=0) for one in (totals, bases))
        self.totals[place] += totals
        self.counts[place] += bases
        self.sums, self.weights, self.begin = self.sums[number:], self.weights[number:], self.begin + number * self.cell

    def _wanted_bases(self, starts: np.ndarray) -> np.ndarray:
        """Count the bases of each cell that get a value."""
        bases = np.zeros(len(starts))
        for item in near(self.piece.wanted, int(starts[0]), int(starts[-1]) + self.cell):
            bases += np.clip(np.minimum(item.end, starts + self.cell) - np.maximum(item.start, starts), 0, None)
        return bases

    def bins(self) -> np.ndarray:
        """Give the bins of the piece, float32 (b, columns), NaN where no base has a value."""
        self.flush(self.piece.end + self.cell)
        divisor = self.counts if self.job.options.reduce == "mean" else np.ones_like(self.counts)
        found = np.divide(self.totals, divisor, out=np.full_like(self.totals, np.nan), where=self.counts > 0)
        return found.astype(np.float32)


class ContigJob:
    """Everything that is known before the first base is read.

    Args:
        model: with a token, bin or sequence head, or an encoder for embeddings.
        tokenizer: its own.
        genome: the FASTA file.
        options: what is predicted and how contigs are read.
        names: names of the model's outputs.

    Attributes:
        tracks: (output, strand) of each column that is written; strand None: averaged, or as asked.
        width: columns that are computed: all outputs, for each strand apart where asked.
        averaged: what overlapping windows and views average: ``logits``, ``rates`` or ``values``.

    Raises:
        InputError: a contig or region is not on the genome.
        UsageError: settings contradict each other or the model.
    """

    def __init__(
        self, model: Network, tokenizer: Tokenizer, genome: Genome, *, options: TrackOptions, names: Sequence[str]
    ) -> None:
        self.model, self.tokenizer, self.genome, self.options = model, tokenizer, genome, options
        _refuse(options)
        embeds, memory = options.output == "embeddings", model.config.memory
        self.head = None if embeds else head_of(model)
        self.per = "token" if self.head is None else self.head.kind
        one = not isinstance(model, Ensemble)
        self.streams = one and memory is not None and self.per == "token" and options.window is None
        self.grid = Grid(1, 1) if self.streams else self._grid()
        self.bin_size = options.bin_size or self.grid.unit
        if self.streams and "blend" in options.model_fields_set:
            raise UsageError("blend is for windows; this model reads from end to end with its memory. Give --window.")
        self.device = resolve_device(options.device) if options.device else next(model.parameters()).device
        problem = self.head.problem if self.head else None
        self.averaged = "rates" if problem == "counts" and options.output == "probabilities" else "logits"
        self.averaged = "values" if problem in (None, "regression") else self.averaged
        self.strands = ("+", "-") if options.strand == "separate" else (None,)
        self.names, self.columns = tuple(names), options.columns or tuple(names)
        wanted = [self.names.index(one_of(name, self.names, "output")) for name in self.columns]
        self.tracks = [(name, strand) for strand in self.strands for name in self.columns]
        self.chosen = [place + len(self.names) * n for n in range(len(self.strands)) for place in wanted]
        self.width = len(self.names) * len(self.strands)
        self.regions = self._regions()
        self.known = cache(self._known)

    @property
    def unit(self) -> str:
        """Say what the numbers are."""
        if self.options.output == "embeddings":
            return "state"
        kind = {"rates": "predicted signal", "values": "predicted value"}.get(self.averaged, self.options.output)
        return {"probabilities": "probability", "logits": "logit"}.get(kind, kind)

    def _grid(self) -> Grid:
        """Choose window and step, whole bins of the model and k-mers.

        Raises:
            UsageError: the model reads any length, so that somebody has to say.
        """
        options, reads = self.options, getattr(self.model.config, "memory", None)
        window, limit = options.window, options.max_tokens or longest_input(self.model.config)
        unit = (self.head.bin_bases or 1) if self.head is not None and self.head.kind == "bin" else 1
        per_token = 1 if self.tokenizer.overlapping else getattr(self.tokenizer, "k", None)
        if window is None:
            reading = getattr(self.model, "reading", None)
            if reading is not None and reading.longest_bases:
                window = reading.longest_bases
            elif limit is None or self.per == "sequence" or reads is not None:
                raise UsageError("say how many bases the model is to read at a time: --window 2000.")
            else:
                window = max(1, (limit - self.tokenizer.num_special_tokens()) * (per_token or BASES_A_TOKEN))
        if window < unit:
            raise UsageError(f"a window of {window:,} bases is shorter than a bin of the model ({unit:,} bases).")
        grain = per_token or 1 if self.per == "token" else unit  # bins are tokenized apart
        grain = min(grain, window)
        window -= window % grain
        step = min(options.step or max(1, window - window // (4 if options.blend == "crop" else 2)), window)
        return Grid(window, max(grain, step - step % grain), unit, grain, options.blend)

    def _regions(self) -> list[Interval] | None:
        if self.options.regions is None:
            return None
        table = on_genome(read_regions(self.options.regions), self.genome)
        return merge_intervals(table.intervals)

    def _known(self, contig: str) -> tuple[list[Interval], list[Interval]]:
        """Give the stretches of a contig without gaps, and what of them is wanted."""
        known = gap_free_regions(self.genome, contig, shortest_gap=self.options.gap)
        if self.regions is None:
            return known, known
        own = [item for item in self.regions if item.chrom == contig]
        return known, subtract_intervals(own, subtract_intervals(own, known))

    def contigs(self) -> list[str]:
        """List the contigs that are read, in the order of the genome.

        Raises:
            InputError: one is not there, or no region lies on one.
        """
        chosen = () if self.options.contigs == ("all",) else self.options.contigs
        self.genome.check_chroms(chosen)
        with_regions = None if self.regions is None else {item.chrom for item in self.regions}
        found = [
            name
            for name in self.genome.contigs
            if (not chosen or name in chosen) and (with_regions is None or name in with_regions)
        ]
        if not found:
            what = f"lies on {', '.join(chosen)}" if chosen else "has a base"
            raise InputError(f"{self.options.regions}: no region {what}.")
        return found

    def stretches(self, contig: str) -> list[Piece]:
        """Give what is wanted of a contig as whole bins, which two stretches never share."""
        size, length, wanted = self.bin_size, self.genome.contigs[contig], self.known(contig)[1]
        wide = (Interval(contig, a.start // size * size, min(length, -(-a.end // size) * size)) for a in wanted)
        return [self._piece(contig, item.start, item.end, wanted) for item in merge_intervals(wide)]

    def cut(self, stretch: Piece) -> Iterator[Piece]:
        """Cut a stretch at multiples of a part of the contig, so that other regions give the same windows and bits."""
        size, steps = self.bin_size, 8 * self.grid.step
        most = max(steps, min(PART_BASES, PIECE_BYTES // (16 * self.width) * size))
        most = -(-most // size) * size
        for start in range(stretch.start // most * most, stretch.end, most):
            low, high = max(start, stretch.start), min(start + most, stretch.end)
            piece = self._piece(stretch.contig, low, high, stretch.wanted)
            if piece.wanted:
                yield piece

    @staticmethod
    def _piece(contig: str, start: int, end: int, wanted: Sequence[Interval]) -> Piece:
        inside = ((max(item.start, start), min(item.end, end)) for item in near(wanted, start, end))
        return Piece(contig, start, end, tuple(Interval(contig, *pair) for pair in inside))

    def parts(self) -> list[list[Piece]]:
        """Put pieces into parts: the same for every rank, restart and choice of outputs."""
        stretches = (stretch for contig in self.contigs() for stretch in self.stretches(contig))
        pieces = stretches if self.streams else (piece for stretch in stretches for piece in self.cut(stretch))
        most = STREAM_BASES if self.streams else PART_BASES
        cut = cut_into_parts(pieces, lambda piece: piece.end - piece.start, max_rows=PART_PIECES, max_bases=most)
        return [[piece for _, piece in group] for _, group in groupby(cut, key=lambda item: item[0])]

    def as_output(self, values: np.ndarray) -> np.ndarray:
        """Turn averaged numbers (n, C) into what is written: probabilities of logits, the rest as it is."""
        if self.options.output != "probabilities" or self.averaged != "logits":
            return values
        assert self.head is not None
        apart = np.split(values / (self.options.temperature or 1.0), len(self.strands), axis=1)
        apart = [probabilities(part, self.head.problem) for part in apart]
        return np.concatenate(apart, axis=1)

    def predictor(self, records: Iterable[Record]) -> Iterator[np.ndarray]:
        """Predict windows, on each strand apart or averaged."""
        output = {"logits": "logits", "rates": "probabilities"}.get(self.averaged, self.options.output)
        asked = self.options.changed(output=output, pooling="bases" if output == "embeddings" else "mean")
        each = [asked.changed(strand=strand) if strand else asked for strand in self.strands]
        sources = tee(records, len(each))
        found = (
            predict(self.model, source, tokenizer=self.tokenizer, options=one) for source, one in zip(sources, each)
        )
        for items in zip(*found):
            yield np.concatenate([item.values.reshape(-1, len(self.names)) for item in items], axis=1)


def _refuse(options: TrackOptions) -> None:
    if options.exact_text:
        raise UsageError("exact text is for sequences; contigs are read in upper case.")
    if options.pooling not in ("mean", "bases"):
        raise UsageError(f"pooling '{options.pooling}' has no meaning along a contig.")
    if options.layers or options.poolings or options.truncate:
        raise UsageError("layers, poolings and truncate are for sequences, not for contigs.")


def windows_of(job: ContigJob, pieces: Sequence[Piece]) -> Iterator[tuple[Piece, Window]]:
    """List the windows that are read for pieces, in order; none is a gap from end to end."""
    for piece in pieces:
        first, last, known = piece.wanted[0].start, piece.wanted[-1].end, job.known(piece.contig)[0]
        for window in job.grid.over(job.genome.contigs[piece.contig], first, last):
            if near(piece.wanted, *window.reach) and near(known, *window.own):
                yield piece, window


def read_windows(job: ContigJob, pieces: Sequence[Piece], advance: Advance = lambda number: None) -> Iterator[Blend]:
    """Read pieces window by window; give the blend of each, whose `Blend.bins` are then complete.

    Args:
        job: model, genome and settings.
        pieces: of the genome.
        advance: called with bases that are done.
    """
    read, rest = tee(windows_of(job, pieces))
    found = job.predictor(record_of(job, piece, window) for piece, window in read)
    for piece, group in groupby(zip(found, rest), key=lambda item: item[1][0]):
        blend = Blend(job, piece)
        for values, (_, window) in group:
            blend.add_window(window, values)
            advance(max(0, min(window.own[1], piece.end) - max(window.own[0], piece.start)))
        yield blend


def record_of(job: ContigJob, piece: Piece, window: Window) -> Record:
    """Read the letters of a window, and those beside it that shifted views need."""
    where = f"{job.genome.path}, {piece.contig}, window at base {window.start + 1}"
    side = max(abs(shift) for _, shift in job.options.views)
    text = job.genome.fetch_padded(piece.contig, window.start - side, window.end + side, "+")
    inside = text[side : len(text) - side]
    return Record(0, where, inside, where=where, flanks=(text[:side], text[len(text) - side :]))


def read_streams(job: ContigJob, pieces: Sequence[Piece], folder: Path, advance: Advance) -> Iterator[Blend]:
    """Read what is wanted of pieces from end to end with memory; give the blend of each as `ContigJob.cut` cuts it."""
    reader = MemoryReader(job.model, job.tokenizer, job.genome, job.options)
    rows = reader.rows([item for piece in pieces for item in piece.wanted], folder)
    reader.read(rows, folder / "state.npz", advance)
    of = {stretch: list(group) for stretch, group in groupby(rows, key=lambda row: row.region)}
    for piece in pieces:
        for part in job.cut(piece):
            blend = Blend(job, part)
            for item in near(piece.wanted, part.start, part.end):
                low, high = max(item.start, part.start), min(item.end, part.end)
                views = [(row.view[0], row.bases(low, high, reader)) for row in of[item]]
                if job.averaged == "rates":
                    views = [(strand, probabilities(values, "counts")) for strand, values in views]
                values = [average([one for on, one in views if strand in (None, on)]) for strand in job.strands]
                blend.add(low, np.concatenate(values, axis=1), np.ones(high - low))
            yield blend


@dataclass(frozen=True)
class Written:
    """The finished bins of a job, in part files: of each piece (columns, bins) float32, then the seams of the part."""

    job: ContigJob
    files: Sequence[Path]
    parts: Sequence[Sequence[Piece]]

    def bins(self, columns: slice = slice(None)) -> Iterator[Bins]:
        """Read some columns of all pieces in order.

        Raises:
            InputError: a part is shorter than it was.
        """
        size, width = self.job.bin_size, len(self.job.tracks)
        chosen = range(width)[columns]
        for path, part in zip(self.files, self.parts):
            with open(path, "rb") as file:
                start = 0
                for piece in _cut(self.job, part):
                    number = piece.num_bins(size)
                    file.seek(start + 4 * number * chosen.start)
                    values = np.frombuffer(file.read(4 * number * len(chosen)), dtype=np.float32)
                    if len(values) != number * len(chosen):
                        raise InputError(f"{path}: shorter than it was; remove the folder {path.parent} and repeat.")
                    yield piece.contig, piece.start // size, values.reshape(len(chosen), number).T
                    start += 4 * number * width

    def seams(self) -> np.ndarray:
        """Give the mean |difference| of neighbouring windows where they overlap, (columns,); NaN without any."""
        total = np.zeros((2, self.job.width))
        for path in self.files:
            with open(path, "rb") as file:
                file.seek(-total.nbytes, os.SEEK_END)
                total += np.frombuffer(file.read(), dtype=np.float64).reshape(total.shape)
        found = np.divide(total[0], total[1], out=np.full(self.job.width, np.nan), where=total[1] > 0)
        chosen: np.ndarray = found[self.job.chosen]
        return chosen


def _cut(job: ContigJob, part: Sequence[Piece]) -> Iterator[Piece]:
    return (cut for piece in part for cut in job.cut(piece))


def predict_contigs(
    job: ContigJob,
    output: Path,
    write: Callable[[Written, Path], None] | None = None,
    *,
    identity: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    advance: Advance = lambda number: None,
) -> Finished | None:
    """Write tracks; repeated after a kill, go on.

    Args:
        job: model, genome and settings.
        output: file or folder.
        write: makes the output of the finished bins; None: a track whose format is the ending of the output.
        identity: more that decides the content, such as a fingerprint of the model.
        overwrite: replace an output of other settings.
        advance: called with bases that are done.

    Returns:
        The finished output (rows are pieces), or None while other ranks still have parts to write.

    Raises:
        InputError: a contig or region is not in the genome, or the output cannot be written.
        UsageError: the format cannot hold the columns.
        ResumeError: an output of other settings is there.
    """
    write = write or one_file(job, output)
    parts = job.parts()
    settings = {**job.options.identity(), "columns": list(job.columns), "genome": job.genome.fingerprint}
    settings |= {**(identity or {}), "contigs": job.contigs()}
    if job.options.regions is not None:
        given = job.options.regions
        settings["regions"] = given if is_regions(given) else fingerprint_input(Path(given))
    home = next(job.model.parameters()).device
    job.model.to(job.device)
    try:
        with ResumableOutput.open(output, settings, suffix=".f32", overwrite=overwrite) as found:
            done = None if overwrite else found.finished()
            if done is not None:
                return done
            for number, part in enumerate(parts):
                if found.is_mine(number):
                    _write_part(job, found, number, part, advance)
            return found.finish(len(parts), lambda files, path: write(Written(job, files, parts), path))
    finally:
        job.model.to(home)


def layout_of_tracks(job: ContigJob) -> TrackLayout:
    """Describe the tracks of a job: all contigs of the genome, in its order."""
    names = tuple(name + {"+": ".plus", "-": ".minus", None: ""}[strand] for name, strand in job.tracks)
    attributes = {"reduce": job.options.reduce, "output": job.options.output}
    return TrackLayout(dict(job.genome.contigs), job.bin_size, names, attributes)


def one_file(job: ContigJob, output: Path) -> Callable[[Written, Path], None]:
    """Write all columns into one track.

    Raises:
        UsageError: the format holds one column, and there are more.
    """
    target, layout = track_file(output), layout_of_tracks(job)
    if target.columns_at_most is not None and len(job.tracks) > target.columns_at_most:
        raise UsageError(
            f"{output.name}: this format holds one column, the model gives {len(job.tracks)}; choose one with "
            f"--outputs ({', '.join(job.columns[:8])}), or write a .zarr, or a folder of BigWigs."
        )
    return lambda written, path: target.write(written.bins(), layout, path)


def _write_part(job: ContigJob, parts: ResumableOutput, number: int, part: Sequence[Piece], advance: Advance) -> None:
    """Compute the bins of a part, piece after piece, and commit them."""
    folder = parts.folder / f"rows-{number:06d}"
    if job.streams:
        folder.mkdir(exist_ok=True)
    blends = read_streams(job, part, folder, advance) if job.streams else read_windows(job, part, advance)

    def write(path: Path) -> None:
        seams = np.zeros((2, job.width))
        with open(path, "wb") as file:
            for blend in blends:
                file.write(np.ascontiguousarray(blend.bins().T).tobytes())
                seams += blend.seams
            file.write(seams.tobytes())

    counts = {"bases": 0, "lower_case_letters": 0, "unknown_letters": 0}
    for item in (item for piece in part for item in piece.wanted):
        for start in range(item.start, item.end, PART_BASES):
            letters = job.genome.fetch(item.chrom, start, min(start + PART_BASES, item.end))
            text = normalise(letters, job.tokenizer.alphabet)
            counts["bases"] += len(letters)
            counts["lower_case_letters"] += text.num_lower_case
            counts["unknown_letters"] += num_unknown(text.sequence)
    parts.commit(number, write, num_rows=len(part), counts=counts)
    shutil.rmtree(folder, ignore_errors=True)
