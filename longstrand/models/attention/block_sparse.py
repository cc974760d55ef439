"""Block-sparse and sliding-window attention on the CPU: gather the key blocks of a few query blocks, attend, go on.

Each piece is one fused attention call on tensors that stay in the cache; nothing of the size (L, L), no gathered copy
of all keys and no copy of the states in another order ever exists. The backward pass gathers again instead of keeping
what the forward pass gathered.
Legend: B batch, H heads, G heads of the layout (H, or 1 if all share), L tokens, n blocks, S tokens in a block, R query
blocks that are gathered for ("narrow"), M key blocks of each, W query blocks that see too many ("wide"), K head size,
c query blocks of one piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from longstrand.models.attention.patterns import BlockSparse, SlidingWindow

_PIECE_NUMBERS = 1 << 18
"""Numbers of the gathered keys of one piece for each thread (1 MB in float32, what a core's own cache holds)."""
_WINDOW_BLOCK = 64
_LOWEST = torch.finfo(torch.bfloat16).min


@dataclass(frozen=True, eq=False)
class BlockLists:
    """A pattern as lists of key blocks, for one length.

    Attributes:
        length: tokens.
        block_size: tokens in a block.
        num_blocks: blocks, the last one possibly not full.
        rows: (R,) int64, the narrow query blocks, ascending.
        keys: (G, R, M) int64, their key blocks; unused places repeat a block and have the weight -inf.
        weights: (G, R, M) float32, log of how often each counts, or None if all count once.
        wide: (W,) int64, the wide query blocks.
        wide_weights: (G, W, n) float32, the same for all blocks, or None if all count once.
        band: (S, M S) float32, 0 or lowest: which tokens of its key blocks a query sees, the same in every row; None =
            all of them.
    """

    length: int
    block_size: int
    num_blocks: int
    rows: Tensor
    keys: Tensor
    weights: Tensor | None
    wide: Tensor
    wide_weights: Tensor | None
    band: Tensor | None = None


def block_lists(pattern: BlockSparse | SlidingWindow, length: int, device: torch.device | str = "cpu") -> BlockLists:
    """Turn a pattern into lists of key blocks; a row is wide when it sees more than half of all blocks."""
    if isinstance(pattern, SlidingWindow):
        return _window_lists(pattern, length, device)
    counts = pattern.corner(length).to(device)
    num_blocks = counts.shape[2]
    seen = counts > 0
    degree = seen.sum(-1)
    is_wide = (degree > max(num_blocks // 2, 1)).any(0)
    rows, wide = (~is_wide).nonzero().flatten(), is_wide.nonzero().flatten()
    width = int(degree[:, rows].max()) if rows.numel() else 0
    order = torch.argsort(seen[:, rows].to(torch.uint8), dim=-1, descending=True, stable=True)[..., :width]
    weights = [_log_counts(some) for some in (counts[:, rows].gather(2, order), counts[:, wide])]
    return BlockLists(length, pattern.block_size, num_blocks, rows, order, weights[0], wide, weights[1])


def _window_lists(pattern: SlidingWindow, length: int, device: torch.device | str) -> BlockLists:
    """List the neighbours of each block, the same number everywhere, so that one band serves all rows."""
    reach = pattern.window // 2
    size = max(16, min(_WINDOW_BLOCK, 1 << (reach - 1).bit_length()))
    num_blocks, side = -(-length // size), -(-reach // size)
    rows = torch.arange(num_blocks, device=device)
    keys = rows[:, None] + torch.arange(-side, side + 1, device=device)
    outside = (keys < 0) | (keys >= num_blocks)
    weights = torch.zeros(keys.shape, device=device).masked_fill(outside, -torch.inf)
    query = torch.arange(size, device=device)[:, None] + side * size
    far = (query - torch.arange((2 * side + 1) * size, device=device)).abs() > reach
    band = torch.zeros(far.shape, device=device).masked_fill(far, _LOWEST)
    keys = keys.clamp(0, num_blocks - 1)
    return BlockLists(length, size, num_blocks, rows, keys[None], weights[None], rows[:0], None, band)


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
        """Compute the context (B, H, L, K); differentiable. No dropout of probabilities, as in published code.

        Query blocks without a real token are left out; the context is zero there.
        """
        missing = self.lists.num_blocks * self.lists.block_size - self.lists.length
        states: tuple[Tensor, ...] = (query_BHLK, key_BHLK, value_BHLK)
        if missing:
            states = tuple(_pad_tokens(one, missing) for one in states)
        context: Tensor = _Gathered.apply(*states, self)
        return context[:, :, : self.lists.length]

    def wide_bias(self, query: Tensor) -> Tensor | None:
        """Give what is added to the scores of the wide rows, broadcast to (B, H, W S, n S), or None."""
        lists, size = self.lists, self.lists.block_size
        weights = lists.wide_weights
        if weights is not None:
            weights = weights.repeat_interleave(size, 1).repeat_interleave(size, 2)[None]
        tokens = block_tokens(lists.wide, size)[:, None]
        everything = torch.arange(lists.num_blocks * size, device=query.device)[None]
        bias = weights
        if self.slopes is not None and self.places is not None:
            distance = (self.places[:, tokens] - self.places[:, everything]).abs()[:, None]
            bias = _add(bias, -self.slopes[:, None, None] * distance)
        if self.visible is not None and not bool(self.visible.all()):
            bias = _add(bias, _forbid(~self.visible[:, None, None, :]))
        if self.documents is not None:
            other = self.documents[:, tokens] != self.documents[:, everything]
            bias = _add(bias, _forbid(other[:, None]))
        return None if bias is None else bias.clamp(min=_LOWEST).to(query.dtype)

    def pieces(self, sequence: int, head: int, each: int, dtype: torch.dtype) -> Iterator[Piece]:
        """Cut the narrow rows of one head of one sequence into pieces of at most ``each`` query blocks."""
        lists, size = self.lists, self.lists.block_size
        group = head if lists.keys.shape[0] > 1 else 0
        rows, keys = lists.rows, lists.keys[group]
        weights = None if lists.weights is None else lists.weights[group]
        visible = None
        if self.visible is not None:
            visible = self.visible[min(sequence, self.visible.shape[0] - 1)].unflatten(0, (-1, size))
            some = visible.any(-1)[rows]
            if not bool(some.all()):
                rows, keys = rows[some], keys[some]
                weights = None if weights is None else weights[some]
        hidden = None if visible is None or bool(visible.all()) else _forbid(~visible)
        for start in range(0, rows.numel(), each):
            part = slice(start, start + each)
            bias = None if weights is None or not bool(weights[part].any()) else weights[part]
            if bias is not None:
                bias = bias.repeat_interleave(size, -1)[:, None, :]
            if hidden is not None and bool(hidden[keys[part]].any()):
                bias = _add(bias, hidden[keys[part]].flatten(1)[:, None, :])
            if lists.band is not None:
                bias = _add(bias, lists.band[None])
            bias = self._by_token(bias, sequence, head, rows[part], keys[part])
            if bias is not None:
                bias = bias.clamp(min=_LOWEST).to(dtype)[:, None]
            yield Piece(_as_slice(rows[part]), keys[part].flatten(), bias)

    def _by_token(self, bias: Tensor | None, sequence: int, head: int, rows: Tensor, keys: Tensor) -> Tensor | None:
        """Add ALiBi and documents, which differ by pair of tokens: (c, S, M S)."""
        size = self.lists.block_size
        if self.slopes is not None and self.places is not None:
            places = self.places[min(sequence, self.places.shape[0] - 1)].unflatten(0, (-1, size))
            distance = (places[rows][:, :, None] - places[keys].flatten(1)[:, None, :]).abs()
            bias = _add(bias, -self.slopes[head] * distance)
        if self.documents is not None:
            documents = self.documents[sequence].unflatten(0, (-1, size))
            other = documents[rows][:, :, None] != documents[keys].flatten(1)[:, None, :]
            if bool(other.any()):
                bias = _add(bias, _forbid(other))
        return bias


@dataclass(frozen=True, eq=False)
class Piece:
    """Some narrow rows of one head.

    Attributes:
        rows: the query blocks, a slice if they are neighbours, else (c,).
        columns: (c M,) their key blocks.
        bias: (c or 1, 1, S or 1, M S), or None.
    """

    rows: slice | Tensor
    columns: Tensor
    bias: Tensor | None


def _pad_tokens(states: Tensor, missing: int) -> Tensor:
    """Append zeros to the tokens of (B, H, L, K) that lie as (B, L, H, K) in memory; they stay that way."""
    return F.pad(states.transpose(1, 2), (0, 0, 0, 0, 0, missing)).transpose(1, 2)


def _add(first: Tensor | None, second: Tensor) -> Tensor:
    return second if first is None else first + second


def _forbid(hidden: Tensor) -> Tensor:
    """Give what is added to scores: lowest where ``hidden``, else 0; float32."""
    return torch.zeros(hidden.shape, device=hidden.device).masked_fill(hidden, _LOWEST)


def _as_slice(rows: Tensor) -> slice | Tensor:
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == rows.numel() else rows


def block_tokens(blocks: Tensor, size: int) -> Tensor:
    """List the tokens of blocks: (W,) -> (W S,)."""
    return (blocks[:, None] * size + torch.arange(size, device=blocks.device)).flatten()


class _Gathered(torch.autograd.Function):
    """All rows; the states lie as (B, L, H, K) in memory, and so do the context and the gradients."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, call: GatherCall) -> Tensor:
        lists, attend = call.lists, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        skips = call.visible is not None and not bool(call.visible.all())
        context = _like(query, zero=skips)
        kind = torch.float64 if query.dtype == torch.float64 else torch.float32
        sums = query.new_zeros(*query.shape[:2], lists.num_blocks, lists.block_size, dtype=kind)
        wide_sums = None
        if lists.wide.numel():
            tokens = block_tokens(lists.wide, lists.block_size)
            mixed, wide_sums = attend(query[:, :, tokens], key, value, attn_mask=call.wide_bias(query))
            context[:, :, tokens] = mixed
        each = _piece_rows(call, query)
        for sequence, head in product(range(query.shape[0]), range(query.shape[1])):
            blocks = [_blocks(one[sequence, head], lists.block_size) for one in (query, key, value)]
            mixed = context[sequence, head].unflatten(0, (-1, lists.block_size))
            for piece in call.pieces(sequence, head, each, query.dtype):
                some, sums_of_piece = attend(*_gather(blocks, piece), attn_mask=piece.bias)
                mixed[piece.rows] = some[:, 0]
                sums[sequence, head, piece.rows] = sums_of_piece.view(some.shape[0], -1)
        ctx.save_for_backward(query, key, value, context, sums, wide_sums)
        ctx.call = call
        return context

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, context, sums, wide_sums = ctx.saved_tensors
        lists, back = ctx.call.lists, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        states, totals = (query, key, value), [_like(query, zero=True)]
        if wide_sums is None:
            totals += [_like(query, zero=True), _like(query, zero=True)]
        else:
            tokens = block_tokens(lists.wide, lists.block_size)
            first = [gradient[:, :, tokens], query[:, :, tokens], key, value, context[:, :, tokens]]
            into = back(*first, wide_sums, 0.0, False, attn_mask=ctx.call.wide_bias(query))
            totals[0][:, :, tokens] = into[0]
            totals += into[1:]
        each = _piece_rows(ctx.call, query)
        for sequence, head in product(range(query.shape[0]), range(query.shape[1])):
            every = (*states, context, gradient)
            blocks = [_blocks(one[sequence, head], lists.block_size) for one in every]
            sides = [torch.zeros_like(blocks[1]), torch.zeros_like(blocks[2])]
            for piece in ctx.call.pieces(sequence, head, each, query.dtype):
                mixed, incoming = (_rows(one, piece.rows)[:, None] for one in blocks[3:])
                some = _rows(sums[sequence, head], piece.rows)[:, None]
                into = back(incoming, *_gather(blocks, piece), mixed, some, 0.0, False, attn_mask=piece.bias)
                totals[0][sequence, head].unflatten(0, (-1, lists.block_size))[piece.rows] = into[0][:, 0]
                for side, part in zip(sides, into[1:]):
                    side.index_add_(0, piece.columns, part.reshape(-1, *side.shape[1:]))
            for total, side in zip(totals[1:], sides):
                total[sequence, head] += side.flatten(0, 1)
        return *totals, None


def _piece_rows(call: GatherCall, query: Tensor) -> int:
    """Say how many query blocks make a piece that fits the caches."""
    numbers = max(call.lists.keys.shape[2] * call.lists.block_size * query.shape[3], 1)
    return max(1, _PIECE_NUMBERS * torch.get_num_threads() // numbers)


def _like(states: Tensor, *, zero: bool) -> Tensor:
    """Make room for (B, H, L, K), as (B, L, H, K) in memory."""
    batch, heads, length, size = states.shape
    make = states.new_zeros if zero else states.new_empty
    return make(batch, length, heads, size).transpose(1, 2)


def _blocks(states: Tensor, size: int) -> Tensor:
    """Copy one head (L, K) as blocks (n, S, K); a copy in one piece is gathered from twice as fast."""
    return states.contiguous().unflatten(0, (-1, size))


def _rows(blocks: Tensor, rows: slice | Tensor) -> Tensor:
    return blocks[rows] if isinstance(rows, slice) else blocks.index_select(0, rows)


def _gather(blocks: list[Tensor], piece: Piece) -> list[Tensor]:
    """Take the queries (c, 1, S, K), and gather the keys and values (c, 1, M S, K), of blocks (n, S, K)."""
    query = _rows(blocks[0], piece.rows)[:, None]
    keys = (one.index_select(0, piece.columns).view(query.shape[0], 1, -1, one.shape[-1]) for one in blocks[1:3])
    return [query, *keys]
