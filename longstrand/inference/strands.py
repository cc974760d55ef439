"""The strand policy and test-time augmentation of inference, in one place.

``+`` reads a sequence as it is given, ``-`` reads its reverse complement, ``both`` reads the two and averages. What
is said about a whole sequence (logits, a vector) is averaged as it is: logits, not probabilities, so that the
probabilities of a row are always the softmax (or sigmoid) of its logits. What is said about bases is flipped back
first, so that value *i* belongs to base *i* of the sequence as given.

A *view* is a strand and a shift. The window is moved by the shift first (positive: to the right, on the sequence as
given), then read on the strand. What enters it is the genome beside an interval, or N beside a plain sequence. Values
of bases go back to their own bases; bins keep their number, so shifts are to be small beside a bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from longstrand.errors import one_of
from longstrand.genome.sequence import reverse_complement

if TYPE_CHECKING:
    import numpy as np

StrandPolicy = Literal["+", "-", "both"]
STRANDS: dict[str, tuple[str, ...]] = {"+": ("+",), "-": ("-",), "both": ("+", "-")}
View = tuple[str, int]
PUBLISHED_VIEWS: tuple[View, ...] = (
    ("+", 0), ("-", 0), ("+", -1), ("+", -2), ("-", -2), ("-", -3), ("+", 2), ("-", 3),
)  # fmt: skip
"""The eight views over which GENA-LM averages its Enformer predictions (its evaluation script)."""


def strands_of(policy: str) -> tuple[str, ...]:
    """Give the strands that a policy reads, in order.

    Raises:
        UsageError: there is no such policy.
    """
    return STRANDS[one_of(policy, STRANDS, "strand")]


def shift_text(text: str, shift: int, flanks: tuple[str, str] = ("", "")) -> str:
    """Move a window over a text by some bases; its length stays.

    Args:
        text: the window.
        shift: positive drops letters on the left.
        flanks: what stands before and after the text, as far as it is known; the rest is N.
    """
    size = abs(shift)
    if not size:
        return text
    wide = flanks[0].rjust(size, "N")[-size:] + text + flanks[1].ljust(size, "N")[:size]
    return wide[size + shift : size + shift + len(text)]


def shift_back(shift: int, values: np.ndarray) -> np.ndarray:
    """Move values per base of a shifted window (num_bases, ...) to their bases; NaN where it does not reach."""
    import numpy as np

    if not shift:
        return values
    moved, size = np.full_like(values, np.nan), max(0, len(values) - abs(shift))
    if shift > 0:
        moved[shift:] = values[:size]
    else:
        moved[:size] = values[len(values) - size :]
    return moved


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
    """Average what the views say; missing (NaN) in one view leaves what the others say.

    Args:
        values: arrays of the same shape, already flipped and shifted back.
    """
    import numpy as np

    if len(values) == 1:
        return values[0]
    total, count = np.zeros_like(values[0]), np.zeros_like(values[0])
    for one in values:
        known = ~np.isnan(one)
        total[known] += one[known]
        count += known
    averages: np.ndarray = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return averages
