"""Peak memory of a step, from the tensors that the encoder's code keeps.

Counted are weights, gradients, AdamW's two averages, what the forward pass saves for the backward pass, the head's
logits, and the largest temporaries. The units below are numbers; bytes follow from the precision.
Legend: T tokens of a step, D hidden size, I width inside the MLP, H heads, L length, B batch, N labels, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from longstrand.info.workload import LayerAttention, Workload

KEPT_BY_ALLOCATOR = 1.1
KEPT_AROUND_ROTARY = 1.4
"""Resident bytes for one byte of activations in blocks below `RETURNED_AT`, which the C library keeps when they are
freed; rotary positions leave more holes, by some nine short-lived states a layer between those that stay. Set after
runs of small models, whose live tensors alone explain 70 to 80 % of the resident size with rotary positions."""
RETURNED_AT = 32 << 20
"""Blocks of this size (glibc's largest threshold) are given back to the system at once."""
MLP_TOKENS = 1024
"""Tokens that the MLP takes at once in inference; see `longstrand.models.encoder`."""
FIXED = 24 << 20
"""Bytes that the libraries take at the first step whatever the model is: work space, threads' stacks, code."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a step.

    Attributes:
        weights: the model, and short copies of it under autocast.
        gradients: of all weights.
        optimizer: AdamW's averages.
        activations: kept from the forward to the backward pass, or alive at once in inference.
        logits: the head's largest tensors.
        temporary: the largest temporaries beside them.
        peak: the most that is there at one moment; parts do not add up to it.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    temporary: int
    peak: int


def predict_memory(work: Workload, *, native_bf16: bool = False) -> Memory:
    """Predict the memory of a step.

    Args:
        work: model and setting.
        native_bf16: the device computes in bf16; if not, autocast changes nothing (see `longstrand.models.precision`).
    """
    short = 2 if work.setting.precision == "bf16" and native_bf16 else 4
    weights = 4 * work.num_parameters + (2 * work.num_parameters if short == 2 else 0)
    return _training(work, weights, short) if work.setting.mode == "train" else _inference(work, weights, short)


def _training(work: Workload, weights: int, short: int) -> Memory:
    config, setting = work.config, work.setting
    state = work.tokens * config.hidden_size
    each = [(kind, _saved(work, kind, short)) for kind in work.attentions]
    one = max((saved for _, saved in each), default=0)
    whole = sum(kind.layers * saved for kind, saved in each)
    embedding = 4 * state * (2 + (config.hidden_dropout > 0) + (config.type_vocab_size > 0))
    if work.reads_segments:
        # Of recomputed segments, only the one in work is there. Every last state is there twice more: joined with
        # those of all segments, and back at its place.
        layers = (1 if work.recomputes else work.segments) * (whole + embedding + 4 * state * 2)
        layers += 2 * 4 * work.segments * state
    elif work.recomputes:
        layers = sum(kind.layers * 4 * state for kind in work.attentions) + one + embedding
    else:
        layers = whole + embedding
    activations = layers + 4 * work.bias
    head = _head(work, short)
    grads, words = 4 * work.num_parameters, 4 * config.vocab_size * config.hidden_size
    temporary = max((_backward(work, kind, short) for kind in work.attentions), default=0)
    decoder = words if setting.head == "masked_lm" else 0
    start = activations + head
    middle = activations + decoder + temporary
    extra = (KEPT_AROUND_ROTARY if config.positions == "rotary" else KEPT_BY_ALLOCATOR) - 1
    if work.segments > 1:
        # Gradients of weights that several segments use add up beside the activations of the segments yet to come;
        # what one segment leaves unused, the next one takes.
        one_pass = activations if work.recomputes else activations // work.segments
        middle += grads - (0 if work.recomputes else one_pass)
        extra *= one_pass / max(start, middle)
    kept = 1 + extra * _share_of_small_blocks(work, layers, one)
    end = grads + max(words, round(kept * (one + embedding + temporary)))
    peak = weights + 8 * work.num_parameters + max(round(kept * max(start, middle)), end) + FIXED
    return Memory(weights, grads, 8 * work.num_parameters, activations, head, temporary, peak)


def _saved(work: Workload, kind: LayerAttention, short: int) -> int:
    """Sum up what one layer keeps: inputs of norms in float32, inputs of products in the short type."""
    config = work.config
    state = work.tokens * config.hidden_size
    inner = work.tokens * config.intermediate_size
    wide = 2 * state + (2 * state if config.hidden_dropout else 0)
    narrow = 2 * state + 3 * state + state + (4 if config.gated_mlp else 2) * inner
    if kind.path == "gather":
        narrow += state * (1 + 2 * kind.wide)
    if kind.path == "strip":
        narrow += state
    if kind.path == "dropout":
        narrow += 2 * state + 3 * _scores(work)
    if kind.path == "masked" and config.positions != "alibi":
        wide += config.num_attention_heads * work.width**2
    return round(4 * wide + short * narrow)


def _share_of_small_blocks(work: Workload, layers: int, one: int) -> float:
    """Give the share of the kept bytes that lies in blocks below `RETURNED_AT`, those inside the MLP being large."""
    config = work.config
    inner = 4 * work.tokens * config.intermediate_size
    if inner < RETURNED_AT or not layers:
        return 1.0
    if 4 * work.tokens * config.hidden_size >= RETURNED_AT:
        return 0.0
    within = (4 if config.gated_mlp else 2) * inner
    number = 1 if work.recomputes else config.num_hidden_layers * work.segments
    return max(0.0, 1 - min(within, one) * number / layers)


def _scores(work: Workload) -> int:
    return work.setting.batch * work.config.num_attention_heads * work.width**2


def _backward(work: Workload, kind: LayerAttention, short: int) -> int:
    """Give the largest gradients of activations that are alive at once."""
    config = work.config
    state, inner = work.tokens * config.hidden_size, work.tokens * config.intermediate_size
    mlp = 2 * state + (3 if config.gated_mlp else 2) * inner
    mix = (6 if kind.path == "gather" else 5) * state + (2 * _scores(work) if kind.path == "dropout" else 0)
    return short * max(mlp, mix)


def _head(work: Workload, short: int) -> int:
    """Give the head's tensors at the start of the backward pass: logits, their log-softmax and two gradients."""
    count, config = work.num_labels, work.config
    if work.setting.head != "masked_lm":
        return 4 * work.setting.tokens * config.hidden_size
    return count * config.vocab_size * (4 * 3 + (4 if short == 4 else 2)) + 5 * 4 * count * config.hidden_size


def _inference(work: Workload, weights: int, short: int) -> Memory:
    config = work.config
    state = work.tokens * config.hidden_size
    inner = min(work.tokens, MLP_TOKENS) * config.intermediate_size
    kept = 2 * state
    mlp = 4 * 4 * state + short * (3 if config.gated_mlp else 2) * inner
    rotary = 3 if config.positions == "rotary" else 0
    paths = {kind.path for kind in work.attentions}
    mix = 4 * 2 * state + short * (5 + rotary + (4 if "gather" in paths else 0)) * state
    activations = 4 * kept + max(mlp, mix) + 4 * work.bias * (3 if "masked" in paths else 1)
    if work.reads_segments:
        activations += 3 * 4 * work.segments * state
    logits = work.num_labels * (config.vocab_size + 3 * config.hidden_size) * (4 if short == 4 else 2)
    peak = weights + max(activations, 4 * 3 * work.setting.tokens * config.hidden_size + logits) + FIXED
    return Memory(weights, 0, 0, activations, logits, 0, peak)
