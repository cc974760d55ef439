"""What chance gives when each sequence's annotation is moved round it by a random shift, independently: exactly.

Moving round keeps run lengths and clusters of both sides and breaks the link between them. The sum over sequences has
the distribution of a sum of independent draws, one from the values that each sequence's shifts give; no sampling.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShiftNull:
    """Distribution of a sum of counts under random shifts.

    Attributes:
        mean, sd: of the sum.
        tail: float64; entry ``t`` is the probability of ``t + lowest`` or more; None: the normal distribution.
        lowest: smallest sum that can occur.
    """

    mean: float
    sd: float
    tail: npt.NDArray[np.float64] | None
    lowest: int

    def p(self, observed: int) -> float:
        """Return the probability of a sum at least as high."""
        if self.tail is None:
            return float(stats.norm.sf((observed - 0.5 - self.mean) / max(self.sd, 1e-12)))
        place = observed - self.lowest
        return 1.0 if place <= 0 else float(self.tail[place]) if place < len(self.tail) else 0.0


class ShiftSum:
    """Adds up sequences; memory does not grow with them.

    Attributes:
        exact: most different sums that the distribution is kept for; beyond, only its mean and sd.
    """

    def __init__(self, exact: int = 1 << 20) -> None:
        self.exact = exact
        self.lowest, self.mean, self.variance = 0, 0.0, 0.0
        self.known: npt.NDArray[np.float64] | None = np.ones(1)

    def add(self, values: Ints) -> None:
        """Add a sequence: its count at every shift, all equally likely."""
        if not len(values):
            return
        low = int(values.min())
        self.lowest += low
        self.mean += float(values.mean())
        self.variance += float(values.var())
        if self.known is not None and values.max() > low:
            long = len(self.known) + int(values.max()) - low > self.exact
            self.known = None if long else np.convolve(self.known, np.bincount(values - low) / len(values))

    def result(self) -> ShiftNull:
        """Give the distribution of the sum."""
        tail = None if self.known is None else np.cumsum(self.known[::-1])[::-1].clip(max=1)
        return ShiftNull(self.mean, float(np.sqrt(self.variance)), tail, self.lowest)


def shift_null(values: Iterable[Ints]) -> ShiftNull:
    """Convolve the distributions of sequences; see `ShiftSum.add`."""
    total = ShiftSum()
    for own in values:
        total.add(own)
    return total.result()


def circular_counts(weights: Ints, marked: npt.NDArray[np.bool_]) -> Ints:
    """Sum the weights under marks moved round by 0, 1, ... places: int64 ``(n,)``, entry 0 as observed."""
    places = np.flatnonzero(marked)
    shifts = np.arange(len(marked))
    return weights[(places[:, None] + shifts) % max(len(marked), 1)].sum(0)
