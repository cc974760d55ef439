"""How many bases a token stands for: measured by tokenizing a genome, simulated or your own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from longstrand.errors import InputError

if TYPE_CHECKING:
    from longstrand.tokenization.base import Tokenizer

SAMPLE_BASES = 50_000


@dataclass(frozen=True)
class BasesPerToken:
    """A measured ratio.

    Attributes:
        value: bases of the sample divided by its tokens, special ones left out.
        num_bases: bases of the sample.
        source: what was tokenized.
    """

    value: float
    num_bases: int
    source: str

    def bases(self, num_tokens: int) -> int:
        """Say how many bases so many tokens cover, about."""
        return round(num_tokens * self.value)

    def tokens(self, num_bases: int) -> int:
        """Say how many tokens so many bases need, about, rounded up."""
        return -int(-num_bases // self.value)


def measure_bases_per_token(tokenizer: Tokenizer, fasta: Path | None = None) -> BasesPerToken:
    """Tokenize up to `SAMPLE_BASES` bases of a genome, N left out, and count.

    Args:
        tokenizer: any.
        fasta: the genome; None takes a simulated one, whose repeats and composition are like a real one's.

    Raises:
        InputError: the file cannot be read, or has no base other than N.
    """
    from longstrand.genome.sequence import normalise

    pieces = [_simulated()] if fasta is None else _read(fasta)
    num_bases, num_tokens = 0, 0
    for piece in pieces:
        text = normalise(piece, tokenizer.alphabet or "ACGTN").sequence
        num_bases += len(text)
        num_tokens += len(tokenizer.encode(text, add_special_tokens=False))
    if not num_tokens:
        raise InputError(f"{fasta}: the tokenizer finds no token in its first bases.")
    return BasesPerToken(num_bases / num_tokens, num_bases, "a simulated genome" if fasta is None else str(fasta))


@lru_cache(maxsize=1)
def _simulated() -> str:
    from longstrand.demo.simulate import simulate_genome

    (genome,) = simulate_genome(seed=0, num_bases=SAMPLE_BASES, num_contigs=1, species=1)
    return next(iter(genome.contigs.values())).upper().replace("N", "")


def _read(path: Path) -> list[str]:
    """Read the first bases of a FASTA file, in pieces between runs of N."""
    from longstrand.genome.fasta import Genome

    genome, pieces, left = Genome(path), list[str](), SAMPLE_BASES
    for chrom, length in genome.contigs.items():
        start = 0
        while left > 0 and start < length:
            text = genome.fetch(chrom, start, min(length, start + SAMPLE_BASES)).upper()
            start += len(text)
            for piece in text.split("N"):
                kept = piece[:left]
                left -= len(kept)
                pieces += [kept] if kept else []
    if not pieces:
        raise InputError(f"{path}: holds no base other than N.")
    return pieces
