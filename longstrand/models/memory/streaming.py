"""Segments as they come: the memory is carried on, nothing grows with their number; and heads over such a stream.

Legend: B rows, n tokens of a segment, M memory tokens, D hidden size, C outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longstrand.errors import InputError
from longstrand.models.config import Head
from longstrand.models.memory.recurrence import Batch, encode_step, initial_memory, on_host
from longstrand.models.memory.segments import SegmentTemplate, make_step
from longstrand.models.precision import without_emulation


@dataclass(frozen=True)
class SegmentOutput:
    """What `stream` says about one segment of each row.

    Attributes:
        last_hidden_state: (B, n, D) at the tokens of the segment; zeros at padding.
        input_ids: (B, n).
        attention_mask: (B, n), 1 = real token.
        memory: (B, M, D) after it; give it to another `stream` to go on.
        cls_state: (B, D) of [CLS], or None without it.
        sep_state: (B, D) of the closing [SEP], or None without it.
        logits: of the head, if the model has one: (B, n, C) per token, or (B, C) for all segments so far.
    """

    last_hidden_state: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    memory: Tensor
    cls_state: Tensor | None = None
    sep_state: Tensor | None = None
    logits: Tensor | None = None


def stream(
    encoder: Any,
    segments: Iterable[Tensor | Mapping[str, Tensor]],
    *,
    memory: Tensor | None = None,
    backward: bool = False,
) -> Iterator[SegmentOutput]:
    """Encode segments as they come, carrying the memory; nothing grows with their number.

    No gradients; the caller chooses the mode (``encoder.eval()``).

    Args:
        encoder: with ``config.memory``.
        segments: of each, content token ids (B, n) without special tokens, or a mapping with ``input_ids`` and
            ``attention_mask``; B is the same for all, n at most the room of a segment. A row without a real token
            keeps its memory.
        memory: (B, M, D) to go on from; None = the initial one.
        backward: the memory of the backward pass; give the segments in reverse order.

    Raises:
        InputError: the model has no memory settings, a segment is too long, or the number of rows changes.
    """
    config = encoder.config
    if config.memory is None:
        raise InputError("the model has no memory settings; load it with memory={'num_tokens': ...}.")
    settings = config.memory
    state = memory
    for number, segment in enumerate(segments):
        given = segment if isinstance(segment, Mapping) else {"input_ids": segment}
        batch = on_host(settings, given["input_ids"], given.get("attention_mask"), None, None)
        longest = int(batch.real.sum(1).max(initial=0))
        if longest > settings.room:
            raise InputError(f"segment {number + 1} has {longest} tokens, but a segment has room for {settings.room}.")
        if state is None:
            initial = initial_memory(encoder, backward).detach()
            state = initial.expand(len(batch.ids), *initial.shape)
        if len(state) != len(batch.ids):
            raise InputError(f"segment {number + 1} has {len(batch.ids)} rows, but the memory has {len(state)}.")
        output = _stream_step(encoder, batch, state)
        state = output.memory
        yield output


@without_emulation
@torch.no_grad()
def _stream_step(encoder: Any, batch: Batch, memory: Tensor) -> SegmentOutput:
    config = encoder.config
    settings = config.memory
    template = SegmentTemplate.of(settings, config.pad_token_id)
    active = np.flatnonzero(batch.real.any(1))
    parts = [batch.real[row].nonzero()[0] for row in active]
    width = config.hidden_size
    hidden = memory.new_zeros(*batch.ids.shape, width)
    mask = torch.from_numpy(batch.real).long().to(memory.device)
    ids = torch.from_numpy(batch.ids).to(memory.device)
    of_form = settings.form == "cls_mem_sep"
    has_cls, has_sep = of_form and settings.cls_token_id is not None, of_form and bool(template.after)
    cls_state = memory.new_zeros(len(memory), width) if has_cls else None
    sep_state = memory.new_zeros(len(memory), width) if has_sep else None
    if not len(active):
        return SegmentOutput(hidden, ids, mask, memory, cls_state, sep_state)
    step = make_step(parts, [batch.ids[row] for row in active], config)
    rows = torch.from_numpy(active).to(memory.device)
    (states,), written = encode_step(encoder, step, memory[rows])
    before = len(template.before)
    for place, (row, part) in enumerate(zip(active, parts)):
        hidden[row, torch.from_numpy(part)] = states[place, before : before + len(part)].to(hidden.dtype)
        if sep_state is not None:
            sep_state[row] = states[place, before + len(part)]
    if cls_state is not None:
        cls_state[rows] = states[:, 0].to(cls_state.dtype)
    return SegmentOutput(hidden, ids, mask, memory.index_copy(0, rows, written), cls_state, sep_state)


class RunningPool:
    """A running `longstrand.models.heads.pool`: [CLS] of a row's last segment, or a mean or maximum of tokens.

    The closing special tokens of the last segment count where the head does not leave them out.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._content: Tensor | None = None
        self._count: Tensor | None = None
        self._specials: list[Tensor | None] = [None, None]

    def add(self, output: SegmentOutput) -> Tensor:
        """Take in a segment and give the vector (B, D) so far."""
        real, hidden = output.attention_mask.bool(), output.last_hidden_state
        alive = real.any(1, keepdim=True)
        for place, state in enumerate((output.cls_state, output.sep_state)):
            before = self._specials[place]
            self._specials[place] = state if before is None or state is None else torch.where(alive, state, before)
        specials = [state for state in self._specials if state is not None]
        pooling, left_out = self._head.pooling, self._head.special_token_ids
        if pooling == "cls":
            return specials[0]
        if pooling != "mean_all" and left_out:
            specials = []
            real = real & ~torch.isin(output.input_ids, torch.tensor(left_out, device=real.device))
        real = real[..., None]
        if pooling == "max":
            new = hidden.masked_fill(~real, torch.finfo(hidden.dtype).min).amax(1)
            self._content = new if self._content is None else torch.maximum(self._content, new)
            return torch.stack((self._content, *specials)).amax(0)
        new, count = (hidden * real).sum(1), real.sum(1)
        self._content = new if self._content is None else self._content + new
        self._count = count if self._count is None else self._count + count
        return (self._content + sum(specials)) / (self._count + len(specials))
