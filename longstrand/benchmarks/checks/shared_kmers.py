"""Sequences of one set that stand, whole or in part, in another set: shared 32-mers, long runs and near duplicates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

RUN_BASES = 32
NEAR_BASES = 16
MAX_KMERS = 4_000_000
"""Words kept of one set; of larger sets the words with a small hash are taken, the same ones in both sets."""

MAX_OCCURRENCES = 60
"""Words that stand in more rows than this are repeats and say nothing about two rows being copies."""

NEAR_SHARE = 0.5
MIN_INFORMATIVE = 8


@dataclass(frozen=True)
class KmerOverlap:
    """What one set of sequences shares with a reference set, on either strand.

    Attributes:
        share: share of the 32-mers of the set that stand in the reference; 0 if no sequence is that long.
        longest_run: bases of the longest stretch of one row that stands in the reference 32-mer by 32-mer (a lower
            bound if words were sampled); 0 if there is none.
        num_long_runs: rows with such a stretch of at least half of their bases.
        near_duplicates: (row, row of the reference) pairs where one reference row holds at least half of the 16-mers of
            the row (those that stand in at most 60 reference rows; a row with less than 8 is not judged). The best
            reference row of each.
        sampled_one_in: one word in this many was looked at.
    """

    share: float
    longest_run: int
    num_long_runs: int
    near_duplicates: list[tuple[int, int]]
    sampled_one_in: int


@dataclass(frozen=True)
class Sketch:
    """The words of a set of sequences.

    Attributes:
        lengths: (num_rows,) bases of each row.
        one_in: one word in this many is kept, by its hash.
        codes, rows, starts: the 32-mers by row and start.
        run_set: (num_distinct,) their codes, sorted.
        near_codes, near_rows: the 16-mers, each once a row, sorted by code.
    """

    lengths: np.ndarray
    one_in: int
    codes: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    run_set: np.ndarray
    near_codes: np.ndarray
    near_rows: np.ndarray


def sampling(sets: Iterable[Sequence[str]], max_kmers: int = MAX_KMERS) -> int:
    """Choose which share of words to keep so that no set keeps many more than ``max_kmers``: one in this many."""
    largest = max((sum(map(len, sequences)) for sequences in sets), default=0)
    return max(1, -(-largest // max_kmers))


def sketch(sequences: Sequence[str], one_in: int = 1) -> Sketch:
    """Collect the words of upper-case sequences, the smaller strand of each; words with other letters are left out."""
    letters = np.frombuffer("N".join(sequences).encode("ascii"), dtype=np.uint8)
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    codes, rows, starts = _words(letters, lengths, RUN_BASES, one_in)
    near_codes, near_rows, _ = _words(letters, lengths, NEAR_BASES, one_in)
    return Sketch(lengths, one_in, codes, rows, starts, np.unique(codes), *_distinct(near_codes, near_rows))


def compare_kmers(judged: Sketch, reference: Sketch) -> KmerOverlap:
    """Find what the rows of one set share with a reference set.

    Two random sequences share no 32-mer and (nearly) no 16-mer.

    Raises:
        ValueError: the two sketches keep different shares of the words.
    """
    if judged.one_in != reference.one_in:
        raise ValueError(f"sketches of one word in {judged.one_in} and in {reference.one_in} cannot be compared.")
    share, longest, num_long = _runs(judged, reference)
    return KmerOverlap(share, longest, num_long, _near_duplicates(judged, reference), judged.one_in)


def _runs(judged: Sketch, reference: Sketch) -> tuple[float, int, int]:
    """Give the share of common 32-mers, the longest run of them, and rows half of which is one run."""
    wanted = reference.run_set
    if not len(judged.codes) or not len(wanted):
        return 0.0, 0, 0
    places = np.minimum(np.searchsorted(wanted, judged.codes), len(wanted) - 1)
    hit = wanted[places] == judged.codes
    share = float(hit.mean())
    if not hit.any():
        return share, 0, 0
    rows, starts, order = judged.rows[hit], judged.starts[hit], np.flatnonzero(hit)
    broken = (np.diff(rows) != 0) | (np.diff(order) != 1)
    if judged.one_in == 1:
        broken |= np.diff(starts) != 1
    first = np.concatenate(([0], np.flatnonzero(broken) + 1))
    last = np.concatenate((first[1:] - 1, [len(rows) - 1]))
    runs = starts[last] - starts[first] + RUN_BASES
    long = np.unique(rows[first][runs * 2 >= judged.lengths[rows[first]]])
    return share, int(runs.max()), len(long)


def _near_duplicates(judged: Sketch, reference: Sketch) -> list[tuple[int, int]]:
    """Join the two sets on their 16-mers and count the common ones of each pair of rows."""
    left_codes, left_rows = judged.near_codes, judged.near_rows
    low = np.searchsorted(reference.near_codes, left_codes, "left")
    counts = np.searchsorted(reference.near_codes, left_codes, "right") - low
    informative = counts <= MAX_OCCURRENCES
    total = np.bincount(left_rows[informative], minlength=len(judged.lengths))
    counts = np.where(informative, counts, 0)
    pair_left = np.repeat(left_rows, counts)
    if not len(pair_left):
        return []
    inside = np.arange(len(pair_left)) - np.repeat(np.cumsum(counts) - counts, counts)
    pair_right = reference.near_rows[np.repeat(low, counts) + inside]
    num_reference = len(reference.lengths)
    keys, common = np.unique(pair_left * num_reference + pair_right, return_counts=True)
    row_of = keys // num_reference
    near = (common >= NEAR_SHARE * total[row_of]) & (total[row_of] >= MIN_INFORMATIVE)
    best: dict[int, tuple[int, int]] = {}
    found = zip(row_of[near].tolist(), (keys[near] % num_reference).tolist(), common[near].tolist())
    for row, twin, number in found:
        if row not in best or number > best[row][1]:
            best[row] = (twin, number)
    return [(row, twin) for row, (twin, _) in sorted(best.items())]


def _distinct(codes: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort by code, then row, and drop a word that a row holds twice; ``rows`` come in order."""
    order = np.argsort(codes, kind="stable")
    codes, rows = codes[order], rows[order]
    fresh = np.ones(len(codes), dtype=bool)
    fresh[1:] = (codes[1:] != codes[:-1]) | (rows[1:] != rows[:-1])
    return codes[fresh], rows[fresh]


def _words(
    letters: np.ndarray, lengths: np.ndarray, num_bases: int, one_in: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the words of all rows (joined with one letter between them): codes, rows and starts, in order."""
    from longstrand.benchmarks.checks.kmer_kernel import canonical_words

    ends = np.cumsum(lengths + 1)
    begins = ends - lengths - 1
    codes, places = canonical_words(letters, num_bases, one_in)
    rows = np.searchsorted(ends, places, side="right")
    return codes, rows, places - begins[rows]
