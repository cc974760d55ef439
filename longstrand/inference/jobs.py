"""Whole prediction jobs: records in, a finished file out, in parts that survive a kill.

`write_predictions` connects the reader (`longstrand.data.rows`), the model (`longstrand.inference.predict`) and the
output (`longstrand.inference.resumable`, `longstrand.inference.writers`); `tabulate` turns predictions into the columns
of the output.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from longstrand.errors import InputError
from longstrand.inference.resumable import Counts, Finished, ResumableOutput, cut_into_parts
from longstrand.inference.writers import Block, Sink

if TYPE_CHECKING:
    from longstrand.data.rows import Record
    from longstrand.inference.predict import Prediction

PART_ROWS = 1024
PART_BASES = 1 << 23
PART_BYTES = 1 << 28

Predictor = Callable[[Iterator["Record"]], Iterator["Prediction"]]


@dataclass(frozen=True)
class Layout:
    """What the columns of the output are.

    Attributes:
        value_names: names of the numbers, in the order of the model's outputs.
        class_names: names to choose the column ``prediction`` from, or None for no such column.
        threshold: None: the class with the highest number; else all labels above it, joined by ``;``.
        per: what one line of numbers belongs to.
        with_intervals: rows are intervals: columns ``chrom``, ``start``, ``end``, ``strand``.
    """

    value_names: tuple[str, ...]
    class_names: tuple[str, ...] | None = None
    threshold: float | None = None
    per: Literal["sequence", "token", "base", "bin"] = "sequence"
    with_intervals: bool = False


def part_sizes(layout: Layout, part_rows: int | None = None) -> tuple[int, int]:
    """Choose the most rows and bases of a part, so that its numbers stay within `PART_BYTES`."""
    if layout.per == "sequence":
        return part_rows or PART_ROWS, PART_BASES
    return part_rows or PART_ROWS, max(1, PART_BYTES // (4 * len(layout.value_names)))


def tabulate(predictions: Sequence[Prediction], layout: Layout) -> Block:
    """Put consecutive predictions into columns."""
    rows: dict[str, list[Any]] = {
        "index": [prediction.index for prediction in predictions],
        "name": [prediction.name for prediction in predictions],
    }
    if layout.with_intervals:
        places = [prediction.interval for prediction in predictions]
        for name in ("chrom", "start", "end", "strand"):
            rows[name] = [getattr(place, name) for place in places]
    width = len(layout.value_names)
    if layout.per == "sequence":
        values = np.stack([prediction.values for prediction in predictions])
        return Block({**rows, **_chosen(values, layout)}, values, layout.value_names)
    lengths = np.array([len(prediction.values) for prediction in predictions], dtype=np.int64)
    values = np.concatenate([prediction.values.reshape(-1, width) for prediction in predictions])
    if layout.per in ("base", "bin"):
        steps = [np.arange(length, dtype=np.int64) for length in lengths]
        value_rows: dict[str, Any] = {"position" if layout.per == "base" else "bin": np.concatenate(steps)}
    else:
        empty = np.empty((0, 2), dtype=np.int64)
        offsets = np.concatenate([empty if item.offsets is None else item.offsets for item in predictions])
        value_rows = {"token_start": offsets[:, 0], "token_end": offsets[:, 1]}
    return Block(rows, values, layout.value_names, lengths, {**value_rows, **_chosen(values, layout)})


def _chosen(values: np.ndarray, layout: Layout) -> dict[str, list[str | None]]:
    """Name the predicted class (or labels) of each line; None where the numbers are missing."""
    names = layout.class_names
    if names is None:
        return {}
    missing = np.isnan(values).any(axis=1)
    if layout.threshold is None:
        best = np.where(missing[:, None], 0, values).argmax(axis=1)
        chosen = [names[place] for place in best.tolist()]
    else:
        above = values > layout.threshold
        chosen = [";".join(name for name, yes in zip(names, line) if yes) for line in above.tolist()]
    return {"prediction": [None if gone else name for gone, name in zip(missing.tolist(), chosen)]}


def count(predictions: Iterable[Prediction]) -> Counts:
    """Sum up what a user should know about the rows: sizes, unknown letters, what was cut or empty."""
    counts = dict.fromkeys(
        ("sequences", "bases", "tokens", "unknown_letters", "with_unknown_letters", "truncated", "empty"), 0
    )
    counts["lower_case_letters"] = 0
    for prediction in predictions:
        counts["sequences"] += 1
        counts["bases"] += prediction.num_bases
        counts["tokens"] += prediction.num_tokens
        counts["unknown_letters"] += prediction.num_unknown
        counts["with_unknown_letters"] += prediction.num_unknown > 0
        counts["lower_case_letters"] += prediction.num_lower_case
        counts["truncated"] += prediction.truncated
        counts["empty"] += prediction.empty
    return counts


def write_predictions(
    records: Iterable[Record],
    predictor: Predictor,
    parts: ResumableOutput,
    sink: Sink,
    layout: Layout,
    *,
    part_rows: int | None = None,
    advance: Callable[[int], None] = lambda number: None,
) -> Finished | None:
    """Predict what is not finished yet, part by part, and join the parts when all are there.

    Args:
        records: all rows of the input, the same in every run and rank.
        predictor: predictions of records, in their order.
        parts: the open output.
        sink: its format.
        layout: its columns.
        part_rows: most rows of a part.
        advance: called with the number of rows that are done, including those of earlier runs.

    Returns:
        The finished output, or None while other ranks still have parts to write.

    Raises:
        InputError: there is no row, or the output cannot be written.
    """
    seen = _Seen()
    owners: collections.deque[int] = collections.deque()
    max_rows, max_bases = part_sizes(layout, part_rows)

    def mine() -> Iterator[Record]:
        part, needed = -1, False
        for number, record in cut_into_parts(records, max_rows=max_rows, max_bases=max_bases):
            if number != part:
                part, needed = number, parts.is_mine(number)
            seen.parts = number + 1
            if needed:
                owners.append(number)
                yield record
            else:
                advance(1)

    def commit(part: int, done: list[Prediction]) -> None:
        block = tabulate(done, layout)
        parts.commit(part, lambda path: sink.write(block, path), num_rows=len(done), counts=count(done))

    part, waiting = -1, list[Any]()
    for prediction in predictor(mine()):
        owner = owners.popleft()
        if owner != part and waiting:
            commit(part, waiting)
            waiting = []
        part = owner
        waiting.append(prediction)
        advance(1)
    if waiting:
        commit(part, waiting)
    if seen.parts == 0:
        raise InputError(f"{parts.output}: the input has no rows, so there is nothing to write.")
    return parts.finish(seen.parts, sink.join)


@dataclass
class _Seen:
    """How many parts the input has turned out to have."""

    parts: int = 0
