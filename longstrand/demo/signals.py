"""Signals of simulated genomes: background composition, motifs, promoter grammar, codons, introns, repeats.

Sequences are ``uint8`` arrays of ASCII letters, always written on the strand on which they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Letters = np.ndarray[Any, np.dtype[np.uint8]]

ACGT: Letters = np.frombuffer(b"ACGT", np.uint8)
_IUPAC = {
    "A": b"A", "C": b"C", "G": b"G", "T": b"T", "R": b"AG", "Y": b"CT", "S": b"CG", "W": b"AT", "K": b"GT", "M": b"AC",
    "B": b"CGT", "D": b"AGT", "H": b"ACT", "V": b"ACG", "N": b"ACGT",
}  # fmt: skip

COMPLEMENT: Letters = np.arange(256, dtype=np.uint8)
COMPLEMENT[np.frombuffer(b"ACGTacgt", np.uint8)] = np.frombuffer(b"TGCAtgca", np.uint8)

MOTIFS = {
    "TATA": "TATAAAAG",
    "INR": "TCAGTCTT",
    "DPE": "AGACGTGA",
    "CAAT": "GGCCAATCAG",
    "EBOX": "TCACGTGACC",
    "GC": "GGGGCGGGGC",
    "NRF": "TGCGCATGCGCA",
    "CRE": "GTGACGTCAC",
    "ETS": "ACCGGAAGTG",
}
"""Consensus of each motif, in the spirit of well-known ones; names are those of the annotation."""

MOTIF_FIDELITY = 0.95
"""Chance that a position of a planted motif keeps its consensus letter."""


@dataclass(frozen=True)
class PromoterClass:
    """Grammar of one kind of promoter: which motifs, in which order, how far apart.

    Attributes:
        pair: two upstream motifs, the first one further upstream.
        gap: bases between the two, give or take one.
        core: motifs at fixed distances from the transcription start (first base of the motif, give or take one).
        in_island: the promoter lies in a CpG island.
        share: part of all promoters.
    """

    pair: tuple[str, str]
    gap: int
    core: tuple[tuple[str, int], ...]
    in_island: bool
    share: float


PROMOTER_CLASSES = {
    "tata": PromoterClass(("CAAT", "EBOX"), 14, (("TATA", -31), ("INR", -2)), False, 0.4),
    "cpg": PromoterClass(("NRF", "GC"), 9, (("GC", -50), ("INR", -2)), True, 0.3),
    "dpe": PromoterClass(("CRE", "ETS"), 20, (("INR", -2), ("DPE", 28)), False, 0.3),
}
PROMOTER_UPSTREAM = 250
PROMOTER_DOWNSTREAM = 50

CODONS = tuple(a + b + c for a in "TCAG" for b in "TCAG" for c in "TCAG")
AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
"""Amino acid of each of `CODONS` in the standard code; ``*`` is a stop."""

CODON_LETTERS: Letters = np.frombuffer("".join(CODONS).encode(), np.uint8).reshape(64, 3)
_AMINO_ACID_SHARES = {
    "L": 9.5, "S": 8.0, "A": 7.5, "G": 7.0, "V": 6.5, "E": 6.5, "K": 6.0, "T": 5.5, "I": 5.5, "D": 5.5, "R": 5.3,
    "P": 5.0, "N": 4.3, "Q": 4.2, "F": 4.0, "Y": 3.0, "M": 2.4, "H": 2.3, "C": 1.6, "W": 1.2,
}  # fmt: skip


def letters(text: str) -> Letters:
    """Turn text into an array of ASCII letters."""
    return np.frombuffer(text.encode("ascii"), np.uint8).copy()


def flip(sequence: Letters) -> Letters:
    """Give the reverse complement."""
    return COMPLEMENT[sequence[::-1]]


def sample_motif(consensus: str, random: np.random.Generator, fidelity: float = MOTIF_FIDELITY) -> Letters:
    """Draw one instance of an IUPAC consensus; a position leaves it with chance ``1 - fidelity``, for a random base."""
    chosen = [_IUPAC[letter][random.integers(len(_IUPAC[letter]))] for letter in consensus]
    sequence = np.array(chosen, dtype=np.uint8)
    stray = random.random(len(consensus)) >= fidelity
    sequence[stray] = ACGT[random.integers(0, 4, size=int(stray.sum()))]
    return sequence


class Background:
    """Non-coding sequence: a third-order Markov chain with its own GC content and depletion of CpG.

    Made once as a long pool in parallel chains; `take` cuts consecutive pieces.
    """

    def __init__(self, num_bases: int, gc: float, cpg_ratio: float, random: np.random.Generator) -> None:
        base = np.array([(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])
        transitions = base * random.gamma(8.0, 1 / 8.0, size=(64, 4))
        transitions[1::4, 2] *= cpg_ratio
        thresholds = np.cumsum(transitions / transitions.sum(axis=1, keepdims=True), axis=1)[:, :3]
        num_chains = max(1, min(4096, num_bases // 64))
        num_steps = -(-num_bases // num_chains)
        state = random.integers(0, 64, size=num_chains)
        codes = np.empty((num_steps, num_chains), dtype=np.uint8)
        for step in range(num_steps):
            code = (random.random(num_chains)[:, None] > thresholds[state]).sum(axis=1)
            codes[step] = code
            state = (state * 4 + code) % 64
        self._pool = ACGT[codes.T.reshape(-1)]
        self._cursor = 0

    def take(self, num_bases: int) -> Letters:
        """Give the next ``num_bases`` of the pool as a copy, starting again at its end."""
        if self._cursor + num_bases > len(self._pool):
            self._cursor = 0
        piece = np.resize(self._pool[self._cursor : self._cursor + num_bases], num_bases)
        self._cursor += num_bases
        return piece


class CodonUsage:
    """Which codons genes use, and the protein domains they share."""

    def __init__(self, random: np.random.Generator, *, bias: float = 0.65, num_domains: int = 12) -> None:
        """Draw a preferred codon for each amino acid (chosen with chance ``bias``) and a set of domains."""
        self.probabilities = np.zeros(64)
        self.synonyms: list[np.ndarray[Any, np.dtype[np.int64]]] = [np.array([code]) for code in range(64)]
        for amino_acid, weight in _AMINO_ACID_SHARES.items():
            codes = np.array([code for code in range(64) if AMINO_ACIDS[code] == amino_acid])
            shares = np.full(len(codes), (1 - bias) / max(1, len(codes) - 1))
            shares[random.integers(len(codes))] = bias
            self.probabilities[codes] = weight * shares / shares.sum()
            for code in codes:
                self.synonyms[int(code)] = codes
        self.probabilities /= self.probabilities.sum()
        self.domains = [self.draw(int(random.integers(30, 60)), random) for _ in range(num_domains)]

    def draw(self, num_codons: int, random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Draw codon numbers without stops."""
        return random.choice(64, size=num_codons, p=self.probabilities)

    def coding_sequence(self, num_codons: int, random: np.random.Generator) -> Letters:
        """Make a CDS: ATG, about ``num_codons`` codons, of which half are diverged copies of domains, and a stop."""
        parts = []
        left = num_codons
        while left > 0:
            if random.random() < 0.5:
                piece = self.domains[random.integers(len(self.domains))].copy()
                changed = random.random(len(piece)) < 0.2
                piece[changed] = self.draw(int(changed.sum()), random)
            else:
                piece = self.draw(int(random.integers(15, 60)), random)
            parts.append(piece)
            left -= len(piece)
        stop = letters(("TAA", "TGA", "TAG")[random.choice(3, p=[0.5, 0.3, 0.2])])
        return np.concatenate([letters("ATG"), CODON_LETTERS[np.concatenate(parts)].reshape(-1), stop])


class RepeatFamilies:
    """Interspersed repeats: a few ancestral sequences, copied with divergence and truncation."""

    def __init__(self, random: np.random.Generator) -> None:
        lengths = (180, 290, 350, 600, 900)
        contents = (0.55, 0.5, 0.38, 0.42, 0.36)
        self.ancestors = {
            f"REP{number + 1}": Background(length, gc, 0.6, random).take(length)
            for number, (length, gc) in enumerate(zip(lengths, contents))
        }

    def draw(self, random: np.random.Generator) -> tuple[str, float, Letters]:
        """Give family, divergence (share of substituted bases) and sequence of one copy, on its own strand."""
        name = list(self.ancestors)[random.integers(len(self.ancestors))]
        copy = self.ancestors[name].copy()
        if random.random() < 0.4:
            copy = copy[random.integers(0, len(copy) - 80) :]
        divergence = float(random.uniform(0.02, 0.2))
        changed = random.random(len(copy)) < divergence
        copy[changed] = ACGT[(np.searchsorted(ACGT, copy[changed]) + random.integers(1, 4, int(changed.sum()))) % 4]
        return name, round(float(changed.mean()), 4), copy
