"""What a motif does to a score: put it into sequences, take it out, and move two of them apart.

The functions take a score function (`longstrand.questions.scores.scorer`, or any function from sequences to ``(n,
outputs)``), so they fit every model. Effects are differences of scores, in the units of the score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import stats

from longstrand.errors import InputError, SequenceError, UsageError
from longstrand.evaluation.bootstrap import Resamples, paired_interval
from longstrand.explain.scan import Hits
from longstrand.genome.sequence import reverse_complement
from longstrand.questions.scores import Score
from longstrand.runtime import generator

SHUFFLES = 10
Floats = npt.NDArray[np.float64]


def insert(text: str, word: str, start: int) -> str:
    """Put a word in place of the letters at ``start``; the length stays.

    Raises:
        InputError: the word does not fit there.
        UsageError: it has no letter.
    """
    if not word:
        raise UsageError("the word that is put in has no letter.")
    if not 0 <= start <= len(text) - len(word):
        place = f" at base {start + 1}" if start >= 0 else ""
        raise InputError(f"'{word}' ({len(word)} bases) does not fit{place} into a sequence of {len(text)} bases.")
    return text[:start] + word + text[start + len(word) :]


def _inserted(texts: Sequence[str], word: str, places: Sequence[int]) -> list[str]:
    """Put a word into each text at its place; an error names the sequence."""
    found = []
    for row, (text, place) in enumerate(zip(texts, places)):
        try:
            found.append(insert(text, word, place))
        except InputError as error:
            raise SequenceError(row, str(error)) from None
    return found


def _scored(score: Score, texts: Sequence[str], rows: Sequence[int]) -> Floats:
    """Score texts, float64; an error names the sequence (one of ``rows``) that a text was made of.

    Raises:
        InputError: there is no text.
    """
    if not texts:
        raise InputError("there is no sequence to put motifs into.")
    try:
        return np.asarray(score(texts), dtype=np.float64)
    except SequenceError as error:
        raise SequenceError(rows[error.row], error.what) from None


def marginalize(score: Score, sequences: Sequence[str], word: str, *, start: int | None = None) -> pl.DataFrame:
    """Score backgrounds with a word put in minus without it.

    Args:
        score: score function.
        sequences: backgrounds, for example shuffled ones.
        word: letters of a motif.
        start: its first base; None: so that it stands in the middle.

    Returns:
        A row a sequence and output: sequence, output, without, with, effect.

    Raises:
        SequenceError: a sequence is shorter than the word, or the score cannot read it.
    """
    places = [(len(text) - len(word)) // 2 if start is None else start for text in sequences]
    changed = _inserted(sequences, word, places)
    before, after = np.split(_scored(score, [*sequences, *changed], [*range(len(sequences))] * 2), 2)
    return _rows(np.arange(len(sequences)), before, after, ("without", "with"))


def ablate(
    score: Score, sequences: Sequence[str], hits: Hits, *, shuffles: int = SHUFFLES, seed: int = 0
) -> pl.DataFrame:
    """Score sequences as they are minus with the sites of motifs shuffled: positive = the sites push the score up.

    Beside it the same number of equally long stretches at random places of the same sequences is shuffled.

    Args:
        score: score function.
        sequences: those that were scanned.
        hits: sites, all of a sequence shuffled together; sequences without are left out.
        shuffles: random orders of the letters, over which scores are averaged.
        seed: of orders and places.

    Returns:
        A row a sequence with sites and output: sequence, output, shuffled, intact, effect, control (the effect of the
        random stretches).

    Raises:
        InputError: no sequence has a site.
        SequenceError: the score cannot read a sequence.
    """
    numbers = np.unique(hits.sequence)
    texts: list[str] = []
    for number in numbers.tolist():
        text, own = sequences[number], hits.sequence == number
        sites = list(zip(hits.start[own].tolist(), hits.end[own].tolist()))
        texts.append(text)
        for turn in range(shuffles):
            rng = generator(seed, number * shuffles + turn, "ablation")
            texts.append(_shuffled(text, sites, rng))
            moved = [(start, start + end - begin) for begin, end in sites
                     for start in [int(rng.integers(0, len(text) - (end - begin) + 1))]]  # fmt: skip
            texts.append(_shuffled(text, moved, rng))
    if not texts:
        raise InputError("no sequence has a site, so nothing can be taken out; lower the threshold of the scan.")
    scores = _scored(score, texts, np.repeat(numbers, 1 + 2 * shuffles).tolist())
    scores = scores.reshape(len(numbers), 1 + 2 * shuffles, -1)
    intact, sites_out, others_out = scores[:, 0], scores[:, 1::2].mean(1), scores[:, 2::2].mean(1)
    frame = _rows(numbers, sites_out, intact, ("shuffled", "intact"))
    return frame.with_columns(pl.Series("control", (intact - others_out).reshape(-1)))


def space(
    score: Score, sequences: Sequence[str], words: tuple[str, str], distances: Sequence[int], *, flip: bool = False
) -> pl.DataFrame:
    """Score two words at growing distances: does the model know how far apart they belong?

    The first word ends at the middle of each sequence; the second begins ``distance`` bases after its end. What the two
    do together beyond the sum of each alone, at the same places, is ``interaction``.

    Args:
        score: score function.
        sequences: backgrounds.
        words: letters of the two.
        distances: bases between them.
        flip: the second on the other strand.

    Returns:
        A row a distance and output, means over the sequences: distance, output, first, second, both (effects against
        the backgrounds), interaction, low, high (95 % of the interaction's mean, normal).

    Raises:
        SequenceError: a sequence is too short for the largest distance, or the score cannot read it.
        UsageError: a distance is negative, so that one word would replace letters of the other.
    """
    if (least := min(distances, default=-1)) < 0:
        raise UsageError(f"distances are whole numbers from 0, at least one; got {least if distances else 'none'}.")
    first, second = words[0], reverse_complement(words[1]) if flip else words[1]
    starts = [len(text) // 2 - len(first) for text in sequences]
    alone = _inserted(sequences, first, starts)
    texts = [*sequences, *alone]
    for distance in distances:
        after = [start + len(first) + distance for start in starts]
        for base in (sequences, alone):
            texts += _inserted(base, second, after)
    scores = _scored(score, texts, [*range(len(sequences))] * (2 + 2 * len(distances)))
    blocks = scores.reshape(2 + 2 * len(distances), len(sequences), -1) - scores[: len(sequences)]
    rows = []
    for number, distance in enumerate(distances):
        other, both = blocks[2 + 2 * number], blocks[3 + 2 * number]
        joint = both - blocks[1] - other
        half = 1.96 * joint.std(0) / np.sqrt(max(1, len(sequences)))
        for output in range(joint.shape[1]):
            mean = float(joint[:, output].mean())
            effects = (float(each[:, output].mean()) for each in (blocks[1], other, both))
            rows.append((distance, output, *effects, mean, mean - float(half[output]), mean + float(half[output])))
    names = ["distance", "output", "first", "second", "both", "interaction", "low", "high"]
    return pl.DataFrame(rows, schema=names, orient="row")


def summary(frame: pl.DataFrame, columns: Sequence[str] = ("effect",)) -> pl.DataFrame:
    """Average columns by output: mean, 95 % interval (bootstrap over sequences) and Wilcoxon's two-sided p."""
    rows = []
    for (output,), own in frame.group_by("output", maintain_order=True):
        for name in columns:
            values = own[name].to_numpy()
            drawn = np.concatenate([weights @ values / len(values) for weights in Resamples(len(values)).blocks()])
            low, high = paired_interval(float(values.mean()), drawn)
            p = float(stats.wilcoxon(values).pvalue) if values.any() else 1.0
            rows.append((output, name, len(values), float(values.mean()), low, high, p))
    return pl.DataFrame(rows, schema=["output", "what", "sequences", "mean", "low", "high", "p"], orient="row")


def _rows(numbers: npt.NDArray[np.int64], before: Floats, after: Floats, names: tuple[str, str]) -> pl.DataFrame:
    outputs = before.shape[1]
    return pl.DataFrame({
        "sequence": np.repeat(numbers, outputs), "output": np.tile(np.arange(outputs), len(numbers)),
        names[0]: before.reshape(-1), names[1]: after.reshape(-1), "effect": (after - before).reshape(-1),
    })  # fmt: skip


def _shuffled(text: str, stretches: Sequence[tuple[int, int]], rng: np.random.Generator) -> str:
    letters = np.array(list(text))
    for start, end in stretches:
        letters[start:end] = rng.permutation(letters[start:end])
    return "".join(letters.tolist())
