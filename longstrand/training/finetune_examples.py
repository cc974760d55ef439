"""Labelled rows as tokens, and training examples in batches of similar length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from longstrand.data.bins import encode_bins
from longstrand.data.collate import IGNORED, Collator
from longstrand.data.labelled import LabelledTable
from longstrand.data.labelled_tokens import is_bio
from longstrand.errors import InputError
from longstrand.genome.sequence import reverse_complement
from longstrand.runtime import generator

if TYPE_CHECKING:
    from longstrand.tokenization.base import Encoding, Tokenizer

_GROUP = 50


@dataclass(frozen=True)
class Tokenized:
    """A table as tokens.

    Attributes:
        encodings: one per row, special tokens included.
        num_truncated: rows that were cut on the right to fit.
        num_empty: rows without a single token of DNA.
    """

    encodings: list[Encoding]
    num_truncated: int
    num_empty: int


def tokenize(table: LabelledTable, tokenizer: Tokenizer, limit: int | None, *, on_long: str = "truncate") -> Tokenized:
    """Encode all rows.

    Raises:
        InputError: a row is too long and ``on_long`` is ``refuse``, or it is a pair (pairs are never cut).
    """
    encodings, num_truncated, num_empty = [], 0, 0
    for row in range(len(table)):
        second = table.pairs[row] if table.pairs is not None else None
        encoding = encode_row(tokenizer, table.sequences[row], second, table.task.bin_bases)
        length = len(encoding)
        if limit is not None and length > limit:
            if on_long == "refuse" or second is not None or table.task.bin_bases is not None:
                raise InputError(_too_long(table, row, length, limit))
            encoding = cut(encoding, tokenizer, limit)
            num_truncated += 1
        num_empty += bool(np.all(encoding.special_tokens_mask))
        encodings.append(encoding)
    return Tokenized(encodings, num_truncated, num_empty)


def encode_row(tokenizer: Tokenizer, first: str, second: str | None, bin_bases: int | None = None) -> Encoding:
    """Encode a sequence (with ``bin_bases`` bin by bin) or a pair, special tokens included."""
    if bin_bases is not None:
        return encode_bins(tokenizer, first, bin_bases)
    return tokenizer.encode(first) if second is None else tokenizer.encode_pair(first, second)


def cut(encoding: Encoding, tokenizer: Tokenizer, limit: int) -> Encoding:
    """Keep the tokens from the left that fit beside the special ones."""
    room = limit - tokenizer.num_special_tokens()
    before = len(tokenizer.template.prefix)
    ids, offsets = encoding.input_ids[before : before + room], encoding.offsets[before : before + room]
    return tokenizer.wrap(ids, offsets, encoding.num_bases)


def _too_long(table: LabelledTable, row: int, length: int, limit: int) -> str:
    advice = "shorten it, or set training.on_long=truncate"
    if table.pairs is not None:
        advice = "pairs are never cut, shorten them"
    elif table.task.bin_bases is not None:
        advice = "sequences of bins are never cut: give recurrent memory (memory.num_tokens=...), or shorter windows"
    return (
        f"{table.raw.source}, row {table.raw.rows[row]}: the sequence has {length:,} tokens, "
        f"but the model reads at most {limit:,}; {advice}."
    )


class TrainingExamples:
    """All examples of a run, one after the other; each is a function of the seed and its number.

    Epoch ``e`` holds ``num_batches`` full batches of different rows: rows are shuffled, groups of 50 batches are sorted
    by length so that little is padded, and the batches are shuffled again. Up to ``batch_size - 1`` rows, others in
    each epoch, are left out of it.

    Args:
        table: training rows.
        tokenized: its tokens.
        tokenizer: to read the other strand.
        batch_size: sequences of a batch; at most the number of rows.
        epochs: passes.
        seed: of order and strands.
        strand: ``both`` reads each row from a random strand each time.
        limit: most tokens.
        scale: regression: (mean, deviation) that targets are standardised by, each (num_outputs,).
    """

    def __init__(
        self,
        table: LabelledTable,
        tokenized: Tokenized,
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        strand: str = "+",
        limit: int | None = None,
        scale: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self._table, self._tokenizer, self._encodings = table, tokenizer, tokenized.encodings
        self._seed, self._strand, self._limit, self._scale = seed, strand, limit, scale
        self._usable = np.array([not np.all(item.special_tokens_mask) for item in tokenized.encodings]).nonzero()[0]
        if len(self._usable) == 0:
            raise InputError(f"{table.raw.source}: no row has a single token; the sequences are too short.")
        self._lengths = np.array([len(item) for item in tokenized.encodings])
        self._reduce: Literal["first", "majority"] = "first" if is_bio(table.task.names) else "majority"
        self.batch_size = min(batch_size, len(self._usable))
        self.num_batches = len(self._usable) // self.batch_size
        self._num_examples = epochs * self.num_batches * self.batch_size
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    def __len__(self) -> int:
        return self._num_examples

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Give ``input_ids``, ``labels``, ``num_bases`` and, for pairs, ``token_type_ids``."""
        epoch, place = divmod(number, self.num_batches * self.batch_size)
        row = int(self._order(epoch)[place])
        reverse = self._strand == "both" and generator(self._seed, number, "strand").random() < 0.5
        encoding = self._reversed(row) if reverse else self._encodings[row]
        example: dict[str, Any] = {
            "input_ids": encoding.input_ids,
            "labels": self._labels(row, encoding, reverse),
            "num_bases": encoding.num_bases,
        }
        if encoding.token_type_ids is not None:
            example["token_type_ids"] = encoding.token_type_ids
        return example

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_order"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        random = generator(self._seed, epoch, "order")
        rows = self._usable[random.permutation(len(self._usable))[: self.num_batches * self.batch_size]]
        batches: list[np.ndarray] = []
        group = _GROUP * self.batch_size
        for start in range(0, len(rows), group):
            part = rows[start : start + group]
            part = part[np.argsort(-self._lengths[part], kind="stable")]
            batches += list(part.reshape(-1, self.batch_size))
        return np.concatenate([batches[place] for place in random.permutation(len(batches))])

    def _reversed(self, row: int) -> Encoding:
        second = self._table.pairs[row] if self._table.pairs is not None else None
        second = None if second is None else reverse_complement(second)
        bin_bases = self._table.task.bin_bases
        encoding = encode_row(self._tokenizer, reverse_complement(self._table.sequences[row]), second, bin_bases)
        if self._limit is not None and len(encoding) > self._limit:
            return self._encodings[row] if second is not None else cut(encoding, self._tokenizer, self._limit)
        return encoding

    def _labels(self, row: int, encoding: Encoding, reverse: bool) -> Any:
        target = self._table.targets[row]
        problem = self._table.task.problem
        if problem == "token":
            return encoding.from_bases(target[::-1] if reverse else target, reduce=self._reduce)
        if self._table.task.bin_bases is not None and reverse:
            target = target[::-1]
        if problem == "regression" and self._scale is not None:
            mean, spread = self._scale
            return ((target - mean) / spread).astype(np.float32)
        return target


class LabelCollator:
    """Pads (or packs) tokens, and stacks labels by the kind of problem; picklable."""

    def __init__(self, pad_token_id: int, *, per_token: bool, pack: bool = False) -> None:
        self._pad, self._per_token = Collator(pad_token_id=pad_token_id, num_bases=True, pack=pack), per_token
        self._pack = pack

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch: labels int64 (B, L) (packed (1, L)) for tokens, int64 (B,) for classes, float32 (B, C) else.

        Those of bins are float32 (B, N, C), NaN past the last bin of a row.
        """
        import torch

        batch = self._pad([{name: value for name, value in item.items() if name != "labels"} for item in examples])
        labels = [np.asarray(item["labels"]) for item in examples]
        if self._per_token:
            stacked = np.full(tuple(batch["input_ids"].shape), IGNORED, dtype=np.int64)
            for row, values in zip(stacked, [np.concatenate(labels)] if self._pack else labels):
                row[: len(values)] = values
        elif labels[0].ndim == 2:
            stacked = np.full((len(labels), max(map(len, labels)), labels[0].shape[1]), np.nan, dtype=np.float32)
            for row, values in zip(stacked, labels):
                row[: len(values)] = values
        else:
            stacked = np.stack(labels)
            stacked = stacked.astype(np.float32 if stacked.dtype.kind == "f" else np.int64)
        batch["labels"] = torch.from_numpy(stacked)
        return batch
