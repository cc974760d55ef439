"""Words that sequences of one set share with another, on either strand: 32-mers, long runs, near duplicates.

A split by place keeps windows apart on the genome; it does not keep out paralogs, repeats and duplicated genomes. Their
trace is words that stand in both sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longstrand.runtime import compiled

RUN_BASES = 32
NEAR_BASES = 16
MAX_KMERS = 4_000_000
"""Words kept of one set; of larger sets the words with a small hash are taken, the same ones in both sets."""

MAX_OCCURRENCES = 60
"""Words that stand in more rows than this are repeats and say nothing about two rows being copies."""

NEAR_SHARE = 0.5
MIN_INFORMATIVE = 8

_CODES = np.full(256, 4, dtype=np.uint8)
_CODES[np.frombuffer(b"ACGTacgt", dtype=np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]


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
    letters = np.frombuffer("N".join(sequences).encode("ascii", "replace"), dtype=np.uint8)
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
    ends = np.cumsum(lengths + 1)
    begins = ends - lengths - 1
    codes, places = canonical_words(letters, num_bases, one_in)
    rows = np.searchsorted(ends, places, side="right")
    return codes, rows, places - begins[rows]


def canonical_words(letters: np.ndarray, num_bases: int, one_in: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """List the words of ``num_bases`` bases (at most 32) without unknown letters.

    A, C, G, T are 0, 1, 2, 3, the first base in the highest bits; of a word and its reverse complement the smaller code
    counts.

    Args:
        letters: uint8 (n,) ASCII; anything but A, C, G, T ends a word.
        num_bases: bases of a word.
        one_in: keep the words whose hash (splitmix64) is divisible by this.

    Returns:
        codes uint64 and starts int64, in order of place.
    """
    if not 1 <= num_bases <= 32:
        raise ValueError(f"a word has 1 to 32 bases, got {num_bases}.")
    room = max(0, len(letters) - num_bases + 1)
    if one_in > 1:
        room = min(room, int(room / one_in * 1.1) + 1000)
    while True:
        codes, starts = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.int64)
        count = _fill(letters, _CODES, num_bases, one_in, codes, starts)
        if count <= room:
            return codes[:count], starts[:count]
        room = count


@compiled
def _fill(letters: Any, table: Any, num_bases: int, one_in: int, codes: Any, starts: Any) -> int:
    """Write words into ``codes`` and ``starts``; give their number, which may exceed the room."""
    two, three = np.uint64(2), np.uint64(3)
    mask = np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 2 * num_bases)
    shift = np.uint64(2 * (num_bases - 1))
    step = np.uint64(one_in)
    forward, backward = np.uint64(0), np.uint64(0)
    valid, count = 0, 0
    for place in range(len(letters)):
        base = np.uint64(table[letters[place]])
        if base > three:
            valid = 0
            continue
        forward = ((forward << two) | base) & mask
        backward = (backward >> two) | ((three - base) << shift)
        valid += 1
        if valid < num_bases:
            continue
        word = min(forward, backward)
        if step > np.uint64(1):
            mixed = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
            if mixed % step != np.uint64(0):
                continue
        if count < len(codes):
            codes[count] = word
            starts[count] = place - num_bases + 1
        count += 1
    return count
