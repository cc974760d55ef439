"""Splice site tasks: SpliceAI's 15-kb rows with a label a base, and windows of any annotated genome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longstrand.benchmarks.tasks.build import source_paths, split_off_valid, write_task
from longstrand.benchmarks.tasks.places import AnnotatedGenome, split_rows
from longstrand.benchmarks.tasks.task import BenchmarkTask, TaskData
from longstrand.data.labelled_files import RawTable, make_rows
from longstrand.data.labelled_tokens import UNLABELLED
from longstrand.data.rows import read_headless
from longstrand.errors import InputError
from longstrand.genome.annotation import Transcript
from longstrand.genome.fasta import Genome
from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator

CONTEXT = 5000
TARGET = 5000
CODES = {"neither": "0", "acceptor": "1", "donor": "2"}
"""As SpliceAI writes them: 1 is the first base of an exon behind an intron, 2 the last base before one."""

MIN_INTRON = 20
"""Shorter gaps between exons are frame shifts and errors of annotation, not introns."""


def build_spliceai(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build SpliceAI's rows: 15,000 bases on the strand of the transcript, labels for the 5,000 in the middle.

    The bases around the target have no label (``?``). Runs of N at the ends (transcripts at the edge of a contig, and
    padding) are cut off where they are context.

    Raises:
        InputError: a row has another number of bases or labels, or a label that is not 0, 1, 2 or -1.
    """
    train, test = source_paths(task, sources, options)
    tables = {"train": read_spliceai(train, options["max_rows"]), "test": read_spliceai(test, options["max_rows"])}
    tables |= split_off_valid(tables["train"], seed=options["seed"])
    return write_task(task, output, tables, options, sources=[train, test])


def read_spliceai(path: Path, max_rows: int = 0) -> RawTable:
    """Read headerless rows ``SEQUENCE,label x 5000``; labels may be written as 1 or 1.0.

    -1, which stands beyond the end of a transcript, becomes "no label". ``max_rows`` 0: all.
    """
    sequences, labels, names = [], [], []
    for number, (sequence, rest) in enumerate(read_headless(path, TARGET), 1):
        if len(sequence) != TARGET + 2 * CONTEXT:
            raise InputError(
                f"{path}, row {number}: {len(sequence)} bases where SpliceAI rows have {TARGET + 2 * CONTEXT}."
            )
        digits = rest.replace(".0", "").replace("-1", UNLABELLED).replace(",", "")
        if len(digits) != TARGET or digits.strip("012" + UNLABELLED):
            raise InputError(f"{path}, row {number}: a label is none of 0, 1, 2 and -1.")
        text, label = cut_padding(sequence, UNLABELLED * CONTEXT + digits + UNLABELLED * CONTEXT)
        sequences.append(text)
        labels.append(label)
        names.append(f"row_{number}")
        if number == max_rows:
            break
    return make_rows(sequences, {"label": labels}, source=path, names=names)


def cut_padding(sequence: str, labels: str) -> tuple[str, str]:
    """Cut N off both ends as far as they have no label.

    Example:
        >>> cut_padding("NNANCN", "?00?0?")
        ('NANC', '00?0')
    """
    start = min(len(sequence) - len(sequence.lstrip("N")), len(labels) - len(labels.lstrip(UNLABELLED)))
    end = max(len(sequence.rstrip("N")), len(labels.rstrip(UNLABELLED)))
    return sequence[start:end], labels[start:end]


@dataclass(frozen=True, order=True)
class Site:
    """A splice site: its base (0-based) on a chromosome, the strand of the transcript, and donor or acceptor."""

    chrom: str
    base: int
    strand: str
    kind: str


def annotated_sites(found: Sequence[Transcript]) -> list[Site]:
    """List the splice sites of all transcripts, each once, sorted; gaps under 20 bases are no introns."""
    sites = set()
    for item in found:
        pairs = item.splice_sites()
        for first, second in zip(pairs[::2], pairs[1::2]):
            if second[0] - first[0] > MIN_INTRON:
                sites |= {Site(item.chrom, base, item.strand, kind) for base, kind in (first, second)}
    return sorted(sites)


def build_splice_windows(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build windows around splice sites; see `splice_windows`."""
    annotation, fasta = source_paths(task, sources, options)
    tables, origin = splice_windows(AnnotatedGenome.open(annotation, fasta), options)
    return write_task(task, output, tables, options, sources=[annotation, fasta], origin=origin)


def splice_windows(
    source: AnnotatedGenome, options: Mapping[str, Any], *, codes: Mapping[str, str] = CODES
) -> tuple[dict[str, RawTable], str]:
    """Make windows with a donor, an acceptor or neither at base ``window // 2`` of an annotated genome, and split them.

    Only sites with GT or AG beside them count. "Neither" are GT and AG places of transcripts at which no site is
    annotated on that strand: as many of both together as there are donors and acceptors on average.

    Args:
        source: genome and annotation.
        options: ``window``, ``seed``, ``valid_chroms``, ``test_chroms``.
        codes: label of ``donor``, ``acceptor`` and ``neither``.

    Returns:
        ``train``, ``valid`` and ``test``, and the split rule as a sentence.

    Raises:
        InputError: there is no intron with GT and AG at its ends.
    """
    genome, found = source.genome, source.transcripts
    num_bases = options["window"]
    sites = [site for site in annotated_sites(found) if _is_canonical(genome, site)]
    if not sites:
        raise InputError(
            f"{source.annotation}: no intron with GT and AG at its ends, so there is no splice site to learn."
        )
    decoys = decoy_sites(genome, found, sites, num_decoys=max(1, len(sites) // 2), seed=options["seed"])
    places, labels = [], []
    for site in [*sites, *decoys]:
        place = site_window(site, num_bases)
        if place is not None and place.end <= genome.contigs[site.chrom]:
            places.append(place)
            labels.append(codes[site.kind])
    sequences = [genome.fetch_interval(place) for place in places]
    return split_rows(places, sequences, labels, genome.contigs, options, source=source.annotation)


def site_window(site: Site, num_bases: int) -> Interval | None:
    """Place a window whose base ``num_bases // 2``, read on the strand, is the site; None if it leaves base 0."""
    before = num_bases // 2 if site.strand == "+" else num_bases - num_bases // 2 - 1
    start = site.base - before
    return Interval(site.chrom, start, start + num_bases, site.strand) if start >= 0 else None


def _is_canonical(genome: Genome, site: Site) -> bool:
    """Say whether the intron begins with GT behind a donor, or ends with AG before an acceptor."""
    ahead = (site.kind == "donor") == (site.strand == "+")
    start = site.base + 1 if ahead else site.base - 2
    if start < 0 or start + 2 > genome.contigs[site.chrom]:
        return False
    pair = genome.fetch_interval(Interval(site.chrom, start, start + 2, site.strand)).upper()
    return pair == ("GT" if site.kind == "donor" else "AG")


def decoy_sites(
    genome: Genome, found: Sequence[Transcript], sites: Sequence[Site], *, num_decoys: int, seed: int
) -> list[Site]:
    """Draw places in transcripts, on their strand, that have GT behind or AG before them and are no site.

    Half look like donors and half like acceptors, as far as there are that many.
    """
    taken = {(site.chrom, site.base, site.strand) for site in sites}
    drawn: list[Site] = []
    for number, (pair, ahead) in enumerate((("GT", True), ("AG", False))):
        random = generator(seed, number, "splice decoys")
        wanted = num_decoys // 2 if number else num_decoys - num_decoys // 2
        chosen: set[tuple[str, int, str]] = set()
        for place in random.permutation(len(found) * 4).tolist():
            if len(chosen) >= wanted:
                break
            item = found[place % len(found)]
            start = int(random.integers(item.start, item.end))
            base = _next_pair(genome, item, start, pair, ahead)
            if base is not None and (item.chrom, base, item.strand) not in taken:
                chosen.add((item.chrom, base, item.strand))
        drawn += [Site(chrom, base, strand, "neither") for chrom, base, strand in sorted(chosen)]
    return drawn


def _next_pair(genome: Genome, item: Transcript, start: int, pair: str, ahead: bool) -> int | None:
    """Find the base beside the first ``pair`` on the strand within 200 bases from ``start``."""
    end = min(start + 200, item.end)
    text = genome.fetch(item.chrom, start, end).upper()
    if item.strand == "-":
        text = reverse_complement(text)
    place = text.find(pair)
    offset = place - 1 if ahead else place + 2
    if place < 0 or not 0 <= offset < len(text):
        return None
    return start + offset if item.strand == "+" else end - 1 - offset


def build_splice_tokens(task: BenchmarkTask, sources: Path, output: Path, options: Mapping[str, Any]) -> TaskData:
    """Build rows as SpliceAI's from any annotated genome: transcripts of genes in pieces, a label a base.

    Each gene gives the stretch from its first to its last transcribed base on its strand, cut into targets of
    ``target`` bases with ``context`` bases on both sides (N beyond the contig). Sites of all its transcripts count.
    Genes without an intron are left out; genes that overlap an earlier one on the same strand too, so that no base is a
    target twice.
    """
    annotation, fasta = source_paths(task, sources, options)
    genome = (source := AnnotatedGenome.open(annotation, fasta)).genome
    spans = gene_spans(source.transcripts)
    if not spans:
        raise InputError(f"{annotation}: no gene with an intron, so there is no splice site to learn.")
    targets, texts, labels = [], [], []
    for span, codes in spans:
        for place in cut_targets(span, options["target"]):
            targets.append(place)
            text, label = token_row(genome, place, codes, options["context"])
            texts.append(text)
            labels.append(label)
    spans_read = [place.expand(options["context"]) for place in targets]
    names = [str(place) for place in targets]
    tables, origin = split_rows(spans_read, texts, labels, genome.contigs, options, source=annotation, names=names)
    return write_task(task, output, tables, options, sources=[annotation, fasta], origin=origin)


def gene_spans(found: Sequence[Transcript]) -> list[tuple[Interval, dict[int, str]]]:
    """Give the stretch of every gene with introns and the codes of its sites by base; overlapping genes once."""
    genes: dict[tuple[str, str, str], list[Transcript]] = {}
    for item in found:
        genes.setdefault((item.chrom, item.strand, item.gene or item.name), []).append(item)
    spans: list[tuple[Interval, dict[int, str]]] = []
    reached: dict[tuple[str, str], int] = {}
    for (chrom, strand, _), members in sorted(genes.items(), key=lambda pair: min(x.start for x in pair[1])):
        span = Interval(chrom, min(x.start for x in members), max(x.end for x in members), strand)
        codes = {site.base: CODES[site.kind] for site in annotated_sites(members)}
        if not codes or span.start < reached.get((chrom, strand), 0):
            continue
        reached[chrom, strand] = span.end
        spans.append((span, codes))
    return sorted(spans, key=lambda pair: pair[0])


def cut_targets(span: Interval, num_bases: int) -> list[Interval]:
    """Cut a stretch into pieces of ``num_bases``, from its start as read on the strand; the last one may be shorter."""
    pieces = []
    for offset in range(0, span.length, num_bases):
        size = min(num_bases, span.length - offset)
        start = span.start + offset if span.strand == "+" else span.end - offset - size
        pieces.append(Interval(span.chrom, start, start + size, span.strand))
    return pieces


def token_row(genome: Genome, place: Interval, codes: Mapping[int, str], context: int) -> tuple[str, str]:
    """Give bases and labels of a target with its context, on the strand of the target."""
    text = genome.fetch_padded(place.chrom, place.start - context, place.end + context, place.strand).upper()
    bases = range(place.start, place.end)
    digits = "".join(codes.get(base, "0") for base in (bases if place.strand == "+" else reversed(bases)))
    return cut_padding(text, UNLABELLED * context + digits + UNLABELLED * context)
