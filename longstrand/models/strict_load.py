"""Account for every tensor of a checkpoint: each finds its place in a model, or all misfits are listed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from longstrand.errors import CheckpointError, UsageError
from longstrand.models.config import LongstrandConfig
from longstrand.models.networks import HEAD_PREFIXES, NETWORKS, MaskedLM, only_head
from longstrand.models.tensors import LAYOUT, misfits

logger = logging.getLogger(__name__)

Built = TypeVar("Built", bound=nn.Module)

WORD_EMBEDDINGS = "encoder.embeddings.word_embeddings.weight"
DECODER = "lm_head.decoder.weight"
BACKBONE_PARTS = ("embeddings.", "layers.", "final_norm.", "memory.")


@dataclass(frozen=True)
class CheckedWeights:
    """Tensors that fit their network.

    Attributes:
        config: declares exactly the head that will be built.
        tensors: by the names of the network; complete but for a fresh head and a tied decoder.
    """

    config: LongstrandConfig
    tensors: dict[str, Tensor]


def check_weights(
    config: LongstrandConfig,
    tensors: Mapping[str, Tensor],
    kind: str,
    *,
    where: str,
    new_head: Mapping[str, Any] | None = None,
    problems: Sequence[str] = (),
    rename: Callable[[str], str] | None = None,
) -> CheckedWeights:
    """Match tensors with the network that a configuration describes.

    Args:
        config: configuration of the checkpoint; its ``heads`` say which heads the tensors hold.
        tensors: all tensors of the checkpoint, by our names.
        kind: encoder, masked_lm, sequence or token.
        where: name of the checkpoint, for messages.
        new_head: settings of a fresh head, or None for the stored one.
        problems: what the caller found wrong already.
        rename: translates our names for messages about published files.

    Raises:
        CheckpointError: a head that is not there; or missing, unexpected, mis-shaped, non-numeric or contradicting
            tensors, all at once.
    """
    prefix = HEAD_PREFIXES.get(kind)
    stored = prefix is not None and new_head is None and config.head(kind) is not None
    kept, listed = _select(tensors, config, prefix if stored else None)
    if prefix is not None and new_head is None and not any(name.startswith(prefix) for name in kept):
        raise CheckpointError(_no_head(where, kind, config))
    if new_head is not None:
        config = config.replace(heads={kind: {"kind": kind, **new_head}} if prefix else {})
    config = only_head(config, kind if prefix else None)
    if prefix is None:
        kept = {_without_prefix(name): tensor for name, tensor in kept.items()}
    network = shapes_only(NETWORKS[kind], config)
    expected = _expected(network, config, prefix if new_head is not None else None)

    def shown(name: str) -> str:
        full = f"encoder.{name}" if prefix is None and name.startswith(BACKBONE_PARTS) else name
        published = full if rename is None else rename(full)
        return full if published == full else f"{published} (here {full})"

    listed = [*problems, *listed, *misfits(expected, {name: tuple(t.shape) for name, t in kept.items()}, shown)]
    if listed:
        raise CheckpointError(f"{where}: {len(listed)} problems with the tensors: {'; '.join(listed)}.")
    return CheckedWeights(config, kept)


def _without_prefix(name: str) -> str:
    """Give the name of a backbone tensor in an encoder without a head; other names are unexpected there and stay."""
    short = name.removeprefix("encoder.")
    return short if short.startswith(BACKBONE_PARTS) else name


class _SkipInitialisation(TorchFunctionMode):
    """Leave new parameters as they are; initialising them on the meta device would import PyTorch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init" or func in (Tensor.fill_, Tensor.zero_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def shapes_only(build: Callable[[LongstrandConfig], Built], config: LongstrandConfig) -> Built:
    """Build a network without numbers, on the meta device."""
    with torch.device("meta"), _SkipInitialisation():
        return build(config)


def assemble(
    build: Callable[[LongstrandConfig], Built], weights: CheckedWeights, dtype: torch.dtype | str = "auto"
) -> Built:
    """Build a network around tensors; nothing is initialised, and copied only to convert it.

    Args:
        build: one of our classes.
        weights: the tensors; a fresh head, which they lack, stays on the meta device.
        dtype: of the floating-point tensors; ``auto`` is the most frequent one among them.
    """
    kind, config = resolve_dtype(dtype, weights.tensors), weights.config
    network = shapes_only(build, config)
    tensors = {name: t.to(kind) if t.is_floating_point() else t for name, t in weights.tensors.items()}
    unexpected = network.load_state_dict(tensors, assign=True, strict=False).unexpected_keys
    assert not unexpected, unexpected
    if config.tie_word_embeddings and isinstance(network, MaskedLM):
        network.lm_head.decoder.weight = network.encoder.embeddings.word_embeddings.weight
    return network


def resolve_dtype(dtype: torch.dtype | str | None, tensors: Mapping[str, Tensor] | None = None) -> torch.dtype:
    """Turn the name of a type into it; ``auto`` (or None) is the most frequent one of the tensors.

    Raises:
        UsageError: there is no such floating-point type.
    """
    if dtype in (None, "auto"):
        kinds = Counter(t.dtype for t in (tensors or {}).values() if t.is_floating_point())
        return kinds.most_common(1)[0][0] if kinds else torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(f"unknown type of weights '{dtype}'; use auto, float32, bfloat16, float16 or float64.")
    return found


def _select(
    tensors: Mapping[str, Tensor], config: LongstrandConfig, head_prefix: str | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Keep the backbone and one head; other declared heads stay behind. Also say what contradicts itself."""
    named = {f"encoder.{name}" if name.startswith(BACKBONE_PARTS) else name: t for name, t in tensors.items()}
    problems = [
        f"not floating-point: {name}"
        for name, tensor in named.items()
        if not tensor.is_floating_point() and not name.endswith(LAYOUT)
    ]
    if config.tie_word_embeddings and DECODER in named:
        decoder = named.pop(DECODER)
        words = named.setdefault(WORD_EMBEDDINGS, decoder)
        if words.shape != decoder.shape or not torch.equal(words, decoder):
            problems.append(f"contradicting: {DECODER} differs from {WORD_EMBEDDINGS}, but the config ties them")
    declared = {HEAD_PREFIXES[head.kind] for head in config.heads.values()} - {head_prefix}
    left = sorted(name for name in named if name.startswith(tuple(declared)))
    if left:
        logger.info("left behind, not needed here: %s", ", ".join(left))
    return {name: tensor for name, tensor in named.items() if name not in set(left)}, problems


def _expected(network: nn.Module, config: LongstrandConfig, fresh: str | None) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop(DECODER, None)
    return {name: shape for name, shape in shapes.items() if fresh is None or not name.startswith(fresh)}


def _no_head(where: str, kind: str, config: LongstrandConfig) -> str:
    known = ", ".join(head.kind for head in config.heads.values()) or "none"
    example = "{}" if kind == "masked_lm" else "{'problem': 'single_label', 'num_outputs': 2}"
    return (
        f"{where}: the checkpoint has no {kind} head (heads stored: {known}); "
        f"ask for a fresh one with new_head={example} if you are going to train it."
    )
