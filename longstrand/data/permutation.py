"""Random numbers by counter, and permutations too large to store.

Every draw is a pure function of ``(seed, index, purpose)``: any sample can be made anywhere, in any order, by any
worker. Whole vectors of random numbers come from `longstrand.runtime.generator` (15 µs to build); the single numbers
here cost one microsecond, which matters at thousands of windows a second.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def mix_bits(value: int) -> int:
    """Scramble 64 bits (the finaliser of SplitMix64, Steele et al. 2014): every input bit moves every output bit."""
    value = (value + _GOLDEN) & _MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return value ^ (value >> 31)


@lru_cache(maxsize=4096)
def key_of(seed: int, purpose: str) -> int:
    """Give the 64-bit key of one seed and one purpose; different purposes have unrelated keys."""
    return int.from_bytes(hashlib.sha256(f"draw:{seed}:{purpose}".encode()).digest()[:8], "little")


def draw_bits(seed: int, index: int, purpose: str) -> int:
    """Draw 64 random bits for one sample and one purpose."""
    key = key_of(seed, purpose)
    return mix_bits(mix_bits(index & _MASK_64) ^ key)


def draw_many(seed: int, indices: np.ndarray, purpose: str) -> np.ndarray:
    """Draw as `draw_bits` does for many samples at once; uint64, as many as ``indices``."""
    key = np.uint64(key_of(seed, purpose))
    return _mix_many(_mix_many(indices.astype(np.uint64)) ^ key)


def _mix_many(values: np.ndarray) -> np.ndarray:
    values = values + np.uint64(_GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def draw_below(seed: int, index: int, purpose: str, *, bound: int) -> int:
    """Draw an integer in ``[0, bound)``; the bias is below ``bound / 2**64``.

    Raises:
        ValueError: ``bound`` is not positive.
    """
    if bound < 1:
        raise ValueError(f"a draw needs a positive bound, got {bound}.")
    return (draw_bits(seed, index, purpose) * bound) >> 64


def draw_unit(seed: int, index: int, purpose: str) -> float:
    """Draw a float in ``[0, 1)`` with 53 random bits."""
    return (draw_bits(seed, index, purpose) >> 11) * (1.0 / (1 << 53))


class Permutation:
    """A keyed permutation of ``0 .. size - 1`` that is computed, never stored.

    A Feistel network over the smallest number of bits that holds ``size``; values outside are sent through again
    (cycle walking), which takes less than two rounds on average. Any ``size`` from 1 to ``2**62``.

    Example:
        >>> sorted(Permutation(5, key=3)(index) for index in range(5))
        [0, 1, 2, 3, 4]
    """

    _NUM_ROUNDS = 6

    def __init__(self, size: int, *, key: int) -> None:
        """Prepare the round keys.

        Raises:
            ValueError: ``size`` is not in ``1 .. 2**62``.
        """
        if not 1 <= size <= 1 << 62:
            raise ValueError(f"a permutation needs a size between 1 and 2**62, got {size}.")
        self.size = size
        num_bits = max(2, (size - 1).bit_length())
        self._right_bits = num_bits // 2
        self._left_bits = num_bits - self._right_bits
        self._keys = [mix_bits(key + (number << 32)) for number in range(self._NUM_ROUNDS)]

    def __call__(self, index: int) -> int:
        """Give the place of ``index``.

        Raises:
            IndexError: ``index`` is outside the permutation.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"index {index} is outside a permutation of {self.size}.")
        value = self._encrypt(index)
        while value >= self.size:
            value = self._encrypt(value)
        return value

    def _encrypt(self, value: int) -> int:
        """Apply one bijection of the whole power of two; the two halves may differ by one bit, so widths alternate."""
        left_bits, right_bits = self._left_bits, self._right_bits
        left, right = value >> right_bits, value & ((1 << right_bits) - 1)
        for key in self._keys:
            left, right = right, left ^ (mix_bits(right ^ key) & ((1 << left_bits) - 1))
            left_bits, right_bits = right_bits, left_bits
        return (left << right_bits) | right
