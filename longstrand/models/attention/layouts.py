"""Block layouts: made once from seeds, kept in the weights, turned into a pattern for each length.

``stored``: one (heads, n, n) table for the longest input, of which shorter inputs use the top-left corner, so padding
changes nothing. DeepSpeed's layouts have this form (gena_rmt.md 1.3), and so have our own.
``bigbird``: first, last and neighbouring blocks by rule, random blocks from two tables, as transformers' BigBird
(gena_rmt.md 1.4). Its last block is that of the padded input, and a short input is attended fully: the length that a
batch is padded to is part of the model.
Legend: H heads, n blocks, r random blocks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from longstrand.errors import InputError
from longstrand.models.attention.patterns import FULL, BlockSparse, Pattern, SlidingWindow
from longstrand.models.config import LongstrandConfig
from longstrand.models.quirks import first_position
from longstrand.runtime import generator

_PAPER_LENGTHS = (1024, 3072, 4096)
"""Lengths for which transformers draws from its first plan: only blocks among the first 1,024 tokens."""


def is_full(config: LongstrandConfig, layer: int) -> bool:
    """Say whether a layer attends fully, by its number."""
    settings = config.attention
    every = settings.global_every
    return settings.pattern == "full" or (every is not None and layer % every == 0)


def longest_input(config: LongstrandConfig) -> int | None:
    """Give the longest input in tokens, special ones included; None if neither positions nor block layouts end.

    A model with memory reads any length, segment by segment.
    """
    if config.memory is not None:
        return None
    limits = []
    if config.positions == "learned":
        limits.append(config.max_position_embeddings - first_position(config))
    sparse = config.attention.pattern == "block_sparse"
    if sparse and not all(is_full(config, layer) for layer in range(config.num_hidden_layers)):
        block_size = config.attention.block
        limits.append(-(-config.max_position_embeddings // block_size) * block_size)
    return min(limits, default=None)


def make_layout(config: LongstrandConfig, layer: int) -> Tensor | None:
    """Make the buffer of one layer, or None where the pattern needs none.

    Returns:
        ``stored``: (H, n, n) uint8; ``bigbird``: (2, H, n - 2, r) int16, one table for each plan.
    """
    settings = config.attention
    if is_full(config, layer) or settings.pattern != "block_sparse":
        return None
    num_blocks = -(-config.max_position_embeddings // settings.block)
    if settings.layout == "bigbird":
        tables = bigbird_tables(
            layer, config.num_attention_heads, num_blocks, settings.block, settings.num_random_blocks
        )
        return torch.from_numpy(tables)
    return torch.from_numpy(_draw_layout(config, 0 if settings.shared_layout else layer, num_blocks))


def _draw_layout(config: LongstrandConfig, layer: int, num_blocks: int) -> np.ndarray:
    """Draw window + global + random blocks, (H, n, n) uint8; every random block is new as long as there are any."""
    settings, heads = config.attention, config.num_attention_heads
    places = np.arange(num_blocks)
    near = np.abs(places[:, None] - places) <= settings.num_window_blocks // 2
    first = settings.num_global_blocks
    near[:first] = near[:, :first] = True
    draw = generator(settings.seed, layer, "block layout")
    layout = np.repeat(near[None], heads, axis=0)
    for head in layout[: heads if settings.num_random_blocks else 0]:
        keys = np.where(head, 2.0, draw.random(head.shape))
        chosen = np.argsort(keys, axis=1)[:, : settings.num_random_blocks]
        np.put_along_axis(head, chosen, True, axis=1)
    return layout.astype(np.uint8)


def bigbird_tables(layer: int, num_heads: int, num_blocks: int, block_size: int, num_random: int) -> np.ndarray:
    """Draw transformers' tables of random blocks: numpy's old generator, seed = number of the layer.

    Returns:
        (2, H, n - 2, r) int16. Row i - 1 belongs to block row i. Table 0 serves inputs of 1,024, 3,072 and 4,096
        tokens, table 1 all others; a shorter input uses the leading rows.
    """
    tables = np.zeros((2, num_heads, max(num_blocks - 2, 0), num_random), dtype=np.int16)
    rows = range(1, num_blocks - 1)
    draw = np.random.RandomState(layer)
    last = 1024 // block_size - 1 if 2 * block_size < 1024 else num_blocks - 1
    for head in range(num_heads):
        for row in rows:
            chosen = draw.permutation(_paper_candidates(row, num_blocks, last))[:num_random]
            tables[0, head, row - 1, : len(chosen)] = chosen
    draw, end = np.random.RandomState(layer), 2 * num_random + 5
    for row in range(1, num_blocks):
        for head in range(num_heads):
            drawn = [block for block in draw.permutation(end) if block not in _illegal(row, end)][:num_random]
            if row < num_blocks - 1:
                tables[1, head, row - 1, : len(drawn)] = drawn
    return tables


def _paper_candidates(row: int, num_blocks: int, last: int) -> np.ndarray:
    """List the blocks that plan 0 draws from for a row, with the slices of the published code."""
    middle = np.arange(1, num_blocks - 1)
    if row in (1, 2):
        return middle[row + 1 : last]
    if row in (num_blocks - 3, num_blocks - 2):
        return middle[:last]
    if row - 2 > last:
        return middle[:last]
    if row + 1 == last:
        return middle[: row - 2]
    return np.concatenate((middle[: row - 2], middle[row + 1 : last]))


def _illegal(row: int, end: int) -> set[int]:
    """List the blocks that plan 1 never draws for a row: window, first, last, and two by special rule."""
    illegal = {row - 1, row, row + 1, 0, end - 1}
    return illegal | ({end - 2} if row == 1 else set()) | ({1} if row == end - 2 else set())


def pattern_for(config: LongstrandConfig, layer: int, layout: Tensor | None, length: int) -> Pattern:
    """Give the pattern of one layer for inputs of ``length`` tokens.

    Args:
        config: the model's.
        layer: its number.
        layout: the buffer that `make_layout` describes (of layer 0 where the layout is shared).
        length: tokens of the batch, padding included.

    Raises:
        InputError: the input is longer than a stored layout.
    """
    settings = config.attention
    if is_full(config, layer):
        return FULL
    if settings.pattern == "sliding":
        return SlidingWindow(settings.window or 0)
    assert layout is not None
    if settings.layout == "bigbird":
        return _bigbird_pattern(config, layout, length)
    limit = layout.shape[1] * settings.block
    if length > limit:
        raise InputError(
            f"the input has {length} tokens, but the block layout of this model ends at {limit}; use shorter windows, "
            f"or make the model with a larger max_position_embeddings."
        )
    num_blocks = -(-length // settings.block)
    return BlockSparse(layout[:, :num_blocks, :num_blocks], settings.block)


def rows_as_documents(attention_mask: Tensor | None, config: LongstrandConfig) -> Tensor | None:
    """Make each row of a padded batch a document, (B, L) int64, where its pattern depends on its own length; else None.

    The blocks of layout ``bigbird`` (last block, random blocks) follow the length. With the quirk
    ``blocks_of_padded_length`` it is that of the batch, as published, and a row's result depends on its batch mates.
    """
    attention = config.attention
    if attention.pattern != "block_sparse" or attention.layout != "bigbird" or attention_mask is None:
        return None
    if "blocks_of_padded_length" in config.quirks or bool(attention_mask.all()):
        return None
    return torch.zeros_like(attention_mask, dtype=torch.long)


def _bigbird_pattern(config: LongstrandConfig, tables: Tensor, length: int) -> Pattern:
    """Count the blocks of transformers' BigBird; an input of at most 5 + 2 r blocks is attended fully, this once."""
    block_size, num_random = config.attention.block, config.attention.num_random_blocks
    num_blocks = -(-length // block_size)
    if num_blocks <= 5 + 2 * num_random:
        return FULL
    if num_blocks - 2 > tables.shape[2]:
        raise InputError(
            f"the input has {length} tokens, but the block tables of this model end at "
            f"{(tables.shape[2] + 2) * block_size}; use shorter windows."
        )
    table = tables[0 if num_blocks * block_size in _PAPER_LENGTHS else 1, :, : num_blocks - 2]
    if "zero_random_blocks" in config.quirks:
        table = torch.zeros_like(table)
    return BlockSparse(_bigbird_counts(table, num_blocks), block_size)


def _bigbird_counts(table: Tensor, num_blocks: int) -> Tensor:
    """Count how often each row sees each block; table (H, n - 2, r) -> (H, n, n) uint8."""
    places = torch.arange(num_blocks, device=table.device)
    near = (places[:, None] - places).abs() <= 1
    near[[0, -1]] = True
    near[:, [0, -1]] = True
    counts = near.to(torch.uint8).repeat(table.shape[0], 1, 1)
    ones = torch.ones(table.shape, dtype=torch.uint8, device=table.device)
    counts[:, 1:-1].scatter_add_(2, table.long(), ones)
    return counts
