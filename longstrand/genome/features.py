"""Annotations: named features on a genome, and the GFF3, BED and FASTA files that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from longstrand.genome.intervals import Interval
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import write_atomically

_PLAIN = re.compile(r"[\w :+\-.,/()]*", re.ASCII)


@dataclass(frozen=True, order=True, slots=True)
class Feature:
    """One annotated stretch, 0-based half-open, ordered by place.

    Attributes:
        kind: a term of the Sequence Ontology, such as ``gene``, ``CDS``, ``intron``, ``promoter``.
        name: unique where other features refer to it.
        parent: name of the feature this one is part of, or empty.
        phase: of a CDS, bases to skip until the next codon begins (0, 1, 2); -1 for everything else.
        note: what it is in particular: promoter class, repeat family, motif name.
    """

    chrom: str
    start: int
    end: int
    strand: str
    kind: str
    name: str = ""
    parent: str = ""
    phase: int = -1
    note: str = ""

    @property
    def interval(self) -> Interval:
        """Where it lies, with its strand."""
        return Interval(self.chrom, self.start, self.end, self.strand)


@dataclass(frozen=True)
class SimulatedGenome:
    """A genome and everything that was planted in it.

    Attributes:
        name: of the species.
        contigs: upper-case sequences by chromosome.
        features: sorted by place; kinds are terms of the Sequence Ontology, plus ``decoy``.
    """

    name: str
    contigs: dict[str, str]
    features: list[Feature]

    def of_kind(self, kind: str) -> list[Feature]:
        """Give the features of one kind, in order."""
        return [item for item in self.features if item.kind == kind]

    def sequence_of(self, item: Feature | Interval) -> str:
        """Read a feature or a place on its strand."""
        sequence = self.contigs[item.chrom][item.start : item.end]
        return reverse_complement(sequence) if item.strand == "-" else sequence


def format_gff3(features: Iterable[Feature], contigs: dict[str, int], *, source: str = "longstrand") -> str:
    """Write features as GFF3 text (1-based, inclusive), with one ``sequence-region`` line for each contig."""
    lines = ["##gff-version 3", *(f"##sequence-region {name} 1 {length}" for name, length in contigs.items())]
    for item in features:
        named = [("ID", item.name), ("Parent", item.parent), ("Note", item.note)]
        attributes = (
            ";".join(
                f"{key}={value if _PLAIN.fullmatch(value) else quote(value, safe=' :+-.,/()')}"
                for key, value in named
                if value
            )
            or "."
        )
        phase = str(item.phase) if item.phase >= 0 else "."
        place = [str(item.start + 1), str(item.end)]
        lines.append("\t".join([item.chrom, source, item.kind, *place, ".", item.strand, phase, attributes]))
    return "\n".join(lines) + "\n"


def write_fasta(path: Path, contigs: dict[str, str], *, line_bases: int = 80) -> None:
    """Write sequences as FASTA, atomically.

    Raises:
        InputError: the folder cannot be written.
    """
    parts = []
    for name, sequence in contigs.items():
        parts.append(f">{name}\n")
        parts += [sequence[start : start + line_bases] + "\n" for start in range(0, len(sequence), line_bases)]
    write_atomically(path, "".join(parts))
