"""Time of a step, from the work in it and the rates of the machine.

Legend: T tokens of a step, D hidden size, I width inside the MLP, H heads, K head size, N labels, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from longstrand.errors import one_of
from longstrand.info.calibration import Rates
from longstrand.info.memory import MLP_TOKENS, RETURNED_AT
from longstrand.info.workload import LayerAttention, Workload

Pair = tuple[float, float]
KEPT_BELOW = 1 << 20
"""Bytes of a block below which the C library reuses memory; between this and `RETURNED_AT` ever more of it is new.
This and the counts below follow page faults of single layers (widths 128 to 768, 512 to 8192 tokens)."""
NEW_STATES = 5
"""States (T, D) that a layer takes from the system, beside those of rotary positions."""
NEW_ROTATED = 5


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step.

    Attributes:
        layers: forward and backward of all layers, recomputation included.
        head: embeddings and head.
        optimizer: clipping and AdamW.
    """

    layers: float
    head: float
    optimizer: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.layers + self.head + self.optimizer


def predict_time(work: Workload, rates: Rates) -> StepTime:
    """Predict the time of a step on the machine that was measured."""
    train = work.setting.mode == "train"
    layers = 0.0
    for kind in work.attentions:
        forward, backward = _layer(work, kind, rates)
        again = forward if work.recomputes else 0.0
        layers += kind.layers * (forward + ((backward + again) if train else 0.0))
    forward, backward = _embeddings(work, rates)
    layers = work.segments * (layers + forward + (backward if train else 0.0))
    forward, backward = _head(work, rates)
    optimizer = work.num_parameters * (rates.optimizer[0] + rates.plain[0]) if train else 0.0
    optimizer += 4 * work.num_parameters * rates.fresh[0] if train else 0.0
    return StepTime(layers, forward + (backward if train else 0.0), optimizer)


def _between(rates: dict[int, Pair], size: float) -> Pair:
    """Interpolate a rate between the measured sizes, on logarithmic scales; beyond them it stays as it is."""
    sizes = sorted(rates)
    size = min(max(size, sizes[0]), sizes[-1])
    upper = next(place for place in sizes if place >= size)
    lower = max((place for place in sizes if place <= size), default=upper)
    share = 0.0 if upper == lower else math.log(size / lower) / math.log(upper / lower)
    low, up = rates[lower], rates[upper]
    forward, backward = (math.exp((1 - share) * math.log(a) + share * math.log(b)) for a, b in zip(low, up))
    return forward, backward


def _linear(rates: Rates, rows: float, wide: int, high: int) -> Pair:
    """Give seconds of a linear layer."""
    return _times(2.0 * rows * wide * high, _between(rates.linear, math.sqrt(wide * high)))


def _layer(work: Workload, kind: LayerAttention, rates: Rates) -> Pair:
    config, tokens = work.config, work.tokens
    size, inner = config.hidden_size, config.intermediate_size
    state, wide = float(tokens * size), float(tokens * inner)
    gates = 2 if config.gated_mlp else 1
    head_size = size / config.num_attention_heads
    pairs = work.setting.batch * config.num_attention_heads * kind.pairs * max(head_size, 32) / 64
    mixed = (1 + 4 * kind.wide) * state if kind.path == "gather" else 0.0
    rotated = 2 * state * 4 if config.positions == "rotary" else 0.0
    parts: list[Pair] = [
        _times(4, _linear(rates, tokens, size, size)),
        _times(gates + 1, _linear(rates, tokens, size, inner)),
        _times(pairs, _attention(work, kind, rates)),
        _times(2 * state, rates.norm),
        _times(wide, rates.activation),
        _times(2 * state + mixed + rotated + (gates - 1) * wide, rates.plain),
        _times(2 * state if config.hidden_dropout and work.setting.mode == "train" else 0.0, rates.dropped),
        _new_memory(work, rates),
        rates.layer,
    ]
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def _attention(work: Workload, kind: LayerAttention, rates: Rates) -> Pair:
    """Give seconds of one pair of one head of 64 numbers."""
    path = one_of(kind.path, ("fused", "masked", "strip", "dropout", "gather"), "attention path")
    if path == "fused":
        return _between(rates.fused, work.width)
    pair: Pair = getattr(rates, "masked" if path == "strip" else path)
    return pair


def _new_memory(work: Workload, rates: Rates) -> Pair:
    """Give seconds in which the system clears memory for a layer's tensors."""
    config = work.config
    train = work.setting.mode == "train"
    state, gates = 4.0 * work.tokens * config.hidden_size, 2 if config.gated_mlp else 1
    inner = 4.0 * (work.tokens if train else min(work.tokens, MLP_TOKENS)) * config.intermediate_size
    times = 1.0 if train else work.tokens / min(work.tokens, MLP_TOKENS)
    states = NEW_STATES + (NEW_ROTATED if config.positions == "rotary" else 0)
    forward = states * state * _given_back(state) + times * gates * inner * _given_back(inner)
    return forward * rates.fresh[0], forward * rates.fresh[0]


def _given_back(size: float) -> float:
    """Give the share of blocks of some bytes that are new to the process."""
    return min(1.0, max(0.0, math.log(size / KEPT_BELOW) / math.log(RETURNED_AT / KEPT_BELOW))) if size else 0.0


def _times(number: float, pair: Pair) -> Pair:
    return number * pair[0], number * pair[1]


def _embeddings(work: Workload, rates: Rates) -> Pair:
    """Give seconds of embeddings and final norm."""
    state = float(work.tokens * work.config.hidden_size)
    parts = [_times(2 * state, rates.norm), _times(3 * state, rates.plain), rates.layer]
    parts += [(0.0, 2 * work.config.vocab_size * work.config.hidden_size * rates.plain[0])]
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def _head(work: Workload, rates: Rates) -> Pair:
    """Give seconds of the masked-LM head; the others are too small to count."""
    config, labels = work.config, work.num_labels
    if not labels:
        return 0.0, 0.0
    scores, train = float(labels * config.vocab_size), work.setting.mode == "train"
    cleared = 4 * scores * _given_back(4 * scores) * rates.fresh[0]
    parts = [
        _linear(rates, labels, config.hidden_size, config.hidden_size),
        _times(2.0 * scores * config.hidden_size, rates.decoder),
        _times(scores if train else 0.0, rates.loss),
        (2 * cleared if train else cleared, 2 * cleared),
    ]
    return sum(part[0] for part in parts), sum(part[1] for part in parts)
