"""What chance gives when each sequence's annotation is moved round it by a random shift, independently: exactly.

Moving round keeps run lengths and clusters of both sides and breaks the link between them. The sum over sequences has
the distribution of a sum of independent draws, one from the values that each sequence's shifts give; no sampling.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShiftNull:
    """Distribution of a sum of counts under random shifts.

    Attributes:
        mean, sd: of the sum.
        tail: float64; entry ``t`` is the probability of ``t + lowest`` or more.
        lowest: smallest sum that can occur.
    """

    mean: float
    sd: float
    tail: npt.NDArray[np.float64]
    lowest: int

    def p(self, observed: int) -> float:
        """Return the probability of a sum at least as high."""
        place = observed - self.lowest
        return 1.0 if place <= 0 else float(self.tail[place]) if place < len(self.tail) else 0.0


def shift_null(values: Iterable[Ints]) -> ShiftNull:
    """Convolve the distributions of sequences.

    Args:
        values: for each sequence the count at every shift, all equally likely; int64.
    """
    known, lowest, mean, variance = np.ones(1), 0, 0.0, 0.0
    for own in values:
        if not len(own):
            continue
        low = int(own.min())
        mean, variance, lowest = mean + float(own.mean()), variance + float(own.var()), lowest + low
        if own.max() > low:
            known = np.convolve(known, np.bincount(own - low) / len(own))
    return ShiftNull(mean, float(np.sqrt(variance)), np.cumsum(known[::-1])[::-1].clip(max=1), lowest)


def circular_counts(weights: Ints, marked: npt.NDArray[np.bool_]) -> Ints:
    """Sum the weights under marks moved round by 0, 1, ... places: int64 ``(n,)``, entry 0 as observed."""
    places = np.flatnonzero(marked)
    shifts = np.arange(len(marked))
    return weights[(places[:, None] + shifts) % max(len(marked), 1)].sum(0)
