"""Time of a step, from the work in it and the rates of the machine.

Legend: T tokens of a step, D hidden size, I width inside the MLP, H heads, K head size, N labels, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from longstrand.errors import one_of
from longstrand.planning.calibration import Rates
from longstrand.planning.workload import LayerAttention, Workload

Pair = tuple[float, float]


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
        again = forward if work.setting.checkpointing else 0.0
        layers += kind.layers * (forward + ((backward + again) if train else 0.0))
    forward, backward = _ends(work, rates)
    optimizer = work.num_parameters * (rates.optimizer[0] + rates.plain[0]) if train else 0.0
    return StepTime(layers, forward + (backward if train else 0.0), optimizer)


def _linear(rates: Rates, rows: float, wide: int, high: int) -> Pair:
    """Give seconds of a linear layer, its rate interpolated between the measured widths."""
    widths = sorted(rates.linear)
    width = min(max(math.sqrt(wide * high), widths[0]), widths[-1])
    upper = next(place for place in widths if place >= width)
    lower = max((place for place in widths if place <= width), default=upper)
    share = 0.0 if upper == lower else math.log(width / lower) / math.log(upper / lower)
    flops = 2.0 * rows * wide * high
    low, up = rates.linear[lower], rates.linear[upper]
    forward, backward = (math.exp((1 - share) * math.log(a) + share * math.log(b)) for a, b in zip(low, up))
    return flops * forward, flops * backward


def _layer(work: Workload, kind: LayerAttention, rates: Rates) -> Pair:
    config, tokens = work.config, work.setting.tokens
    size, inner = config.hidden_size, config.intermediate_size
    state, wide = float(tokens * size), float(tokens * inner)
    gates = 2 if config.gated_mlp else 1
    head_size = size / config.num_attention_heads
    pairs = work.setting.batch * config.num_attention_heads * kind.pairs * max(head_size, 32) / 64
    attention: Pair = getattr(rates, one_of(kind.path, ("fused", "masked", "dropout", "gather"), "attention path"))
    mixed = (1 + 4 * kind.wide) * state if kind.path == "gather" else 0.0
    rotated = 2 * state * 4 if config.positions == "rotary" else 0.0
    parts: list[Pair] = [
        _times(4, _linear(rates, tokens, size, size)),
        _times(gates + 1, _linear(rates, tokens, size, inner)),
        _times(pairs, attention),
        _times(2 * state, rates.norm),
        _times(wide, rates.activation),
        _times(2 * state + mixed + rotated + (gates - 1) * wide, rates.plain),
        _times(2 * state if config.hidden_dropout and work.setting.mode == "train" else 0.0, rates.dropped),
        rates.layer,
    ]
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def _times(number: float, pair: Pair) -> Pair:
    return number * pair[0], number * pair[1]


def _ends(work: Workload, rates: Rates) -> Pair:
    """Give seconds of embeddings, final norm and head."""
    config, labels = work.config, work.num_labels
    state = float(work.setting.tokens * config.hidden_size)
    parts = [_times(2 * state, rates.norm), _times(3 * state, rates.plain), rates.layer]
    parts += [(0.0, 2 * config.vocab_size * config.hidden_size * rates.plain[0])]
    if labels:
        scores = float(labels * config.vocab_size)
        parts += [_linear(rates, labels, config.hidden_size, config.hidden_size)]
        parts += [_linear(rates, labels, config.hidden_size, config.vocab_size)]
        parts += [_times(scores, rates.loss)] if work.setting.mode == "train" else []
    return sum(part[0] for part in parts), sum(part[1] for part in parts)
