"""Cutting rows into segments, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longstrand.errors import InputError
from longstrand.models.config import RecurrentMemory, preset
from longstrand.models.memory.segments import (
    SegmentSchedule,
    SegmentTemplate,
    bin_segment_lengths,
    counted_tokens,
    cut_row,
    make_step,
    reading_order,
    segment_lengths,
)

SPECIAL = {"cls_token_id": 1, "sep_token_id": 2}


@pytest.mark.parametrize(
    ("num_tokens", "equal", "left", "right", "centre"),
    [
        (23, [8, 8, 7], [10, 10, 3], [3, 10, 10], [8, 8, 7]),
        (34, [9, 9, 8, 8], [10, 10, 10, 4], [4, 10, 10, 10], [9, 9, 9, 7]),
        (20, [10, 10], [10, 10], [10, 10], [10, 10]),
        (1, [1], [1], [1], [1]),
        (0, [0], [0], [0], [0]),
    ],
)
def test_splits_by_hand(num_tokens, equal, left, right, centre):
    for split, expected in (("equal", equal), ("left", left), ("right", right), ("centre", centre)):
        assert segment_lengths(num_tokens, 10, split) == expected


@pytest.mark.parametrize("split", ["equal", "left", "right", "centre"])
def test_every_token_is_in_one_segment(split):
    for room in (1, 3, 7):
        for number in range(40):
            lengths = segment_lengths(number, room, split)
            assert sum(lengths) == number and max(lengths) <= room and (number == 0 or min(lengths) > 0)


def test_centre_is_the_published_chunking():
    for room in (3, 10, 11):
        for number in range(1, 60):
            count = -(-number // room)
            assert segment_lengths(number, room, "centre") == [len(part) for part in torch.arange(number).chunk(count)]


def test_segments_of_whole_bins():
    assert bin_segment_lengths([5, 8, 9, 15], room=9, bins_per_segment=2) == [8, 7]
    assert bin_segment_lengths([5, 8, 9, 15], room=9, bins_per_segment=9) == [9, 6]
    assert bin_segment_lengths([5, 8, 9, 15], room=8, bins_per_segment=1) == [5, 3, 1, 6]
    assert bin_segment_lengths([0], room=4, bins_per_segment=1) == [0]
    with pytest.raises(InputError, match="a bin has 6 tokens, but a segment has room for 5"):
        bin_segment_lengths([5, 8, 9, 15], room=5, bins_per_segment=2)


def test_bins_without_a_last_separator_and_with_padding():
    settings = RecurrentMemory(num_tokens=1, segment_length=8, bins_per_segment=2, split="left", **SPECIAL)
    ids = np.array([1, 9, 2, 9, 9, 2, 8, 3, 3])
    row = cut_row(ids, ids != 3, settings)
    assert row.content.tolist() == [1, 2, 3, 4, 5, 6] and row.bounds.tolist() == [[0, 5], [5, 6]]


def test_context_is_read_first():
    assert reading_order(6, 2, 1)[0].tolist() == [0, 1, 5, 2, 3, 4]
    assert reading_order(6, 0, 0) == (pytest.approx(np.arange(6)), 0)
    order, num_context = reading_order(2, 3, 3)
    assert (order.tolist(), num_context) == ([0, 1], 1)  # something is left to predict


def row_of(*ids: int, **settings):
    ids = np.array(ids)
    return cut_row(ids, ids != 3, RecurrentMemory(num_tokens=2, segment_length=8, **{**SPECIAL, **settings}))


def test_special_tokens_and_padding_are_no_content():
    row = row_of(1, 10, 11, 12, 2, 13, 2, 3, 3)  # a pair: room is 8 - 2 - 3 = 3
    assert row.content.tolist() == [1, 2, 3, 5] and row.bounds.tolist() == [[0, 2], [2, 4]]
    assert row.positions(1).tolist() == [3, 5]
    everything = row_of(1, 10, 11, 12, 2, 13, 2, 3, 3, form="mem_x_mem")  # room is 8 - 2 - 2 = 4
    assert everything.content.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_backward_order_reads_context_first_and_from_the_right():
    row = row_of(1, *range(10, 28), 2, context={"left": 1, "right": 2})
    assert len(row.bounds) == 6 and row.order.tolist() == [0, 4, 5, 1, 2, 3]
    assert row.backward_order.tolist() == [5, 4, 0, 3, 2, 1]


def config(**memory):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    settings = {"num_tokens": 2, "segment_length": 9, **SPECIAL, **memory}
    return preset("tiny", vocab_size=40, **size, memory=settings)


def test_a_step_by_hand():
    rows = [np.array([1, 10, 11, 12, 2]), np.array([1, 20, 2])]
    step = make_step([np.array([2, 3]), np.array([1])], rows, config())
    assert step.ids.tolist() == [[1, 0, 0, 2, 11, 12, 2], [1, 0, 0, 2, 20, 2, 3]]
    assert step.source.tolist() == [[-1, -1, -1, -1, 2, 3, -1], [-1, -1, -1, -1, 1, -1, -1]]
    assert step.mask.tolist() == [[1] * 7, [1] * 6 + [0]]
    assert step.reads.tolist() == step.writes.tolist() == [[1, 2], [1, 2]]
    step = make_step([np.array([2, 3]), np.array([1])], rows, config(form="mem_x_mem"))
    assert step.ids.tolist() == [[0, 0, 11, 12, 0, 0], [0, 0, 20, 0, 0, 3]]
    assert step.reads.tolist() == [[0, 1], [0, 1]] and step.writes.tolist() == [[4, 5], [3, 4]]
    assert step.mask.tolist() == [[1] * 6, [1] * 5 + [0]]


def test_templates():
    assert SegmentTemplate.of(RecurrentMemory(num_tokens=0, **SPECIAL), 3).before == (1,)
    assert SegmentTemplate.of(RecurrentMemory(num_tokens=1, cls_token_id=5), 0) == SegmentTemplate((5, -1), (), 1)
    bins = RecurrentMemory(num_tokens=1, bins_per_segment=1, split="left", **SPECIAL)
    assert SegmentTemplate.of(bins, 3) == SegmentTemplate((1, -1, 2), (), 0)
    assert (bins.room, RecurrentMemory(**SPECIAL).room, RecurrentMemory(form="mem_x_mem").room) == (509, 499, 492)


def test_short_rows_skip_early_steps():
    ids = np.full((3, 12), 3)
    for row, number in enumerate((5, 10, 1)):
        ids[row, :number] = np.arange(10, 10 + number)
    schedule = SegmentSchedule.of(
        ids, ids != 3, RecurrentMemory(num_tokens=2, segment_length=9, split="left", **SPECIAL)
    )
    assert (schedule.num_steps, schedule.ranks.tolist()) == (3, [1, 0, 2])
    assert [schedule.active(step) for step in range(3)] == [[1], [1, 0], [1, 0, 2]]
    assert [schedule.segment(1, step, backward=False) for step in range(3)] == [0, 1, 2]
    assert [schedule.segment(0, step, backward=True) for step in (1, 2)] == [1, 0]
    numbers = schedule.segment_ids(12)
    assert numbers[0].tolist() == [0] * 4 + [1] + [-1] * 7
    last = counted_tokens(schedule, ids != 3, last_only=True)
    assert last.nonzero()[1].tolist() == [4, 8, 9, 0]
