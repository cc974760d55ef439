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

    Of each example, ``input_ids`` is padded with ``pad_token_id``, ``token_type_ids`` with 0, ``labels`` of tokens with
    -100. ``attention_mask`` is 1 for real tokens. All integers become int64, floats float32.

    Packed, all examples stand one after the other in one row, and ``document_ids`` (1, length) says which token is of
    which example; a model lets tokens see their own document only, so nothing but speed changes.

    Args:
        pad_token_id: id of the padding token.
        per_token: labels are one a token, (B, L), packed (1, L). Otherwise one a sequence: int64 (B,) for classes,
            float32 (B, C), or for bins float32 (B, N, C), NaN past the last bin of a row.
        pack: make one row of all examples instead of padding each.
    """

    def __init__(self, pad_token_id: int, *, per_token: bool = True, pack: bool = False) -> None:
        self._pad_token_id, self._per_token, self._pack = pad_token_id, per_token, pack

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch: every tensor is (batch, longest), packed (1, length), or (batch, ...).

        Raises:
            ValueError: there is no example.
        """
        import torch

        if not examples:
            raise ValueError("a batch needs at least one example.")
        lengths = np.array([len(example["input_ids"]) for example in examples])
        batch = {"input_ids": self._tokens(examples, "input_ids", self._pad_token_id)}
        if self._pack:
            batch["attention_mask"] = np.ones_like(batch["input_ids"])
            batch["document_ids"] = np.repeat(np.arange(len(examples)), lengths)[None]
        else:
            batch["attention_mask"] = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        if "token_type_ids" in examples[0]:
            batch["token_type_ids"] = self._tokens(examples, "token_type_ids", 0)
        if "labels" in examples[0]:
            batch["labels"] = self._labels(examples)
        if "num_bases" in examples[0]:
            batch["num_bases"] = np.array([example["num_bases"] for example in examples], dtype=np.int64)
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def _tokens(self, examples: Sequence[Mapping[str, Any]], key: str, filler: int) -> np.ndarray:
        rows = [np.asarray(example[key]) for example in examples]
        return padded([np.concatenate(rows)] if self._pack else rows, filler, np.int64)

    def _labels(self, examples: Sequence[Mapping[str, Any]]) -> np.ndarray:
        if self._per_token:
            return self._tokens(examples, "labels", IGNORED_LABEL)
        labels = [np.asarray(example["labels"]) for example in examples]
        if labels[0].ndim == 2:
            return padded(labels, np.nan, np.float32)
        stacked = np.stack(labels)
        return stacked.astype(np.float32 if stacked.dtype.kind == "f" else np.int64)


def padded(rows: Sequence[np.ndarray], filler: float, dtype: type) -> np.ndarray:
    """Put arrays (length, ...) into the rows of one (rows, longest, ...), filled up at the end."""
    batch = np.full((len(rows), max(map(len, rows)), *rows[0].shape[1:]), filler, dtype=dtype)
    for line, values in zip(batch, rows):
        line[: len(values)] = values
    return batch
