"""Windows to masked token sequences, one example at a time, and how many bases a token budget needs.

More bases are read than the budget needs, tokenized, and the tail is cut, so that every example is full; an example
that comes out short is kept (dropping it would select against repeats, which have long tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from longstrand.data.genomes import GenomeSet, open_genomes
from longstrand.data.masking import MaskingConfig, mask_tokens
from longstrand.data.regions import HoldOuts
from longstrand.data.windows import MIN_WINDOW, Source, TrainingWindows, Window
from longstrand.errors import TokenizerError
from longstrand.runtime import generator
from longstrand.tokenization.base import Tokenizer


class MaskedExample(TypedDict):
    """One training example.

    ``input_ids`` int32 (n,), with special tokens; ``labels`` int64 (n,), -100 where nothing is to be restored;
    ``num_bases`` bases that the kept tokens spell.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    num_bases: int


class WindowTokenizer:
    """Tokenizes windows to at most ``max_tokens``, special tokens included; the tail is cut, sentences stay apart.

    Attributes:
        room: DNA tokens in a full example.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int) -> None:
        """Take the special tokens before and after a sequence from the tokenizer.

        Raises:
            ValueError: ``max_tokens`` leaves no room for DNA.
        """
        self._before = np.array(tokenizer.template.prefix, dtype=np.int32)
        self._after = np.array(tokenizer.template.suffix, dtype=np.int32)
        self.room = max_tokens - len(self._before) - len(self._after)
        if self.room < 1:
            raise ValueError(f"max_tokens = {max_tokens} leaves no room for DNA beside the special tokens.")
        self._tokenizer = tokenizer
        tokenizer.encode_ids("ACGT")  # compiles the engine here, once, before workers are forked

    def encode(self, window: Window) -> tuple[np.ndarray, int]:
        """Tokenize one window: ids int32 (n,) with special tokens, and the bases that they spell."""
        parts = [self._before]
        missing, num_bases = self.room, 0
        for piece in window.pieces:
            ids, offsets = self._tokenizer.encode_ids(piece)
            ids = ids[:missing]
            if len(ids):
                num_bases += int(offsets[len(ids) - 1, 1])
                parts.append(ids)
            missing -= len(ids)
            if not missing:
                break
        return np.concatenate((*parts, self._after)), num_bases


class MaskedExamples(Sequence[MaskedExample]):
    """Windows, tokenized and masked: ``examples[index]`` is a pure function of the windows, the seed and the index.

    Masks are part of the sample, not of the batch: over `EvaluationWindows` they never change. Pickles.
    """

    def __init__(
        self,
        windows: Sequence[Window],
        tokenizer: Tokenizer,
        masking: MaskingConfig | None = None,
        *,
        max_tokens: int,
        seed: int,
    ) -> None:
        """Prepare the tables of the tokenizer.

        Args:
            windows: training or evaluation windows.
            tokenizer: must have a [MASK] token.
            masking: how to mask; by default 15 % of the tokens, 80/10/10.
            max_tokens: longest example, special tokens included.
            seed: of the masks.

        Raises:
            TokenizerError: the tokenizer has no mask token, or no token that is spelled with A, C, G, T alone.
        """
        if tokenizer.mask_token_id is None:
            raise TokenizerError("this tokenizer has no mask token, which a masked language model needs.")
        self.windows, self.seed = windows, seed
        self.masking = _with_kmer(masking or MaskingConfig(), tokenizer)
        self._mask_token_id = tokenizer.mask_token_id
        self._dna_token_ids = np.asarray(tokenizer.dna_token_ids, dtype=np.int32)
        if not len(self._dna_token_ids):
            raise TokenizerError("this tokenizer has no token that is spelled with A, C, G and T alone.")
        self._is_dna = np.zeros(tokenizer.vocab_size, dtype=bool)
        self._is_dna[self._dna_token_ids] = True
        self._encoder = WindowTokenizer(tokenizer, max_tokens=max_tokens)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> MaskedExample:  # type: ignore[override]
        """Make one example; negative indices count from the end, an index outside raises IndexError."""
        number = index + len(self) if index < 0 else index
        ids, num_bases = self._encoder.encode(self.windows[index])
        input_ids, labels = mask_tokens(
            ids,
            self._is_dna[ids],
            config=self.masking,
            mask_token_id=self._mask_token_id,
            random_token_ids=self._dna_token_ids,
            generator=generator(self.seed, number, "mask"),
        )
        return {"input_ids": input_ids, "labels": labels, "num_bases": num_bases}


@dataclass(frozen=True)
class TokenBudget:
    """How many bases fill a number of tokens in given genomes.

    Attributes:
        num_bases: bases to read so that nearly every example is full (window size).
        stride: bases that nearly every full example covers (tile size of the epoch order and of evaluation).
        bases_per_token: mean over the sample.
        num_tokens: DNA tokens of a full example.
        repeated: bases that full examples spell beyond ``stride``, as a share of it: in the epoch order neighbouring
            examples overlap by that much. 0 for k-mers without N; some percent for BPE.
    """

    num_bases: int
    stride: int
    bases_per_token: float
    num_tokens: int
    repeated: float


def measure_budget(
    genomes: GenomeSet | Sequence[Source],
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    holdout: HoldOuts = None,
    sentences: tuple[int, int] | None = None,
    num_windows: int = 64,
) -> TokenBudget:
    """Measure how many bases ``max_tokens`` tokens need, on windows of the genomes themselves.

    Windows are read with room to spare and tokenized; ``num_bases`` is the most bases that any full one used (at least
    2 % above the mean), ``stride`` the fewest. Where all stretches of the genomes are too short to fill the budget,
    both follow from the mean. Deterministic.

    Args:
        genomes: as for `TrainingWindows`.
        tokenizer: any tokenizer.
        max_tokens: tokens of an example, special tokens included.
        holdout: bases that are not looked at.
        sentences: as for `TrainingWindows`.
        num_windows: size of the sample.
    """
    encoder, genomes = WindowTokenizer(tokenizer, max_tokens=max_tokens), open_genomes(genomes)
    num_specials = max_tokens - encoder.room
    for bases_per_token in (8, 16, 32, 64):
        windows = TrainingWindows(
            genomes,
            num_bases=max(MIN_WINDOW, bases_per_token * encoder.room),
            num_samples=num_windows,
            seed=0,
            holdout=holdout,
            sentences=sentences,
            alphabet=tokenizer.alphabet,
        )
        encoded = [encoder.encode(window) for window in windows]
        full = [num_bases for ids, num_bases in encoded if len(ids) == max_tokens]
        if 2 * len(full) >= num_windows or windows.regions.lengths.max() < windows.num_bases:
            break
    spelled = sum(num_bases for _, num_bases in encoded)
    mean = spelled / max(1, sum(len(ids) - num_specials for ids, _ in encoded))
    expected = mean * encoder.room
    full = full or [round(expected)]
    most, least = max(*full, round(1.02 * expected)), min(full)
    repeated = max(0.0, sum(full) / len(full) / max(MIN_WINDOW, least) - 1)
    return TokenBudget(max(MIN_WINDOW, most), max(MIN_WINDOW, least), mean, encoder.room, repeated)


def _with_kmer(masking: MaskingConfig, tokenizer: Tokenizer) -> MaskingConfig:
    """Fill in the k of k-mer spans from an overlapping k-mer tokenizer."""
    if masking.kind != "kmer_span" or masking.kmer is not None:
        return masking
    if not tokenizer.overlapping:
        raise TokenizerError("masking.kind kmer_span is for overlapping k-mers; use token or span.")
    return masking.model_copy(update={"kmer": int(np.max(tokenizer.bases_per_id))})
