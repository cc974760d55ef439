"""Stretches of simulated genomes with their annotation: genes with promoters, decoys, repeats, plain background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from longstrand.demo.signals import (
    MOTIFS,
    PROMOTER_CLASSES,
    PROMOTER_DOWNSTREAM,
    PROMOTER_UPSTREAM,
    Background,
    CodonUsage,
    Letters,
    RepeatFamilies,
    flip,
    letters,
    sample_motif,
)
from longstrand.genome.features import Feature

_ISLAND_MARGIN = 120


@dataclass(frozen=True)
class Block:
    """A stretch of sequence and its features, which count from the start of the stretch (their chrom is empty)."""

    sequence: Letters
    features: list[Feature]

    def flipped(self) -> Block:
        """Give the same stretch on the other strand."""
        length = len(self.sequence)
        other = {"+": "-", "-": "+"}
        turned = [
            replace(x, start=length - x.end, end=length - x.start, strand=other[x.strand])
            for x in reversed(self.features)
        ]
        return Block(flip(self.sequence), turned)


def join_blocks(blocks: Sequence[Block]) -> Block:
    """Put blocks one after the other, shifting their features."""
    features: list[Feature] = []
    offset = 0
    for block in blocks:
        features += [replace(x, start=x.start + offset, end=x.end + offset) for x in block.features]
        offset += len(block.sequence)
    return Block(np.concatenate([block.sequence for block in blocks]), features)


class LocusMaker:
    """Makes the blocks of one genome from one stream of random numbers."""

    def __init__(self, num_bases: int, random: np.random.Generator) -> None:
        self.random = random
        self.plain = Background(num_bases + num_bases // 4, 0.4, 0.25, random)
        self.island = Background(num_bases // 2, 0.64, 0.9, random)
        self.codons = CodonUsage(random)
        self.repeats = RepeatFamilies(random)
        self.num_genes = 0
        self.num_decoys = 0

    def intergenic(self) -> Block:
        """Make background with a few single motifs in it, which mean nothing on their own."""
        sequence = self.plain.take(int(self.random.integers(120, 520)))
        features: list[Feature] = []
        for start in range(60, len(sequence) - 40, 300):
            if self.random.random() < 0.6:
                self._plant(sequence, features, self._any_motif(), start + int(self.random.integers(0, 200)), "stray")
        return Block(sequence, features)

    def repeat(self) -> Block:
        """Make one copy of an interspersed repeat, or now and then a microsatellite."""
        if self.random.random() < 0.15:
            unit = ("CA", "AT", "GATA", "CAG", "A")[self.random.integers(5)]
            length = int(self.random.integers(24, 80))
            sequence = np.resize(letters(unit), length)
            return Block(sequence, [Feature("", 0, length, "+", "microsatellite", note=f"({unit})n")])
        family, divergence, sequence = self.repeats.draw(self.random)
        note = f"{family} divergence {divergence:g}"
        return Block(sequence, [Feature("", 0, len(sequence), "+", "dispersed_repeat", note=note)])

    def gap(self) -> Block:
        """Make a run of N."""
        length = int(self.random.integers(50, 1500))
        return Block(np.full(length, ord("N"), np.uint8), [Feature("", 0, length, "+", "gap")])

    def orphan_island(self) -> Block:
        """Make a CpG island without a promoter."""
        length = int(self.random.integers(400, 900))
        return Block(self.island.take(length), [Feature("", 0, length, "+", "CpG_island", note="orphan")])

    def decoy(self) -> Block:
        """Make a stretch with the motifs of a promoter in scrambled order, strand and distance: not a promoter."""
        kind = self._any_class()
        grammar = PROMOTER_CLASSES[kind]
        background = self.island if grammar.in_island else self.plain
        sequence = background.take(PROMOTER_UPSTREAM + PROMOTER_DOWNSTREAM + 60)
        self.num_decoys += 1
        name = f"decoy{self.num_decoys}"
        features = [Feature("", 0, len(sequence), "+", "decoy", name, note=kind)]
        if grammar.in_island:
            features.append(Feature("", 0, len(sequence), "+", "CpG_island", note="decoy"))
        motifs = [*grammar.pair, *(motif for motif, _ in grammar.core)]
        for start, number in zip(self._scrambled_places(len(motifs)), self.random.permutation(len(motifs))):
            strand = "+-"[self.random.integers(2)]
            self._plant(sequence, features, motifs[number], 60 + start, name, strand)
        return Block(sequence, features)

    def gene(self) -> Block:
        """Make promoter, untranslated regions, exons and introns of one gene, read on the plus strand."""
        self.num_genes += 1
        name = f"gene{self.num_genes}"
        promoter = self._promoter(name)
        transcript = self._transcript(name)
        tss = PROMOTER_UPSTREAM + _ISLAND_MARGIN
        start_codon = min(x.start for x in transcript.features if x.kind == "CDS")
        leader = min(start_codon, len(promoter.sequence) - tss)
        joined = np.concatenate([promoter.sequence[: tss + leader], transcript.sequence[leader:]])
        features = promoter.features + [replace(x, start=x.start + tss, end=x.end + tss) for x in transcript.features]
        return Block(joined, features)

    def _promoter(self, gene: str) -> Block:
        """Make the promoter with its surroundings, up to 120 bases past the transcription start."""
        kind = self._any_class()
        grammar = PROMOTER_CLASSES[kind]
        tss = PROMOTER_UPSTREAM + _ISLAND_MARGIN
        sequence = (self.island if grammar.in_island else self.plain).take(tss + _ISLAND_MARGIN)
        start, end = tss - PROMOTER_UPSTREAM, tss + PROMOTER_DOWNSTREAM
        name = f"{gene}.promoter"
        features = [Feature("", start, end, "+", "promoter", name, note=kind)]
        if grammar.in_island:
            features.append(Feature("", 0, len(sequence), "+", "CpG_island", note=f"{gene} promoter"))
        first, second = grammar.pair
        place = tss - int(self.random.integers(110, 200))
        self._plant(sequence, features, first, place, name)
        place += len(MOTIFS[first]) + grammar.gap + self._wobble()
        self._plant(sequence, features, second, place, name)
        for motif, distance in grammar.core:
            self._plant(sequence, features, motif, tss + distance + self._wobble(), name)
        return Block(sequence, features)

    def _transcript(self, gene: str) -> Block:
        """Make the transcript: leader, CDS cut by introns, trailer with the polyadenylation signal."""
        coding = self.codons.coding_sequence(int(self.random.gamma(4.0, 25.0)) + 30, self.random)
        borders = [0, *self._intron_places(coding), len(coding)]
        leader = np.concatenate([self.plain.take(int(self.random.integers(130, 190))), letters("GCCACC")])
        parts, position, phase = [leader], len(leader), 0
        transcript = f"{gene}.t1"
        children: list[Feature] = []
        exon_start = 0
        for number, (start, end) in enumerate(pairwise(borders)):
            parts.append(coding[start:end])
            children.append(Feature("", position, position + end - start, "+", "CDS", f"{gene}.cds", transcript, phase))
            position += end - start
            phase = -end % 3
            if end < len(coding):
                children.append(Feature("", exon_start, position, "+", "exon", f"{gene}.exon{number + 1}", transcript))
                intron, marks = self._intron(f"{gene}.intron{number + 1}", transcript)
                children += [replace(x, start=x.start + position, end=x.end + position) for x in marks]
                parts.append(intron)
                position += len(intron)
                exon_start = position
        trailer, signal = self._trailer()
        parts.append(trailer)
        length = position + len(trailer)
        children += [
            Feature("", exon_start, length, "+", "exon", f"{gene}.exon{len(borders) - 1}", transcript),
            Feature("", 0, len(leader), "+", "five_prime_UTR", parent=transcript),
            Feature("", position, length, "+", "three_prime_UTR", parent=transcript),
            Feature("", position + signal, position + signal + 6, "+", "polyA_signal_sequence", parent=transcript),
        ]
        whole = [Feature("", 0, length, "+", "gene", gene), Feature("", 0, length, "+", "mRNA", transcript, gene)]
        return Block(np.concatenate(parts), whole + children)

    def _intron_places(self, coding: Letters) -> list[int]:
        """Choose where introns cut a CDS: after AG where there is one, at least 40 bases apart."""
        after_ag = np.flatnonzero((coding[:-1] == ord("A")) & (coding[1:] == ord("G"))) + 2
        places: list[int] = []
        for place in self.random.permutation(after_ag[(after_ag > 40) & (after_ag < len(coding) - 40)]).tolist():
            if all(abs(place - other) >= 40 for other in places):
                places.append(place)
        return sorted(places[: int(self.random.integers(0, 6))])

    def _intron(self, name: str, transcript: str) -> tuple[Letters, list[Feature]]:
        """Make GT..AG with donor, branch point, polypyrimidine tract and acceptor; features count from its start."""
        random = self.random
        tract = np.where(random.random(int(random.integers(12, 20))) < 0.65, ord("T"), ord("C")).astype(np.uint8)
        stray = random.random(len(tract)) < 0.08
        tract[stray] = ord("A")
        donor = np.concatenate([letters("GT"), sample_motif("RAGT", random)])
        branch = sample_motif("TACTAAC", random)
        filler = self.plain.take(int(min(300, 25 + random.gamma(2.0, 35.0))))
        spacer = self.plain.take(int(random.integers(2, 7)))
        acceptor = np.concatenate([sample_motif("NY", random), letters("AG")])
        parts = [donor, filler, branch, spacer, tract, acceptor]
        ends = np.cumsum([len(part) for part in parts]).tolist()
        features = [
            Feature("", 0, ends[5], "+", "intron", name, transcript),
            Feature("", 0, 2, "+", "five_prime_cis_splice_site", parent=transcript),
            Feature("", ends[1], ends[2], "+", "branch_site", parent=transcript),
            Feature("", ends[3], ends[4], "+", "polypyrimidine_tract", parent=transcript),
            Feature("", ends[5] - 2, ends[5], "+", "three_prime_cis_splice_site", parent=transcript),
        ]
        return np.concatenate(parts), features

    def _trailer(self) -> tuple[Letters, int]:
        sequence = self.plain.take(int(self.random.integers(80, 160)))
        signal = len(sequence) - int(self.random.integers(18, 28))
        sequence[signal : signal + 6] = letters("AATAAA")
        return sequence, signal

    def _plant(
        self, sequence: Letters, features: list[Feature], motif: str, start: int, parent: str, strand: str = "+"
    ) -> None:
        instance = sample_motif(MOTIFS[motif], self.random)
        if start + len(instance) > len(sequence):
            return
        sequence[start : start + len(instance)] = instance if strand == "+" else flip(instance)
        owner = "" if parent == "stray" else parent
        features.append(Feature("", start, start + len(instance), strand, "TF_binding_site", parent=owner, note=motif))

    def _scrambled_places(self, count: int) -> list[int]:
        """Draw starts of motifs at least 30 bases apart within a window of the size of a promoter."""
        room = PROMOTER_UPSTREAM + PROMOTER_DOWNSTREAM - 30 * count
        free = np.sort(self.random.integers(0, room, size=count))
        return [int(start) + 30 * number for number, start in enumerate(free)]

    def _any_class(self) -> str:
        shares = [grammar.share for grammar in PROMOTER_CLASSES.values()]
        return list(PROMOTER_CLASSES)[self.random.choice(len(shares), p=shares)]

    def _any_motif(self) -> str:
        return list(MOTIFS)[self.random.integers(len(MOTIFS))]

    def _wobble(self) -> int:
        return int(self.random.integers(-1, 2))
