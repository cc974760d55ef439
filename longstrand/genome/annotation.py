"""Read gene annotations: GFF3 and GTF files become features, transcripts, and splice sites."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from longstrand.errors import InputError
from longstrand.genome.fasta import match_contigs, say_matched
from longstrand.genome.features import Feature
from longstrand.genome.intervals import Interval
from longstrand.genome.text import KINDS, detect_file, is_comment, open_text, parse_whole

_GTF_PAIR = re.compile(r'([\w.-]+)\s+(?:"([^"]*)"|([^";\s]+))')
_SYMBOL = re.compile(r"""\b(?:Name=|gene_name[ =]|gene=)"?([^";]+)""")
TRANSCRIPT_KINDS = ("mRNA", "transcript", "ncRNA", "lnc_RNA", "tRNA", "rRNA", "snRNA", "snoRNA", "primary_transcript")


@dataclass(frozen=True)
class Transcript:
    """A transcript with its exons.

    Attributes:
        name: of the transcript.
        gene: name of its gene, or empty.
        chrom: where it lies.
        strand: ``+`` or ``-``.
        exons: sorted half-open stretches (start, end), disjoint.
    """

    name: str
    gene: str
    chrom: str
    strand: str
    exons: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        """First base on the chromosome."""
        return self.exons[0][0]

    @property
    def end(self) -> int:
        """One past the last base on the chromosome."""
        return self.exons[-1][1]

    @property
    def tss(self) -> int:
        """The first transcribed base (0-based)."""
        return self.start if self.strand == "+" else self.end - 1

    @property
    def interval(self) -> Interval:
        """From its first to its last base, on its strand."""
        return Interval(self.chrom, self.start, self.end, self.strand)

    def splice_sites(self) -> list[tuple[int, str]]:
        """List ``(base, kind)``: a donor is the last base of an exon before an intron, an acceptor the first after."""
        last, first = ("donor", "acceptor") if self.strand == "+" else ("acceptor", "donor")
        sites = []
        for (_, end), (start, _) in zip(self.exons, self.exons[1:]):
            sites += [(end - 1, last), (start, first)]
        return sites


def read_annotation(
    path: Path, *, chroms: Container[str] | None = None, contigs: Container[str] | None = None
) -> list[Feature]:
    """Read all features of a GFF3 or GTF file (plain, gzip or bgzip), in its order, or those of some chromosomes.

    With ``contigs``, those of a genome, chromosomes get its names (`match_contigs`), which a note says; those that it
    has not are given back as they are.

    Of several parents of a GFF3 line each gets its own copy. In GTF the parent is ``transcript_id`` (of transcripts
    ``gene_id``). Features without a strand are read on ``+``. A FASTA part at the end is left alone.

    Raises:
        InputError: the file is missing or damaged, a line has not nine columns or has no valid coordinates (the line is
            named), there is no feature at all, or a chromosome could be two of ``contigs``.
    """
    found = [item for _, item in numbered_features(path, chroms=chroms)]
    names = match_contigs((item.chrom for item in found), contigs, path) if contigs is not None else {}
    say_matched(names, path)
    if any(name != other for name, other in names.items()):
        found = [replace(item, chrom=names.get(item.chrom, item.chrom)) for item in found]
    return found


def numbered_features(path: Path, *, chroms: Container[str] | None = None) -> Iterator[tuple[int, Feature]]:
    """Yield the features of `read_annotation` with the numbers of their lines.

    Raises:
        InputError: as `read_annotation`.
    """
    path = Path(path)
    kind = detect_file(path)
    if kind != "gff":
        raise InputError(
            f"{path}: this is {KINDS[kind]}; a GFF3 or GTF annotation has nine columns, separated by tabs."
        )
    found = False
    with open_text(path, errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith(("##FASTA", ">")):
                break
            if line.strip() and not is_comment(line):
                found = True
                if chroms is not None and line.partition("\t")[0] not in chroms:
                    continue
                for item in _features(line.rstrip("\n"), path, number):
                    yield number, item
    if not found:
        raise InputError(f"{path}: holds no feature; is it a GFF3 or GTF file?")


def gene_symbols(path: Path) -> dict[str, str]:
    """Read the names by which people know genes and transcripts: ``Name``, ``gene_name`` or ``gene``, by ID.

    Raises:
        InputError: the file is missing or cannot be read as text.
    """
    found = {}
    with open_text(Path(path), errors="replace") as lines:
        for line in lines:
            cells = line.rstrip("\n").split("\t")
            if len(cells) == 9 and (cells[2] in TRANSCRIPT_KINDS or "gene" in cells[2]):
                symbol = _SYMBOL.search(cells[8])
                name, _ = _names(cells[2], cells[8])
                if symbol and name:
                    found[name] = unquote(symbol[1])
    return found


def transcripts(features: Iterable[Feature]) -> list[Transcript]:
    """Put exons together to transcripts, sorted by place.

    Exons that overlap are joined. Where a transcript has CDS and no exon lines (as in some bacterial and parasite
    files), its CDS serve; a gene with neither is one exon.
    """
    features = list(features)
    genes = {item.name: item for item in features if item.kind in ("gene", "pseudogene", "ncRNA_gene") and item.name}
    owners = {item.name: item for item in features if item.kind in TRANSCRIPT_KINDS and item.name}
    parts: dict[str, dict[str, list[Feature]]] = {}
    for item in features:
        if item.kind in ("exon", "CDS") and item.parent:
            parts.setdefault(item.parent, {}).setdefault(item.kind, []).append(item)
    made = []
    for name, kinds in parts.items():
        pieces = kinds.get("exon") or kinds["CDS"]
        owner = owners.get(name)
        gene = name if name in genes else owner.parent if owner else ""
        made.append(_transcript(name, gene, pieces))
    with_parts = {item.gene for item in made} | {item.name for item in made}
    bare = [item for name, item in genes.items() if name not in with_parts]
    made += [Transcript(x.name, x.name, x.chrom, x.strand, ((x.start, x.end),)) for x in bare]
    return sorted(made, key=lambda item: (item.chrom, item.start, item.end, item.name))


def _transcript(name: str, gene: str, pieces: list[Feature]) -> Transcript:
    exons: list[tuple[int, int]] = []
    for start, end in sorted((piece.start, piece.end) for piece in pieces):
        if exons and start <= exons[-1][1]:
            exons[-1] = (exons[-1][0], max(exons[-1][1], end))
        else:
            exons.append((start, end))
    return Transcript(name, gene, pieces[0].chrom, pieces[0].strand, tuple(exons))


def _features(line: str, path: Path, number: int) -> list[Feature]:
    cells = line.split("\t")
    if len(cells) != 9:
        raise InputError(f"{path}:{number}: {len(cells)} columns where GFF and GTF have nine, separated by tabs.")
    chrom, _, kind, start, end, _, strand, phase, attributes = cells
    first, last = parse_whole(start), parse_whole(end)
    if first is None or last is None or not 1 <= first <= last:
        raise InputError(f"{path}:{number}: '{start}' to '{end}' are no coordinates (1-based, start <= end).")
    name, parents = _names(kind, attributes)
    turned = strand if strand in ("+", "-") else "+"
    number_of_phase = int(phase) if phase in ("0", "1", "2") else -1
    return [Feature(chrom, first - 1, last, turned, kind, name, parent, number_of_phase) for parent in parents or [""]]


def _names(kind: str, attributes: str) -> tuple[str, list[str]]:
    """Find the name of a feature and of its parents in the ninth column."""
    first, equals, _ = attributes.partition("=")
    if equals and ";" not in first and '"' not in first:
        name = parents = ""
        for part in attributes.split(";"):
            key, equals, value = part.strip().partition("=")
            if equals and key == "ID":
                name = value
            elif equals and key == "Parent":
                parents = value
        if "%" not in attributes:  # a long file has a million calls
            return name, [parent for parent in parents.split(",") if parent]
        return unquote(name), [unquote(parent) for parent in parents.split(",") if parent]
    values = {key: quoted or plain for key, quoted, plain in _GTF_PAIR.findall(attributes)}
    gene, transcript = values.get("gene_id", ""), values.get("transcript_id", "")
    if kind == "gene":
        return gene, []
    if kind in TRANSCRIPT_KINDS:
        return transcript, [gene] if gene else []
    return "", [transcript] if transcript else []
