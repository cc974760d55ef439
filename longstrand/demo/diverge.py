"""Evolve a simulated genome into a related species and carry its annotation over exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from longstrand.demo.loci import Block, join_blocks
from longstrand.demo.signals import ACGT, AMINO_ACIDS, Letters, flip
from longstrand.genome.features import Feature

_SITES = {"TF_binding_site", "branch_site", "polyA_signal_sequence"}
_DONOR_BASES = 6
_ACCEPTOR_BASES = 3
_KOZAK_BASES = 6
_CODE = np.zeros(256, dtype=np.int64)
_CODE[np.frombuffer(b"TCAG", np.uint8)] = np.arange(4)
_TRANSITION = np.arange(256, dtype=np.uint8)
_TRANSITION[ACGT] = np.frombuffer(b"GTAC", np.uint8)
Positions = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Divergence:
    """How far the second species is from the first.

    Attributes:
        substitutions: chance that a base without a function is replaced (two thirds transitions).
        synonymous: chance that a codon is replaced by another one for the same amino acid.
        indels: chance per base that an insertion or deletion begins, outside exons, promoters and motifs.
        largest_indel: in bases; lengths are uniform from 1.
        pieces: each chromosome is cut into so many pieces, which are shuffled over chromosomes, about half inverted.
    """

    substitutions: float = 0.08
    synonymous: float = 0.2
    indels: float = 0.004
    largest_indel: int = 10
    pieces: int = 4


def diverge(
    contigs: dict[str, Letters],
    features: Sequence[Feature],
    *,
    random: np.random.Generator,
    names: Sequence[str],
    divergence: Divergence | None = None,
) -> tuple[dict[str, Letters], list[Feature]]:
    """Make a related genome: substitutions, small indels, shuffled and inverted pieces.

    Bases with a function (motifs, splice sites, start and stop codons) stay as they are, coding sequence changes by
    synonymous codons only, and promoters and exons keep their length, so every annotation stays true.

    Args:
        contigs: sequences of the first species.
        features: its annotation.
        random: random numbers.
        names: one new name for each contig.
        divergence: how far apart the two are.

    Returns:
        The sequences by new name and the annotation in their coordinates, sorted.
    """
    divergence = divergence or Divergence()
    pieces: list[Block] = []
    for chrom, sequence in contigs.items():
        here = [item for item in features if item.chrom == chrom]
        evolved, lifted = _evolve(sequence, here, divergence, random)
        pieces += _cut(evolved, lifted, divergence.pieces, random)
    order = random.permutation(len(pieces)).tolist()
    groups = np.array_split(np.array(order), len(contigs))
    new_contigs: dict[str, Letters] = {}
    new_features: list[Feature] = []
    for name, group in zip(names, groups):
        chosen = [pieces[number] for number in group.tolist()]
        joined = join_blocks([piece.flipped() if random.random() < 0.5 else piece for piece in chosen])
        new_contigs[name] = joined.sequence
        new_features += [replace(x, chrom=name) for x in joined.features]
    return new_contigs, sorted(new_features)


def _evolve(
    sequence: Letters, features: list[Feature], divergence: Divergence, random: np.random.Generator
) -> tuple[Letters, list[Feature]]:
    """Apply substitutions, synonymous codons and indels to one chromosome and lift its features."""
    length = len(sequence)
    fixed, rigid = _constraints(length, features)
    changed = sequence.copy()
    _substitute(changed, ~fixed & np.isin(sequence, ACGT), divergence.substitutions, random)
    _replace_codons(changed, features, divergence.synonymous, random)
    keep, inserted = _draw_indels(rigid | ~np.isin(sequence, ACGT), divergence, random)
    new_positions = np.cumsum(keep) - 1 + np.cumsum(inserted)
    evolved = np.empty(int(keep.sum() + inserted.sum()), dtype=np.uint8)
    evolved[:] = ACGT[random.integers(0, 4, size=len(evolved))]
    evolved[new_positions[keep]] = changed[keep]
    lifted = [replace(x, start=int(new_positions[x.start]), end=int(new_positions[x.end - 1]) + 1) for x in features]
    return evolved, lifted


def _constraints(length: int, features: list[Feature]) -> tuple[np.ndarray, np.ndarray]:
    """Mark bases that must keep their letter, and bases around which no indel may fall; bool (length,) each."""
    fixed = np.zeros(length, dtype=bool)
    rigid = np.zeros(length, dtype=bool)
    for x in features:
        for border in (x.start, x.end):
            rigid[max(0, border - 2) : border + 2] = True
        if x.kind in {"promoter", "exon", "polypyrimidine_tract"} | _SITES:
            rigid[x.start : x.end] = True
        for start, end in _fixed_parts(x):
            fixed[start:end] = True
            rigid[max(0, start - 2) : end + 2] = True
    return fixed, rigid


def _fixed_parts(x: Feature) -> list[tuple[int, int]]:
    """Give the stretches of a feature whose letters matter."""
    if x.kind == "CDS" or x.kind in _SITES:
        return [(x.start, x.end)]
    if x.kind == "intron":
        head, tail = (_DONOR_BASES, _ACCEPTOR_BASES) if x.strand == "+" else (_ACCEPTOR_BASES, _DONOR_BASES)
        return [(x.start, x.start + head), (x.end - tail, x.end)]
    if x.kind == "five_prime_UTR":
        return [(x.end - _KOZAK_BASES, x.end) if x.strand == "+" else (x.start, x.start + _KOZAK_BASES)]
    return []


def _substitute(sequence: Letters, free: np.ndarray, rate: float, random: np.random.Generator) -> None:
    hit = np.flatnonzero(free & (random.random(len(sequence)) < rate))
    transition = _TRANSITION[sequence[hit]]
    shift = np.where(random.random(len(hit)) < 0.5, 1, 3)
    transversion = ACGT[(np.searchsorted(ACGT, sequence[hit]) + shift) % 4]
    sequence[hit] = np.where(random.random(len(hit)) < 2 / 3, transition, transversion)


def _replace_codons(sequence: Letters, features: list[Feature], rate: float, random: np.random.Generator) -> None:
    """Swap codons for synonyms, in every gene, first and last codon excepted."""
    synonyms = [np.array([other for other in range(64) if AMINO_ACIDS[other] == amino]) for amino in AMINO_ACIDS]
    transcripts: dict[str, list[Feature]] = {}
    for x in features:
        if x.kind == "CDS":
            transcripts.setdefault(x.parent, []).append(x)
    for parts in transcripts.values():
        places = coding_positions(parts)
        strand = parts[0].strand
        coding = sequence[places] if strand == "+" else flip(sequence[places[::-1]])
        codes = _CODE[coding.reshape(-1, 3)] @ np.array([16, 4, 1])
        swap = np.flatnonzero(random.random(len(codes)) < rate)
        for number in swap[(swap > 0) & (swap < len(codes) - 1)].tolist():
            choices = synonyms[int(codes[number])]
            codes[number] = choices[random.integers(len(choices))]
        new = np.frombuffer(b"TCAG", np.uint8)[np.stack([codes // 16, codes // 4 % 4, codes % 4], axis=1)].reshape(-1)
        sequence[places] = new if strand == "+" else flip(new)[::-1]


def coding_positions(parts: Sequence[Feature]) -> Positions:
    """Give the bases of a CDS in the order in which they are read; int64 (bases,)."""
    ordered = sorted(parts, key=lambda x: x.start)
    places = np.concatenate([np.arange(x.start, x.end) for x in ordered])
    return places if parts[0].strand == "+" else places[::-1]


def _draw_indels(
    rigid: np.ndarray, divergence: Divergence, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose which bases are kept (bool) and how many new ones come before each base (int); both (length,)."""
    keep = np.ones(len(rigid), dtype=bool)
    inserted = np.zeros(len(rigid), dtype=np.int64)
    borders = np.concatenate([[0], np.cumsum(rigid)])
    for place in np.flatnonzero(random.random(len(rigid)) < divergence.indels).tolist():
        size = int(random.integers(1, divergence.largest_indel + 1))
        deletes = random.random() < 0.5
        reach = size if deletes else 1
        if place < 1 or place + reach + 1 > len(rigid) or borders[place + reach + 1] - borders[place - 1]:
            continue
        if deletes:
            keep[place : place + size] = False
        else:
            inserted[place] = size
    inserted[~keep] = 0
    return keep, inserted


def _cut(sequence: Letters, features: list[Feature], count: int, random: np.random.Generator) -> list[Block]:
    """Cut a chromosome into pieces at places inside no feature."""
    covered = np.zeros(len(sequence) + 1, dtype=np.int64)
    for x in features:
        covered[max(0, x.start - 20)] += 1
        covered[min(len(sequence), x.end + 20)] -= 1
    free = np.flatnonzero(np.cumsum(covered)[:-1] == 0)
    free = free[(free > 0) & (free < len(sequence))]
    chosen = sorted(random.choice(free, size=min(count - 1, len(free)), replace=False).tolist()) if len(free) else []
    borders = [0, *chosen, len(sequence)]
    pieces = []
    for start, end in pairwise(borders):
        inside = [replace(x, start=x.start - start, end=x.end - start) for x in features if start <= x.start < end]
        pieces.append(Block(sequence[start:end], inside))
    return pieces
