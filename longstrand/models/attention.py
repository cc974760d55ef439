"""Attention: four separate projections around one function, `attend`, and the choice of the path that computes it.

A pattern says who may see whom, `prepare` joins it with the padding, documents and distances of one batch, and picks a
path: one fused call under a mask ("dense"), blocks on the CPU ("gather"), FlexAttention ("flex"), or one fused call for
each packed document ("documents"). All paths equal the dense one.
Legend: B batch, H heads, L tokens, K head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longstrand.errors import one_of
from longstrand.models.block_sparse import BlockLists, GatherCall, block_lists
from longstrand.models.config import LongstrandConfig
from longstrand.models.layouts import make_layout, pattern_for
from longstrand.models.linear import Linear
from longstrand.models.patterns import FULL, BlockSparse, Full, Pattern, SlidingWindow
from longstrand.models.positions import RotaryAngles, alibi_slopes, position_distances

PATHS = ("auto", "dense", "gather", "flex", "documents")
BREAK_EVEN = 1.5
"""A CPU gathers when the input is longer than this many times the keys that a token sees (an estimate, unmeasured)."""


@dataclass(frozen=True, eq=False)
class Sight:
    """Who sees whom in one call, ready to compute; at most one of the fields is set, none = everyone sees everyone.

    Attributes:
        bias: what is added to the scores (float) or allowed (bool), broadcast to (B, H, L, L).
        blocks: gathered blocks, or FlexAttention's equivalent.
        documents: (row, start, end) of the documents in reading order; they tile the batch.
        drops: whether attention probabilities are dropped in training.
    """

    bias: Tensor | None = None
    blocks: Any = None
    documents: tuple[tuple[int, int, int], ...] | None = None
    drops: bool = True


class SelfAttention(nn.Module):
    """Multi-head self-attention with separate ``query``, ``key``, ``value`` and ``dense`` projections.

    ``layout`` is the block layout of this layer, a part of the weights, or None.
    """

    layout: Tensor | None

    def __init__(self, config: LongstrandConfig, layer: int = 0) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        size, bias = config.hidden_size, config.biases["attention"]
        self.query = Linear(size, size, bias=bias)
        self.key = Linear(size, size, bias=bias)
        self.value = Linear(size, size, bias=bias)
        self.dense = Linear(size, size, bias=bias)
        self.register_buffer("layout", make_layout(config, layer))
        self._kept: tuple[Any, ...] = ()

    def forward(
        self, hidden: Tensor, sight: Sight, angles: RotaryAngles | None, *, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Mix tokens; hidden (B, L, hidden_size) -> same shape, and probabilities (B, H, L, L) if asked for."""
        query, key, value = (self._split(project(hidden)) for project in (self.query, self.key, self.value))
        if angles is not None:
            query, key = angles.rotate(query), angles.rotate(key)
        dropout = self.dropout if self.training else 0.0
        context, weights = look(query, key, value, sight, dropout=dropout, need_weights=need_weights)
        return self.dense(context.transpose(1, 2).flatten(2)), weights

    def pattern(self, config: LongstrandConfig, layer: int, scene: Scene) -> tuple[Pattern, BlockLists | None]:
        """Give the pattern of a layer that uses this layout, with its block lists where they will be needed.

        Both are kept until the layout or the length changes.
        """
        if self.layout is None or torch.compiler.is_compiling():
            return pattern_for(config, layer, self.layout, scene.length), None
        version = 0 if self.layout.is_inference() else self.layout._version
        key = (version, scene.length, tuple(config.quirks))
        if not self._kept or self._kept[0] is not self.layout or self._kept[1] != key:
            pattern = pattern_for(config, layer, self.layout, scene.length)
            gathers = isinstance(pattern, BlockSparse) and _best_path(pattern, scene) == "gather"
            lists = block_lists(pattern, scene.length, scene.device) if gathers else None
            self._kept = (self.layout, key, pattern, lists)
        return self._kept[2], self._kept[3]

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def attend(
    query_BHLK: Tensor,
    key_BHLK: Tensor,
    value_BHLK: Tensor,
    *,
    pattern: Pattern = FULL,
    attention_mask: Tensor | None = None,
    documents: Tensor | None = None,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
    path: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Compute softmax(q k / sqrt(K) + bias) v over what the pattern and the mask allow.

    Args:
        query_BHLK: queries; keys and values have the same shape.
        key_BHLK: keys.
        value_BHLK: values.
        pattern: who may see whom.
        attention_mask: (B, L), true or 1 = real; None = all are. What stands at other places is finite and arbitrary.
        documents: (B, L) int64 number of each token's document, for packed batches; None = one each.
        bias: None, or what is added to the scores (float) or allowed (bool), broadcast to (B, H, L, L); asks for the
            dense path.
        dropout: probability of dropping an attention probability; ignored by patterns other than `Full`.
        need_weights: also return the probabilities, through the slow path.
        path: one of `PATHS`.

    Returns:
        Context (B, H, L, K), and probabilities (B, H, L, L) before dropout or None.
    """
    padding = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
    path = "dense" if need_weights or bias is not None else path
    scene = Scene(query_BHLK.shape[2], query_BHLK.device, query_BHLK.dtype, padding, documents)
    sight = prepare(pattern, scene, path=path)
    if bias is not None:
        floats = [one for one in (sight.bias, bias) if one is not None and one.dtype != torch.bool]
        joined = join_bias(_and(sight.bias, bias), sum(floats) if floats else None, query_BHLK.dtype)
        sight = Sight(joined, drops=sight.drops)
    return look(query_BHLK, key_BHLK, value_BHLK, sight, dropout=dropout, need_weights=need_weights)


def look(
    query_BHLK: Tensor,
    key_BHLK: Tensor,
    value_BHLK: Tensor,
    sight: Sight,
    *,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute attention as `attend` does, after `prepare`; probabilities need a dense sight."""
    states, bias = (query_BHLK, key_BHLK, value_BHLK), sight.bias
    dropout = dropout if sight.drops else 0.0
    if sight.blocks is not None:
        return sight.blocks.attend(*states), None
    if sight.documents is not None:
        parts = [
            F.scaled_dot_product_attention(*(one[row, None, :, start:end] for one in states), dropout_p=dropout)
            for row, start, end in sight.documents
        ]
        return torch.cat(parts, dim=2).unflatten(2, (query_BHLK.shape[0], -1))[0].transpose(0, 1), None
    if not need_weights:
        return F.scaled_dot_product_attention(*states, attn_mask=bias, dropout_p=dropout), None
    scores = query_BHLK @ key_BHLK.transpose(2, 3) * query_BHLK.shape[-1] ** -0.5
    if bias is not None and bias.dtype == torch.bool:
        scores = scores.masked_fill(~bias, torch.finfo(scores.dtype).min)
    elif bias is not None:
        scores = scores + bias
    weights = scores.softmax(-1, dtype=torch.float32).to(value_BHLK.dtype)
    return F.dropout(weights, dropout) @ value_BHLK, weights


@dataclass(frozen=True, eq=False)
class Scene:
    """What all layers share in one call.

    Attributes:
        length: tokens, padding included.
        device: of the hidden states.
        dtype: of the scores.
        padding: (B, 1, 1, L) from `padding_bias`, or None.
        documents: (B, L) int64 number of the document of each token, or None; tokens see their own document only.
        num_heads: heads with ALiBi slopes, or 0 without ALiBi.
        position_ids: (1 or B, L), for ALiBi.
    """

    length: int
    device: torch.device
    dtype: torch.dtype
    padding: Tensor | None = None
    documents: Tensor | None = None
    num_heads: int = 0
    position_ids: Tensor | None = None

    def slopes(self) -> Tensor | None:
        """Give ALiBi's slopes, (H,) float32, or None."""
        return torch.tensor(alibi_slopes(self.num_heads), device=self.device) if self.num_heads else None


def prepare(pattern: Pattern, scene: Scene, *, path: str = "auto", lists: BlockLists | None = None) -> Sight:
    """Join a pattern with one batch, and choose how to compute.

    Args:
        pattern: who may see whom.
        scene: the batch.
        path: one of `PATHS`; ``auto`` is dense for full attention and for short inputs, blocks on the CPU, and
            FlexAttention on a GPU.
        lists: the pattern's block lists, if the caller kept them.

    Raises:
        UsageError: unknown path.
    """
    one_of(path, PATHS, "attention path")
    drops = isinstance(pattern, Full)
    if path == "auto":
        path = "gather" if lists is not None else _best_path(pattern, scene)
    if path == "flex":
        from longstrand.models.flex import FlexCall

        return Sight(blocks=FlexCall.make(pattern, scene), drops=drops)
    if path == "documents" and (runs := document_runs(scene.documents)) is not None:
        return Sight(documents=runs, drops=drops)
    if path == "gather" and not isinstance(pattern, Full):
        lists = lists or block_lists(pattern, scene.length, scene.device)
        return Sight(blocks=_gather_call(lists, scene), drops=drops)
    return Sight(_dense_bias(pattern, scene), drops=drops)


def _best_path(pattern: Pattern, scene: Scene) -> str:
    if scene.padding is not None and scene.padding.dtype != torch.bool:
        return "dense"
    if scene.device.type == "cuda":
        from longstrand.models.flex import is_available

        sparse = not isinstance(pattern, Full) or scene.documents is not None
        return "flex" if sparse and is_available() else "dense"
    if scene.device.type != "cpu" or torch.compiler.is_compiling():
        return "dense"
    if isinstance(pattern, Full):
        return "documents" if scene.documents is not None and not scene.num_heads else "dense"
    return "gather" if scene.length > BREAK_EVEN * keys_seen(pattern, scene.length) else "dense"


def keys_seen(pattern: SlidingWindow | BlockSparse, length: int) -> float:
    """Estimate the keys that the gathering path reads for a token."""
    if isinstance(pattern, SlidingWindow):
        return 1.5 * pattern.window
    counts = pattern.corner(length)
    return float((counts > 0).sum(-1, dtype=torch.float32).median()) * pattern.block_size


def _gather_call(lists: BlockLists, scene: Scene) -> GatherCall:
    """Pad what the batch adds to whole blocks."""
    missing = lists.num_blocks * lists.block_size - lists.length
    visible = None if scene.padding is None else scene.padding[:, 0, 0]
    if visible is None and missing:
        visible = torch.ones(1, lists.length, dtype=torch.bool, device=scene.device)
    places = None if not scene.num_heads else scene.position_ids
    padded = [None if one is None else F.pad(one, (0, missing)) for one in (visible, scene.documents, places)]
    return GatherCall(lists, padded[0], padded[1], scene.slopes(), padded[2])


def _dense_bias(pattern: Pattern, scene: Scene) -> Tensor | None:
    """Make what the fused call adds to the scores; a token that would see nothing sees everything."""
    mask, distance = scene.padding, None
    if scene.num_heads:
        assert scene.position_ids is not None
        distance = -scene.slopes()[None, :, None, None] * position_distances(scene.position_ids)[:, None]
    if mask is not None and mask.dtype != torch.bool:
        mask, distance = None, mask if distance is None else distance + mask
    allowed = None
    if isinstance(pattern, BlockSparse):
        counts = pattern.dense_counts(scene.length, scene.device)[None]
        allowed = counts > 0
        if bool((counts > 1).any()):
            distance = counts.clamp(min=1).float().log() + (0.0 if distance is None else distance)
    elif isinstance(pattern, SlidingWindow):
        allowed = pattern.dense_mask(scene.length, scene.device)[None]
    if scene.documents is not None:
        allowed = _and(allowed, (scene.documents[:, :, None] == scene.documents[:, None, :])[:, None])
    if allowed is not None:
        mask = _and(allowed, mask)
        mask = mask | ~mask.any(-1, keepdim=True)
    return join_bias(mask, distance, scene.dtype)


def _and(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Join two boolean masks, either of which may be None; floats are left to `join_bias`."""
    masks = [mask for mask in (first, second) if mask is not None and mask.dtype == torch.bool]
    return None if not masks else masks[0] if len(masks) == 1 else masks[0] & masks[1]


def document_runs(documents: Tensor | None) -> tuple[tuple[int, int, int], ...] | None:
    """List (row, start, end) of the documents of a packed batch (B, L); None if one of them is not in one piece."""
    if documents is None:
        return None
    runs = []
    for row, line in enumerate(documents.cpu()):
        numbers, sizes = torch.unique_consecutive(line, return_counts=True)
        if numbers.numel() > torch.unique(numbers).numel():
            return None
        ends = sizes.cumsum(0).tolist()
        runs += [(row, end - size, end) for end, size in zip(ends, sizes.tolist())]
    return tuple(runs)


def padding_bias(attention_mask: Tensor | None, config: LongstrandConfig) -> Tensor | None:
    """Turn a mask of real tokens (B, L; 1 = real) into what `attend` takes, (B, 1, 1, L), or None if all are real.

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
    """Join the padding (bool or float) and a float bias by position into one argument of `attend`."""
    if distance is None:
        return padding if padding is None or padding.dtype == torch.bool else padding.to(dtype)
    if padding is None:
        return distance.to(dtype)
    if padding.dtype == torch.bool:
        return distance.to(dtype).masked_fill(~padding, torch.finfo(dtype).min)
    return (distance + padding).to(dtype)
