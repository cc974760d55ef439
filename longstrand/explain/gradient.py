"""Attribution by gradients and by masking, one value a token: integrated gradients, gradient x difference, occlusion.

The path runs in word-vector space (``inputs_embeds``); ids, positions and masks are those of the text all along. For
vectors v, ``G(v)`` is the target with the word vectors replaced by v, ``e`` those of the text, ``b`` the baseline's.
Integrated gradients of token t are ``sum_h (e - b)_th * mean of dG/dv_th`` along the straight path, by Gauss-Legendre
(Sundararajan et al. 2017). Their sum is ``G(e) - G(b)``; the gap that is left is reported. It is measured with G(b),
not with the model on the ids of the baseline: models that read ids (NT v1) say something else about those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from longstrand.errors import UsageError, nearest
from longstrand.explain.target import Target
from longstrand.genome.sequence import shuffle_dinucleotides
from longstrand.questions.tokens import FloatArray, gradients, measure, word_table
from longstrand.runtime import generator
from longstrand.tokenization.base import Encoding, IntArray

STEPS, MOST_STEPS, POINTS = 20, 320, 5
LONG_TOKENS, LONG_STEPS = 1024, 80
"""Sequences of more tokens get fewer points at most, because attention costs the square of the tokens."""
TOLERANCE = 0.01
NUM_SHUFFLES = 8
BASELINES = {
    "mask": "the vector of [MASK]",
    "pad": "the vector of [PAD], often never trained",
    "n": "the vector of the token of N",
    "zero_id": "id 0 everywhere, special tokens too (captum's default and GENA-LM's notebook)",
    "mean": "the mean of the sequence's own word vectors",
    "shuffled": f"the mean over {NUM_SHUFFLES} orders of the sequence's own tokens (single bases: with their pairs)",
}


@dataclass(frozen=True, eq=False)
class TokenMap:
    """What each token of a text contributes, in units of the target; positive pushes it up.

    Attributes:
        values: float64 ``(n,)``, special tokens included.
        encoding: the tokens.
        output: G(e).
        baseline: G(b), a mean over several baselines; NaN where the method has none.
        steps: of the path, or None.
        letters: float64 ``(n, 4)`` hypothetical scores of A, C, G, T, where every base is a token; else None.
    """

    values: npt.NDArray[np.float64]
    encoding: Encoding
    output: float
    baseline: float = np.nan
    steps: int | None = None
    letters: npt.NDArray[np.float64] | None = None

    @property
    def special(self) -> float:
        """What tokens of no base contribute together; an unknown word belongs to its bases."""
        return float(np.delete(self.values, self.encoding.content_rows).sum())


def relative(gap: float, output: float, baseline: float) -> float:
    """Give a completeness gap as a share of ``output - baseline``, which counts at least a thousandth of the output."""
    return abs(gap) / max(abs(output - baseline), 1e-3 * abs(output), 1e-6)


def baseline_ids(name: str, target: Target, encoding: Encoding) -> IntArray:
    """Give the ids of a baseline of one kind of token: content replaced, special tokens kept (not of ``zero_id``).

    Args:
        name: of `BASELINES`, or ``token:TEXT`` for any token of the vocabulary.
        target: whose tokenizer is asked.
        encoding: the text.

    Raises:
        UsageError: the vocabulary has no such token.
    """
    tokenizer, ids = target.model.require_tokenizer(), encoding.input_ids.copy()
    if name == "zero_id":
        return np.zeros_like(ids)
    unknown = tokenizer.unk_token_id if tokenizer.overlapping else None
    found = {"mask": tokenizer.mask_token_id, "pad": tokenizer.pad_token_id, "n": tokenizer.vocab.get("N", unknown)}
    kind, _, text = name.partition(":")
    if kind == "token" and text not in tokenizer.vocab:
        raise UsageError(f"baseline '{name}': the vocabulary has no token '{text}'{nearest(text, tokenizer.vocab)}.")
    if kind != "token" and kind not in found:
        raise UsageError(f"no baseline '{name}'{nearest(name, BASELINES)}; use {', '.join(BASELINES)} or token:TEXT.")
    chosen = tokenizer.vocab[text] if kind == "token" else found[kind]
    if chosen is None:
        others = ", ".join([*(key for key, value in found.items() if value is not None), "zero_id, mean, shuffled"])
        raise UsageError(f"baseline '{name}': the vocabulary has no such token; use {others} or token:TEXT.")
    ids[encoding.content_rows] = chosen
    return ids


def baseline_vectors(
    name: str, target: Target, encoding: Encoding, table: FloatArray, *, seed: int = 0, index: int = 0
) -> list[FloatArray]:
    """Make the baselines of a text, each float32 ``(n, D)``; several for ``shuffled``.

    Raises:
        UsageError: as `baseline_ids`.
    """
    ids, content = encoding.input_ids, encoding.content_rows
    if name == "mean":
        vectors = table[ids]
        vectors[content] = vectors[content].mean(0) if len(content) else 0
        return [vectors]
    if name != "shuffled":
        return [table[baseline_ids(name, target, encoding)]]
    random, found, tokenizer = generator(seed, index, "explain baseline"), [], target.model.require_tokenizer()
    words = [tokenizer.token_strings[i] for i in ids[content].tolist()]
    for _ in range(NUM_SHUFFLES):
        order = ids.copy()
        if letter_ids(target) is not None and all(len(word) == 1 for word in words):
            shuffled = shuffle_dinucleotides("".join(words), random)
            order[content] = [tokenizer.vocab[letter] for letter in shuffled]
        else:
            order[content] = ids[random.permutation(content)]
        found.append(table[order])
    return found


def letter_ids(target: Target) -> list[int] | None:
    """Give the ids of A, C, G and T where no token of DNA is longer than one base, else None."""
    tokenizer = target.model.require_tokenizer()
    if tokenizer.bases_per_id[tokenizer.dna_token_ids].max(initial=0) != 1:
        return None
    return [tokenizer.vocab[letter] for letter in "ACGT"]


@dataclass(eq=False)
class _Path:
    """The way from a baseline to a text, in panels that are halved where the gap is.

    Attributes:
        encoding, end, start, masked: the text, word vectors at both ends, rows that are masked.
        most_steps: points at most.
        ends: the target at some places of the way, 0 = baseline and 1 = text.
        panels: the integral of the gradient over stretches of the way.
    """

    encoding: Encoding
    end: FloatArray
    start: FloatArray
    masked: IntArray
    most_steps: int
    ends: dict[float, float] = field(default_factory=dict)
    panels: dict[tuple[float, float], npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def way(self) -> npt.NDArray[np.float64]:
        return self.end.astype(np.float64) - self.start

    @property
    def slope(self) -> npt.NDArray[np.float64]:
        return np.sum(list(self.panels.values()), axis=0)

    def missing(self, slope: npt.NDArray[np.float64], low: float = 0.0, high: float = 1.0) -> float:
        """Give what a slope misses of the difference between two places, as a share of that of the whole way."""
        gap = float((self.way * slope).sum()) - (self.ends[high] - self.ends[low])
        return relative(gap, self.ends[1.0], self.ends[0.0])

    def is_open(self, tolerance: float) -> bool:
        """Say whether the gap is too large and there is room for more panels."""
        return self.missing(self.slope) > tolerance and len(self.panels) < self.most_steps // POINTS

    def halves(self, tolerance: float) -> list[tuple[float, float]]:
        """Take out the panels that miss too much, the worst ones if there is no room for all, and give their halves."""
        gaps = {place: self.missing(slope, *place) for place, slope in self.panels.items()}
        worst = sorted(gaps, key=lambda place: -gaps[place])[: self.most_steps // POINTS - len(gaps)]
        found = []
        for low, high in worst:
            if gaps[low, high] > tolerance / len(gaps):
                del self.panels[low, high]
                found += [(low, (low + high) / 2), ((low + high) / 2, high)]
        return found


def _asked(target: Target, asked: Sequence[tuple[_Path, float]]) -> dict[str, Any]:
    """Make the arguments of `gradients` and `measure` at places of paths, 0 = baseline and 1 = text."""
    functions = {id(path): target.function(path.encoding) for path, _ in asked}
    return {
        "model": target.model, "texts": (path.encoding for path, _ in asked),
        "target": (functions[id(path)] for path, _ in asked),
        "vectors": (path.start + np.float32(place) * (path.end - path.start) for path, place in asked),
        "masks": (path.masked for path, _ in asked), "batch_tokens": target.batch_tokens,
    }  # fmt: skip


def _measure_panels(target: Target, wanted: Sequence[tuple[_Path, float, float]]) -> None:
    """Integrate the gradient over stretches of paths, and add them as panels."""
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    places = [(path, low + share * (high - low)) for path, low, high in wanted for share in (nodes + 1) / 2]
    answers = target.ticking(gradients(**_asked(target, places)), [path.encoding for path, _ in places], 3)
    for path, low, high in wanted:
        path.panels[low, high] = sum(next(answers).values.astype(np.float64) * w for w in (high - low) / 2 * weights)  # type: ignore[assignment]


def integrate(
    target: Target, encodings: Sequence[Encoding], baselines: Sequence[Sequence[FloatArray]], *,
    steps: int = STEPS, most_steps: int | Sequence[int] = MOST_STEPS, tolerance: float = TOLERANCE,
    only_ends: bool = False,
) -> tuple[list[TokenMap], list[TokenMap]]:  # fmt: skip
    """Compute integrated gradients and, on the way, gradient x difference at the texts.

    The path is cut into panels of `POINTS` Gauss-Legendre points. Completeness holds for every panel, so a gap shows
    where the output changes fast, and only those panels are halved.

    Args:
        target: what is explained.
        encodings: the texts.
        baselines: for each text its baselines; maps are means over them.
        steps: points on the path at first (a multiple of `POINTS`, else the next one).
        most_steps: panels are halved while there are fewer points than this and the gap is too large; one number, or
            one for each text.
        tolerance: largest relative gap that is left alone.
        only_ends: leave integrated gradients out.

    Returns:
        Integrated gradients of each text, and gradient x difference.
    """
    table, paths, letters = word_table(target.model), [], letter_ids(target)
    centred = None if letters is None else (table[letters] - table[letters].mean(0)).T.astype(np.float64)
    limits = [most_steps] * len(encodings) if isinstance(most_steps, int) else most_steps
    for encoding, starts, limit in zip(encodings, baselines, limits):
        masked, end = target.masked_rows(encoding), table[encoding.input_ids]
        for start in starts:
            fixed = start.copy()
            fixed[masked] = end[masked]
            paths.append(_Path(encoding, end, fixed, masked, limit))

    def tokens_of(path: _Path, slope: npt.NDArray[Any], steps: int | None) -> TokenMap:
        letters = None if centred is None else slope @ centred
        return TokenMap((path.way * slope).sum(1), path.encoding, path.ends[1.0], path.ends[0.0], steps, letters)

    asked = [path.encoding for path in paths]
    tops = list(target.ticking(gradients(**_asked(target, [(path, 1.0) for path in paths])), asked, 3))
    lows = target.ticking(measure(**_asked(target, [(path, 0.0) for path in paths])), asked)
    for path, top, low in zip(paths, tops, lows):
        path.ends = {0.0: low, 1.0: top.target}
    counts = [len(starts) for starts in baselines]
    first = list(_means([tokens_of(path, top.values, None) for path, top in zip(paths, tops)], counts))
    if only_ends:
        return [], first
    borders = np.linspace(0, 1, -(-steps // POINTS) + 1).tolist()
    wanted = [(path, *place) for path in paths for place in pairwise(borders)]
    while wanted:
        _measure_panels(target, wanted)
        rough = [path for path in paths if path.is_open(tolerance)]
        places = [(path, low) for path in rough for low, _ in path.panels if low not in path.ends]
        for (path, place), value in zip(places, measure(**_asked(target, places))):
            path.ends[place] = value
        wanted = [(path, *half) for path in rough for half in path.halves(tolerance)]
    return list(_means([tokens_of(path, path.slope, POINTS * len(path.panels)) for path in paths], counts)), first


def _means(maps: Sequence[TokenMap], counts: Sequence[int]) -> Iterator[TokenMap]:
    """Average the maps of each text over its baselines."""
    start = 0
    for count in counts:
        group, start = maps[start : start + count], start + count
        steps = max((one.steps or 0 for one in group), default=0)
        values = np.mean([one.values for one in group], axis=0)
        low = float(np.mean([one.baseline for one in group]))
        letters = None if group[0].letters is None else np.mean([one.letters for one in group], axis=0)
        yield TokenMap(values, group[0].encoding, group[0].output, low, steps or None, letters)


def masked_one_by_one(target: Target, encodings: Sequence[Encoding]) -> list[TokenMap]:
    """Compute occlusion: the target minus the target with a token's id replaced by ``[MASK]``, for each token.

    Tokens that the target masks itself, and special ones, have 0.

    Raises:
        UsageError: the tokenizer has no mask token.
    """
    rows = [np.setdiff1d(one.content_rows, target.masked_rows(one)) for one in encodings]
    changed = [
        with_ids(one, baseline_ids("mask", target, one), row) for one, own in zip(encodings, rows) for row in own
    ]
    whole = target.measure(encodings)
    answers = iter(target.measure(changed, [one for one, own in zip(encodings, rows) for _ in own]))
    found = []
    for encoding, own, output in zip(encodings, rows, whole):
        values = np.zeros(len(encoding))
        values[own] = [output - next(answers) for _ in own]
        found.append(TokenMap(values, encoding, output))
    return found


def with_ids(encoding: Encoding, ids: IntArray, rows: IntArray | int) -> Encoding:
    """Copy an encoding with the ids of some rows taken from another array."""
    changed = encoding.input_ids.copy()
    changed[rows] = ids[rows]
    return Encoding(changed, encoding.offsets, encoding.num_bases, encoding.special_tokens_mask)
