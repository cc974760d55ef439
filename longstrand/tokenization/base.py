"""What every tokenizer gives: ids, the bases they cover, and the projection between tokens and bases.

Offsets are 0-based half-open positions in the text that was encoded. Tokens that cover no base (``[CLS]``, padding)
have the empty offset ``(0, 0)``. Overlapping k-mers cover a base several times; every other tokenizer covers each base
at most once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from longstrand.runtime import IGNORED_LABEL
from longstrand.tokenization.files import ROLES, write_tokenizer_files

IntArray = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[Any]
ToBases = Literal["mean", "max", "sum", "share"]
FromBases = Literal["mean", "max", "majority", "first"]

_WORTH_THREADS = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """One tokenized text.

    Attributes:
        input_ids: int32 ``(n,)``.
        offsets: int32 ``(n, 2)``, start and end base of each token; empty for tokens that cover no base.
        num_bases: length of the text in letters; for a pair, of both (the second follows the first).
        special_tokens_mask: bool ``(n,)``, True for ids that are no DNA (``[CLS]``, ``[MASK]``, gap ``-``, ...).
        token_type_ids: int32 ``(n,)`` of 0 and 1 for a pair, else None.
    """

    input_ids: IntArray
    offsets: IntArray
    num_bases: int
    special_tokens_mask: BoolArray
    token_type_ids: IntArray | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def content_rows(self) -> IntArray:
        """Number the tokens that cover bases."""
        return np.flatnonzero(self.offsets[:, 1] > self.offsets[:, 0]).astype(np.int32)

    def rows_over(self, start: int, end: int) -> IntArray:
        """Number the tokens that share a base with the bases ``start`` to ``end - 1``."""
        starts, ends = self.offsets[:, 0], self.offsets[:, 1]
        return np.flatnonzero((starts < end) & (ends > np.maximum(start, starts))).astype(np.int32)

    def to_bases(self, values: npt.ArrayLike, reduce: ToBases = "mean") -> AnyArray:
        """Spread values per token over the bases that the tokens cover.

        Args:
            values: ``(n, ...)``, one row per token, special tokens included (their rows are ignored).
            reduce: what a base gets from all tokens that cover it: their ``mean``, ``max`` or ``sum``; or ``share``:
                every token divides its value evenly over its bases, so that totals are kept (attributions).

        Returns:
            ``(num_bases, ...)`` in the float width of ``values`` (float64 for integers). Bases that no token covers
            (stripped white space) are NaN; with ``sum`` and ``share`` they are 0.

        Raises:
            ValueError: the number of rows is not the number of tokens, or ``reduce`` is unknown.
        """
        if reduce not in ("mean", "max", "sum", "share"):
            raise ValueError(f"reduce is mean, max, sum or share, not {reduce!r}.")
        rows = _rows(values, len(self), "token")
        rows = rows if np.issubdtype(rows.dtype, np.floating) else rows.astype(np.float64)
        lengths = self._lengths()
        if reduce == "share":
            rows = rows / np.maximum(lengths, 1).reshape(-1, *[1] * (rows.ndim - 1)).astype(rows.dtype)
        if self._tiles(lengths):
            spread: AnyArray = np.repeat(rows, lengths, axis=0)
            return spread
        tokens, bases = self._cover(lengths)
        shape = (self.num_bases, *rows.shape[1:])
        if reduce == "max":
            highest = np.full(shape, -np.inf, dtype=rows.dtype)
            np.maximum.at(highest, bases, rows[tokens])
            highest[np.bincount(bases, minlength=self.num_bases) == 0] = np.nan
            return highest
        total = np.zeros(shape, dtype=rows.dtype)
        np.add.at(total, bases, rows[tokens])
        if reduce == "mean":
            count = np.bincount(bases, minlength=self.num_bases).astype(rows.dtype)
            count[count == 0] = np.nan
            total /= count.reshape(-1, *[1] * (rows.ndim - 1))
        return total

    def from_bases(self, labels: npt.ArrayLike, reduce: FromBases = "mean") -> AnyArray:
        """Give each token a label made of the labels of the bases it covers.

        Args:
            labels: ``(num_bases, ...)``; NaN in floats and -100 in integers mean "no label" and are left out.
            reduce: ``mean`` (always floats), ``max``, ``majority`` (ties: the smallest label) or ``first`` (label of
                the first base that has one).

        Returns:
            ``(n, ...)``; tokens without any labelled base get NaN (floats) or -100 (integers).

        Raises:
            ValueError: the number of rows is not ``num_bases``, or ``reduce`` is unknown.
        """
        rows = _rows(labels, self.num_bases, "base")
        if reduce not in ("mean", "max", "majority", "first"):
            raise ValueError(f"reduce is mean, max, majority or first, not {reduce!r}.")
        if rows.dtype == np.bool_:
            rows = rows.astype(np.int64)
        if np.issubdtype(rows.dtype, np.floating):
            floats, missing = rows, np.isnan(rows)
        else:
            floats, missing = rows.astype(np.float64), rows == IGNORED_LABEL
        shape = (self.num_bases, math.prod(rows.shape[1:]))
        flat, gone = floats.reshape(shape), missing.reshape(shape)
        tokens, bases = self._cover(self._lengths())
        columns = [
            _reduce_column(flat[bases, c], gone[bases, c], tokens, len(self), reduce) for c in range(flat.shape[1])
        ]
        result = np.stack(columns, axis=1) if columns else np.empty((len(self), 0))
        result = result.reshape(len(self), *rows.shape[1:])
        if reduce == "mean" or np.issubdtype(rows.dtype, np.floating):
            return result.astype(rows.dtype if np.issubdtype(rows.dtype, np.floating) else np.float64)
        return np.where(np.isnan(result), IGNORED_LABEL, result).astype(rows.dtype)

    def _lengths(self) -> npt.NDArray[np.int64]:
        """Count the bases of each token."""
        starts, ends = self.offsets.T.astype(np.int64)
        lengths: npt.NDArray[np.int64] = ends - starts
        return lengths

    def _tiles(self, lengths: npt.NDArray[np.int64]) -> bool:
        """Say whether the tokens stand one behind the other and each base has one, as without overlapping k-mers."""
        ends = lengths.cumsum()
        last = ends[-1] if len(ends) else 0
        return bool(last == self.num_bases and ((ends == self.offsets[:, 1]) | (lengths == 0)).all())

    def _cover(self, lengths: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """List every (token, base) incidence, as two index arrays in token order."""
        starts = self.offsets[:, 0].astype(np.int64)
        tokens = np.repeat(np.arange(len(self), dtype=np.int64), lengths)
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        return tokens, np.arange(len(tokens), dtype=np.int64) - first + starts[tokens]


def _rows(values: npt.ArrayLike, expected: int, unit: str) -> AnyArray:
    rows: AnyArray = np.asarray(values)
    if rows.ndim == 0 or len(rows) != expected:
        found = len(rows) if rows.ndim else "no"
        raise ValueError(f"one row per {unit} is needed: got {found} rows for {expected} {unit}s.")
    return rows


def _reduce_column(values: AnyArray, missing: BoolArray, tokens: AnyArray, num_tokens: int, reduce: str) -> AnyArray:
    """Reduce one column of (token, base) incidences to one float per token, NaN where nothing is labelled."""
    values, tokens = values[~missing], tokens[~missing]
    result = np.full(num_tokens, np.nan)
    if reduce == "mean":
        count = np.bincount(tokens, minlength=num_tokens)
        total = np.bincount(tokens, weights=values, minlength=num_tokens)
        np.divide(total, count, out=result, where=count > 0)
    elif reduce == "max":
        np.fmax.at(result, tokens, values)
    elif reduce == "first":
        result[tokens[::-1]] = values[::-1]
    else:
        choices, codes = np.unique(values, return_inverse=True)
        counts = np.zeros((num_tokens, len(choices)), dtype=np.int64)
        np.add.at(counts, (tokens, codes), 1)
        labelled = counts.any(axis=1) if len(choices) else np.zeros(num_tokens, dtype=np.bool_)
        result[labelled] = choices[counts[labelled].argmax(axis=1)] if len(choices) else np.nan
    return result


@dataclass(frozen=True, slots=True)
class SpecialTokenTemplate:
    """The special ids around one text (``prefix`` text ``suffix``) and between two."""

    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    pair_middle: tuple[int, ...] | None = None
    pair_suffix: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Ids of the special roles; None where the vocabulary has no such token."""

    pad: int | None = None
    cls: int | None = None
    sep: int | None = None
    mask: int | None = None
    unk: int | None = None
    extra: frozenset[int] = frozenset()

    def all(self) -> frozenset[int]:
        """Collect every special id."""
        return frozenset(value for role in ROLES if (value := getattr(self, role)) is not None) | self.extra


class Tokenizer(ABC):
    """Text to ids and back; immutable after construction, safe to share between threads and forked processes."""

    kind: str
    overlapping: bool = False
    max_tokens: int | None = None

    def __init__(self, vocab: dict[str, int], special: SpecialIds, template: SpecialTokenTemplate) -> None:
        self.vocab = vocab
        self.special = special
        self.template = template
        self.special_ids = special.all()
        self.vocab_size = max(vocab.values(), default=-1) + 1
        self._special_lookup = np.zeros(self.vocab_size, dtype=np.bool_)
        self._special_lookup[sorted(self.special_ids)] = True
        self._around = {
            side: _special_part(ids) for side, ids in (("prefix", template.prefix), ("suffix", template.suffix))
        }

    pad_token_id = property(lambda self: self.special.pad)
    cls_token_id = property(lambda self: self.special.cls)
    sep_token_id = property(lambda self: self.special.sep)
    mask_token_id = property(lambda self: self.special.mask)
    unk_token_id = property(lambda self: self.special.unk)

    @abstractmethod
    def encode_ids(self, text: str) -> tuple[IntArray, IntArray]:
        """Tokenize without adding special tokens: ids int32 ``(n,)`` and offsets int32 ``(n, 2)``."""

    @abstractmethod
    def _identity(self) -> Any:
        """Give a JSON-able value that determines the ids of every text."""

    @abstractmethod
    def _definition(self) -> str:
        """Write the text of a ``tokenizer.json``."""

    def _options(self) -> dict[str, Any]:
        """List what our section of ``longstrand.json`` says about the tokenizer."""
        return {"kind": self.kind}

    def save(self, folder: Path | str, *, exact_text: bool = False) -> None:
        """Write files from which `load_tokenizer` and ``AutoTokenizer`` restore this tokenizer.

        ``AutoTokenizer`` reads lower case as upper case, as our commands do, unless ``exact_text``. It gives our ids
        for DNA, but cannot cut overlapping k-mers: those it wants separated by spaces, as DNABERT's own scripts write
        them.
        """
        write_tokenizer_files(
            Path(folder),
            self._definition(),
            self.role_names,
            options=self._options(),
            max_tokens=self.max_tokens,
            upper_case="" if exact_text else self.alphabet,
        )

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """Write ids as text, without spaces; overlapping k-mers are merged back into one sequence.

        ``skip_special_tokens`` also drops GENA's gap ``-``.
        """
        skip = self.special_ids if skip_special_tokens else frozenset()
        return "".join(self.token_strings[int(i)] for i in ids if int(i) not in skip)

    @cached_property
    def fingerprint(self) -> str:
        """``sha256:...`` of everything that determines the ids of a text."""
        import json

        from longstrand.runtime import fingerprint_bytes

        return fingerprint_bytes(json.dumps(self._identity(), sort_keys=True, ensure_ascii=False).encode())

    @property
    def role_names(self) -> dict[str, str]:
        """Texts of the special tokens by role: ``{"pad_token": "[PAD]", ...}``."""
        named = {f"{role}_token": getattr(self.special, role) for role in ROLES}
        return {role: self.token_strings[i] for role, i in named.items() if i is not None}

    @cached_property
    def token_strings(self) -> list[str]:
        """Token texts by id; ids without a token are empty."""
        strings = [""] * self.vocab_size
        for text, index in self.vocab.items():
            strings[index] = text
        return strings

    @cached_property
    def bases_per_id(self) -> IntArray:
        """Number of letters that a token spells, int32 ``(vocab_size,)``; 0 for special tokens."""
        lengths = np.array([len(text) for text in self.token_strings], dtype=np.int32)
        lengths[self._special_lookup] = 0
        return lengths

    @cached_property
    def dna_token_ids(self) -> IntArray:
        """Ids of the tokens that are spelled with A, C, G and T only, ascending, int32."""
        dna = [
            i for text, i in self.vocab.items() if text and not set(text) - set("ACGT") and i not in self.special_ids
        ]
        return np.array(sorted(dna), dtype=np.int32)

    @cached_property
    def alphabet(self) -> str:
        """The capital letters that occur in tokens, sorted: what `genome.normalise` may leave in a sequence."""
        letters = {letter for text, i in self.vocab.items() if i not in self.special_ids for letter in text}
        return "".join(sorted(letter for letter in letters if letter.isascii() and letter.isupper()))

    def num_special_tokens(self, *, pair: bool = False) -> int:
        """Count the ids that `encode` adds around one text, or around a pair."""
        ends = len(self.template.prefix)
        if not pair:
            return ends + len(self.template.suffix)
        return ends + len(self._middle()) + len(self.template.pair_suffix)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """Tokenize one text exactly as the published tokenizer does; nothing is cut or changed to upper case."""
        ids, offsets = self.encode_ids(text)
        if add_special_tokens:
            return self.wrap(ids, offsets, len(text))
        return Encoding(ids, offsets, len(text), self._special_lookup[ids])

    def encode_batch(
        self, texts: Sequence[str], *, add_special_tokens: bool = True, num_threads: int = 1
    ) -> list[Encoding]:
        """Tokenize texts, in order; more than one thread helps the tokenizers with a compiled engine.

        Raises:
            ValueError: ``num_threads`` is below 1.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads is at least 1, got {num_threads}.")
        if num_threads == 1 or len(texts) < 2 or sum(map(len, texts)) < _WORTH_THREADS:
            return [self.encode(text, add_special_tokens=add_special_tokens) for text in texts]
        block = max(1, min(64, len(texts) // (4 * num_threads)))
        blocks = [texts[i : i + block] for i in range(0, len(texts), block)]
        with ThreadPoolExecutor(num_threads) as pool:
            parts = pool.map(lambda part: self.encode_batch(part, add_special_tokens=add_special_tokens), blocks)
            return [encoding for part in parts for encoding in part]

    def wrap(self, ids: IntArray, offsets: IntArray, num_bases: int) -> Encoding:
        """Put the special tokens around ids that were already made (and perhaps cut): ``[CLS]`` ids ``[SEP]``."""
        (before, none_before), (after, none_after) = self._around["prefix"], self._around["suffix"]
        all_ids = np.concatenate((before, ids, after))
        all_offsets = np.concatenate((none_before, offsets, none_after))
        return Encoding(all_ids, all_offsets, num_bases, self._special_lookup[all_ids])

    def encode_pair(self, first: str, second: str) -> Encoding:
        """Tokenize two texts as one input, ``[CLS] first [SEP] second [SEP]``.

        Offsets and ``num_bases`` count the second text as if it followed the first; ``token_type_ids`` tell them apart.

        Raises:
            TokenizerError: the published tokenizer has no form for pairs.
        """
        middle = self._middle()
        (ids_a, offsets_a), (ids_b, offsets_b) = self.encode_ids(first), self.encode_ids(second)
        parts = [_special_part(self.template.prefix), (ids_a, offsets_a), _special_part(middle)]
        parts += [(ids_b, offsets_b + np.int32(len(first))), _special_part(self.template.pair_suffix)]
        ids = np.concatenate([part[0] for part in parts])
        types = np.zeros(len(ids), dtype=np.int32)
        types[sum(len(part[0]) for part in parts[:3]) :] = 1
        offsets = np.concatenate([part[1] for part in parts])
        return Encoding(ids, offsets, len(first) + len(second), self._special_lookup[ids], types)

    def _middle(self) -> tuple[int, ...]:
        if self.template.pair_middle is None:
            from longstrand.errors import TokenizerError

            raise TokenizerError("this tokenizer has no form for pairs of sequences; encode them one by one.")
        return self.template.pair_middle

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:18]}...)"


def _special_part(ids: Sequence[int]) -> tuple[IntArray, IntArray]:
    return np.array(ids, dtype=np.int32), np.zeros((len(ids), 2), dtype=np.int32)
