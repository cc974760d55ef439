"""Promoter tasks: EPDnew promoters as GENA-LM published them, and promoters of any annotated genome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.tasks.build import source_paths, write_task
from longstrand.benchmarks.tasks.places import AnnotatedGenome, split_rows
from longstrand.benchmarks.tasks.task import BenchmarkTask, TaskData
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.rows import has_intervals, read_entries, read_intervals
from longstrand.errors import InputError, UsageError, one_of
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.regions import matched_negatives, on_genome
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator

NUM_BLOCKS = 20
NUM_PERMUTED = 12
NUM_FOLDS = 5
TSS_OFFSET = {300: 249}
"""Bases before the transcription start: EPD's -249..50 for 300 bases; half of the window for longer ones."""

NEGATIVES = ("blocks", "blocks12", "genome")


@dataclass(frozen=True)
class Promoters:
    """Promoter sequences and what belongs together.

    Attributes:
        sequences: n upper-case windows, all of one length.
        groups: n numbers; promoters of one gene share one.
        names: n names.
        places: n windows on a genome, or None.
    """

    sequences: list[str]
    groups: list[int]
    names: list[str]
    places: list[Interval] | None = None


def build_epd_promoters(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build promoters against negatives made from them, in five folds.

    Raises:
        InputError: the promoters are missing, of different lengths or too few.
        UsageError: options that contradict each other.
    """
    (path,) = source_paths(task, sources, options)
    fold = options["fold"]
    if not 1 <= fold <= NUM_FOLDS:
        raise UsageError(f"task '{task.id}': fold is 1 to {NUM_FOLDS}, got {fold}.")
    num_bases = task.window or 0
    promoters = read_promoters(path, num_bases, options["fasta"])
    if options["published"]:
        sequences, labels, names = published_rows(promoters)
        folds = published_folds(labels)
        origin = (
            f"as published: stratified folds, a negative and its promoter usually apart; split {fold} of {NUM_FOLDS}"
        )
    else:
        sequences, labels, names, folds = _grouped_rows(promoters, options)
        origin = f"split {fold} of five folds; a gene's promoters, overlapping and equal ones and negatives together"
    rows = make_rows(sequences, {"label": [str(label) for label in labels]}, source=path, names=names)
    return write_task(task, output, fold_split(rows, folds, fold), options, sources=[path], origin=origin)


def read_promoters(path: Path, num_bases: int, fasta: str) -> Promoters:
    """Read EPDnew promoters from FASTA, or from BED (one base each, the transcription start) with a genome.

    Longer sequences are cut to ``num_bases`` on the right, as EPD's -8000..8000 has one base too many.

    Raises:
        InputError: a sequence is too short, or windows cannot be placed on the genome.
        UsageError: BED without a genome.
    """
    if has_intervals(path):
        if not fasta:
            raise UsageError(f"{path}: transcription starts need their genome; set fasta=GENOME.fa.")
        return _from_bed(path, num_bases, Genome(fasta))
    sequences, names, genes = [], [], []
    for title, sequence in read_entries(path):
        if len(sequence) < num_bases:
            raise InputError(
                f"{path}: '{title}' has {len(sequence)} bases where the task has {num_bases}; "
                f"export the promoters from EPDnew with a window of {num_bases} bases."
            )
        sequences.append(sequence[:num_bases].upper())
        names.append(title)
        genes.append(gene_of(title))
    return Promoters(sequences, _numbered(genes), names)


def gene_of(title: str) -> str:
    """Give the gene of an EPD title: ``FP000001 NOC2L_1 :+U EU:NC ...`` is of ``NOC2L``."""
    words = title.split()
    name = words[1] if len(words) > 1 else words[0] if words else ""
    return name.rpartition("_")[0] or name


def _from_bed(path: Path, num_bases: int, genome: Genome) -> Promoters:
    table = on_genome(read_intervals(path), genome)
    before = TSS_OFFSET.get(num_bases, num_bases // 2)
    names = [name or str(item) for name, item in zip(table.labels.get("name", []), table.intervals)]
    places, kept = [], []
    for row, item in enumerate(table.intervals):
        tss = item.start if item.strand == "+" else item.end - 1
        place = promoter_window(item.chrom, tss, item.strand, num_bases=num_bases, before=before)
        if place is not None and place.end <= genome.contigs[item.chrom]:
            places.append(place)
            kept.append(row)
    if not places:
        raise InputError(f"{path}: no window of {num_bases} bases around a transcription start fits on the genome.")
    names = [names[row] for row in kept]
    genes = [name.rpartition("_")[0] or name for name in names]
    sequences = [genome.fetch_interval(place).upper() for place in places]
    return Promoters(sequences, _numbered(genes), names, places)


def promoter_window(chrom: str, tss: int, strand: str, *, num_bases: int, before: int) -> Interval | None:
    """Place a window with ``before`` bases before the transcription start on its strand; None if it leaves base 0."""
    start = tss - before if strand == "+" else tss + before + 1 - num_bases
    return Interval(chrom, start, start + num_bases, strand) if start >= 0 else None


def join_groups(groups: Sequence[int], together: Iterable[tuple[int, int]]) -> list[int]:
    """Join the groups of pairs of rows that belong together; groups are numbered from 0 anew.

    Example:
        >>> join_groups([0, 1, 2, 1], [(2, 3)])
        [0, 1, 1, 1]
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = [(groups[left], groups[right]) for left, right in together] or [(0, 0)]
    size = max(groups, default=0) + 1
    joined = coo_matrix((np.ones(len(pairs)), tuple(zip(*pairs))), shape=(size, size))
    return connected_components(joined, directed=False)[1][list(groups)].tolist()


def overlapping(places: Sequence[Interval]) -> Iterator[tuple[int, int]]:
    """Give pairs of rows whose windows (all of one length) overlap on either strand, enough to connect all that do."""
    order = sorted(range(len(places)), key=lambda row: places[row])
    # Windows have one length: what overlaps any earlier one overlaps the last.
    for before, row in pairwise(order):
        if places[before].overlaps(places[row]):
            yield before, row


def identical(sequences: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Give pairs of rows with the same sequence, on either strand."""
    first: dict[str, int] = {}
    for row, sequence in enumerate(sequences):
        twin = first.setdefault(min(sequence, reverse_complement(sequence)), row)
        if twin != row:
            yield twin, row


def permute_blocks(
    sequence: str, random: np.random.RandomState | np.random.Generator, num_permuted: int, *, as_drawn: bool = False
) -> str:
    """Cut a sequence into 20 blocks and permute ``num_permuted`` of them, drawn at random, among their places.

    ``as_drawn`` shuffles the blocks in the order in which they were drawn, not in that of their places.

    Raises:
        InputError: the length is no multiple of 20.
    """
    size, rest = divmod(len(sequence), NUM_BLOCKS)
    if rest:
        raise InputError(f"a promoter of {len(sequence)} bases cannot be cut into {NUM_BLOCKS} blocks of one length.")
    blocks = [sequence[place * size : (place + 1) * size] for place in range(NUM_BLOCKS)]
    drawn = random.choice(NUM_BLOCKS, num_permuted, replace=False).tolist()
    moved = [blocks[place] for place in (drawn if as_drawn else sorted(drawn))]
    random.shuffle(moved)
    waiting = iter(moved)
    return "".join(next(waiting) if place in drawn else block for place, block in enumerate(blocks))


def published_rows(promoters: Promoters) -> tuple[list[str], list[int], list[str]]:
    """Give sequences, labels and names exactly as GENA-LM's generator writes them (global numpy seed 42).

    One stream of random numbers serves all negatives in order; rows are then permuted with a fresh seed of 42.
    """
    random = np.random.RandomState(42)
    negatives = [permute_blocks(text, random, NUM_PERMUTED, as_drawn=True) for text in promoters.sequences]
    sequences = promoters.sequences + negatives
    labels = [1] * len(negatives) + [0] * len(negatives)
    names = promoters.names + [f"{name} negative" for name in promoters.names]
    order = np.random.RandomState(42).permutation(len(sequences)).tolist()
    return [sequences[row] for row in order], [labels[row] for row in order], [names[row] for row in order]


def published_folds(labels: Sequence[int]) -> list[int]:
    """Give the fold (1 to 5) of each row as published: stratified, in order, promoters and negatives apart."""
    from sklearn.model_selection import StratifiedKFold

    folds = np.zeros(len(labels), dtype=int)
    split = StratifiedKFold(n_splits=NUM_FOLDS).split(np.zeros(len(labels)), np.asarray(labels))
    for number, (_, rows) in enumerate(split, 1):
        folds[rows] = number
    return [int(fold) for fold in folds]


def _grouped_rows(
    promoters: Promoters, options: Mapping[str, Any]
) -> tuple[list[str], list[int], list[str], list[int]]:
    negatives, _ = make_negatives(promoters, options)
    together = [*identical(promoters.sequences), *overlapping(promoters.places or [])]
    fold_of = grouped_folds(join_groups(promoters.groups, together), seed=options["seed"])
    sequences, labels, names, folds = [], [], [], []
    for row, sequence in enumerate(promoters.sequences):
        sequences += [sequence, negatives[row]]
        labels += [1, 0]
        names += [promoters.names[row], f"{promoters.names[row]} negative"]
        folds += [fold_of[row]] * 2
    return sequences, labels, names, folds


def make_negatives(promoters: Promoters, options: Mapping[str, Any]) -> tuple[list[str], Sequence[Interval]]:
    """Make one negative for each promoter: permuted blocks, or a window of the genome with its GC content.

    Returns:
        The sequences, and their places; those of the promoters for permuted blocks.

    Raises:
        UsageError: an unknown kind, or genome windows without a genome.
    """
    kind, places = one_of(options["negatives"], NEGATIVES, "kind of negatives"), promoters.places or []
    if kind == "genome":
        if promoters.places is None:
            raise UsageError("negatives=genome needs promoters as places (BED or annotation) and fasta=GENOME.fa.")
        genome = Genome(options["fasta"])
        places = matched_negatives(promoters.places, genome, ratio=1, seed=options["seed"])
        return [genome.fetch_interval(place).upper() for place in places], places
    count = NUM_BLOCKS if kind == "blocks" else NUM_PERMUTED
    negatives = [
        permute_blocks(sequence, generator(options["seed"], row, "promoter negatives"), count)
        for row, sequence in enumerate(promoters.sequences)
    ]
    return negatives, places


def grouped_folds(groups: Sequence[int], *, seed: int) -> list[int]:
    """Give the fold (1 to 5) of each row; no group is cut. Large groups are dealt out first, equal ones at random."""
    sizes = np.bincount(groups)
    present = np.flatnonzero(sizes)
    shuffled = present[generator(seed, 0, "promoter folds").permutation(len(present))]
    filled = [0] * NUM_FOLDS
    fold_of = {}
    for group in sorted(shuffled.tolist(), key=lambda group: -int(sizes[group])):
        smallest = filled.index(min(filled))
        fold_of[group] = smallest + 1
        filled[smallest] += int(sizes[group])
    return [fold_of[group] for group in groups]


def fold_split(rows: RawTable, folds: Sequence[int], number: int) -> dict[str, RawTable]:
    """Give split ``number`` of five: three folds for training, the next for validation, the one after for the test."""
    order = [(place + number - 1) % NUM_FOLDS + 1 for place in range(NUM_FOLDS)]
    wanted = {"train": order[:-2], "valid": [order[-2]], "test": [order[-1]]}
    return {name: rows.take([row for row, fold in enumerate(folds) if fold in own]) for name, own in wanted.items()}


def build_annotated_promoters(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build promoters of any annotated genome; see `annotated_promoters`."""
    annotation, fasta = source_paths(task, sources, options)
    tables, origin = annotated_promoters(AnnotatedGenome.open(annotation, fasta), options)
    return write_task(task, output, tables, options, sources=[annotation, fasta], origin=origin)


def annotated_promoters(
    source: AnnotatedGenome, options: Mapping[str, Any], *, names: Sequence[str] = ("0", "1")
) -> tuple[dict[str, RawTable], str]:
    """Make windows around the transcription starts of an annotated genome and matched windows elsewhere, in splits.

    Transcription starts closer than half a window to an earlier one on the same strand are left out. With
    ``negatives=blocks`` a negative is its promoter with permuted blocks; it then shares the promoter's split.

    Args:
        source: genome and annotation.
        options: ``window``, ``before``, ``negatives``, ``seed``, ``valid_chroms``, ``test_chroms``.
        names: labels of other windows and of promoters.

    Returns:
        ``train``, ``valid`` and ``test``, and the split rule as a sentence.

    Raises:
        InputError: no window fits on the genome.
    """
    genome = source.genome
    num_bases = options["window"]
    before = options["before"] if options["before"] >= 0 else TSS_OFFSET.get(num_bases, num_bases // 2)
    last: dict[tuple[str, str], int] = {}
    places, genes = [], []
    for item in sorted(source.transcripts, key=lambda item: (item.chrom, item.tss)):
        place = promoter_window(item.chrom, item.tss, item.strand, num_bases=num_bases, before=before)
        if place is None or place.end > genome.contigs[item.chrom]:
            continue
        if place.start - last.get((item.chrom, item.strand), -num_bases) < num_bases // 2:
            continue
        last[item.chrom, item.strand] = place.start
        places.append(place)
        genes.append(item.gene or item.name)
    if not places:
        raise InputError(
            f"{source.annotation}: no window of {num_bases} bases around a transcription start fits on the genome."
        )
    sequences = [genome.fetch_interval(place).upper() for place in places]
    promoters = Promoters(sequences, list(range(len(places))), genes, places)
    others, where = make_negatives(promoters, {**options, "fasta": source.fasta})
    return split_rows(
        [*places, *where],
        sequences + others,
        [names[1]] * len(places) + [names[0]] * len(others),
        genome.contigs,
        options,
        source=source.annotation,
        names=[*genes, *(f"{name} negative" for name in genes)],
    )


def _numbered(names: Sequence[str]) -> list[int]:
    number = {name: position for position, name in enumerate(dict.fromkeys(names))}
    return [number[name] for name in names]
