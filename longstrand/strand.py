"""The strand policy of inference, in one place.

``+`` reads a sequence as it is given, ``-`` reads its reverse complement, ``both`` reads the two and averages. What
is said about a whole sequence (logits, a vector) is averaged as it is: logits, not probabilities, so that the
probabilities of a row are always the softmax (or sigmoid) of its logits. What is said about bases is flipped back
first, so that value *i* belongs to base *i* of the sequence as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from longstrand.errors import UsageError
from longstrand.genome.sequence import reverse_complement

if TYPE_CHECKING:
    import numpy as np

StrandPolicy = Literal["+", "-", "both"]
STRANDS: dict[str, tuple[str, ...]] = {"+": ("+",), "-": ("-",), "both": ("+", "-")}


def strands_of(policy: str) -> tuple[str, ...]:
    """Give the strands that a policy reads, in order.

    Raises:
        UsageError: there is no such policy.
    """
    if policy not in STRANDS:
        raise UsageError(f"unknown strand '{policy}'; use '+', '-' or 'both'.")
    return STRANDS[policy]


def read_on(strand: str, sequence: str) -> str:
    """Give the letters of a sequence as read on one strand."""
    return reverse_complement(sequence) if strand == "-" else sequence


def flip_back(strand: str, values: np.ndarray) -> np.ndarray:
    """Order values per base (num_bases, ...) by the bases of the sequence as given."""
    return values[::-1] if strand == "-" else values


def flip_offsets(strand: str, offsets: np.ndarray, num_bases: int) -> np.ndarray:
    """Turn token offsets (n, 2) on a strand into (start, end) on the sequence as given, in its order."""
    if strand == "+":
        return offsets
    return (num_bases - offsets[:, ::-1])[::-1]


def average(values: Sequence[np.ndarray]) -> np.ndarray:
    """Average what the strands say; missing (NaN) on one strand leaves what the other says.

    Args:
        values: one or two arrays of the same shape, already flipped back.
    """
    import numpy as np

    if len(values) == 1:
        return values[0]
    forward, reverse = values
    mean = (forward + reverse) / 2
    return np.where(np.isnan(forward), reverse, np.where(np.isnan(reverse), forward, mean)).astype(forward.dtype)
