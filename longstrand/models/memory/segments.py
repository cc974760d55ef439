"""Rows of any length as segments: where each begins and ends, what stands around it, and the initial memory.

Everything here but `InitialMemory` is arithmetic on positions; `longstrand.models.memory.recurrence` runs the encoder
over it.

A row is cut into segments of its own content tokens ([CLS], [SEP] and padding are left out and put back around every
segment), and segments are read in *steps*. Short rows skip the first steps, so that all rows end together; with rows
sorted by their number of segments, those that are read at a step are the first so many. No row's segments depend on
another row. Legend: B rows, L tokens of the longest, D hidden size, M memory tokens, R rows of a step, W its width.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from longstrand.errors import InputError
from longstrand.models.config import LongstrandConfig, RecurrentMemory

NO_TOKEN = -1
UNK_TOKEN_ID = 0
"""Id that GENA-LM's recurrent classifier pads with: [UNK] in its vocabulary."""


class InitialMemory(nn.Module):
    """The memory before the first segment, one for each direction: (M, D) parameters."""

    def __init__(self, config: LongstrandConfig) -> None:
        super().__init__()
        shape = config.recurrence.num_tokens, config.hidden_size
        self.initial = nn.Parameter(torch.empty(shape))
        both = config.recurrence.direction == "bidirectional"
        self.initial_backward = nn.Parameter(torch.empty(shape)) if both else None
        self.reset(config.initializer_range)

    def reset(self, spread: float) -> None:
        """Draw new numbers of a standard deviation; that of the word embedding suits a trained model."""
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=spread)

    def forward(self, backward: bool = False) -> Tensor:
        """Give the (M, D) memory of a direction."""
        return self.initial_backward if backward and self.initial_backward is not None else self.initial


def with_memory(config: LongstrandConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Complete the tensors of a checkpoint by a fresh memory where the configuration asks for one that they lack.

    Its numbers have the standard deviation of the word embedding, whose vectors it stands among. Without memory in
    the configuration, tensors of a memory are left out.
    """
    bare = any(name.startswith("embeddings.") for name in tensors)
    prefix = "memory." if bare else "encoder.memory."
    if config.memory is None or not config.memory.num_tokens:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    words = next(tensor for name, tensor in tensors.items() if name.endswith("embeddings.word_embeddings.weight"))
    fresh = InitialMemory(config)
    fresh.reset(float(words.float().std()))
    found = {f"{prefix}{name}": tensor.detach().to(words.dtype) for name, tensor in fresh.state_dict().items()}
    return found | tensors


def segment_lengths(num_tokens: int, room: int, split: str) -> list[int]:
    """Cut a number of tokens into the fewest segments of at most ``room``; no token gives one empty segment.

    ``equal``: lengths differ by 1 at most, longer ones first. ``left``: all full but the last. ``right``: all full but
    the first. ``centre``: ceil(tokens / segments) each, the last has the rest (``torch.chunk``; GENA-LM's rule and
    "center" of the RMT code, where rounding up can leave one segment fewer).
    """
    number = max(1, ceil(num_tokens / room))
    if split == "equal":
        short, extra = divmod(num_tokens, number)
        return [short + 1] * extra + [short] * (number - extra)
    size = ceil(num_tokens / number) if split == "centre" else room
    full, rest = divmod(num_tokens, size) if size else (0, 0)
    parts = [size] * full + ([rest] if rest or not full else [])
    return parts[::-1] if split == "right" else parts


def bin_segment_lengths(ends: list[int], *, room: int, bins_per_segment: int) -> list[int]:
    """Fill segments from the left with whole bins.

    Args:
        ends: where each bin ends among the content tokens (exclusive), its separator included; the last is their
            number.
        room: most tokens of a segment.
        bins_per_segment: most bins of a segment.

    Raises:
        InputError: a bin does not fit into a segment.
    """
    lengths, start, begun, count = [], 0, 0, 0
    for end in ends:
        if end - begun > room:
            raise InputError(f"a bin has {end - begun} tokens, but a segment has room for {room}; use longer segments.")
        if count and (end - start > room or count == bins_per_segment):
            lengths.append(begun - start)
            start, count = begun, 0
        begun, count = end, count + 1
    return [*lengths, begun - start]


def reading_order(number: int, left: int, right: int) -> tuple[np.ndarray, int]:
    """Order the segments of a row for a forward pass: left context, right context, then the rest.

    Returns:
        The order, int64 (number,), and how many of them are context; at least one segment is not.
    """
    left = min(left, number - 1)
    right = min(right, number - 1 - left)
    own = np.arange(number)
    return np.concatenate((own[:left], own[number - right :], own[left : number - right])), left + right


@dataclass(frozen=True)
class SegmentedRow:
    """How one row is cut.

    Attributes:
        content: (n,) positions of its content tokens in the row.
        bounds: (S, 2) start and end of each segment among the content tokens.
        order: (S,) segments in the order in which they are read.
        num_context: how many of them, read first, are context.
    """

    content: np.ndarray
    bounds: np.ndarray
    order: np.ndarray
    num_context: int

    def positions(self, segment: int) -> np.ndarray:
        """Give the positions of the tokens of a segment."""
        start, end = self.bounds[segment]
        return self.content[start:end]

    @property
    def backward_order(self) -> np.ndarray:
        """Order of a backward pass: context from the right, then the rest from the right."""
        context, own = self.order[: self.num_context], self.order[self.num_context :]
        return np.concatenate((np.sort(context)[::-1], own[::-1]))


def cut_row(ids: np.ndarray, real: np.ndarray, settings: RecurrentMemory) -> SegmentedRow:
    """Cut one row; ids (L,) and which of them are real tokens (L,) bool.

    Raises:
        InputError: a bin does not fit into a segment.
    """
    kept = real.copy()
    if settings.form == "cls_mem_sep":
        specials = (settings.cls_token_id, None if settings.bins_per_segment else settings.sep_token_id)
        for special in specials:
            if special is not None:
                kept &= ids != special
    content = kept.nonzero()[0]
    if settings.bins_per_segment is None:
        lengths = segment_lengths(len(content), settings.room, settings.split)
    else:
        ends = ((ids[content] == settings.sep_token_id).nonzero()[0] + 1).tolist()
        ends = ends if ends and ends[-1] == len(content) else [*ends, len(content)]
        lengths = bin_segment_lengths(ends, room=settings.room, bins_per_segment=settings.bins_per_segment)
    stops = np.cumsum(lengths)
    bounds = np.stack((stops - lengths, stops), axis=1)
    order, num_context = reading_order(len(bounds), settings.context.left, settings.context.right)
    return SegmentedRow(content, bounds, order, num_context)


@dataclass(frozen=True)
class SegmentTemplate:
    """What stands around the content of a segment: ids, and where memory is read and written.

    Attributes:
        before: ids before the content; ``NO_TOKEN`` where memory stands.
        after: ids after it.
        filler: id of the places of memory, for whatever counts tokens by their ids; never that of padding.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    filler: int

    @classmethod
    def of(cls, settings: RecurrentMemory, pad_token_id: int | None) -> SegmentTemplate:
        """Make the template of a form."""
        block, filler = (NO_TOKEN,) * settings.num_tokens, 1 if pad_token_id == 0 else 0
        if settings.form == "mem_x_mem":
            return cls(block, block, filler)
        first = () if settings.cls_token_id is None else (settings.cls_token_id,)
        sep = () if settings.sep_token_id is None else (settings.sep_token_id,)
        closing = () if settings.bins_per_segment is not None else sep
        return cls(first + block + (sep if block else ()), closing, filler)


@dataclass(frozen=True)
class Step:
    """One step: the segments of R rows side by side.

    Attributes:
        ids: (R, W) token ids, filler where memory stands, padding at the end.
        source: (R, W) position in the row of each content token, else ``NO_TOKEN``.
        mask: (R, W), 1 = not padding.
        reads: (R, M) places where memory is put in.
        writes: (R, M) places where the new memory is taken out.
    """

    ids: np.ndarray
    source: np.ndarray
    mask: np.ndarray
    reads: np.ndarray
    writes: np.ndarray


def padding_of(settings: RecurrentMemory, config: LongstrandConfig) -> tuple[int, int, int]:
    """Give the id of padding inside segments, what the mask says about it, and the least width of a step.

    With the quirk ``unk_segment_padding``: [UNK], seen by attention, up to segment_length.
    """
    if "unk_segment_padding" in config.quirks:
        return UNK_TOKEN_ID, 1, settings.segment_length
    return config.pad_token_id or 0, 0, 0


def make_step(parts: list[np.ndarray], rows: list[np.ndarray], config: LongstrandConfig) -> Step:
    """Put segments of several rows side by side.

    Args:
        parts: positions (n,) of the content tokens of each segment in its row.
        rows: ids (L,) of each row.
        config: its ``memory`` says what stands around.
    """
    settings = config.recurrence
    template = SegmentTemplate.of(settings, config.pad_token_id)
    before, after, number = len(template.before), len(template.after), settings.num_tokens
    pad, seen, least = padding_of(settings, config)
    lengths = np.array([len(part) for part in parts])
    width = max(int(lengths.max()) + before + after, least, 1)
    ids = np.full((len(parts), width), pad, dtype=np.int64)
    source = np.full((len(parts), width), NO_TOKEN, dtype=np.int64)
    ids[:, :before] = [template.filler if i == NO_TOKEN else i for i in template.before]
    closing = [template.filler if i == NO_TOKEN else i for i in template.after]
    for place, (part, row) in enumerate(zip(parts, rows)):
        end = before + len(part)
        ids[place, before:end], source[place, before:end] = row[part], part
        ids[place, end : end + after] = closing
    ends = np.maximum(before + lengths + after, 1)  # attention needs something to see
    mask = np.where(np.arange(width) < ends[:, None], 1, seen)
    first = template.before.index(NO_TOKEN) if number else 0
    reads = np.tile(first + np.arange(number), (len(parts), 1))
    writes = reads if settings.form == "cls_mem_sep" else before + lengths[:, None] + np.arange(number)
    return Step(ids, source, mask, reads, writes)


@dataclass(frozen=True)
class SegmentSchedule:
    """How a batch is read.

    Attributes:
        rows: the rows, in batch order.
        ranks: (B,) rows of the batch, most segments first: the order in which the recurrence holds them.
        num_steps: segments of the longest row.
    """

    rows: list[SegmentedRow]
    ranks: np.ndarray
    num_steps: int

    @classmethod
    def of(cls, ids: np.ndarray, real: np.ndarray, settings: RecurrentMemory) -> SegmentSchedule:
        """Cut every row of a batch; ids and real tokens (B, L)."""
        rows = [cut_row(*row, settings) for row in zip(ids, real)]
        numbers = np.array([len(row.order) for row in rows])
        return cls(rows, np.argsort(-numbers, kind="stable"), int(numbers.max()))

    def active(self, step: int) -> list[int]:
        """List the rows that are read at a step, as the recurrence holds them."""
        return [row for row in self.ranks if len(self.rows[row].order) >= self.num_steps - step]

    def segment(self, row: int, step: int, backward: bool) -> int:
        """Give the segment of an active row that is read at a step."""
        order = self.rows[row].backward_order if backward else self.rows[row].order
        return int(order[step - self.num_steps])

    def segment_ids(self, length: int) -> np.ndarray:
        """Give the number of the segment of each content token, (B, length) int64; elsewhere ``NO_TOKEN``."""
        numbers = np.full((len(self.rows), length), NO_TOKEN, dtype=np.int64)
        for row, cut in enumerate(self.rows):
            for segment in range(len(cut.bounds)):
                numbers[row, cut.positions(segment)] = segment
        return numbers


def counted_tokens(schedule: SegmentSchedule, real: np.ndarray, last_only: bool) -> np.ndarray:
    """Say at which tokens labels count, (B, L) bool: all real ones but context, or those of the last segment read.

    Special tokens count with the segments that are read last.
    """
    counted = real.copy()
    for row, cut in enumerate(schedule.rows):
        ignored = cut.order[:-1] if last_only else cut.order[: cut.num_context]
        for segment in ignored:
            counted[row, cut.positions(segment)] = False
    return counted
