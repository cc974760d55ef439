"""A user's own numbers per bin: signal tracks (BigWig, bedGraph) over a genome, or columns joined by ``;``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.tasks.bins import save_bins, write_targets
from longstrand.benchmarks.tasks.places import split_windows, take_splits
from longstrand.benchmarks.tasks.task import SPLITS, BenchmarkTask, Option, TaskData
from longstrand.data.bins import bin_targets
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.rows import read_intervals
from longstrand.data.splits import NAMES
from longstrand.errors import InputError, UsageError, one_of
from longstrand.genome.coverage import Signal, open_signal
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval, IntervalTable
from longstrand.genome.regions import check_on_genome, windows_around

BIN_BASES = 128
TILE_BINS = 16
"""Bins of a window where no intervals are given: about what a model of 512 tokens reads."""

MOST_UNKNOWN = 0.5
"""Tiles with a larger share of N are left out."""

BIN_OPTIONS = {
    "bin_bases": Option(0, "bases of a bin: labels are numbers joined by ';', one a bin; signal tracks: default 128"),
    "bin_loss": Option("auto", "bins: counts (Poisson) or squared; auto: counts if no training number is negative"),
}
TRACK_OPTIONS = {
    "tracks": Option((), "names of the signal tracks that are predicted; default: all; 'none': the intervals' labels"),
    "reduce": Option("mean", "signal tracks: mean, sum or max over the bases of a bin"),
    "uncovered": Option("missing", "bases without a value in a track: missing, or zero"),
}


def read_windows(
    path: Path | None, genome: Genome, window: int, bin_bases: int
) -> tuple[list[Interval], IntervalTable]:
    """Give the intervals of a file as windows of whole bins, or tiles of the genome.

    Without ``window`` an interval loses what is no whole bin, equally at both ends; those shorter than a bin are left
    out. Tiles do not overlap, and those of mostly N are left out.

    Returns:
        Windows, and the rows of the table that they are of.

    Raises:
        InputError: the file is wrong, an interval lies off the genome, or no window is left.
        UsageError: a window is no whole number of bins.
    """
    if window % bin_bases:
        raise UsageError(f"window={window} is no whole number of bins of {bin_bases} bases; take a multiple.")
    if path is None:
        tiles = list(_tiles(genome, window or TILE_BINS * bin_bases))
        return tiles, IntervalTable(tiles)
    table = read_intervals(path)
    if window:
        return windows_around(table, genome, window)
    check_on_genome(table, genome)
    rows = [row for row, item in enumerate(table.intervals) if item.length >= bin_bases]
    if not rows:
        raise InputError(f"{path}: no interval has a whole bin of {bin_bases} bases; set window=... or bin_bases=...")
    return [_whole_bins(table.intervals[row], bin_bases) for row in rows], table.take(rows)


def _whole_bins(item: Interval, bin_bases: int) -> Interval:
    start = item.start + item.length % bin_bases // 2
    return Interval(item.chrom, start, start + item.length // bin_bases * bin_bases, item.strand)


def _tiles(genome: Genome, window: int) -> Iterator[Interval]:
    found = False
    for chrom, length in genome.contigs.items():
        for start in range(0, length - window + 1, window):
            if genome.fetch(chrom, start, start + window).upper().count("N") <= MOST_UNKNOWN * window:
                found = True
                yield Interval(chrom, start, start + window)
    if not found:
        raise InputError(f"{genome.path}: no contig has room for a window of {window:,} bases; set window=...")


def build_tracks(
    task: BenchmarkTask,
    given: Mapping[str, Path | None],
    signals: Mapping[str, Path],
    output: Path,
    options: Mapping[str, Any],
    *,
    fasta: Path,
) -> TaskData:
    """Build a task of signal tracks over the intervals of a user, or over tiles of the genome.

    Windows in which no track has a number are left out. Splits are the files given, a column ``split``, or as
    `longstrand.benchmarks.tasks.places.split_windows` says; a sequence stands in one split only.

    Args:
        task: to be described.
        given: {"all": intervals or None for tiles} or {"train", "valid", "test"}.
        signals: tracks by name.
        output: folder of the built task.
        options: as chosen.
        fasta: the genome.

    Raises:
        InputError: files are wrong, do not belong together, or leave a split empty.
        UsageError: an option that does not fit.
    """
    one_of(options["reduce"], ("mean", "sum", "max"), "reduce")
    one_of(options["uncovered"], ("missing", "zero"), "uncovered")
    names = [one_of(name, signals, "track") for name in options["tracks"]] or list(signals)
    genome, size = Genome(fasta), options["bin_bases"] or BIN_BASES
    opened = [open_signal(signals[name]) for name in names]
    for signal in opened:
        signal.check_genome(genome.contigs)
    windows, words, rule = _place(given, genome, (size, options))
    rows, num_empty = _rows(windows, words, opened, genome, (size, options))
    tables, note = take_splits(*rows)
    if num_empty:
        note += f"; {num_empty:,} window(s) left out in which no track has a number"
    for name, table in tables.items():
        chosen = [windows[row] for row in table.rows]
        values = (_values(opened, window, size, options) for window in chosen)
        most = max((window.length // size for window in chosen), default=1)
        write_targets(output / f"{name}.zarr", values, len(chosen), most, len(names))
    tables = {name: replace(table, rows=list(range(1, len(table) + 1))) for name, table in tables.items()}
    title = f"{len(names)} track(s) in bins of {size} bases: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
    sources = [path for path in (*given.values(), *(signals[name] for name in names), fasta) if path is not None]
    return _save(task, output, tables, names, options, title=title, sources=sources, origin=rule + note)


def _values(signals: Sequence[Signal], window: Interval, size: int, options: Mapping[str, Any]) -> np.ndarray:
    """Read one number a bin and track: float32 (bins, tracks)."""
    how = {"reduce": options["reduce"], "uncovered": options["uncovered"]}
    return np.stack([signal.bins(window, size, **how) for signal in signals], axis=1)


def _rows(
    windows: Sequence[Interval],
    words: Sequence[str],
    signals: Sequence[Signal],
    genome: Genome,
    how: tuple[int, Mapping[str, Any]],
) -> tuple[tuple[RawTable, list[str]], int]:
    """Read the sequences of windows in which a track has a number; ``rows`` are the numbers of the windows, from 0."""
    kept = [
        place
        for place, (window, word) in enumerate(zip(windows, words))
        if word and not np.isnan(_values(signals, window, *how)).all()
    ]
    num_empty = sum(map(bool, words)) - len(kept)
    if not kept:
        raise InputError(f"no track has a number in any of {len(windows):,} windows; do they lie on the same genome?")
    taken = [windows[place] for place in kept]
    table = make_rows(
        [genome.fetch_interval(window) for window in taken],
        {},
        source=genome.path,
        names=[str(window) for window in taken],
        chroms=[window.chrom for window in taken],
    )
    return (replace(table, rows=kept), [words[place] for place in kept]), num_empty


def _place(
    given: Mapping[str, Path | None], genome: Genome, how: tuple[int, Mapping[str, Any]]
) -> tuple[list[Interval], list[str], str]:
    """Give all windows, the split of each (empty: none), and the rule; what is not given is split off train."""
    size, options = how
    read = {split: read_windows(path, genome, options["window"], size) for split, path in given.items()}
    chroms = {"valid_chroms": options["valid_chroms"], "test_chroms": options["test_chroms"]}
    if "all" in read:
        windows, table = read["all"]
        column = next((name for name in table.labels if name.lower() == "split"), None)
        if column is not None:
            return windows, _words_of(table, column), "the column 'split'"
        return windows, *split_windows(windows, genome.contigs, **chroms)
    windows, words = [], []
    rule = f"given files for {', '.join(read)}"
    missing = [name for name in ("valid", "test") if name not in read]
    for split, (placed, _) in read.items():
        windows += placed
        if split == "train" and missing:
            found, where = split_windows(placed, genome.contigs, **chroms)
            words += [word if word in ("", *missing) else "train" for word in found]
            rule += f"; {', '.join(missing)} split off train: {where}"
        else:
            words += [split] * len(placed)
    return windows, words, rule


def _words_of(table: IntervalTable, column: str) -> list[str]:
    words = [(word or "").strip().lower() for word in table.labels[column]]
    for row, word in enumerate(words):
        if word not in NAMES:
            raise InputError(f"{table.where(row)}: the column '{column}' says '{word}'; write train, valid or test.")
    return [NAMES[word] for word in words]


def build_columns(
    task: BenchmarkTask,
    tables: Mapping[str, RawTable],
    output: Path,
    options: Mapping[str, Any],
    *,
    sources: Sequence[Path],
    origin: str,
) -> TaskData:
    """Build a task from tables whose label columns hold one number for each bin, joined by ``;``.

    Raises:
        InputError: a sequence is no whole number of bins, or a cell has another number of values.
    """
    size, names = options["bin_bases"], list(tables["train"].labels)
    for name in SPLITS:
        table = tables[name]
        values = bin_targets(table, size)
        most = max(map(len, values), default=1)
        write_targets(output / f"{name}.zarr", values, len(values), most, len(names))
    bare = {name: replace(table, labels={}, splits=None) for name, table in tables.items()}
    title = f"{task.title}: {len(names)} number(s) a bin of {size} bases"
    return _save(task, output, bare, names, options, title=title, sources=sources, origin=origin)


def _save(
    task: BenchmarkTask,
    output: Path,
    tables: Mapping[str, RawTable],
    names: Sequence[str],
    options: Mapping[str, Any],
    *,
    title: str,
    sources: Sequence[Path],
    origin: str,
) -> TaskData:
    loss = one_of(options["bin_loss"], ("auto", "counts", "squared"), "bin_loss")
    described = replace(task, title=title, kind="bin", problem="regression", metric="pearson")
    size = options["bin_bases"] or BIN_BASES
    bins = {"bin_bases": size, "num_bins": None, "context": 0, "loss": None if loss == "auto" else loss}
    return save_bins(described, output, tables, (names, bins), options, sources=sources, origin=origin)
