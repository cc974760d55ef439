"""Tracks and intervals to labelled splits: windows, matched negatives, folds of chromosomes, transforms fitted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from longstrand.data.labelled import LabelledTable
from longstrand.data.places import TILE_BINS, bin_windows, split_windows, take_splits, window_rows
from longstrand.data.signals import Look, Signals, find_tracks, look, open_tracks, standard_transform
from longstrand.data.targets import Task
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.regions import matched_negatives
from longstrand.training.examples import LabelledSplits
from longstrand.training.settings import DataSettings

logger = logging.getLogger(__name__)

BIN_BASES = 128
UNUSED = frozenset({
    "valid", "test", "columns", "problem", "class_names", "class_names_file", "valid_fraction", "test_fraction",
    "max_train_rows", "piece_bases",
})  # fmt: skip
"""Settings of labelled tables that say nothing about tracks."""
FOLDS = 5


def load_signals(settings: DataSettings, *, alphabet: str | None = "ACGTN") -> LabelledSplits:
    """Read intervals as windows and tracks as their targets, split by chromosome, with transforms fitted on train.

    Args:
        settings: ``train`` holds the intervals, ``tracks`` the signals, ``fasta`` the genome.
        alphabet: letters that the tokenizer knows.

    Raises:
        InputError: files are damaged or do not lie on one genome, a track has infinite values or none.
        UsageError: a Poisson loss for negative values; settings that say something else.
    """
    if unused := sorted(UNUSED & settings.model_fields_set):
        raise UsageError(f"tracks are the labels, of one file of intervals (regions); leave out {', '.join(unused)}.")
    size, genome = settings.bin_bases or BIN_BASES, Genome(str(settings.fasta))
    files = find_tracks(settings.tracks, settings.transform)
    opened = open_tracks(files, genome)
    window = settings.window or size * TILE_BINS
    windows, _ = bin_windows(settings.train, genome, window, size)
    negatives = _negatives(settings, windows, genome)
    words, rule = _split([*windows, *negatives], genome, settings)
    signals = Signals(genome, files, opened, size, settings.uncovered, window=window)
    raw = window_rows([*windows, *negatives], genome, source=settings.train, alphabet=alphabet)
    parts, copies = take_splits(raw, words)
    for name, part in parts.items():
        if not len(part):
            raise InputError(f"{settings.train}: no window is left for {name}; name other chromosomes or another fold.")
    values = {name: [signals.raw(place) for place in part.places or []] for name, part in parts.items()}
    train = np.concatenate(values["train"])
    looks = [look(file.name, train[:, place]) for place, file in enumerate(files)]
    signals = _fitted(signals, looks, settings)
    names = tuple(file.name for file in files)
    why = f"declared: {len(names)} track(s) in bins of {size} bases"
    task = Task("regression", names, names, "columns", names, why, size)
    tables = {
        name: LabelledTable(part, task, list(map(signals.targets, part.places or [], values[name])))
        for name, part in parts.items()
    }
    origin = (
        f"{rule}{copies}; {len(windows):,} intervals and {len(negatives):,} GC-matched negatives, {window:,} bases each"
    )
    return LabelledSplits(tables["train"], tables["valid"], tables["test"], origin, signals)


def _negatives(settings: DataSettings, windows: Sequence[Interval], genome: Genome) -> list[Interval]:
    """Draw windows off the intervals with their GC: as many, unless the settings say; they keep their real signal."""
    given = "negative_ratio" in settings.model_fields_set
    ratio = settings.negative_ratio if given else 1
    return matched_negatives(windows, genome, ratio=ratio, seed=settings.split_seed, skip=not given) if ratio else []


def _split(windows: Sequence[Interval], genome: Genome, settings: DataSettings) -> tuple[list[str], str]:
    if settings.fold is None:
        return split_windows(
            windows, genome.contigs, valid_chroms=settings.valid_chroms, test_chroms=settings.test_chroms
        )
    folds = chromosome_folds(Counter(window.chrom for window in windows))
    if len(folds) < FOLDS:
        raise UsageError(f"{FOLDS} folds need windows on {FOLDS} chromosomes, there are {len(folds)}; leave fold out.")
    test, valid = folds[settings.fold], folds[(settings.fold + 1) % FOLDS]
    words, rule = split_windows(windows, genome.contigs, valid_chroms=valid, test_chroms=test)
    return words, f"fold {settings.fold} of {FOLDS}: {rule}"


def chromosome_folds(counts: dict[str, int]) -> list[list[str]]:
    """Put chromosomes into five folds of about as many windows, the largest first into the emptiest.

    Example:
        >>> chromosome_folds({"a": 9, "b": 5, "c": 4, "d": 3, "e": 2, "f": 2})
        [['a'], ['b'], ['c'], ['d'], ['e', 'f']]
    """
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    sizes = [0] * FOLDS
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        emptiest = sizes.index(min(sizes))
        folds[emptiest].append(name)
        sizes[emptiest] += counts[name]
    return [fold for fold in folds if fold]


def _fitted(signals: Signals, looks: Sequence[Look], settings: DataSettings) -> Signals:
    """Fit the transforms that are open, choose the loss, and refuse what does not go together."""
    firsts = [looks[min(place, file.partner)] for place, file in enumerate(signals.files)]  # strands share a transform
    fitted = [
        replace(file, transform=file.transform or standard_transform(seen, settings.statistic))
        for file, seen in zip(signals.files, firsts)
    ]
    loss, signed = settings.bin_loss, [seen for seen in looks if seen.negative]
    if signed and "bin_loss" not in settings.model_fields_set:
        loss = "squared"
    if signed and loss != "squared":
        raise UsageError(
            f"track '{signed[0].name}' has negative values (down to {signed[0].low:.3g}), and a Poisson loss is for "
            "counts; set data.bin_loss=squared."
        )
    squashed = [file.name for file, seen in zip(fitted, looks) if seen.negative and file.transform.power != 1]
    if squashed:
        raise UsageError(
            f"track '{squashed[0]}' has negative values, which its sum_stat cannot squash; use mean or sum."
        )
    jitter = signals.bin_bases if settings.jitter is None else settings.jitter
    return replace(signals, files=fitted, looks=tuple(looks), loss=loss, jitter=jitter)


def notices(signals: Signals) -> list[str]:
    """Say what the tracks look like, how they are transformed and what may be wrong."""
    lines = []
    for file, seen in zip(signals.files, signals.looks):
        made = file.transform
        assert made is not None
        how = [f"clip at {made.clip:.4g}"] if made.clip is not None else []
        how += [f"times {made.scale:.4g}"] if made.scale != 1 else []
        pair = signals.files[file.partner].name
        other = f"; the other strand is {pair}" if pair != file.name else ""
        lines.append(f"track {seen.sentence()}; {', '.join(how) or 'taken as it is'}{other}")
        if seen.kind in ("fold change", "-log10 p") and signals.loss != "squared":
            lines.append(
                f"mind: {seen.name} looks like a {seen.kind}, no coverage; a Poisson loss expects counts. Give "
                "coverage (counts or CPM), or data.bin_loss=squared."
            )
    return lines
