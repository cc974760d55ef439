"""Examples of different lengths to one batch of torch tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from longstrand.runtime import IGNORED_LABEL

if TYPE_CHECKING:
    import torch

PADDING = -1
"""Number of the document of padding tokens in a packed batch."""


class Collator:
    """Pads examples to the longest of the batch, or packs them; picklable, used by the workers of a data loader.

    Of each example, ``input_ids`` is padded with ``pad_token_id``, ``labels`` (if an array as long as ``input_ids``)
    with -100, ``token_type_ids`` with 0; labels of another form are stacked. ``attention_mask`` is 1 for real tokens.
    All integers become int64, floats float32.

    Packed, all examples stand one after the other in one row, and ``document_ids`` (1, length) says which token is of
    which example (-1: padding); a model lets tokens see their own document only, so nothing but speed changes.
    """

    def __init__(
        self,
        *,
        pad_token_id: int,
        multiple_of: int = 1,
        length: int | None = None,
        num_bases: bool = False,
        pack: bool = False,
    ) -> None:
        """Choose the shape of batches.

        Args:
            pad_token_id: id of the padding token.
            multiple_of: lengths are rounded up to a multiple of this.
            length: pad every batch to this length (static shapes for compilation); longer examples are an error.
            num_bases: also give ``num_bases`` int64 (batch,), for throughput in bases.
            pack: make one row of all examples instead of padding each; ``length`` is that of the row.

        Raises:
            ValueError: ``multiple_of`` is not positive.
        """
        if multiple_of < 1:
            raise ValueError(f"multiple_of must be positive, got {multiple_of}.")
        self._pad_token_id, self._multiple_of = pad_token_id, multiple_of
        self._length, self._num_bases, self._pack = length, num_bases, pack

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch: every tensor is (batch, longest), packed (1, length), or (batch, ...).

        Raises:
            ValueError: there is no example, or one (packed: their sum) is longer than the fixed length.
        """
        import torch

        if not examples:
            raise ValueError("a batch needs at least one example.")
        rows = [list(examples)] if self._pack else [[example] for example in examples]
        lengths = np.array([sum(len(example["input_ids"]) for example in row) for row in rows])
        width = self._width(int(lengths.max()))
        batch = {
            "input_ids": _padded(rows, "input_ids", width, self._pad_token_id),
            "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
        }
        if self._pack:
            numbers = np.repeat(np.arange(len(examples)), [len(example["input_ids"]) for example in examples])
            batch["document_ids"] = np.full((1, width), PADDING, dtype=np.int64)
            batch["document_ids"][0, : len(numbers)] = numbers
        if "token_type_ids" in examples[0]:
            batch["token_type_ids"] = _padded(rows, "token_type_ids", width, 0)
        if "labels" in examples[0]:
            batch["labels"] = _labels(rows, width)
        if self._num_bases:
            batch["num_bases"] = np.array([example["num_bases"] for example in examples], dtype=np.int64)
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def _width(self, longest: int) -> int:
        if self._length is not None:
            if longest > self._length:
                have = "the examples of a batch have" if self._pack else "an example has"
                raise ValueError(f"{have} {longest} tokens, but batches are padded to {self._length}.")
            return self._length
        return -(-longest // self._multiple_of) * self._multiple_of


Rows = Sequence[Sequence[Mapping[str, Any]]]


def _padded(rows: Rows, key: str, width: int, filler: int) -> np.ndarray:
    batch = np.full((len(rows), width), filler, dtype=np.int64)
    for line, row in zip(batch, rows):
        values = np.concatenate([example[key] for example in row])
        line[: len(values)] = values
    return batch


def _labels(rows: Rows, width: int) -> np.ndarray:
    examples = [example for row in rows for example in row]
    if all(np.shape(example["labels"]) == np.shape(example["input_ids"]) for example in examples):
        return _padded(rows, "labels", width, IGNORED_LABEL)
    stacked = np.stack([np.asarray(example["labels"]) for example in examples])
    return stacked.astype(np.float32 if stacked.dtype.kind == "f" else np.int64)
