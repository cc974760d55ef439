"""What chance gives when each sequence's annotation is moved round it by a random shift, independently: exactly.

Moving round keeps run lengths and clusters of both sides and breaks the link between them. The sum over sequences has
the distribution of a sum of independent draws, one from the values that each sequence's shifts give; no sampling.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy import stats

Ints = npt.NDArray[np.int64]


class ShiftSum:
    """Adds up sequences, convolving their distributions; memory does not grow with them.

    Attributes:
        exact: most different sums that the distribution is kept for; beyond, only its mean and sd.
    """

    def __init__(self, values: Iterable[Ints] = (), *, exact: int = 1 << 20) -> None:
        self.exact = exact
        self.lowest, self.mean, self.variance = 0, 0.0, 0.0
        self.known: npt.NDArray[np.float64] | None = np.ones(1)
        for own in values:
            self.add(own)

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

    @property
    def sd(self) -> float:
        """Standard deviation of the sum."""
        return float(np.sqrt(self.variance))

    def p(self, observed: int) -> float:
        """Return the probability of a sum at least as high; from the normal distribution if it is not kept."""
        if self.known is None:
            return float(stats.norm.sf((observed - 0.5 - self.mean) / max(self.sd, 1e-12)))
        return min(1.0, float(self.known[max(0, observed - self.lowest) :][::-1].sum()))


def circular_counts(weights: Ints, marked: npt.NDArray[np.bool_]) -> Ints:
    """Sum the weights under marks moved round by 0, 1, ... places: int64 ``(n,)``, entry 0 as observed."""
    places = np.flatnonzero(marked)
    shifts = np.arange(len(marked))
    return weights[(places[:, None] + shifts) % max(len(marked), 1)].sum(0)
