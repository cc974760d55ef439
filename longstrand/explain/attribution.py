"""Attribution: which bases make a model say what it says; one value a base, whatever the tokens and the method.

A token's value is shared equally among its bases, so that totals are kept: the values and the special tokens' share add
up to ``output - baseline`` but for the gap. Bases of one token are equal: that is the resolution of the model. Positive
means that the base pushes the output up. The reverse strand is explained by itself, and its values are flipped back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.data.rows import Record
from longstrand.errors import InputError, UsageError
from longstrand.explain import perturb
from longstrand.explain.gradient import (
    NUM_SHUFFLES,
    TokenMap,
    baseline_vectors,
    integrate,
    letter_ids,
    masked_one_by_one,
    relative,
)
from longstrand.explain.options import CHANGES, PATHS, AttributeOptions
from longstrand.explain.target import Target, target_of
from longstrand.genome.sequence import has_letters
from longstrand.inference.resumable import cut_into_parts
from longstrand.inference.strands import flip_back, flip_offsets, read_on, strands_of
from longstrand.models.network import Network
from longstrand.questions.scores import refuse_readings
from longstrand.questions.tokens import FloatArray, prepare_text, reading_of, word_table
from longstrand.tokenization.base import IntArray

if TYPE_CHECKING:
    from longstrand.genome.intervals import Interval

AHEAD, AHEAD_BASES = 16, 1 << 16
"""Sequences, and bases of them, whose passes share batches."""
GRADIENT = 3
"""Passes that a gradient counts as."""
USUAL = 3
"""Times the first points of a path that integrated gradients need until the gap is small, as a rule."""
PER_BASE = {"ism": 3, "deletion": 1, "insertion": 4, "block": 4}
NO_CONTENT, NO_LETTER, FLAT, OPEN = "no content", "no known letter", "flat", "gap"
STATUSES = {
    "ok": "explained",
    NO_CONTENT: "no token covers a base, so nothing was shown to the model",
    NO_LETTER: "there is no A, C, G or T in it",
    FLAT: "sequence and baseline get the same output, so there is nothing to explain",
    OPEN: "integrated gradients miss more of the difference than the tolerance",
}


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each base of a sequence contributes to the output that is explained.

    Attributes:
        record: the row.
        sequence: its letters as the model was shown them.
        values: float32 ``(num_bases,)``, in units of the output; NaN where nothing was asked.
        strands: the values of each strand that was read.
        tokens: int ``(n, 2)`` start and end of the tokens on the sequence as given, of the first strand.
        output: what the model says; mean over strands.
        baseline: what it says of the baseline; NaN for methods without one.
        special: what the special tokens contribute together.
        steps: points on the path of integrated gradients, or None.
        hypothetical: float32 ``(num_bases, 4)`` scores of A, C, G, T for TF-MoDISco, where they exist.
        resegmented: share of the substitutions that moved borders of tokens; NaN for other methods.
        status: ``ok`` or why the map says little (`STATUSES`).
    """

    record: Record
    sequence: str
    values: FloatArray
    strands: Mapping[str, FloatArray] = field(default_factory=dict)
    tokens: IntArray = field(default_factory=lambda: np.empty((0, 2), np.int32))
    output: float = np.nan
    baseline: float = np.nan
    special: float = 0.0
    steps: int | None = None
    hypothetical: FloatArray | None = None
    resegmented: float = np.nan
    status: str = "ok"

    @property
    def name(self) -> str:
        """Name of the row."""
        return self.record.name

    @property
    def interval(self) -> Interval | None:
        """Where the row lies, if known."""
        return self.record.interval

    @property
    def gap(self) -> float:
        """What values and special tokens miss of ``output - baseline``; NaN without a baseline."""
        return float(self.values.sum(dtype=np.float64)) + self.special - (self.output - self.baseline)

    @property
    def relative_gap(self) -> float:
        """The gap as a share of ``output - baseline``."""
        return relative(self.gap, self.output, self.baseline)


class Explainer:
    """A model, what is explained of it, and by which method.

    Attributes:
        left_out: changed sequences so far whose edits made more tokens than the model reads.
    """

    def __init__(
        self, model: Network, options: AttributeOptions, tick: Callable[[float], None] = lambda work: None
    ) -> None:
        self.options, self.left_out = options, 0
        target = target_of(
            model, options.target, against=options.against, region=options.region, batch_tokens=options.batch_tokens
        )
        self.target = replace(target, tick=tick)
        reading = reading_of(model)
        refuse_readings(model, options.strand or reading.strand)
        self.strands = strands_of(options.strand or reading.strand)
        placed = self.target.place is not None or model.kind in ("token", "bin")
        if placed and options.method in ("deletion", "insertion"):
            raise UsageError(f"{options.method} moves the bases that this output is about; use ism or occlusion.")
        if "-" in self.strands and self.target.token is not None:
            raise UsageError("a token is written on one strand: use --strand + with masked:POSITION:TOKEN.")
        has_mask = model.require_tokenizer().mask_token_id is not None
        self.baselines = options.baseline or (("mask",) * has_mask + ("mean", "shuffled"))
        if options.method == "occlusion" and not has_mask:
            raise UsageError("occlusion needs a mask token, which the tokenizer has not; use ig with --baseline mean.")
        if options.method in PATHS:
            for name in self.baselines:  # a wrong name stops here, not at the first sequence
                encoding = model.require_tokenizer().encode("ACGTACGT")
                baseline_vectors(name, self.target, encoding, word_table(model))

    @property
    def has_letters(self) -> bool:
        """Say whether there are hypothetical scores of A, C, G and T."""
        method = self.options.method
        return method == "ism" or (method in PATHS and letter_ids(self.target) is not None)

    def explain(self, records: Iterable[Record]) -> Iterator[Attribution]:
        """Explain rows in their order, some at a time.

        Raises:
            InputError: a row is no DNA or longer than the model reads.
        """
        cut = cut_into_parts(records, lambda record: record.num_bases, max_rows=AHEAD, max_bases=AHEAD_BASES)
        for _, some in groupby(cut, key=lambda item: item[0]):
            rows = [(record, self.text(record)) for _, record in some]
            shown = [self.reads(record) for record, _ in rows]
            made = zip(*(self._strand(strand, list(compress(rows, shown))) for strand in self.strands))
            for (record, text), has_content in zip(rows, shown):
                yield (
                    self._together(next(made))
                    if has_content
                    else Attribution(record, text, np.full(len(text), np.nan, np.float32), status=NO_CONTENT)
                )

    def passes(self, num_bases: int, num_tokens: int, options: AttributeOptions | None = None) -> float:
        """Count the forward passes of one sequence, of these or other options.

        A gradient counts `GRADIENT`, integrated gradients take `USUAL` times the first points of a path.
        """
        wanted, strands = options or self.options, len(self.strands)
        if wanted.method in PATHS:
            points = 0 if wanted.method == "gradient" else min(USUAL * wanted.steps, wanted.points(num_tokens))
            starts = NUM_SHUFFLES if (wanted.baseline or self.baselines)[0] == "shuffled" else 1
            return strands * starts * (1 + GRADIENT * (1 + points))
        if wanted.method in CHANGES:
            return strands * (1 + PER_BASE[wanted.method] * min(num_bases, wanted.span or num_bases))
        return strands * (1 + num_tokens)

    def text(self, record: Record) -> str:
        """Return the letters of a row as the model is shown them.

        Raises:
            InputError: it is a pair, or no DNA.
        """
        if record.second is not None:
            raise InputError(f"{record.where or record.name}: attributions are for single sequences, not for pairs.")
        return prepare_text(self.target.model, record.sequence, record.where or record.name)

    def tokens(self, text: str) -> IntArray:
        """Return the tokens of a text as the first strand is read, by its own bases."""
        return _offsets(self.target.on(self.strands[0]), text)

    def reads(self, record: Record) -> bool:
        """Read a row on every strand; say whether there is a token to explain.

        Raises:
            InputError: it is a pair, no DNA or longer than the model reads.
        """
        text, where = self.text(record), record.where or record.name
        read = [self.target.on(strand).read(read_on(strand, text), where) for strand in self.strands]
        return bool(text) and len(read[0].content_rows) > 0

    def _strand(self, strand: str, rows: Sequence[tuple[Record, str]]) -> Iterator[Attribution]:
        target, options = self.target.on(strand), self.options
        if options.method in CHANGES:
            for record, text in rows:
                try:
                    yield self._changed(target, record, text)
                except InputError as error:
                    raise InputError(f"{record.where or record.name}: {error}") from None
            return
        encodings = [target.read(read_on(strand, text), record.where or record.name) for record, text in rows]
        if options.method == "occlusion":
            maps = masked_one_by_one(target, encodings)
        else:
            table, name = word_table(target.model), self.baselines[0]
            starts = [
                baseline_vectors(name, target, encoding, table, seed=options.seed, index=record.index)
                for encoding, (record, _) in zip(encodings, rows)
            ]
            path, slope = integrate(
                target, encodings, starts, steps=options.steps, most_steps=[options.points(len(e)) for e in encodings],
                tolerance=options.tolerance, only_ends=options.method == "gradient",
            )  # fmt: skip
            maps = slope if options.method == "gradient" else path
        for row, one in zip(rows, maps):
            yield _of_tokens(*row, one, strand)

    def _changed(self, target: Target, record: Record, text: str) -> Attribution:
        """Change the bases of a sequence; a score on the other strand turns the texts by itself."""
        options, half = self.options, (len(text) - (self.options.span or len(text))) // 2
        span = None if options.span is None or half <= 0 else (half, half + options.span)
        more: dict[str, Any] = {"tokens": _offsets(target, text)}

        def score(texts: Sequence[str]) -> FloatArray:
            found = target.score(texts)
            self.left_out += int(np.isnan(found).sum())
            return found

        if options.method == "ism":
            found = perturb.mutagenesis(
                score, text, span=span, segment=lambda changed: _offsets(target, changed),
                keep_segmentation=options.keep_segmentation,
            )  # fmt: skip
            values, more["output"] = found.importance, found.score
            more |= {"hypothetical": found.hypothetical, "resegmented": found.resegmented}
        else:
            more["output"] = float(score([text])[0, 0])
            if options.method == "block":
                values = perturb.blocks(score, text, width=options.width, seed=options.seed, span=span)
            else:
                change = perturb.deletions if options.method == "deletion" else perturb.insertions
                values = change(score, text, span=span)
        return Attribution(record, text, values, {target.strand: values}, **more)

    def _together(self, parts: Sequence[Attribution]) -> Attribution:
        """Average the strands of a sequence, and say whether the map explains anything."""

        def mean(name: str) -> Any:
            values = [getattr(part, name) for part in parts if getattr(part, name) is not None]
            return np.mean(values, axis=0) if values else None

        numbers = {name: float(mean(name)) for name in ("output", "baseline", "special", "resegmented")}
        arrays = {name: mean(name) for name in ("values", "hypothetical")}
        one = replace(
            parts[0], strands={strand: part.values for part in parts for strand in part.strands}, **numbers,
            steps=max((part.steps or 0 for part in parts), default=0) or None,
            **{name: value if value is None else value.astype(np.float32) for name, value in arrays.items()},
        )  # fmt: skip
        status = "ok"
        if not has_letters(one.sequence):
            status = NO_LETTER
        elif abs(one.output - one.baseline) <= max(1e-3 * abs(one.output), 1e-6):
            status = FLAT
        elif self.options.method == "ig" and one.relative_gap > self.options.tolerance:
            status = OPEN
        return replace(one, status=status)


def _of_tokens(record: Record, text: str, one: TokenMap, strand: str) -> Attribution:
    """Turn values per token of one strand into values per base of the sequence as given."""
    encoding, letters = one.encoding, None
    values = flip_back(strand, encoding.to_bases(one.values, reduce="share")).astype(np.float32)
    if one.letters is not None:
        letters = encoding.to_bases(one.letters, reduce="share").astype(np.float32)
        letters = letters if strand == "+" else letters[::-1, ::-1]
    tokens = flip_offsets(strand, encoding.offsets[encoding.content_rows], encoding.num_bases)
    return Attribution(
        record, text, values, {strand: values}, tokens, one.output, one.baseline, one.special, one.steps, letters
    )


def _offsets(target: Target, text: str) -> IntArray:
    """Give the tokens of a text by its own bases, as they are read on the strand of a target; none of one too long."""
    encoding = target.tries(text)
    if encoding is None:
        return np.empty((0, 2), np.int32)
    return flip_offsets(target.strand, encoding.offsets[encoding.content_rows], len(text))
