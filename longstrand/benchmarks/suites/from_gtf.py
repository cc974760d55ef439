"""Labelled tables with class names from an annotation and its genome: splice sites, promoters, gene structure."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from longstrand.benchmarks.suites.promoters import annotated_promoters
from longstrand.benchmarks.suites.splice import MIN_INTRON, splice_windows
from longstrand.benchmarks.tasks.places import AnnotatedGenome, split_rows
from longstrand.data.labelled_files import RawTable
from longstrand.errors import InputError, one_of
from longstrand.genome.annotation import transcripts
from longstrand.genome.features import Feature
from longstrand.genome.intervals import Interval
from longstrand.runtime import Notice, check_output, write_atomically

Tables = tuple[dict[str, RawTable], str]

STRUCTURE = {"0": "intergenic", "1": "untranslated", "2": "coding", "3": "intron"}
"""Digits of the per-base labels; ``?`` (no label) is what only the other strand transcribes."""

MARGIN = 100
"""Bases beside a gene that its windows of gene structure begin with."""


@dataclass(frozen=True)
class MadeTables:
    """What `from_gtf` wrote for one task.

    Attributes:
        folder: with ``train.csv``, ``valid.csv``, ``test.csv`` (name, chrom, sequence, label); of gene
            structure also ``classes.csv``, the names of the digits.
        rows: rows of each split.
        split_rule: how the rows were split.
    """

    folder: Path
    rows: dict[str, int]
    split_rule: str


def from_gtf(
    annotation: Path,
    fasta: Path,
    output: Path,
    *,
    tasks: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    notice: Notice = lambda sentence: None,
) -> dict[str, MadeTables]:
    """Write labelled tables for the tasks that an annotated genome gives.

    Args:
        annotation: GTF or GFF3, plain or gzip.
        fasta: its genome.
        output: folder; each task has a folder of its own in it.
        tasks: of `TASKS`; empty: all that the annotation allows, the others are named to ``notice``.
        options: changes of `DEFAULTS`.
        notice: called with a sentence for each task.

    Returns:
        Task to what was written.

    Raises:
        InputError: the files are wrong or do not fit together, or a named task is not possible.
        UsageError: unknown task.
    """
    found: dict[str, MadeTables] = {}
    refused: list[str] = []
    for name in (wanted := tasks or tuple(TASKS)):
        check_output(Path(output) / one_of(name, TASKS, "task"), [annotation, fasta])
    source = AnnotatedGenome.open(annotation, fasta)
    for name in wanted:
        folder = Path(output) / name
        try:
            tables, rule = TASKS[name](source, {**DEFAULTS, **(options or {})})
            empty = [split for split, table in tables.items() if not len(table)]
            if empty:
                raise InputError(
                    f"{annotation}: no row of {name} falls in the {empty[0]} split; name other chromosomes."
                )
        except InputError as error:
            if tasks:
                raise
            refused.append(str(error))
            notice(f"{name}: left out; {error}")
            continue
        found[name] = MadeTables(folder, _write(folder, tables, STRUCTURE if name == "gene_structure" else {}), rule)
        counts = ", ".join(f"{count:,} {split}" for split, count in found[name].rows.items())
        notice(f"{name}: {counts}; {rule}")
    if not found:
        raise InputError(f"{annotation}: gives no labelled table. {refused[0]}")
    return found


def _write(folder: Path, tables: Mapping[str, RawTable], classes: Mapping[str, str]) -> dict[str, int]:
    """Write the splits as CSV and the names of the classes; count the rows."""
    import polars as pl

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be made ({error.strerror}).") from None
    for split, table in tables.items():
        columns = {"name": table.names, "chrom": table.chroms, "sequence": table.sequences, **table.labels}
        write_atomically(folder / f"{split}.csv", pl.DataFrame(columns).write_csv())
    if classes:
        lines = (f"{label},{name}\n" for label, name in classes.items())
        write_atomically(folder / "classes.csv", "label,label_name\n" + "".join(lines))
    return {split: len(table) for split, table in tables.items()}


def splice_site_tables(source: AnnotatedGenome, options: Mapping[str, Any]) -> Tables:
    """Make windows with a donor, an acceptor or neither in the middle; see `splice_windows`."""
    names = {name: name for name in ("neither", "acceptor", "donor")}
    return splice_windows(source, {**options, "window": options["splice_window"]}, codes=names)


def promoter_tables(source: AnnotatedGenome, options: Mapping[str, Any]) -> Tables:
    """Make windows around transcription starts and GC-matched ones elsewhere; see `annotated_promoters`."""
    chosen = {**options, "window": options["promoter_window"], "negatives": "genome"}
    return annotated_promoters(source, chosen, names=("other", "promoter"))


def structure_tables(source: AnnotatedGenome, options: Mapping[str, Any]) -> Tables:
    """Cut genes with 100 bases around them into windows, read on the gene's strand, with one digit a base.

    Windows of two genes on one strand do not overlap; one that would leave the chromosome or holds another letter than
    ACGT is left out.

    Raises:
        InputError: there is no gene with a protein, or no window fits.
    """
    features, genome = source.features, source.genome
    maps = {strand: paint(features, genome.contigs, strand) for strand in "+-"}
    coding = {item.parent for item in features if item.kind == "CDS"}
    size, places, texts, labels = options["structure_window"], [], [], []
    reached: dict[tuple[str, str], int] = {}
    for item in source.transcripts:
        start = max(0, item.start - MARGIN, reached.get((item.chrom, item.strand), 0))
        for place in range(start, item.end if item.name in coding else 0, size):
            window = Interval(item.chrom, place, place + size, item.strand)
            text = genome.fetch_interval(window).upper() if window.end <= genome.contigs[item.chrom] else "N"
            if set(text) <= set("ACGT"):
                letters = maps[item.strand][item.chrom][place : window.end].tobytes().decode("ascii")
                places.append(window)
                texts.append(text)
                labels.append(letters if item.strand == "+" else letters[::-1])
            reached[item.chrom, item.strand] = window.end
    if not places:
        raise InputError(f"{source.annotation}: no gene with CDS lines has room for a window of {size} bases.")
    return split_rows(places, texts, labels, genome.contigs, options, source=source.annotation)


def paint(features: Sequence[Feature], lengths: Mapping[str, int], strand: str) -> dict[str, np.ndarray]:
    """Return one digit of `STRUCTURE` or ``?`` a base for each contig, seen from one strand: uint8 ASCII.

    Where transcripts differ, coding goes before intron before untranslated. Gaps under 20 bases between exons are no
    introns. Genes without CDS and genes of the other strand alone have no label.
    """
    maps = {name: np.full(length, ord("0"), np.uint8) for name, length in lengths.items()}
    coding = {item.parent for item in features if item.kind == "CDS"}
    layers: dict[str, list[tuple[str, int, int]]] = {"?": [], "1": [], "3": [], "2": []}
    for item in transcripts(features):
        if item.strand != strand or item.name not in coding:
            layers["?"].append((item.chrom, item.start, item.end))
            continue
        layers["1"] += [(item.chrom, *exon) for exon in item.exons]
        gaps = ((end, start) for (_, end), (start, _) in zip(item.exons, item.exons[1:]))
        for end, start in gaps:
            layers["3" if start - end > MIN_INTRON else "?"].append((item.chrom, end, start))
    proteins = (x for x in features if x.kind in ("CDS", "stop_codon") and x.strand == strand)
    layers["2"] = [(x.chrom, x.start, x.end) for x in proteins]
    for letter, places in layers.items():
        for chrom, start, end in places:
            maps[chrom][start:end] = ord(letter)
    return maps


TASKS: dict[str, Callable[[AnnotatedGenome, Mapping[str, Any]], Tables]] = {
    "splice_sites": splice_site_tables,
    "promoters": promoter_tables,
    "gene_structure": structure_tables,
}
DEFAULTS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("from_gtf.toml").read_text(encoding="utf-8"))
"""Bases of the windows, of those before a transcription start (-1: 249 of 300, else half), seed, chromosomes."""
