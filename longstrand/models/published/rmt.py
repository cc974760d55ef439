"""Published recurrent-memory checkpoints: take the wrapper off, find the memory.

GENA-LM's modeling_rmt.py and the RMT repository's encoder classes save a wrapper: names begin with ``model.``, the
M memory vectors are the last rows of the word embedding (and of a tied LM decoder, with M more output biases), and
``mem_token_ids``, ``cls_token``, ``sep_token`` name the special ids. What they do not save is the length of a segment:
it comes from ``input_size`` of an ``rmt`` section of config.json, if somebody wrote one, else from the user.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from longstrand.errors import CheckpointError
from longstrand.models.published.families import Published

MARK = "mem_token_ids"
PREFIX = "model."
COUNTERS = (MARK, "cls_token", "sep_token")
GROWN = ("word_embeddings.weight", "cls.predictions.decoder.weight", "predictions.decoder.bias", "predictions.bias")
"""How the names of tensors end that have one row for each word, memory included."""
_SPLITS = {None: "right", "right": "right", "left": "left", "center": "centre"}
"""``segment_alignment`` of the RMT repository; GENA-LM's code has no such setting and cuts as its "center"."""
MEMORY = "encoder.memory.initial"


def is_rmt(tensors: dict[str, Tensor]) -> bool:
    """Say whether these are the tensors of a recurrent-memory wrapper around an encoder."""
    return MARK in tensors


def unwrap_rmt(
    published: Published, tensors: dict[str, Tensor], *, keep_rows: bool = False
) -> tuple[Published, dict[str, Tensor], dict[str, Any], Tensor]:
    """Take the wrapper off.

    Args:
        published: config of the encoder, or one with sections ``backbone`` and ``rmt``.
        tensors: of the wrapper.
        keep_rows: leave the rows of memory tokens in the vocabulary, where the published masked-LM loss counts them.

    Returns:
        Config and tensors of the encoder, settings of our ``memory``, and the initial memory (M, D).

    Raises:
        CheckpointError: the memory tokens are not the last rows of the vocabulary, or the special tokens are missing.
    """
    settings = dict(published.get("rmt", {}))
    published = {"model_type": "bert", **published.get("backbone", published)}
    ids, cls_ids, sep_ids = (tensors[name].flatten().tolist() if name in tensors else [] for name in COUNTERS)
    inner = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name not in COUNTERS}
    alias = inner.pop("embeddings.weight", None)
    words = next((name for name in inner if name.endswith("embeddings.word_embeddings.weight")), None)
    if words is None or len(cls_ids) != 1 or len(sep_ids) != 1:
        raise CheckpointError("this recurrent-memory checkpoint lacks its word embedding, cls_token or sep_token.")
    table = inner[words]
    first = len(table) - len(ids)
    if ids != list(range(first, len(table))) or (alias is not None and alias.shape != table.shape):
        raise CheckpointError(
            f"this recurrent-memory checkpoint has memory tokens {ids}; expected the last {len(ids)} of the "
            f"{len(table)} rows of its word embedding."
        )
    if not keep_rows:
        inner = {name: tensor[:first].clone() if name.endswith(GROWN) else tensor for name, tensor in inner.items()}
    published["vocab_size"] = len(inner[words])
    memory = {"num_tokens": len(ids), "cls_token_id": cls_ids[0], "sep_token_id": sep_ids[0], "split": "centre"}
    if "input_size" in settings:
        memory["segment_length"] = settings["input_size"]
    if "max_bins_per_segment" in settings:
        memory |= {"bins_per_segment": settings["max_bins_per_segment"], "split": "left"}
    elif "segment_alignment" in settings:
        memory["split"] = _SPLITS.get(settings["segment_alignment"], "centre")
    if settings.get("sum_loss"):
        memory["loss"] = "all"
    if settings.get("bptt_depth", -1) >= 0:
        memory["bptt_depth"] = settings["bptt_depth"]
    return published, inner, memory, table[first:].clone()
