"""Examples of different lengths to one batch of torch tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

IGNORED = -100


class Collator:
    """Pads examples to the longest of the batch; picklable, used by the workers of a data loader.

    Of each example, ``input_ids`` is padded with ``pad_token_id``, ``labels`` (if an array as long as ``input_ids``)
    with -100, ``token_type_ids`` with 0; labels of another form are stacked. ``attention_mask`` is 1 for real tokens.
    All integers become int64, floats float32.
    """

    def __init__(
        self, *, pad_token_id: int, multiple_of: int = 1, length: int | None = None, num_bases: bool = False
    ) -> None:
        """Choose the shape of batches.

        Args:
            pad_token_id: id of the padding token.
            multiple_of: lengths are rounded up to a multiple of this.
            length: pad every batch to this length (static shapes for compilation); longer examples are an error.
            num_bases: also give ``num_bases`` int64 (batch,), for throughput in bases.

        Raises:
            ValueError: ``multiple_of`` is not positive.
        """
        if multiple_of < 1:
            raise ValueError(f"multiple_of must be positive, got {multiple_of}.")
        self._pad_token_id, self._multiple_of = pad_token_id, multiple_of
        self._length, self._num_bases = length, num_bases

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch: every tensor is (batch, longest) or (batch, ...).

        Raises:
            ValueError: there is no example, or one is longer than the fixed length.
        """
        import torch

        if not examples:
            raise ValueError("a batch needs at least one example.")
        lengths = np.array([len(example["input_ids"]) for example in examples])
        width = self._width(int(lengths.max()))
        batch = {
            "input_ids": _padded(examples, "input_ids", width, self._pad_token_id),
            "attention_mask": (np.arange(width) < lengths[:, None]).astype(np.int64),
        }
        if "token_type_ids" in examples[0]:
            batch["token_type_ids"] = _padded(examples, "token_type_ids", width, 0)
        if "labels" in examples[0]:
            batch["labels"] = _labels(examples, width)
        if self._num_bases:
            batch["num_bases"] = np.array([example["num_bases"] for example in examples], dtype=np.int64)
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def _width(self, longest: int) -> int:
        if self._length is not None:
            if longest > self._length:
                raise ValueError(f"an example has {longest} tokens, but batches are padded to {self._length}.")
            return self._length
        return -(-longest // self._multiple_of) * self._multiple_of


def _padded(examples: Sequence[Mapping[str, Any]], key: str, width: int, filler: int) -> np.ndarray:
    batch = np.full((len(examples), width), filler, dtype=np.int64)
    for row, example in zip(batch, examples):
        row[: len(example[key])] = example[key]
    return batch


def _labels(examples: Sequence[Mapping[str, Any]], width: int) -> np.ndarray:
    if all(np.shape(example["labels"]) == np.shape(example["input_ids"]) for example in examples):
        return _padded(examples, "labels", width, IGNORED)
    stacked = np.stack([np.asarray(example["labels"]) for example in examples])
    return stacked.astype(np.float32 if stacked.dtype.kind == "f" else np.int64)
