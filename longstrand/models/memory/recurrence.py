"""Recurrent memory: run an encoder over the segments of long rows, and put its states back in their places.

A segment is encoded as the configuration's template says, ``[CLS] memory [SEP] x [SEP]`` or ``memory x memory``; memory
takes the place of word vectors (positions, types and the embedding norm are still applied), and its last hidden states
are the memory of the next segment (Bulatov et al. 2022; GENA-LM's modeling_rmt.py). Differences from the published
codes, each with a quirk where results depend on it:

- every token's state comes back at the token's own place, rows in batch order; a row's [CLS] has the state of the
  segment that was read last, a [SEP] that of the segment before it;
- a row's result does not depend on the other rows;
- truncated gradients keep training the initial memory (`truncate`);
- ``bidirectional`` reads every row twice, from each end, with a memory for each direction and the same encoder; tokens
  keep their order inside a segment; the states of the two passes are averaged, so no weight is new but the memory.

Legend: B rows, L tokens of the longest, D hidden size, M memory tokens, S segments, R rows of a step, W its width.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutput

from longstrand.errors import InputError
from longstrand.models.config import LongstrandConfig, RecurrentMemory
from longstrand.models.memory.segments import (
    NO_TOKEN,
    SegmentSchedule,
    SegmentTemplate,
    Step,
    counted_tokens,
    make_step,
)


@dataclass
class RecurrentOutput(BaseModelOutput):
    """Result of an encoder with memory.

    Attributes:
        memory: (B, M, D) after the last segment.
        backward_memory: the same of the backward pass, or None.
        segment_ids: (B, L) number of each content token's segment, -1 elsewhere.
        segment_states: (B, S, D) [CLS] of each segment, zeros past a row's last; None without [CLS].
        num_segments: (B,) segments of each row.
        counted: (B, L) bool, tokens whose labels count; None = all real ones.
    """

    memory: Tensor | None = None
    backward_memory: Tensor | None = None
    segment_ids: Tensor | None = None
    segment_states: Tensor | None = None
    num_segments: Tensor | None = None
    counted: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Inputs as the caller gave them, and their ids on the host."""

    ids: np.ndarray
    real: np.ndarray
    types: Tensor | None
    embeds: Tensor | None


def is_recurrent(config: LongstrandConfig, length: int) -> bool:
    """Say whether rows of a length are read in segments; without memory tokens, one segment is read as it is."""
    return config.memory is not None and (config.memory.num_tokens > 0 or length > config.memory.segment_length)


def truncate(memory: Tensor, initial: Tensor, *, remaining: int, config: LongstrandConfig) -> Tensor:
    """Stop gradients before a segment where ``bptt_depth`` says so.

    Links are cut into windows of depth + 1 segments, counted from the end, so that each segment's loss reaches back at
    most that far. What reaches the beginning of a window goes on into the initial memory, which stands in for the
    state there: otherwise nothing would train it. With the quirk ``published_bptt`` only the last ``depth`` links carry
    gradients and the initial memory gets none.

    Args:
        memory: (R, M, D) that the segment will read.
        initial: (M, D).
        remaining: segments from this one to the end, itself included.
        config: of the model.
    """
    depth = config.recurrence.bptt_depth
    if depth is None:
        return memory
    if "published_bptt" in config.quirks:
        return memory.detach() if remaining > depth else memory
    return memory.detach() + (initial - initial.detach()) if remaining % (depth + 1) == 0 else memory


def read_segments(
    encoder: Any,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    *,
    inputs_embeds: Tensor | None = None,
    keep: bool = False,
) -> RecurrentOutput:
    """Encode rows of any length, segment by segment.

    Args:
        encoder: with ``config.memory``.
        input_ids: (B, L).
        attention_mask: (B, L), 1 = real token; None = all are.
        token_type_ids: (B, L) or None; special tokens and memory have type 0.
        inputs_embeds: (B, L, D) word vectors; the ids are needed beside them wherever special tokens are left out.
        keep: give the states of every layer.

    Raises:
        InputError: only vectors are given, and their special tokens cannot be told; a bin does not fit.
    """
    config: LongstrandConfig = encoder.config
    settings = config.recurrence
    batch = on_host(settings, input_ids, attention_mask, token_type_ids, inputs_embeds)
    schedule = SegmentSchedule.of(batch.ids, batch.real, settings)
    passes = [_Pass(encoder, schedule, batch, backward=False).run(keep)]
    if settings.direction == "bidirectional":
        passes.append(_Pass(encoder, schedule, batch, backward=True).run(keep))
    states = [average_passes(layers) for layers in zip(*(each.states() for each in passes))]
    device = states[-1].device
    tensors = {
        "segment_ids": torch.from_numpy(schedule.segment_ids(batch.ids.shape[1])).to(device),
        "num_segments": torch.tensor([len(row.order) for row in schedule.rows], device=device),
    }
    if settings.loss == "last" or settings.context.left or settings.context.right:
        tensors["counted"] = torch.from_numpy(_counted(schedule, batch.real, config)).to(device)
    if settings.form == "cls_mem_sep" and settings.cls_token_id is not None:
        tensors["segment_states"] = average_passes([each.segment_states() for each in passes])
    return RecurrentOutput(
        last_hidden_state=states[-1],
        hidden_states=tuple(states) if keep else None,
        memory=passes[0].memory(),
        backward_memory=passes[1].memory() if len(passes) > 1 else None,
        **tensors,  # type: ignore[arg-type]
    )


def average_passes(states: Iterable[Tensor]) -> Tensor:
    """Combine the states of a forward and a backward pass (or of one alone); tensors of the same shape."""
    first, *rest = states
    return (first + rest[0]) / 2 if rest else first


def counted_mask(config: LongstrandConfig, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor | None:
    """Say at which tokens labels count, (B, L) bool, without running the model; None = at all real tokens."""
    memory = config.memory
    if memory is None or (memory.loss != "last" and not (memory.context.left or memory.context.right)):
        return None
    batch = on_host(memory, input_ids, attention_mask, None, None)
    schedule = SegmentSchedule.of(batch.ids, batch.real, memory)
    return torch.from_numpy(_counted(schedule, batch.real, config)).to(input_ids.device)


def _counted(schedule: SegmentSchedule, real: np.ndarray, config: LongstrandConfig) -> np.ndarray:
    of_sequence = any(head.kind == "sequence" for head in config.heads.values())
    return counted_tokens(schedule, real, last_only=config.recurrence.loss == "last" and not of_sequence)


def on_host(
    settings: RecurrentMemory,
    input_ids: Tensor | None,
    mask: Tensor | None,
    types: Tensor | None,
    embeds: Tensor | None,
) -> Batch:
    """Copy ids and mask to the host, where rows are cut.

    Raises:
        InputError: only vectors are given, and their special tokens cannot be told.
    """
    if input_ids is None:
        if embeds is None:
            raise ValueError("give either input_ids or inputs_embeds, not both and not neither")
        if settings.form == "cls_mem_sep" and (settings.cls_token_id, settings.sep_token_id) != (None, None):
            raise InputError(
                "inputs_embeds alone does not say which tokens are special, and memory needs to know; give input_ids "
                "beside inputs_embeds."
            )
        ids = np.zeros(embeds.shape[:2], dtype=np.int64)
    else:
        ids = input_ids.detach().cpu().numpy()
    real = np.ones(ids.shape, dtype=bool) if mask is None else mask.detach().cpu().numpy().astype(bool)
    return Batch(ids, real, types, embeds)


class _Pass:
    """One pass over all segments; collects the states of every step, flat, and where each token's are."""

    def __init__(self, encoder: Any, schedule: SegmentSchedule, batch: Batch, *, backward: bool) -> None:
        self._encoder, self._schedule, self._batch, self._backward = encoder, schedule, batch, backward
        self._settings = encoder.config.memory
        self._template = SegmentTemplate.of(self._settings, encoder.config.pad_token_id)
        num_rows, length = batch.ids.shape
        self._token_at = np.full((num_rows, length), NO_TOKEN, dtype=np.int64)
        self._cls_at = np.full((num_rows, schedule.num_steps), NO_TOKEN, dtype=np.int64)
        self._sep_at = self._cls_at.copy()
        self._pieces: list[list[Tensor]] = []
        self._flat: list[Tensor] = []
        self._num_flat = 0
        self._memory = torch.empty(0)

    def run(self, keep: bool) -> _Pass:
        """Read all steps."""
        initial = initial_memory(self._encoder, self._backward)
        memory = initial[None][:0]
        for number in range(self._schedule.num_steps):
            rows = self._schedule.active(number)
            fresh = initial.expand(len(rows) - len(memory), *initial.shape)
            memory = truncate(
                torch.cat((memory, fresh)),
                initial,
                remaining=self._schedule.num_steps - number,
                config=self._encoder.config,
            )
            segments = [self._schedule.segment(row, number, self._backward) for row in rows]
            parts = [self._schedule.rows[row].positions(segment) for row, segment in zip(rows, segments)]
            step = make_step(parts, [self._batch.ids[row] for row in rows], self._encoder.config)
            states, memory = encode_step(self._encoder, step, memory, *self._given(step, rows), keep=keep)
            self._note(step, rows, segments, parts)
            self._pieces.append([state.flatten(0, 1) for state in states])
        self._memory = memory
        self._join()
        return self

    def _join(self) -> None:
        """Put the pieces of each layer together, and a row of zeros for what has no state; frees them as it goes."""
        for layer in range(len(self._pieces[0])):
            pieces = [step[layer] for step in self._pieces]
            self._flat.append(torch.cat((*pieces, pieces[0].new_zeros(1, pieces[0].shape[1]))))
            for step in self._pieces:
                step[layer] = pieces[0].new_zeros(0)

    def _given(self, step: Step, rows: list[int]) -> tuple[Tensor | None, Tensor | None]:
        """Gather token types (R, W) and word vectors (R, W, D) that the caller gave beside the ids."""
        types, embeds = self._batch.types, self._batch.embeds
        found: list[Tensor | None] = []
        for given in (types, embeds):
            if given is not None:
                source = torch.from_numpy(step.source).to(given.device)
                which = torch.tensor(rows, device=given.device)[:, None]
                given = given[which, source.clamp(min=0)] * (source >= 0 if given is types else 1)
            found.append(given)
        return found[0], found[1]

    def _note(self, step: Step, rows: list[int], segments: list[int], parts: list[np.ndarray]) -> None:
        """Remember where the states of a step's tokens are."""
        width, before = step.ids.shape[1], len(self._template.before)
        for place, (row, segment, part) in enumerate(zip(rows, segments, parts)):
            begin = self._num_flat + place * width
            self._token_at[row, part] = begin + before + np.arange(len(part))
            self._cls_at[row, segment] = begin
            self._sep_at[row, segment] = begin + before + len(part)
        self._num_flat += step.ids.size

    def _places(self) -> np.ndarray:
        """Find the state of every token of the batch, (B, L); padding has none."""
        places, settings = self._token_at.copy(), self._settings
        if settings.form == "mem_x_mem":
            return places
        for row, cut in enumerate(self._schedule.rows):
            ids, last = self._batch.ids[row], (cut.backward_order if self._backward else cut.order)[-1]
            special = self._batch.real[row] & (places[row] == NO_TOKEN)
            places[row, special & (ids == settings.cls_token_id)] = self._cls_at[row, last]
            seps = (special & (ids == settings.sep_token_id)).nonzero()[0]
            before = np.searchsorted(cut.content, seps) - 1
            segments = np.searchsorted(cut.bounds[:, 1], before, side="right").clip(0, len(cut.bounds) - 1)
            places[row, seps] = self._sep_at[row, segments]
        return places

    def states(self) -> list[Tensor]:
        """Give the states of each kept layer at the tokens' own places, (B, L, D); zeros at padding."""
        places = self._places()
        return [self._gather(layer, places) for layer in range(len(self._flat))]

    def segment_states(self) -> Tensor:
        """Give the state of [CLS] of each segment, (B, S, D)."""
        return self._gather(-1, self._cls_at)

    def memory(self) -> Tensor:
        """Give the memory at the end, (B, M, D), in batch order."""
        return self._memory[torch.from_numpy(np.argsort(self._schedule.ranks)).to(self._memory.device)]

    def _gather(self, layer: int, places: np.ndarray) -> Tensor:
        flat = self._flat[layer]
        index = torch.from_numpy(np.where(places < 0, len(flat) - 1, places)).to(flat.device)
        return flat.index_select(0, index.flatten()).view(*places.shape, -1)


def initial_memory(encoder: Any, backward: bool = False) -> Tensor:
    """Give the memory before the first segment, (M, D); (0, D) without memory tokens."""
    if encoder.memory is None:
        return encoder.embeddings.word_embeddings.weight[:0]
    return encoder.memory(backward)


def encode_step(
    encoder: Any,
    step: Step,
    memory: Tensor,
    types: Tensor | None = None,
    embeds: Tensor | None = None,
    *,
    keep: bool = False,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Run the encoder on one step.

    Args:
        encoder: the encoder.
        step: R segments.
        memory: (R, M, D) that they read.
        types: (R, W) token types, if given.
        embeds: (R, W, D) word vectors of the content tokens, if given.
        keep: give all layers.

    Returns:
        States (R, W, D) of the kept layers, and the new memory (R, M, D).
    """
    device, config = memory.device, encoder.config
    settings = config.memory
    ids, reads, writes = (torch.from_numpy(array).to(device) for array in (step.ids, step.reads, step.writes))
    mask = None if step.mask.all() else torch.from_numpy(step.mask).to(device)
    own = torch.from_numpy(step.source >= 0).to(device)[..., None] if embeds is not None else None
    row = torch.arange(len(ids), device=device)[:, None]

    def run(memory: Tensor) -> tuple[Tensor, ...]:
        words = encoder.embeddings.word_embeddings(ids)
        if own is not None:
            assert embeds is not None
            words = torch.where(own, embeds, words)
        if memory.shape[1]:
            words = words.index_put((row, reads), memory.to(words.dtype))
            if settings.form == "mem_x_mem":
                words = words.index_put((row, writes), memory.to(words.dtype))
        known = ids if config.mask_token_id is not None else None
        states, _ = encoder.encode(known, mask, types, inputs_embeds=words, keep=keep)
        return tuple(states)

    learning = encoder.training and torch.is_grad_enabled()
    offload = settings.offload and learning and device.type == "cuda"
    with torch.autograd.graph.save_on_cpu(pin_memory=True) if offload else nullcontext():
        states = checkpoint(run, memory, use_reentrant=False) if settings.checkpointing and learning else run(memory)
    written = states[-1][row, writes] if memory.shape[1] else memory
    return states, written.to(memory.dtype)
