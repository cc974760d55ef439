"""How much of the hold-out occurs in the training data word for word.

A margin keeps windows apart on the chromosome; it does not keep out paralogs, repeats and duplicated genomes. Their
trace is the share of long k-mers of the hold-out that also stand somewhere in the training data, on either strand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from longstrand.data.regions import Regions
from longstrand.data.windows import EvaluationWindows, TrainingWindows
from longstrand.genome.fasta import Genome

K = 32
_BLOCK = 1 << 20
_FILTER_BITS = 24
_CODES = np.full(256, 4, dtype=np.uint8)
_CODES[np.frombuffer(b"ACGTacgt", dtype=np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]


@dataclass(frozen=True)
class SharedKmers:
    """Overlap of hold-out and training data.

    Attributes:
        share: share of the sampled hold-out 32-mers that occur in the training data on either strand; 0 if the hold-out
            has none.
        num_sampled: distinct 32-mers sampled from the hold-out.
        num_training_bases: bases searched.
    """

    share: float
    num_sampled: int
    num_training_bases: int


def shared_kmers(
    training: TrainingWindows,
    evaluation: EvaluationWindows,
    *,
    max_sampled: int = 200_000,
    max_bases: int = 200_000_000,
) -> SharedKmers:
    """Measure how many 32-mers of the hold-out the training data contain.

    By chance the share is about ``2 * bases / 4**32``, which is nothing. k-mers with unknown letters are left out.

    Args:
        training: its allowed stretches are searched, in order.
        evaluation: its stretches are sampled, evenly.
        max_sampled: hold-out k-mers looked for, at most.
        max_bases: training bases searched, at most.
    """
    blocks = _blocks(evaluation.regions, evaluation.genomes, evaluation.regions.num_bases)
    every = np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *blocks]))
    wanted = every[:: max(1, -(-len(every) // max_sampled))]
    found = np.zeros(len(wanted), dtype=bool)
    marked = np.zeros(1 << _FILTER_BITS, dtype=bool)
    marked[_hashes(wanted)] = True
    for kmers in _blocks(training.regions, training.genomes, max_bases if len(wanted) else 0):
        likely = kmers[marked[_hashes(kmers)]]
        places = np.minimum(np.searchsorted(wanted, likely), len(wanted) - 1)
        found[places[wanted[places] == likely]] = True
    share = float(found.mean()) if len(found) else 0.0
    return SharedKmers(share, len(wanted), min(max_bases, training.regions.num_bases))


def canonical_kmers(sequence: str) -> np.ndarray:
    """Give the code of each 32-mer without unknown letters, uint64, the smaller one of both strands.

    A, C, G, T are 0, 1, 2, 3, the first base in the highest bits.
    """
    codes = _CODES[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
    if len(codes) < K:
        return np.zeros(0, dtype=np.uint64)
    unknown = np.concatenate(([0], np.cumsum(codes == 4)))
    clean = unknown[K:] == unknown[:-K]
    forward = _doubled(codes & 3)
    backward = _doubled((3 - (codes & 3))[::-1])[::-1]
    smaller: np.ndarray = np.minimum(forward, backward)[clean]
    return smaller


def _doubled(codes: np.ndarray) -> np.ndarray:
    """Pack 32 bases from each position on: words of 1, 2, 4, ... bases are joined in pairs."""
    words, width = codes.astype(np.uint64), 1
    while width < K:
        words = (words[:-width] << np.uint64(2 * width)) | words[width:]
        width *= 2
    return words


def _blocks(regions: Regions, genomes: list[Genome], max_bases: int) -> Iterator[np.ndarray]:
    """Give the canonical k-mers of stretches, in blocks that overlap by 31 bases."""
    left = max_bases
    for number, chrom, start, end in zip(regions.genomes, regions.chroms, regions.starts, regions.ends):
        for first in range(int(start), int(end), _BLOCK):
            if left <= 0:
                return
            last = min(int(end), first + _BLOCK + K - 1, first + left + K - 1)
            left -= min(_BLOCK, last - first)
            yield canonical_kmers(genomes[number].fetch(chrom, first, last))


def _hashes(kmers: np.ndarray) -> np.ndarray:
    """Give a 24-bit hash of each code, for sorting out most k-mers that are not wanted (Fibonacci hashing)."""
    hashes: np.ndarray = (kmers * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _FILTER_BITS)
    return hashes
