"""Who sees whom in one call: a pattern joined with the padding, documents and distances of one batch.

`prepare` picks a path: one fused call under a mask ("dense"), blocks on the CPU ("gather"), FlexAttention ("flex"), or
each document of a packed batch by itself ("documents"). All paths equal the dense one.
Legend: B batch, H heads, L tokens, K head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longstrand.errors import one_of
from longstrand.models.attention.alibi import AlibiStrip
from longstrand.models.attention.block_sparse import BlockLists, GatherCall, block_lists
from longstrand.models.attention.inputs import AttentionInputs
from longstrand.models.attention.patterns import BlockSparse, Full, Pattern, SlidingWindow
from longstrand.models.config import LongstrandConfig
from longstrand.models.positions import alibi_bias, take_rows

PATHS = ("auto", "dense", "gather", "flex", "documents", "strip")
BREAK_EVEN = 1.75
"""A CPU gathers when the input is longer than this many times the keys that a token sees. Measured (two cores, one AMD
EPYC): one dense call won at 1.5 and lost at 2 with blocks of 64, won at 1.3 and lost at 2 with a window of 512
(``perf/attention.py break-even``)."""


@dataclass(frozen=True, eq=False)
class AttentionMask:
    """Who sees whom in one call, ready to compute; at most one of the fields is set, none = everyone sees everyone.

    Attributes:
        bias: what is added to the scores (float) or allowed (bool), broadcast to (B, H, L, L).
        blocks: gathered blocks, or FlexAttention's equivalent.
        strip: ALiBi under full attention.
        documents: the documents in reading order; they tile the batch.
        drops: whether attention probabilities are dropped in training.
    """

    bias: Tensor | None = None
    blocks: Any = None
    strip: AlibiStrip | None = None
    documents: tuple[PackedDocument, ...] | None = None
    drops: bool = True

    def at(self, rows: Tensor) -> AttentionMask | None:
        """Say what the queries of some tokens see, rows (B, R); None where only all of them together are computed."""
        if self.strip is not None:
            return AttentionMask(self.strip.at(rows))
        if self.blocks is not None or self.documents is not None:
            return None
        if self.bias is None or self.bias.shape[-2] == 1:
            return self
        return AttentionMask(take_rows(self.bias.transpose(1, 2), rows).transpose(1, 2), drops=self.drops)


@dataclass(frozen=True, eq=False)
class PackedDocument:
    """One document of a packed batch.

    Attributes:
        row: its row in the batch.
        start: its first token.
        end: the token after its last.
        mask: who sees whom in it; None: it is padding, whose context is zero.
    """

    row: int
    start: int
    end: int
    mask: AttentionMask | None


Sized = Callable[[int], Pattern]


def prepare(
    pattern: Pattern,
    inputs: AttentionInputs,
    *,
    path: str = "auto",
    lists: BlockLists | None = None,
    sized: Sized | None = None,
) -> AttentionMask:
    """Join a pattern with one batch, and choose how to compute.

    The blocks of a layout count from the start of each document.

    Args:
        pattern: who may see whom.
        inputs: the batch.
        path: one of `PATHS`; ``auto`` is dense for full attention and for short inputs, blocks on the CPU, and
            FlexAttention on a GPU.
        lists: the pattern's block lists, if the caller kept them.
        sized: gives the pattern of a document of some length; None: ``pattern`` itself serves all lengths.

    Raises:
        UsageError: unknown path.
        ValueError: a document of a packed batch with block-sparse attention is not in one piece.
    """
    one_of(path, PATHS, "attention path")
    drops = isinstance(pattern, Full)
    if isinstance(pattern, BlockSparse) and inputs.documents is not None:
        return _each_document(inputs, path, sized or (lambda length: pattern))
    if path == "auto":
        path = "gather" if lists is not None else best_path(pattern, inputs)
    if path == "flex":
        from longstrand.models.attention.flex import FlexCall

        return AttentionMask(blocks=FlexCall.make(pattern, inputs), drops=drops)
    if path == "documents" and inputs.runs is not None:
        return _each_document(inputs, "auto", lambda length: pattern)
    if path == "strip":
        return AttentionMask(strip=inputs.strip)
    if path == "gather" and not isinstance(pattern, Full):
        lists = lists or block_lists(pattern, inputs.length, inputs.device)
        return AttentionMask(blocks=_gather_call(lists, inputs), drops=drops)
    return AttentionMask(_dense_bias(pattern, inputs), drops=drops)


def best_path(pattern: Pattern, inputs: AttentionInputs) -> str:
    """Choose a path by device, pattern and length; what is short is dense."""
    if inputs.padding is not None and inputs.padding.dtype != torch.bool:
        return "dense"
    if inputs.device.type == "cuda":
        from longstrand.models.attention.flex import is_available

        sparse = not isinstance(pattern, Full) or inputs.documents is not None
        return "flex" if sparse and is_available() else "dense"
    if inputs.device.type != "cpu" or torch.compiler.is_compiling():
        return "dense"
    if isinstance(pattern, Full):
        plain = inputs.numbers is None
        if inputs.num_heads:
            return "dense" if not inputs.counted else "strip" if plain else "documents"
        return "documents" if inputs.documents is not None else "dense"
    return "gather" if inputs.length > BREAK_EVEN * keys_seen(pattern, inputs.length) else "dense"


def _each_document(inputs: AttentionInputs, path: str, sized: Sized) -> AttentionMask:
    """Attend each document by itself; on the dense path, under one mask that does the same."""
    if inputs.runs is None or inputs.numbers is None:
        raise ValueError("with block-sparse attention, each document of a packed batch must be in one piece")
    real = [int(inputs.numbers[row, start]) >= 0 for row, start, _ in inputs.runs]
    if path == "dense":
        runs = [run for run, is_real in zip(inputs.runs, real) if is_real]
        return AttentionMask(_squares(inputs, inputs.numbers.shape[0], runs, sized), drops=False)
    lengths = {end - start for (_, start, end), is_real in zip(inputs.runs, real) if is_real}
    masks = {length: _one_document(inputs, length, path, sized) for length in lengths}
    documents = (
        PackedDocument(row, start, end, masks[end - start] if is_real else None)
        for (row, start, end), is_real in zip(inputs.runs, real)
    )
    return AttentionMask(documents=tuple(documents))


def _one_document(inputs: AttentionInputs, length: int, path: str, sized: Sized) -> AttentionMask:
    pattern = sized(length)
    if isinstance(pattern, Full) and inputs.num_heads:
        return AttentionMask(strip=inputs.strip)
    return prepare(pattern, inputs.of_length(length), path=path if path in ("gather", "flex") else "auto")


def _squares(inputs: AttentionInputs, batch: int, runs: list[tuple[int, int, int]], sized: Sized) -> Tensor:
    """Make one bias (B, H or 1, L, L) in which each document has its own square."""
    squares = []
    for _, start, end in runs:
        mask = _dense_bias(sized(end - start), inputs.of_length(end - start))
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, dtype=inputs.dtype, device=inputs.device).masked_fill(
                ~mask, torch.finfo(inputs.dtype).min
            )
        squares.append(mask)
    heads = max((mask.shape[1] for mask in squares if mask is not None), default=1)
    shape = (batch, heads, inputs.length, inputs.length)
    bias = torch.full(shape, torch.finfo(inputs.dtype).min, dtype=inputs.dtype, device=inputs.device)
    for (row, start, end), mask in zip(runs, squares):
        bias[row, :, start:end, start:end] = 0.0 if mask is None else mask[0]
    return bias


def keys_seen(pattern: SlidingWindow | BlockSparse, length: int) -> float:
    """Estimate the keys that the gathering path reads for a token."""
    if isinstance(pattern, SlidingWindow):
        return 1.5 * pattern.window
    counts = pattern.corner(length)
    return float((counts > 0).sum(-1, dtype=torch.float32).median()) * pattern.block_size


def _gather_call(lists: BlockLists, inputs: AttentionInputs) -> GatherCall:
    """Pad what the batch adds to whole blocks."""
    missing = lists.num_blocks * lists.block_size - lists.length
    visible = None if inputs.padding is None else inputs.padding[:, 0, 0]
    if visible is None and missing:
        visible = torch.ones(1, lists.length, dtype=torch.bool, device=inputs.device)
    places = None if not inputs.num_heads else inputs.position_ids
    padded = [None if one is None else F.pad(one, (0, missing)) for one in (visible, inputs.documents, places)]
    return GatherCall(lists, padded[0], padded[1], inputs.slopes(), padded[2])


def _dense_bias(pattern: Pattern, inputs: AttentionInputs) -> Tensor | None:
    """Make what the fused call adds to the scores; a token that would see nothing sees everything."""
    mask: Tensor | None = inputs.padding
    distance: Tensor | None = None
    if inputs.num_heads:
        assert inputs.position_ids is not None
        distance = alibi_bias(inputs.num_heads, inputs.position_ids)
    if mask is not None and mask.dtype != torch.bool:
        distance = mask if distance is None else distance + mask
        mask = None
    allowed = None
    if isinstance(pattern, BlockSparse):
        counts = pattern.dense_counts(inputs.length, inputs.device)[None]
        allowed = counts > 0
        if bool((counts > 1).any()):
            logs = counts.clamp(min=1).float().log()
            distance = logs if distance is None else logs + distance
    elif isinstance(pattern, SlidingWindow):
        allowed = pattern.dense_mask(inputs.length, inputs.device)[None]
    if inputs.documents is not None:
        allowed = join_masks(allowed, (inputs.documents[:, :, None] == inputs.documents[:, None, :])[:, None])
    if allowed is not None:
        mask = allowed if mask is None else allowed & mask
        mask = mask | ~mask.any(-1, keepdim=True)
    return join_bias(mask, distance, inputs.dtype)


def join_masks(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Join two boolean masks, either of which may be None; floats are left to `join_bias`."""
    masks = [mask for mask in (first, second) if mask is not None and mask.dtype == torch.bool]
    return None if not masks else masks[0] if len(masks) == 1 else masks[0] & masks[1]


def padding_bias(attention_mask: Tensor | None, config: LongstrandConfig) -> Tensor | None:
    """Turn a mask of real tokens (B, L; 1 = real) into what attention takes, (B, 1, 1, L), or None if all are real.

    A row without any real token sees all of its padding, so that it gives finite numbers rather than NaN.
    """
    if attention_mask is None:
        return None
    if "unmasked_padding" in config.quirks:
        return attention_mask[:, None, None, :].float()
    real = attention_mask.bool()
    if real.device.type == "cpu" and not torch.compiler.is_compiling() and bool(real.all()):
        return None
    return (real | ~real.any(-1, keepdim=True))[:, None, None, :]


def join_bias(padding: Tensor | None, distance: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Join the padding (bool or float) and a float bias by position into one bias."""
    if distance is None:
        return padding if padding is None or padding.dtype == torch.bool else padding.to(dtype)
    if padding is None:
        return distance.to(dtype)
    if padding.dtype == torch.bool:
        return distance.to(dtype).masked_fill(~padding, torch.finfo(dtype).min)
    return (distance + padding).to(dtype)
