"""Where a model looks to judge a variant: both alleles in the same stretch of the genome, on either strand.

The stretch is the same for both alleles, so the alternate text is longer or shorter by the difference of the alleles
and no flank is lost (models of bins: both have the same whole bins: an alternate takes bases from behind the window, or
loses its last ones). It is centred on the first base of the leftmost form (with the base before it for indels, as VCF
has it; the middle of REF if that is long), or is the window of a fixed grid in whose middle that base lies: its central
half or, with another step of the grid, as many bases as a step has. A step of one token nearly centres the windows, and
all variants of a token share one. Near the end of a contig it is shifted inwards, on a short contig it is shorter;
nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from longstrand.errors import InputError, UsageError
from longstrand.genome.fasta import Genome
from longstrand.genome.haplotypes import SeveralPhaseSets
from longstrand.genome.sequence import reverse_complement
from longstrand.genome.variants import Variant, anchored, common_prefix, shortest
from longstrand.inference.predict import longest_input
from longstrand.models.network import Network
from longstrand.questions.tokens import prepare_text, reading_of
from longstrand.tokenization.bpe import BpeTokenizer
from longstrand.tokenization.kmer import KmerTokenizer, OverlappingKmerTokenizer

LONG_REF = 16
"""Bases of REF from which on its middle is centred and not its first base."""
UNBOUNDED = 2048
"""Bases shown to a model that reads any length, when nobody says how many."""
BPE_BASES = 3
"""Bases that a BPE token surely spells on average (published vocabularies: 4.5 to 9)."""


Reader = Callable[[int, int], tuple[str, str]]
"""From start and end on the contig to the text of a haplotype without an allele, and with it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The texts of two alleles.

    Attributes:
        ref_text, alt_text: the window with each allele.
        at: place of the allele in both.
        ref, alt: the alleles.
        flags: what a reader should know: ``edge`` (shifted or cut at the end of a contig), ``N12`` (unknown letters).
    """

    ref_text: str
    alt_text: str
    at: int
    ref: str
    alt: str
    flags: tuple[str, ...] = ()

    def reverse(self) -> Pair:
        """Read the same window on the other strand."""
        texts = reverse_complement(self.ref_text), reverse_complement(self.alt_text)
        at = len(self.ref_text) - self.at - len(self.ref)
        return Pair(*texts, at, reverse_complement(self.ref), reverse_complement(self.alt), self.flags)

    def whole(self, k: int) -> Pair:
        """Cut what is left over at the right end of each text when it is cut into words of ``k`` letters."""
        both = (self.ref_text, self.ref), (self.alt_text, self.alt)
        ref, alt = (text[: max(len(text) // k * k, self.at + len(allele))] for text, allele in both)
        return replace(self, ref_text=ref, alt_text=alt)

    def without(self, bases: int) -> Pair:
        """Drop bases on the left."""
        return replace(self, ref_text=self.ref_text[bases:], alt_text=self.alt_text[bases:], at=self.at - bases)


def default_window(model: Network) -> int:
    """Choose the bases that a model is shown: as in training, else all that it reads.

    Raises:
        UsageError: its longest input has no room for bases.
    """
    reading, tokenizer = reading_of(model), model.require_tokenizer()
    if reading.window or reading.longest_bases:
        return reading.window or reading.longest_bases or 0
    limit = reading.max_tokens or longest_input(model.config)
    if limit is None:
        return UNBOUNDED
    tokens = limit - tokenizer.num_special_tokens()
    if tokens < 1:
        raise UsageError(f"the longest input of this model ({limit} tokens) has no room for bases.")
    if isinstance(tokenizer, OverlappingKmerTokenizer):
        return tokens + tokenizer.k - 1
    return tokens * (BPE_BASES if isinstance(tokenizer, BpeTokenizer) else getattr(tokenizer, "k", 1))


class Windows:
    """The windows of a genome for one model."""

    def __init__(
        self, genome: Genome, model: Network, window: int | None = None, kind: Literal["centred", "grid"] = "centred",
        step: int | None = None,
    ) -> None:  # fmt: skip
        """Choose the size, and for a grid the bases between the starts of its windows (half a window).

        Raises:
            UsageError: the window is too short for a grid, or the step does not fit the window and the tokens.
        """
        self.genome, self._model, self.kind = genome, model, kind
        self.size = window or default_window(model)
        tokenizer = model.require_tokenizer()
        self._unit = tokenizer.k if isinstance(tokenizer, KmerTokenizer) else 1
        self._step = step or self.size // 2 // self._unit * self._unit
        if kind == "grid" and self._step == 0:
            raise UsageError(f"a window of {self.size} bases is too short for a grid.")
        if self._step > self.size or self._step % self._unit:
            raise UsageError(f"a grid of {self.size} bases needs a step up to that, a multiple of {self._unit}.")
        self._limit = reading_of(model).max_tokens or longest_input(model.config)
        bins = model.config.head("bin") if model.kind == "bin" else None
        self._bin = bins.bin_bases if bins is not None else None
        self._text = lru_cache(maxsize=4096)(lambda *place: self._prepared(genome.fetch(*place), *place))

    def pair(self, variant: Variant, num_tokens: Callable[[str], int], own: Reader | None = None) -> Pair | str:
        """Give the texts of a variant that `longstrand.genome.variants.judge` has passed.

        An alternate text that is too long for the model makes the window of this variant smaller.

        Args:
            variant: the alleles.
            num_tokens: counts the tokens of a text.
            own: reads the haplotype of a person in place of the genome.

        Returns:
            The pair, or why there is none: ``too_long`` (an allele), ``too_many_tokens``; of a haplotype also
            ``overlapped`` (an earlier record has changed the place), ``phase_sets``.
        """
        form = anchored(shortest(variant, self.genome.fetch), self.genome.fetch)
        if max(len(form.ref), len(form.alt)) > self.size // 2:
            return "too_long"
        size, length = self.size, self.genome.contigs[form.chrom]
        while size > 2 * len(form.ref):
            start, end, shifted = self._place(form, size, length)
            try:
                text, changed = self._both(form, start, end, own)
                if text == changed:
                    return "overlapped"
                at, ref, alt = form.start - start, len(form.ref), form.alt
                if own is not None:
                    at, ref, alt = difference(text, changed)
                if self._bin is not None:
                    lost, behind = len(text) - len(changed), length - end
                    if lost > 0 and behind > 0:
                        changed += self._both(form, end, end + min(lost, behind), own)[1]
                    whole = min(len(text), len(changed)) // self._bin * self._bin
                    text, changed = text[:whole], changed[:whole]
                    if max(ref, len(alt)) > whole - at:
                        return "too_long"
            except SeveralPhaseSets:
                return "phase_sets"
            excess = max(num_tokens(text), num_tokens(changed)) - self._limit if self._limit else 0
            if excess <= 0:
                flags = ("edge",) * shifted + (f"N{text.count('N')}",) * ("N" in text)
                return Pair(text, changed, at, text[at : at + ref], alt, flags)
            size -= max(excess, self._unit) // self._unit * self._unit
        return "too_many_tokens"

    def _both(self, form: Variant, start: int, end: int, own: Reader | None) -> tuple[str, str]:
        """Read a stretch with either allele."""
        if own is not None:
            without, carried = own(start, end)
            return self._prepared(without, form.chrom, start, end), self._prepared(carried, form.chrom, start, end)
        text = self._text(form.chrom, start, end)
        at = form.start - start
        return text, text if at < 0 else text[:at] + form.alt + text[at + len(form.ref) :]

    def _place(self, form: Variant, size: int, length: int) -> tuple[int, int, bool]:
        centre = form.start if len(form.ref) <= LONG_REF else form.start + len(form.ref) // 2
        wanted = centre - size // 2
        if self.kind == "grid":
            least = (self.size - self._step) // 2 // self._unit * self._unit
            wanted = (centre - least) // self._step * self._step
        start = min(max(wanted, 0), max(length - size, 0))
        return start, min(start + size, length), start != wanted or size > length

    def _prepared(self, text: str, chrom: str, start: int, end: int) -> str:
        try:
            return prepare_text(self._model, text)
        except InputError as error:
            raise InputError(f"{self.genome.path}: {chrom}:{start + 1}-{end}: {error}") from None


def difference(ref: str, alt: str) -> tuple[int, int, str]:
    """Find how two texts differ, as far to the left as possible: place, letters of ``ref`` there, those of ``alt``.

    Where one has none, the base before belongs to both, as in VCF (at the start, the base after).
    """
    shorter = min(len(ref), len(alt))
    right = common_prefix(ref[::-1], alt[::-1])
    left = common_prefix(ref[: shorter - right], alt[: shorter - right])
    if shorter == left + right:
        left, right = (left - 1, right) if left else (0, right - 1)
    return left, len(ref) - right - left, alt[left : len(alt) - right]
