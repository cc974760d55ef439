"""What the scores of variants are, and how they are computed. Always alternate minus reference, natural logarithms.

Legend: R, A the window with the reference and the alternate allele; x their tokens without special ones; h their last
hidden states. Strand ``both`` is the mean of the two strands' scores (heads: of their logits, as `predict` does).
``changed`` tokens are what is left of the two lists of ids when the longest common prefix, then suffix, is taken off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cityblock, cosine, euclidean

from longstrand.config import build
from longstrand.errors import UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.variants import Variant
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import head_of, layer_number, predict, probabilities
from longstrand.inference.strands import StrandPolicy, strands_of
from longstrand.models.network import Network
from longstrand.questions.bases import Words
from longstrand.questions.scores import outputs_of, refuse_readings
from longstrand.questions.tokens import FloatArray, MaskedText, iter_log_probabilities, reader_of, reading_of, states
from longstrand.tokenization.base import Encoding, IntArray
from longstrand.tokenization.bpe import BpeTokenizer
from longstrand.variants.options import ScoreName, VariantOptions
from longstrand.variants.passes import NO_ROWS, Passes, Slot, compared
from longstrand.variants.windows import Pair, Reader, Windows

Values = npt.NDArray[np.float64]
_LOW = "nats; negative = alt less likely"
DESCRIPTIONS: dict[ScoreName, str] = {
    "llr": f"log p(alt) - log p(ref), {{llr}}, {_LOW}",
    "llr_marginal": "log p(alt base) - log p(ref base), each summed over all words with that base at that place, "
    f"tokens of the differing bases masked together, {_LOW}",
    "pll": "pseudo-log-likelihood of the changed tokens, each masked alone, alt minus ref; the unit is the token, so "
    f"unequal numbers of tokens do not compare; {_LOW}",
    "pll_together": f"log-likelihood of the changed tokens, all masked together, alt minus ref, {_LOW}",
    "pll_all": f"pseudo-log-likelihood of all tokens, each masked alone, alt minus ref, {_LOW}",
    "pll_unmasked": f"log-likelihood of all tokens from one unmasked pass, alt minus ref, {_LOW}",
    "flank": "log-likelihood of the unchanged tokens from one unmasked pass, alt minus ref, nats; negative = the "
    "context became less likely",
    "influence": "mean over other bases of the largest change of log odds of A, C, G, T, unmasked; high = effect",
    "l1": "L1 distance of embeddings ({pooling}); high = effect",
    "l2": "L2 distance of embeddings ({pooling}); high = effect",
    "cosine": "cosine similarity of embeddings ({pooling}); low = effect",
    "dot": "dot product of embeddings ({pooling}); low = effect, dominated by their lengths",
    "flank_distance": "mean L2 distance of the states of unchanged tokens; high = effect",
    "head": "",
}
MASKED: frozenset[str] = frozenset(list(DESCRIPTIONS)[:8])
DISTANCES: dict[str, Callable[[Values, Values], float]] = {
    "l1": cityblock, "l2": euclidean, "cosine": lambda u, v: 1 - cosine(u, v), "dot": np.dot,
}  # fmt: skip
HEAD_DESCRIPTIONS = {
    "delta": "difference of the predicted value, alt minus ref",
    "delta_logit": "difference of the log odds (logit), alt minus ref",
    "delta_probability": "difference of the probability, alt minus ref",
    "log_odds": "difference of the log odds of this class against all others, alt minus ref",
    "log_ratio": "log((alt + 1) / (ref + 1)) of the predicted counts summed over the window",
    "max_delta": "largest change of a base outside the allele, alt minus ref; of the log odds where there are classes",
    "max_at": "place of that base: bases from the first base of the allele, on the + strand",
    "sum_delta": "sum of the absolute changes of bases outside the allele; of the log odds where there are classes",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One column of scores: its name without prefix, and what it is."""

    name: str
    description: str


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of variants.

    Attributes:
        values: float32 ``(n, fields)``; NaN where a score is not defined.
        statuses: ``ok``, or why there is none.
        flags: what a reader should know; empty is nothing.
    """

    values: FloatArray
    statuses: list[str]
    flags: list[str]


class VariantScorer:
    """Scores variants of one genome with one model.

    Attributes:
        fields: the columns.
        strand: the strands that are read.
        windows: where the model looks.
        num_passes: forward passes of the masked language model so far.
    """

    def __init__(self, model: Network, genome: Genome, options: VariantOptions | None = None) -> None:
        """Choose the scores.

        Raises:
            UsageError: the model cannot give a score that is asked for.
        """
        self.model, self.options = model, options or VariantOptions.model_validate({})
        self.kind = model.kind
        names = self.options.scores or {"encoder": ("l2", "cosine"), "masked_lm": ("llr", "flank")}.get(
            self.kind, ("head",)
        )
        self.names = cast(tuple[ScoreName, ...], tuple(dict.fromkeys(names)))
        self._indels_only = {"flank"} if not self.options.scores else set()
        reading, tokenizer = reading_of(model), model.require_tokenizer()
        trained = reading.strand if "head" in self.names else "both"
        self.strand: StrandPolicy = self.options.strand or trained
        self._check()
        if "head" in self.names:
            refuse_readings(model, self.strand)
        self.windows = Windows(genome, model, self.options.window, self.options.windows, self.options.step)
        self.layer = layer_number(self.options.layer, model.config.num_hidden_layers)
        self._bpe = isinstance(tokenizer, BpeTokenizer)
        self._k = 1 if self._bpe else int(getattr(tokenizer, "k", 1))
        self._overlapping = tokenizer.overlapping
        self._words = Words(tokenizer, "summed")
        self._sets = lru_cache(maxsize=4096)(self._words_with)
        self._read = lru_cache(maxsize=8192)(reader_of(model))
        self._tokens = lru_cache(maxsize=8192)(
            lambda text: len(tokenizer.encode_ids(text)[0]) + tokenizer.num_special_tokens()
        )
        asked = [int(word) if word.isdigit() else word for word in self.options.outputs]
        self._outputs = outputs_of(model, asked or None) if "head" in self.names else []
        found = [(name, field) for name in self.names for field in self._fields_of(name)]
        self.fields = tuple(field for _, field in found)
        self._at = {name: [i for i, (other, _) in enumerate(found) if other == name] for name in self.names}
        self.num_passes = 0

    def _check(self) -> None:
        asked, tokenizer, given = set(self.names), self.model.require_tokenizer(), self.options.model_fields_set
        bpe, k, of_states = isinstance(tokenizer, BpeTokenizer), getattr(tokenizer, "k", 1), ", ".join(DISTANCES)
        rules = {
            f"{', '.join(sorted(asked & MASKED))}: only a masked language model has such scores.":
                asked & MASKED and self.kind != "masked_lm",
            "the score 'head' needs a fine-tuned model; this one has no head that predicts labels.":
                "head" in asked and self.kind in ("encoder", "masked_lm"),
            "the score 'influence' is for models of single bases.": "influence" in asked and (bpe or k > 1),
            "the score 'llr_marginal' is for k-mers; BPE has no fixed places in a token.":
                "llr_marginal" in asked and bpe,
            "frames are the places of a base in non-overlapping k-mers; this tokenizer has none.":
                self.options.frames and (bpe or tokenizer.overlapping),
            f"pooling is for {of_states}, which are not asked for.": "pooling" in given and not asked & set(DISTANCES),
            f"layer is for {of_states} and flank_distance, which are not asked for.":
                "layer" in given and not asked & {*DISTANCES, "flank_distance"},
            "outputs are chosen for the score 'head', which is not asked for.":
                self.options.outputs and "head" not in asked,
        }  # fmt: skip
        if broken := next((rule for rule, is_broken in rules.items() if is_broken), None):
            raise UsageError(broken)

    def _fields_of(self, name: ScoreName) -> list[Field]:
        if name == "head":
            return self._head_fields()
        words = f"{self._k}-mers"
        llr = f"the {words} of the differing bases" if self._k > 1 else "the differing bases"
        llr = f"the {words} that cover each differing base" if self._overlapping else llr
        ending = f", mean over masked {words}" if self._overlapping else ""
        ending = f", mean over {self._k} frames" if self.options.frames else ending
        llr = f"{llr} masked together{ending}"
        llr = "where one token becomes one other, which is masked" if self._bpe else llr
        pooling = f"{self.options.pooling}, layer {self.layer}"
        return [Field(name, DESCRIPTIONS[name].format(llr=llr, pooling=pooling))]

    def _head_fields(self) -> list[Field]:
        head: Any = head_of(self.model)
        if head.kind == "bin":
            stems = ["log_ratio" if head.problem == "counts" else "delta"]
        elif head.kind == "token":
            stems = ["max_delta", "max_at", "sum_delta"]
        else:
            stems = {
                "regression": ["delta"], "multi_label": ["delta_logit", "delta_probability"],
                "single_label": ["log_odds", "delta_probability"],
            }[head.problem]  # fmt: skip
        names = reading_of(self.model).class_names or head.class_names or [str(n) for n in range(head.num_outputs)]
        self._stems = stems
        one = head.num_outputs == 1
        return [
            Field(stem if one else f"{stem}_{re.sub('[^0-9A-Za-z_.]', '_', names[output])}",
                  HEAD_DESCRIPTIONS[stem] + ("" if one else f"; output {names[output]}"))
            for output in self._outputs for stem in stems
        ]  # fmt: skip

    def score(self, variants: Sequence[Variant], own: Sequence[Reader | None] | None = None) -> Scored:
        """Score variants that `longstrand.genome.variants.judge` has passed, in any order; equal ones once.

        Args:
            variants: alleles.
            own: for each what reads the haplotype that carries it; None reads the genome.
        """
        pairs: dict[Pair, int] = {}
        places: list[int] = []
        statuses = ["ok"] * len(variants)
        for number, variant in enumerate(variants):
            pair = self.windows.pair(variant, self._tokens, own[number] if own else None)
            if isinstance(pair, str):
                statuses[number] = pair
                places.append(-1)
            else:
                places.append(pairs.setdefault(pair, len(pairs)))
        flags = ["+".join(pair.flags) for pair in pairs]
        values = self.score_pairs(list(pairs))
        rows = np.append(values, np.full((1, values.shape[1]), np.nan, dtype=np.float32), axis=0)
        return Scored(rows[places], statuses, [flags[place] if place >= 0 else "" for place in places])

    def score_pairs(self, pairs: Sequence[Pair]) -> FloatArray:
        """Score texts: float32 ``(n, fields)``."""
        values = np.zeros((len(pairs), len(self.fields)))
        unit = 1 if self.options.leftovers or self._overlapping or self._bpe else self._k
        sides = ([pair.reverse() for pair in pairs] if strand == "-" else pairs for strand in strands_of(self.strand))
        read = [[pair.whole(unit) for pair in side] for side in sides]
        if MASKED & set(self.names):
            passes = Passes(self.model.require_tokenizer().mask_token_id)
            for of_strand in read:
                for number, pair in enumerate(of_strand):
                    self._ask(passes, pair, number, values, 1 / len(read))
            self.num_passes += passes.run(
                self.model, values, batch_tokens=self.options.batch_tokens, share=self.options.shared_masks
            )
        for texts in read:
            if {*DISTANCES, "flank_distance"} & set(self.names):
                self._add_distances(texts, values, 1 / len(read))
            if "influence" in self.names:
                self._add_influence(texts, values, 1 / len(read))
        if "head" in self.names and pairs:
            values[:, self._at["head"]] = self._head_scores(pairs)
        return values.astype(np.float32)

    def _ask(self, passes: Passes, pair: Pair, number: int, values: Values, weight: float) -> None:
        """Add what the scores of one pair on one strand need to the passes; undefined ones become NaN."""
        ref, alt = self._encoded(pair)
        changed = changed_rows(ref, alt)
        for name in self.names:
            slot = number, self._at[name][0]
            if name in ("llr", "llr_marginal"):
                shifts = range(self._k) if self.options.frames and self._k > 1 else range(1)
                shown = [pair.without(shift) for shift in shifts if shift <= pair.at]
                share, marginal = weight / len(shown), name == "llr_marginal"
                if not all(self._ask_llr(passes, one, slot, share, marginal) for one in shown):
                    values[slot] = np.nan
            elif name == "flank" and self._indels_only and len(pair.ref) == len(pair.alt):
                values[slot] = np.nan
            elif name == "flank":
                kept = kept_rows(ref, alt, changed)
                ids = ref.input_ids[kept[0]].tolist()
                for encoding, rows, sign in ((ref, kept[0], -weight), (alt, kept[1], weight)):
                    one = passes.of(encoding)
                    for row, token in zip(rows.tolist(), ids):
                        one.add(slot, row, token, sign)
            elif name in MASKED and name != "influence":
                for encoding, rows, sign in ((ref, changed[0], -weight), (alt, changed[1], weight)):
                    _ask_likelihood(passes, encoding, rows, name, slot, sign)

    def _encoded(self, pair: Pair) -> tuple[Encoding, Encoding]:
        return self._read(pair.ref_text), self._read(pair.alt_text)

    def _ask_llr(self, passes: Passes, pair: Pair, slot: Slot, weight: float, marginal: bool) -> bool:
        """Mask the differing bases together; say whether the ratio is defined."""
        ref, alt = self._encoded(pair)
        if self._bpe:
            rows, others = changed_rows(ref, alt)
            if len(rows) != 1 or len(others) != 1:
                return False
        elif len(pair.ref) != len(pair.alt) or len(ref) != len(alt):
            return False
        else:
            rows = (ref.input_ids != alt.input_ids).nonzero()[0].astype(np.int32)
            if not len(rows) or not (ref.offsets == alt.offsets).all():
                return False
        one = passes.of(ref, rows)
        weight = weight / len(rows) if self._overlapping else weight
        for row in rows.tolist():
            for text, ids, sign in ((pair.ref_text, ref.input_ids, -weight), (pair.alt_text, alt.input_ids, weight)):
                one.add(slot, row, self._same_letters(pair, text, ref, row) if marginal else int(ids[row]), sign)
        return True

    def _same_letters(self, pair: Pair, text: str, encoding: Encoding, row: int) -> IntArray:
        """Give the ids of the words that have the letters of ``text`` where the alleles differ in a token."""
        start, end = encoding.offsets[row].tolist()
        differ = (pair.at + i for i, (a, b) in enumerate(zip(pair.ref, pair.alt)) if a != b)
        return self._sets(end - start, tuple((base - start, text[base]) for base in differ if start <= base < end))

    def _words_with(self, length: int, letters: tuple[tuple[int, str], ...]) -> IntArray:
        """Give the ids of the words of a length that have these letters at these places."""
        ids, table = self._words.by_length.get(length, (NO_ROWS, np.empty((0, length), np.int8)))
        fits = [table[:, place] == "ACGT".find(letter) for place, letter in letters]
        return ids[np.logical_and.reduce(fits)]

    def _add_distances(self, pairs: Sequence[Pair], values: Values, weight: float) -> None:
        distances = [name for name in self.names if name in DISTANCES]

        def read(texts: Iterator[str]) -> Iterator[FloatArray]:
            encodings = map(self._read, texts)
            return states(self.model, encodings, self.layer, batch_tokens=self.options.batch_tokens)

        for number, u, v in compared(pairs, read):
            ref, alt = self._encoded(pairs[number])
            if "flank_distance" in self._at:
                kept = kept_rows(ref, alt, changed_rows(ref, alt))
                moved = np.linalg.norm(u[kept[0]] - v[kept[1]], axis=1).mean() if len(kept[0]) else np.nan
                values[number, self._at["flank_distance"][0]] += weight * moved
            vectors = self._pooled(pairs[number], (ref, u), (alt, v)) if distances else None
            for name in distances:
                value = math.nan if vectors is None else DISTANCES[name](*vectors)
                values[number, self._at[name][0]] += weight * value

    def _pooled(
        self, pair: Pair, ref: tuple[Encoding, FloatArray], alt: tuple[Encoding, FloatArray]
    ) -> tuple[Values, Values] | None:
        """Make one vector of the states of each allele; None if there is none."""
        pooling, found = self.options.pooling, []
        if pooling == "flat" and len(ref[0]) != len(alt[0]):
            return None
        for (encoding, hidden), allele in ((ref, pair.ref), (alt, pair.alt)):
            if pooling == "allele":
                rows = encoding.rows_over(pair.at, pair.at + len(allele))
            else:
                rows = encoding.content_rows if pooling == "mean" else np.arange(1 if pooling == "cls" else len(hidden))
            if not len(rows):
                return None
            vectors = hidden[rows]
            flat = pooling == "flat"
            found.append(vectors.ravel().astype(np.float64) if flat else vectors.mean(0, dtype=np.float64))
        return found[0], found[1]

    def _add_influence(self, pairs: Sequence[Pair], values: Values, weight: float) -> None:
        slot, four = self._at["influence"][0], [self.model.require_tokenizer().vocab[base] for base in "ACGT"]

        def odds(texts: Iterator[str]) -> Iterator[FloatArray]:
            asked = (MaskedText(one, NO_ROWS, one.content_rows) for one in map(self._read, texts))
            for logs in iter_log_probabilities(self.model, asked, batch_tokens=self.options.batch_tokens):
                yield one_against_rest(logs[:, four])

        for number, u, v in compared(pairs, odds):
            pair = pairs[number]
            if len(pair.ref) != len(pair.alt):
                values[number, slot] = np.nan
                continue
            moved = np.delete(np.abs(v - u).max(1), np.arange(pair.at, pair.at + len(pair.ref)))
            values[number, slot] += weight * float(moved.mean())

    def _head_scores(self, pairs: Sequence[Pair]) -> Values:
        """Compare what a head predicts of the two texts: ``(n, outputs * kinds)``."""
        head, reading = head_of(self.model), reading_of(self.model)
        counts = head.problem == "counts"
        shown = {"strand": self.strand, "exact_text": reading.exact_text, "batch_tokens": self.options.batch_tokens}
        options = build(PredictOptions, {"output": "probabilities" if counts else "logits", **shown}, "options")
        texts = list(dict.fromkeys(text for pair in pairs for text in (pair.ref_text, pair.alt_text)))
        scale = reading.temperature or 1.0
        found = dict(zip(texts, (one.values / scale for one in predict(self.model, texts, options=options))))
        odds = one_against_rest if head.problem == "single_label" else np.asarray
        rows = []
        for pair in pairs:
            u, v = (found[text].astype(np.float64) for text in (pair.ref_text, pair.alt_text))
            if head.kind == "bin":
                columns = [np.log((v.sum(0) + 1) / (u.sum(0) + 1)) if counts else (v - u).mean(0)]
            elif head.kind == "token":
                columns = _profile(odds(u), odds(v), pair)
            else:
                columns = [odds(v) - odds(u)]
                if head.problem != "regression":
                    columns.append(probabilities(v, head.problem) - probabilities(u, head.problem))
            rows.append(np.stack(columns, axis=-1)[self._outputs].ravel())
        return np.stack(rows)


def _ask_likelihood(passes: Passes, encoding: Encoding, changed: IntArray, name: str, slot: Slot, sign: float) -> None:
    rows = changed if name in ("pll", "pll_together") else encoding.content_rows
    if name in ("pll", "pll_all"):
        asked = [(passes.of(encoding, rows[at : at + 1]), row) for at, row in enumerate(rows.tolist())]
    else:
        together = passes.of(encoding, rows if name == "pll_together" else NO_ROWS)
        asked = [(together, row) for row in rows.tolist()]
    for one, row in asked:
        one.add(slot, row, int(encoding.input_ids[row]), sign)


def _profile(u: Values, v: Values, pair: Pair) -> list[Values]:
    """Compare values of bases: the left flank from the left, the right one from the right, the allele left out."""
    right = len(pair.ref_text) - pair.at - len(pair.ref)
    moved = np.concatenate((v[: pair.at] - u[: pair.at], v[len(v) - right :] - u[len(u) - right :]))
    places = np.concatenate((np.arange(-pair.at, 0), np.arange(len(pair.ref), len(pair.ref) + right)))
    sizes = np.nan_to_num(np.abs(moved))
    best = sizes.argmax(0)
    return [np.take_along_axis(moved, best[None], 0)[0], places[best].astype(np.float64), sizes.sum(0)]


def changed_rows(ref: Encoding, alt: Encoding) -> tuple[IntArray, IntArray]:
    """List the rows that are left when the longest common prefix of ids, then suffix, is taken off."""
    a, b = ref.input_ids, alt.input_ids
    shortest = min(len(a), len(b))
    differ = np.flatnonzero(a[:shortest] != b[:shortest])
    left = int(differ[0]) if len(differ) else shortest
    most = shortest - left
    differ = np.flatnonzero(a[len(a) - most :][::-1] != b[len(b) - most :][::-1])
    right = int(differ[0]) if len(differ) else most
    return np.arange(left, len(a) - right, dtype=np.int32), np.arange(left, len(b) - right, dtype=np.int32)


def kept_rows(ref: Encoding, alt: Encoding, changed: tuple[IntArray, IntArray]) -> tuple[IntArray, IntArray]:
    """List the rows of content tokens outside the changed ones, which are the same tokens in both."""
    left, right = (np.setdiff1d(one.content_rows, rows) for one, rows in zip((ref, alt), changed))
    return left.astype(np.int32), right.astype(np.int32)


def one_against_rest(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give the log odds of each class against all others, ``(..., classes)``: z_c - log sum of exp z of the others."""
    total = logits.shape[-1]
    others = [np.logaddexp.reduce(np.delete(logits, c, axis=-1), axis=-1) for c in range(total)]
    odds: npt.NDArray[Any] = logits - np.stack(others, axis=-1)
    return odds
