"""Block-sparse and sliding-window attention on the CPU: gather the key blocks of a few query blocks, attend, go on.

Each piece is one fused attention call on tensors that stay in the cache; nothing of the size (L, L), and no gathered
copy of all keys, ever exists. The backward pass gathers again instead of keeping what the forward pass gathered.
Legend: B batch, H heads, G heads of the layout (H, or 1 if all share), L tokens, n blocks, S tokens in a block, R query
blocks that are gathered for ("narrow"), M key blocks of each, W query blocks that see too many ("wide"), K head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longstrand.models.patterns import BlockSparse, SlidingWindow

_PIECE_NUMBERS = 1 << 18
"""Numbers of the gathered keys of one piece (1 MB in float32); chosen on one noisy run between 2^17 and 2^19."""
_WINDOW_BLOCK = 64


@dataclass(frozen=True, eq=False)
class BlockLists:
    """A pattern as lists of key blocks, for one length.

    Attributes:
        length: tokens.
        block_size: tokens in a block.
        num_blocks: blocks, the last one possibly not full.
        rows: (R,) int64, the narrow query blocks.
        keys: (G, R, M) int64, their key blocks; unused places repeat a block and have the weight -inf.
        weights: (G, R, M) float32, log of how often each counts, or None if all count once.
        wide: (W,) int64, the wide query blocks.
        wide_weights: (G, W, n) float32, the same for all blocks, or None if all count once.
        reach: tokens further apart than this do not see each other; None = no limit.
    """

    length: int
    block_size: int
    num_blocks: int
    rows: Tensor
    keys: Tensor
    weights: Tensor | None
    wide: Tensor
    wide_weights: Tensor | None
    reach: int | None = None


def block_lists(pattern: BlockSparse | SlidingWindow, length: int, device: torch.device | str = "cpu") -> BlockLists:
    """Turn a pattern into lists of key blocks; a row is wide when it sees more than half of all blocks."""
    if isinstance(pattern, SlidingWindow):
        reach = pattern.window // 2
        size = max(16, min(_WINDOW_BLOCK, 1 << (reach - 1).bit_length()))
        places = torch.arange(-(-length // size), device=device)
        counts = ((places[:, None] - places).abs() <= -(-reach // size))[None].to(torch.uint8)
        wide_from = counts.shape[2] + 1
    else:
        reach, size = None, pattern.block_size
        counts = pattern.corner(length).to(device)
        wide_from = max(counts.shape[2] // 2, 1)
    seen = counts > 0
    degree = seen.sum(-1)
    is_wide = (degree > wide_from).any(0)
    rows, wide = (~is_wide).nonzero().flatten(), is_wide.nonzero().flatten()
    width = int(degree[:, rows].max()) if rows.numel() else 0
    order = torch.argsort(seen[:, rows].to(torch.uint8), dim=-1, descending=True, stable=True)[..., :width]
    narrow = counts[:, rows].gather(2, order)
    return BlockLists(
        length, size, counts.shape[2], rows, order, _log_counts(narrow), wide, _log_counts(counts[:, wide]), reach
    )


def _log_counts(counts: Tensor) -> Tensor | None:
    return None if bool((counts == 1).all()) else counts.float().log()


@dataclass(frozen=True, eq=False)
class GatherCall:
    """Block lists together with what one batch adds.

    Attributes:
        lists: the pattern.
        visible: (B or 1, n S) bool, keys that are real; None = all, and L is a multiple of S.
        documents: (B, n S) int64 document of each token, or None.
        slopes: (H,) float32, ALiBi, or None.
        places: (B or 1, n S) int64 positions for ALiBi, or None.
    """

    lists: BlockLists
    visible: Tensor | None = None
    documents: Tensor | None = None
    slopes: Tensor | None = None
    places: Tensor | None = None

    def attend(self, query_BHLK: Tensor, key_BHLK: Tensor, value_BHLK: Tensor) -> Tensor:
        """Compute the context (B, H, L, K); differentiable. No dropout of probabilities, as in published code."""
        lists = self.lists
        missing = lists.num_blocks * lists.block_size - lists.length
        states = (F.pad(states, (0, 0, 0, missing)) for states in (query_BHLK, key_BHLK, value_BHLK))
        query, key, value = (padded.contiguous() for padded in states)
        context = _Gathered.apply(query, key, value, self)
        if lists.wide.numel():
            tokens = block_tokens(lists.wide, lists.block_size)
            mixed = F.scaled_dot_product_attention(query[:, :, tokens], key, value, attn_mask=self._wide_bias(query))
            context = context.index_copy(2, tokens, mixed)
        return context[:, :, : lists.length]

    def _wide_bias(self, query: Tensor) -> Tensor | None:
        """Give what is added to the scores of the wide rows, broadcast to (B, H, W S, n S), or None."""
        lists, size = self.lists, self.lists.block_size
        weights = lists.wide_weights
        if weights is not None:
            weights = weights.repeat_interleave(size, 1).repeat_interleave(size, 2)[None]
        tokens = block_tokens(lists.wide, size)[:, None]
        everything = torch.arange(lists.num_blocks * size, device=query.device)[None]
        batch = torch.arange(query.shape[0], device=query.device)[:, None, None]
        heads = torch.arange(query.shape[1], device=query.device)[None, :, None, None]
        visible = None if self.visible is None else self.visible[:, None, :]
        bias = self._token_bias(batch, heads, tokens, everything, visible, weights)
        return None if bias is None else bias.to(query.dtype)

    def piece_bias(self, sequence: Tensor, head: Tensor, row: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Give what is added to the scores of some narrow rows.

        Args:
            sequence: (c,) index into the batch of each row.
            head: (c,) its head.
            row: (c,) index into ``lists.rows``.
            dtype: of the result.

        Returns:
            (c, 1, 1 or S, M S), or None if nothing is added.
        """
        lists, size = self.lists, self.lists.block_size
        group = head if lists.keys.shape[0] > 1 else torch.zeros_like(head)
        weights = None if lists.weights is None else lists.weights[group, row]
        if weights is not None and not bool(weights.any()):
            weights = None
        if weights is not None:
            weights = weights.repeat_interleave(size, -1)[:, None, None, :]
        if all(thing is None for thing in (self.visible, self.documents, self.slopes, lists.reach)):
            return None if weights is None else weights.clamp(min=torch.finfo(dtype).min).to(dtype)
        inside = torch.arange(size, device=row.device)
        keys = (lists.keys[group, row][..., None] * size + inside).flatten(1)[:, None, :]
        queries = (lists.rows[row][:, None] * size + inside)[:, :, None]
        sequence = sequence[:, None, None]
        visible = None if self.visible is None else self.visible[_row(self.visible, sequence), keys]
        bias = self._token_bias(sequence, head[:, None, None, None], queries, keys, visible, weights)
        return None if bias is None else bias.to(dtype)

    def _token_bias(
        self, batch: Tensor, heads: Tensor, queries: Tensor, keys: Tensor, visible: Tensor | None, bias: Tensor | None
    ) -> Tensor | None:
        """Join weights of blocks, ALiBi, padding, documents and reach; results have an axis of heads at 1."""
        if self.slopes is not None:
            assert self.places is not None
            batches = _row(self.places, batch)
            distance = (self.places[batches, queries] - self.places[batches, keys]).abs()[:, None]
            sloped = -self.slopes[heads] * distance
            bias = sloped if bias is None else bias + sloped
        allowed = None if visible is None or bool(visible.all()) else visible
        if self.documents is not None:
            same = self.documents[batch, queries] == self.documents[batch, keys]
            allowed = same if allowed is None else allowed & same
        if self.lists.reach is not None:
            near = (queries - keys).abs() <= self.lists.reach
            allowed = near if allowed is None else allowed & near
        lowest = torch.finfo(torch.bfloat16).min
        if bias is not None:
            bias = bias.clamp(min=lowest)
        if allowed is None:
            return bias
        if bias is None:
            return torch.zeros(allowed.shape, device=allowed.device).masked_fill(~allowed, lowest)[:, None]
        return bias.masked_fill(~allowed[:, None], lowest)


def _row(values: Tensor, index: Tensor) -> Tensor:
    """Give the row of each sequence; one row serves all."""
    return index if values.shape[0] > 1 else torch.zeros_like(index)


def block_tokens(blocks: Tensor, size: int) -> Tensor:
    """List the tokens of blocks: (W,) -> (W S,)."""
    return (blocks[:, None] * size + torch.arange(size, device=blocks.device)).flatten()


class _Gathered(torch.autograd.Function):
    """The narrow rows; wide ones are left zero."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, call: GatherCall) -> Tensor:
        context = torch.zeros_like(query) if call.lists.wide.numel() else torch.empty_like(query)
        flat = [_blocks(states, call) for states in (query, key, value, context)]
        kind = torch.float64 if query.dtype == torch.float64 else torch.float32
        sums = query.new_empty(flat[0].shape[:2], dtype=kind)
        for rows, columns, bias in _pieces(call, query):
            some = [flat[0][rows][:, None], *(_gather(states, columns) for states in flat[1:3])]
            mixed, sum_of_row = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*some, attn_mask=bias)
            flat[3][rows], sums[rows] = mixed[:, 0], sum_of_row.view(rows.numel(), -1)
        ctx.save_for_backward(query, key, value, context, sums)
        ctx.call = call
        return context

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, context, sums = ctx.saved_tensors
        gradients = [torch.zeros_like(states) for states in (query, key, value)]
        flat = [_blocks(states, ctx.call) for states in (query, key, value, context, gradient.contiguous(), *gradients)]
        for rows, columns, bias in _pieces(ctx.call, query):
            some = [flat[0][rows][:, None], *(_gather(states, columns) for states in flat[1:3])]
            mixed, incoming = flat[3][rows][:, None], flat[4][rows][:, None]
            into = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                incoming, *some, mixed, sums[rows][:, None], 0.0, False, attn_mask=bias
            )
            flat[5][rows] = into[0][:, 0]
            for total, part in zip(flat[6:], into[1:]):
                total.index_add_(0, columns.flatten(), part.reshape(-1, *total.shape[1:]))
        return *gradients, None


def _blocks(states: Tensor, call: GatherCall) -> Tensor:
    """View (B, H, n S, K) as (B H n, S, K)."""
    return states.view(-1, call.lists.block_size, states.shape[-1])


def _gather(blocks: Tensor, columns: Tensor) -> Tensor:
    """Gather (c, M) blocks as keys (c, 1, M S, K)."""
    return blocks.index_select(0, columns.flatten()).view(columns.shape[0], 1, -1, blocks.shape[-1])


def _pieces(call: GatherCall, query: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Walk over all narrow rows in pieces that fit the cache.

    Yields:
        Flat query blocks (c,), flat key blocks (c, M), both indices into (B H n), and the bias of the piece.
    """
    lists = call.lists
    (batch, heads), (groups, num_rows, width) = query.shape[:2], lists.keys.shape
    total = batch * heads * num_rows
    each = max(torch.get_num_threads(), _PIECE_NUMBERS // max(width * lists.block_size * query.shape[-1], 1))
    for start in range(0, total, each):
        number = torch.arange(start, min(start + each, total), device=query.device)
        outer, row = number // num_rows, number % num_rows
        head = outer % heads
        keys = lists.keys[head if groups > 1 else torch.zeros_like(head), row]
        first = (outer * lists.num_blocks)[:, None]
        bias = call.piece_bias(outer // heads, head, row, query.dtype)
        yield first[:, 0] + lists.rows[row], first + keys, bias
