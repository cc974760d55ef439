"""In-silico mutagenesis with any score function: substitutions, deletions, insertions, shuffled blocks.

A score function takes texts and returns ``(n, outputs)`` (`longstrand.questions.scores`); the first output counts.
Where one number a base is given, it is "text minus changed text": positive means that the base supports the output.
Every text is scored after it was cut into tokens anew, so a change can move the borders of tokens; with BPE that
happens often, and `Mutagenesis.resegmented` says how often. A change with the score NaN (edits can make more tokens
than a model reads) is as one that was not made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longstrand.errors import InputError
from longstrand.questions.scores import Score
from longstrand.questions.tokens import FloatArray
from longstrand.runtime import generator

BASES = "ACGT"
Segment = Callable[[str], npt.NDArray[np.integer]]
"""From a text to the ``(n, 2)`` start and end of its tokens."""


@dataclass(frozen=True, eq=False)
class Mutagenesis:
    """The effect of every single substitution.

    Attributes:
        effects: float32 ``(num_bases, 4)``, columns A, C, G, T: score of the changed text minus that of the text; 0 at
            the letter that is there, NaN where a substitution was not made.
        letters: bool ``(num_bases, 4)``, the letter that is there; an N has none.
        score: of the text.
        resegmented: share of the substitutions that changed the borders of tokens; NaN if that was not asked.
        num_scored: texts that were scored, each different one once.
    """

    effects: FloatArray
    letters: npt.NDArray[np.bool_]
    score: float
    resegmented: float = np.nan
    num_scored: int = 0

    @property
    def importance(self) -> FloatArray:
        """Minus the mean effect of the alternatives of each base, ``(num_bases,)``; NaN without any.

        An N has four alternatives, a base three; others divide by four or not at all.
        """
        made = ~np.isnan(self.effects) & ~self.letters
        total = np.where(made, self.effects, 0).sum(1)
        number = made.sum(1)
        mean: FloatArray = np.divide(-total, number, out=np.full(len(total), np.nan, np.float32), where=number > 0)
        return mean

    @property
    def hypothetical(self) -> FloatArray:
        """Effects minus their mean over the four letters, ``(num_bases, 4)``, as TF-MoDISco takes them."""
        centred: FloatArray = self.effects - self.effects.mean(1, keepdims=True)
        return centred


def differences(score: Score, sequence: str, changed: Sequence[str]) -> tuple[npt.NDArray[np.float64], float, int]:
    """Score texts and subtract the score of a sequence from each; equal texts are scored once.

    Returns:
        ``(len(changed),)``, the score of the sequence, and how many texts were scored.
    """
    unique = list(dict.fromkeys([sequence, *changed]))
    known = dict(zip(unique, np.asarray(score(unique), dtype=np.float64).reshape(len(unique), -1)[:, 0].tolist()))
    return np.array([known[text] for text in changed]) - known[sequence], known[sequence], len(unique)


def mutagenesis(
    score: Score, sequence: str, *, span: tuple[int, int] | None = None, segment: Segment | None = None,
    keep_segmentation: bool = False,
) -> Mutagenesis:  # fmt: skip
    """Score every single substitution of a sequence.

    Args:
        score: of texts; a model's is ``longstrand.questions.scores.scorer(model)``.
        sequence: capital letters; a letter other than A, C, G, T has four alternatives.
        span: bases (0-based, half-open) that are changed; None: all.
        segment: how a text is cut into tokens, to count changed borders.
        keep_segmentation: leave out substitutions that move a border.

    Raises:
        InputError: the span does not lie in the sequence.
        ValueError: ``keep_segmentation`` without ``segment``.
    """
    if keep_segmentation and segment is None:
        raise ValueError("keep_segmentation needs segment, the function that cuts a text into tokens.")
    places = positions(sequence, span)
    made = [(place, letter) for place in places for letter in range(4) if sequence[place] != BASES[letter]]
    texts = [substituted(sequence, place, BASES[letter]) for place, letter in made]
    share = np.nan
    if segment is not None and made:
        own = segment(sequence)
        moved = [not np.array_equal(segment(text), own) for text in texts]
        share = float(np.mean(moved))
        if keep_segmentation:
            made, texts = ([one for one, gone in zip(each, moved) if not gone] for each in (made, texts))
    found, whole, number = differences(score, sequence, texts)
    letters = np.array([[letter == base for base in BASES] for letter in sequence], dtype=bool).reshape(-1, 4)
    effects = np.full((len(sequence), 4), np.nan, dtype=np.float32)
    effects[letters & np.isin(np.arange(len(sequence)), places)[:, None]] = 0
    for (place, letter), value in zip(made, found):
        effects[place, letter] = value
    return Mutagenesis(effects, letters, whole, share, number)


def substituted(sequence: str, place: int, letter: str) -> str:
    """Put a letter at a base (from 0) of a sequence."""
    return sequence[:place] + letter + sequence[place + 1 :]


def positions(sequence: str, span: tuple[int, int] | None) -> range:
    """List the bases of a span.

    Raises:
        InputError: it does not lie in the sequence.
    """
    start, end = span or (0, len(sequence))
    if not 0 <= start <= end <= len(sequence):
        raise InputError(f"bases {start + 1:,} to {end:,} do not lie in the sequence of {len(sequence):,} bases.")
    return range(start, end)


def deletions(score: Score, sequence: str, *, span: tuple[int, int] | None = None) -> FloatArray:
    """Score the sequence without each of its bases: text minus changed text, float32 ``(num_bases,)``."""
    return _changed(score, sequence, span, lambda place: [sequence[:place] + sequence[place + 1 :]])


def insertions(score: Score, sequence: str, *, span: tuple[int, int] | None = None) -> FloatArray:
    """Score each letter put before each base: text minus the mean of the four texts, float32 ``(num_bases,)``."""
    return _changed(score, sequence, span, lambda place: [sequence[:place] + x + sequence[place:] for x in BASES])


def _changed(
    score: Score, sequence: str, span: tuple[int, int] | None, change: Callable[[int], list[str]]
) -> FloatArray:
    places = positions(sequence, span)
    texts = [change(place) for place in places]
    found = -differences(score, sequence, [text for some in texts for text in some])[0]
    return _per_base(sequence, places, _known_mean(found.reshape(len(places), -1)) if texts else found)


def blocks(
    score: Score, sequence: str, *, width: int = 10, shuffles: int = 4, seed: int = 0,
    span: tuple[int, int] | None = None,
) -> FloatArray:  # fmt: skip
    """Score the sequence with each block of ``width`` bases shuffled, float32 ``(num_bases,)``.

    A base gets the mean over all blocks that cover it of: text minus the mean over the shuffles.

    Raises:
        InputError: the span is shorter than a block.
    """
    places = positions(sequence, span)
    starts = range(places.start, places.stop - width + 1)
    if not starts:
        raise InputError(f"{len(places)} bases are fewer than a block of {width}; give a smaller width.")
    texts = []
    for start in starts:
        random, block = generator(seed, start, "explain block"), list(sequence[start : start + width])
        for _ in range(shuffles):
            texts.append(sequence[:start] + "".join(random.permutation(block)) + sequence[start + width :])
    effects = -differences(score, sequence, texts)[0].reshape(-1, shuffles)
    total, count = np.zeros(len(sequence)), np.zeros(len(sequence))
    for start, effect in zip(starts, _known_mean(effects)):
        if np.isnan(effect):
            continue
        total[start : start + width] += effect
        count[start : start + width] += 1
    means = np.divide(total, count, out=np.full(len(sequence), np.nan), where=count > 0)
    return _per_base(sequence, places, means[places.start : places.stop])


def _known_mean(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average each row without its NaN; NaN where there is nothing else."""
    known = ~np.isnan(rows)
    number = known.sum(1)
    mean: npt.NDArray[np.float64] = np.divide(
        np.where(known, rows, 0).sum(1), number, out=np.full(len(rows), np.nan), where=number > 0
    )
    return mean


def _per_base(sequence: str, places: range, values: npt.NDArray[np.float64]) -> FloatArray:
    found = np.full(len(sequence), np.nan, dtype=np.float32)
    found[places.start : places.stop] = values
    return found
