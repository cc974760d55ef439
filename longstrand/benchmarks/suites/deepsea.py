"""DeepSEA's 919 chromatin features: 1 kb as published, 8 kb by finding each sequence in the genome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.checks.kmer_kernel import canonical_words
from longstrand.benchmarks.suites.deepsea_files import read_deepsea
from longstrand.benchmarks.tasks.build import make_rows, source_paths, write_task
from longstrand.benchmarks.tasks.task import SPLITS, Task, TaskData
from longstrand.data.labelled import RawTable
from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement

GROUPS = {"DHS": (0, 125), "TF": (125, 815), "HM": (815, 919)}
"""Half-open columns of DNase sites, transcription factors and histone marks."""

ANCHOR = 32
_STEP = 1 << 24


def build_deepsea(task: Task, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build 1,000 bases with 919 labels, or ``window`` bases around them.

    Reads the published ``.mat`` files or headerless rows ``SEQUENCE,label x 919``. For a longer window each sequence is
    looked up in the genome (``fasta``, hg19), on both strands; rows that are not found at exactly one place are left
    out, as the paper says. ``published=yes`` does as the published script: rows that are not found keep their 1,000
    bases, and the window lies one base too far to the right. Beyond the end of a chromosome are N.

    Raises:
        InputError: a file is wrong, or no sequence is found in the genome.
        UsageError: a longer window without a genome.
    """
    paths = source_paths(task, sources, options)
    tables = {}
    for name, path in zip(SPLITS, paths):
        tables[name] = read_deepsea(path, name, max_rows=options["max_rows"], seed=options["seed"])
    num_bases = task.window or 1000
    given = max(len(sequence) for sequence in tables["train"].sequences)
    origin = ""
    if num_bases > given:
        if not options["fasta"]:
            raise UsageError(
                f"task '{task.id}': rows of {given:,} bases are extended from the genome; set fasta=hg19.fa."
            )
        genome = Genome(options["fasta"])
        tables, num_lost = extend_tables(tables, genome, num_bases, as_published=options["published"])
        lost = "kept at 1,000 bases" if options["published"] else "left out"
        origin = f"{task.split_rule}; {num_lost:,} rows without one place in the genome {lost}"
    return write_task(task, output, tables, options, sources=paths, origin=origin)


def extend_tables(
    tables: Mapping[str, RawTable], genome: Genome, num_bases: int, *, as_published: bool
) -> tuple[dict[str, RawTable], int]:
    """Replace each sequence by a longer window around its place in the genome.

    Returns:
        The tables, and the number of rows without exactly one place.

    Raises:
        InputError: nothing is found at all.
    """
    every = [sequence for table in tables.values() for sequence in table.sequences]
    places = dict(zip(every, find_places(every, genome)))
    if not any(places.values()):
        raise InputError(f"{genome.path}: none of the {len(every):,} sequences is in this genome; DeepSEA needs hg19.")
    extended, num_lost = {}, 0
    for name, table in tables.items():
        kept, sequences = [], []
        for row, sequence in enumerate(table.sequences):
            place = places[sequence]
            num_lost += place is None
            if place is not None:
                kept.append(row)
                sequences.append(widen(genome, place, num_bases, shift=int(as_published)))
            elif as_published:
                kept.append(row)
                sequences.append(sequence)
        picked = table.take(kept)
        names = [str(places[table.sequences[row]] or "not found") for row in kept]
        extended[name] = make_rows(sequences, picked.labels, source=table.source, names=names)
    return extended, num_lost


def widen(genome: Genome, place: Interval, num_bases: int, *, shift: int = 0) -> str:
    """Read a window of ``num_bases`` with the place in its middle, on its strand; N beyond the chromosome."""
    start = place.start + place.length // 2 - num_bases // 2 + shift
    return genome.fetch_padded(place.chrom, start, start + num_bases, place.strand).upper()


def find_places(sequences: Sequence[str], genome: Genome) -> list[Interval | None]:
    """Find where each sequence stands in a genome, letter by letter, on either strand.

    One pass over the genome looks for the first 32 bases without N of each sequence; hits are then compared whole.

    Returns:
        The place of each sequence, or None if it has none or several, or no 32 bases without N.
    """
    anchors, offsets = zip(*(_anchor(sequence) for sequence in sequences)) if sequences else ((), ())
    codes = np.array([code for code in anchors if code is not None], dtype=np.uint64)
    wanted = np.unique(codes)
    rows_of: dict[int, list[int]] = {}
    for row, code in enumerate(anchors):
        if code is not None:
            rows_of.setdefault(int(code), []).append(row)
    found: list[set[Interval]] = [set() for _ in sequences]
    for chrom, start, code in _hits(genome, wanted):
        for row in rows_of[code]:
            place = _whole_match(sequences[row], offsets[row], genome, chrom, start)
            if place is not None and len(found[row]) < 2:
                found[row].add(place)
    return [next(iter(places)) if len(places) == 1 else None for places in found]


def _anchor(sequence: str) -> tuple[int | None, int]:
    """Give the code of the first 32-mer without N, and where it starts."""
    codes, starts = canonical_words(np.frombuffer(sequence.encode(), dtype=np.uint8), ANCHOR)
    return (int(codes[0]), int(starts[0])) if len(codes) else (None, 0)


def _hits(genome: Genome, wanted: np.ndarray) -> Iterator[tuple[str, int, int]]:
    """Give chromosome, start and code of every 32-mer of the genome that is wanted."""
    if not len(wanted):
        return
    for chrom, length in genome.contigs.items():
        for first in range(0, length, _STEP):
            text = genome.fetch(chrom, first, min(length, first + _STEP + ANCHOR - 1))
            codes, starts = canonical_words(np.frombuffer(text.encode(), dtype=np.uint8), ANCHOR)
            places = np.minimum(np.searchsorted(wanted, codes), len(wanted) - 1)
            hit = wanted[places] == codes
            for code, start in zip(codes[hit].tolist(), starts[hit].tolist()):
                yield chrom, first + start, code


def _whole_match(sequence: str, offset: int, genome: Genome, chrom: str, start: int) -> Interval | None:
    """Compare a whole sequence whose anchor (at ``offset``) may stand at ``start``, on both strands."""
    length = len(sequence)
    for strand, first in (("+", start - offset), ("-", start + ANCHOR + offset - length)):
        if first < 0 or first + length > genome.contigs[chrom]:
            continue
        text = genome.fetch(chrom, first, first + length).upper()
        if (text if strand == "+" else reverse_complement(text)) == sequence:
            return Interval(chrom, first, first + length, strand)
    return None
