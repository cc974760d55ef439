"""All words of k bases of a long text, the smaller strand of each, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from longstrand.tokenization.compiled import compiled

_CODES = np.full(256, 4, dtype=np.uint8)
_CODES[np.frombuffer(b"ACGTacgt", dtype=np.uint8)] = [0, 1, 2, 3, 0, 1, 2, 3]


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
