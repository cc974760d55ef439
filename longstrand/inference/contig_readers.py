"""Two ways to read whole contigs: segment by segment with memory, or in windows that overlap.

A contig is read as the stretches between long runs of N. Every stretch gives a row for each view (strand and shift,
see `longstrand.inference.strands`); a row is a text of its own, as if given to `predict`. What the model says about
each token goes to the spool of the row: files, not memory maps, so that what a process holds does not grow with a
contig. Both ways note how far they are, so that a killed process goes on from there. `read_segments` gives what the
model says about the whole row at once; rows (and the two directions of a memory) are read side by side, each with a
memory of its own. `read_windows` keeps the middle of every window.

Legend: R rows side by side, W tokens of a step, M memory tokens, D hidden size, C columns.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from longstrand.data.rows import Record
from longstrand.genome.sequence import normalise
from longstrand.inference.options import PredictOptions
from longstrand.inference.predict import evaluation_mode, layer_number, predict
from longstrand.inference.strands import View
from longstrand.models.config import RecurrentMemory
from longstrand.models.memory.recurrence import Vectors, encode_step, initial_memory
from longstrand.models.memory.segments import Row, Template, make_step, reading_order, segment_lengths
from longstrand.runtime import read_json, write_json
from longstrand.tokenization.base import Encoding
from longstrand.tokenization.pieces import encode_pieces

if TYPE_CHECKING:
    from longstrand.genome.fasta import Genome

PIECE = 1 << 18
"""Bases read from the genome at a time."""


@dataclass(frozen=True)
class Stretch:
    """A part of a contig without a long run of N, 0-based half-open."""

    contig: str
    start: int
    end: int


def stretches(genome: Genome, contig: str, *, shortest_gap: int) -> list[Stretch]:
    """Cut a contig at its runs of at least ``shortest_gap`` N (0: nowhere); ends without them are trimmed alike."""
    length = genome.contigs[contig]
    if not shortest_gap:
        return [Stretch(contig, 0, length)]
    found: list[list[int]] = []
    end = -shortest_gap
    for start, stop in genome.non_n_runs(contig):
        if found and start - end < shortest_gap:
            found[-1][1] = stop
        else:
            found.append([start if start >= shortest_gap else 0, stop])
        end = stop
    if found and length - found[-1][1] < shortest_gap:
        found[-1][1] = length
    if not found and length < shortest_gap:
        found = [[0, length]]
    return [Stretch(contig, start, stop) for start, stop in found]


@dataclass(frozen=True)
class ContigRow:
    """One stretch on one view: ``num_bases`` letters from ``start`` on (N beyond the contig), on a strand."""

    stretch: Stretch
    view: View

    @property
    def start(self) -> int:
        """Give the first base, on the contig; may be negative."""
        return self.stretch.start + self.view[1]

    @property
    def num_bases(self) -> int:
        """Count the letters."""
        return self.stretch.end - self.stretch.start

    def fetch(self, genome: Genome, begin: int, end: int) -> str:
        """Read letters ``begin`` to ``end - 1`` of the row, in the direction of reading."""
        strand, first = self.view[0], self.start
        if strand == "-":
            begin, end = self.num_bases - end, self.num_bases - begin
        return genome.fetch_padded(self.stretch.contig, first + begin, first + end, strand)

    def pieces(self, genome: Genome, alphabet: str, counts: dict[str, int] | None = None) -> Iterator[str]:
        """Read all letters as the tokenizer knows them, bounded pieces at a time; add up what was changed."""
        for begin in range(0, self.num_bases, PIECE):
            text = normalise(self.fetch(genome, begin, min(begin + PIECE, self.num_bases)), alphabet)
            if counts is not None:
                counts["lower_case_letters"] += text.num_lower_case
                counts["unknown_letters"] += len(text.sequence) - sum(map(text.sequence.count, "ACGT"))
            yield text.sequence


@dataclass
class Spool:
    """Files of one row: ``ids`` (n,) int32, ``offsets`` (n, 2) int64 in reading order, ``values`` (n, width) float32.

    Attributes:
        path: their name without ending.
        row: what they are about.
        width: numbers of a token.
    """

    path: Path
    row: ContigRow
    width: int
    _open: dict[str, int] = field(default_factory=dict, repr=False)

    def file(self, name: str) -> int:
        """Open a file once, for reading and writing; give its descriptor."""
        if name not in self._open:
            self._open[name] = os.open(f"{self.path}.{name}", os.O_RDWR | os.O_CREAT, 0o644)
        return self._open[name]

    def close(self) -> None:
        """Close all files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def sync(self) -> None:
        """Force what was written to the disk."""
        for descriptor in self._open.values():
            os.fsync(descriptor)

    def write(self, name: str, first: int, array: np.ndarray) -> None:
        """Write records from number ``first`` on."""
        data = np.ascontiguousarray(array)
        size = data.itemsize * (int(np.prod(data.shape[1:])) if data.ndim > 1 else 1)
        os.pwrite(self.file(name), data.tobytes(), first * size)

    def read(self, name: str, first: int, end: int) -> np.ndarray:
        """Read records ``first`` to ``end - 1``."""
        kind, shape = {"ids": ("i4", ()), "offsets": ("i8", (2,))}.get(name, ("f4", (self.width,)))
        size = np.dtype(kind).itemsize * int(np.prod(shape, dtype=np.int64))
        data = os.pread(self.file(name), (end - first) * size, first * size)
        return np.frombuffer(data, dtype=kind).reshape(-1, *shape)

    @cached_property
    def num_tokens(self) -> int:
        """Count the tokens that `finish` has named."""
        return int(read_json(Path(f"{self.path}.json"))["tokens"])

    def finish(self, about: dict[str, Any]) -> None:
        """Say that the row's tokens are all there; ``about`` has their number as ``tokens``."""
        self.sync()
        write_json(Path(f"{self.path}.json"), about)

    def about(self) -> dict[str, Any] | None:
        """Give what `finish` wrote, or None."""
        path = Path(f"{self.path}.json")
        return read_json(path) if path.exists() else None

    def bases(self, begin: int, end: int, combine: Any) -> np.ndarray:
        """Spread values over bases ``begin`` to ``end - 1`` of the contig, in its order.

        Args:
            begin: first base; the row need not reach it.
            end: after the last.
            combine: makes the final values of tokens ``first`` to ``last - 1`` of this spool.

        Returns:
            (end - begin, columns) float32; NaN where the row says nothing.
        """
        first, last = max(begin, self.row.start), min(end, self.row.start + self.row.num_bases)
        reverse, span = self.row.view[0] == "-", self.row.start + self.row.num_bases
        low, high = (span - last, span - first) if reverse else (first - self.row.start, last - self.row.start)
        from_token, to_token = self._find(low, high) if low < high else (0, 0)
        values = combine(self, from_token, to_token)
        whole = np.full((end - begin, values.shape[1]), np.nan, dtype=np.float32)
        if to_token > from_token:
            offsets = np.clip(self.read("offsets", from_token, to_token), low, high) - low
            nothing = np.zeros(len(offsets), dtype=np.int32)
            inside = Encoding(nothing, offsets.astype(np.int32), high - low, nothing.astype(bool)).to_bases(values)
            whole[first - begin : last - begin] = inside[::-1] if reverse else inside
        return whole

    def _find(self, low: int, high: int) -> tuple[int, int]:
        """Find the tokens that reach into ``low`` to ``high - 1``; starts and ends ascend."""
        return self._bisect(1, low), self._bisect(0, high - 1)

    def _bisect(self, column: int, place: int) -> int:
        """Count the leading tokens whose start (0) or end (1) is at most a place."""
        low, high = 0, self.num_tokens
        while low < high:
            middle = (low + high) // 2
            if self.read("offsets", middle, middle + 1)[0, column] <= place:
                low = middle + 1
            else:
                high = middle
        return low


SAVE_SECONDS = 20.0
"""Time between two points from which a killed process goes on."""


@dataclass(frozen=True)
class Reading:
    """What is needed to read rows.

    Attributes:
        model: with a token, sequence or bin head, or an encoder.
        tokenizer: its own.
        genome: where the rows lie.
        options: output, layer, precision, batch_tokens; views are rows of their own.
        window: bases of a window.
        step: bases of its middle that are kept.
        device: where the model runs.
    """

    model: Any
    tokenizer: Any
    genome: Genome
    options: PredictOptions
    window: int
    step: int
    device: torch.device


class Due:
    """Says when it is time to save."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> bool:
        """Say whether `SAVE_SECONDS` have passed since it last said yes."""
        if time.monotonic() - self._last < SAVE_SECONDS:
            return False
        self._last = time.monotonic()
        return True


def tokenize_row(spool: Spool, reading: Reading) -> None:
    """Write the ids and offsets of a row, unless they are there.

    The special tokens around a text are content where segments have none of their own; they cover no base.
    """
    if spool.about() is not None:
        return
    counts = {"lower_case_letters": 0, "unknown_letters": 0}
    number = 0
    pieces = spool.row.pieces(reading.genome, reading.tokenizer.alphabet, counts)
    parts = encode_pieces(reading.tokenizer, pieces)
    if reading.model.config.memory.form == "mem_x_mem":
        parts = _with_specials(parts, reading.tokenizer.template, spool.row.num_bases)
    for ids, offsets in parts:
        spool.write("ids", number, ids.astype(np.int32))
        spool.write("offsets", number, offsets)
        number += len(ids)
    spool.finish({"tokens": number, **counts})


def _with_specials(parts: Iterator[Any], template: Any, num_bases: int) -> Iterator[Any]:
    found = False
    for part in parts:
        if not found:
            yield np.array(template.prefix, dtype=np.int32), np.zeros((len(template.prefix), 2), dtype=np.int64)
        found = True
        yield part
    if found:
        yield np.array(template.suffix, dtype=np.int32), np.full((len(template.suffix), 2), num_bases, dtype=np.int64)


class Outputs:
    """States of tokens to the numbers that are kept, at once or, for two directions, once both are there.

    A linear head gives the same of an average as the average of its outputs, so only those are kept; any other form
    needs the states, D numbers a token.
    """

    def __init__(self, reading: Reading) -> None:
        self.model, options = reading.model, reading.options
        self.encoder = getattr(self.model, "encoder", self.model)
        config = self.model.config
        self.head = None if options.output == "embeddings" else self.model.classifier
        self.layer = layer_number(options.layer, config.num_hidden_layers) if self.head is None else -1
        self.keep = self.layer not in (-1, config.num_hidden_layers)
        both = config.memory is not None and config.memory.direction == "bidirectional"
        self.names = ("forward", "backward") if both else ("forward",)
        self.late = both and self.head is not None and self.head.pooler is not None
        columns = config.hidden_size if self.head is None else self.model.head_settings.num_outputs
        self.width = config.hidden_size if self.late else columns

    def early(self, states: torch.Tensor) -> torch.Tensor:
        """Turn states (n, D) into what is spooled."""
        return states if self.head is None or self.late else self.head(states)

    @torch.inference_mode()
    def combine(self, spool: Spool, first: int, last: int) -> np.ndarray:
        """Give the final numbers of tokens (n, C) of a spool."""
        passes = [spool.read(name, first, last) for name in self.names]
        values = passes[0] if len(passes) == 1 else (passes[0] + passes[1]) / 2
        if not self.late:
            return values
        weight = next(self.model.parameters())
        with evaluation_mode(self.model):
            return self.head(torch.from_numpy(values).to(weight.device)).float().cpu().numpy()


class _Lane:
    """One direction of one row on its way: which segments come, the memory so far."""

    def __init__(self, spool: Spool, name: str, settings: RecurrentMemory) -> None:
        self.spool, self.name = spool, name
        lengths = np.array(segment_lengths(spool.num_tokens, settings.room, settings.split))
        stops = np.cumsum(lengths)
        bounds = np.stack((stops - lengths, stops), axis=1)
        order, num_context = reading_order(len(bounds), settings.context.left, settings.context.right)
        row = Row(np.empty(0, dtype=np.int64), bounds, order, num_context)
        self.bounds, self.order = bounds, row.backward_order if name == "backward" else order
        self.step = 0

    @property
    def is_done(self) -> bool:
        return self.step >= len(self.order)

    def next_bounds(self) -> tuple[int, int]:
        """Give the tokens of the segment that comes."""
        first, last = self.bounds[self.order[self.step]].tolist()
        return first, last


class _Lanes:
    """Rows side by side; a row that ends makes room for the next."""

    def __init__(self, spools: list[Spool], reading: Reading, outputs: Outputs, state: Path) -> None:
        self._outputs, self._encoder, self._state = outputs, outputs.encoder, state
        self._config = self._encoder.config
        self._settings = self._config.memory
        self._mixed = reading.options.precision == "bf16"
        self._tasks = [(spool, name) for spool in spools if spool.num_tokens for name in outputs.names]
        self._size = max(1, reading.options.batch_tokens // self._settings.segment_length)
        self._next, self._lanes = 0, list[_Lane]()
        self._memory = self._fresh("forward")[None][:0]
        if state.exists():
            self._restore(reading.device)

    def _fresh(self, name: str) -> torch.Tensor:
        return initial_memory(self._encoder, name == "backward").detach()

    def fill(self) -> bool:
        """Drop lanes that are done, begin new ones; say whether there is anything to read."""
        alive = [place for place, lane in enumerate(self._lanes) if not lane.is_done]
        memories = [self._memory[alive]]
        self._lanes = [self._lanes[place] for place in alive]
        while len(self._lanes) < self._size and self._next < len(self._tasks):
            spool, name = self._tasks[self._next]
            self._lanes.append(_Lane(spool, name, self._settings))
            memories.append(self._fresh(name)[None])
            self._next += 1
        self._memory = torch.cat(memories)
        return bool(self._lanes)

    def advance(self) -> int:
        """Read the next segment of every lane; give the number of tokens."""
        places = [lane.next_bounds() for lane in self._lanes]
        ids = [lane.spool.read("ids", *place).astype(np.int64) for lane, place in zip(self._lanes, places)]
        step = make_step([np.arange(len(row)) for row in ids], ids, self._config)
        device = self._memory.device
        with torch.autocast(device.type, torch.bfloat16) if self._mixed else nullcontext():
            states, self._memory = encode_step(self._encoder, step, self._memory, Vectors(), keep=self._outputs.keep)
            chosen = states[self._outputs.layer if self._outputs.keep else -1]
            before = len(Template.of(self._settings, self._config.pad_token_id).before)
            kept = torch.cat([row[before : before + len(own)] for row, own in zip(chosen, ids)])
            values = self._outputs.early(kept).float().cpu().numpy()
        for lane, (first, _), part in zip(
            self._lanes, places, np.split(values, np.cumsum([len(row) for row in ids])[:-1])
        ):
            lane.spool.write(lane.name, first, part)
            lane.step += 1
        return len(values)

    def save(self) -> None:
        """Note how far all lanes are; what they wrote is on the disk before."""
        lanes = []
        for lane in self._lanes:
            lane.spool.sync()
            lanes.append([self._tasks.index((lane.spool, lane.name)), lane.step])
        memory = self._memory.float().cpu().numpy()
        temporary = self._state.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            np.savez(file, next=self._next, lanes=np.array(lanes, dtype=np.int64).reshape(-1, 2), memory=memory)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._state)

    def _restore(self, device: torch.device) -> None:
        with np.load(self._state) as saved:
            self._next = int(saved["next"])
            for task, step in saved["lanes"].tolist():
                lane = _Lane(*self._tasks[task], self._settings)
                lane.step = step
                self._lanes.append(lane)
            self._memory = torch.from_numpy(saved["memory"]).to(device, self._memory.dtype)


def read_segments(
    spools: list[Spool], reading: Reading, outputs: Outputs, state: Path, advance: Callable[[int], None]
) -> None:
    """Read rows with memory from where they are to their end; tokens first, then all segments.

    Args:
        spools: of the rows.
        reading: the model and what it reads.
        outputs: what is kept.
        state: file that says how far the rows are.
        advance: called with the number of tokens read.
    """
    for spool in spools:
        tokenize_row(spool, reading)
    with evaluation_mode(reading.model), torch.inference_mode():
        lanes, due = _Lanes(spools, reading, outputs, state), Due()
        while lanes.fill():
            advance(lanes.advance())
            if due():
                lanes.save()


def read_windows(spool: Spool, reading: Reading, per: str, advance: Callable[[int], None]) -> None:
    """Read a row in overlapping windows, from where it is to its end.

    The row is divided into steps; each is predicted by the window around it, moved inwards at the ends of the row.

    Args:
        spool: of the row.
        reading: the model and what it reads.
        per: ``sequence`` (a step gets the number of its window), ``token``, or ``bin``.
        advance: called with the number of tokens read.
    """
    if spool.about() is not None:
        return
    progress = Path(f"{spool.path}.progress")
    done = read_json(progress) if progress.exists() else dict.fromkeys(_WINDOW_COUNTS, 0)
    begins = range(0, spool.row.num_bases, reading.step)[done["windows"] :]
    records = (_window_record(spool.row, reading, begin, per) for begin in begins)
    due = Due()
    options = reading.options.changed(pooling="tokens" if per == "token" else "mean")
    found = predict(reading.model, records, tokenizer=reading.tokenizer, options=options)
    for begin, item in zip(begins, found):
        start = _window_start(spool.row, reading, begin, per)
        end = min(begin + reading.step, spool.row.num_bases)
        offsets, values = _kept(item, start, (begin, end), reading, per)
        spool.write("offsets", done["tokens"], offsets)
        spool.write("forward", done["tokens"], values)
        done["tokens"] += len(offsets)
        done["windows"] += 1
        advance(item.num_tokens)
        if due():
            spool.sync()
            write_json(progress, done)
    counts = {"lower_case_letters": 0, "unknown_letters": 0}
    for _ in spool.row.pieces(reading.genome, reading.tokenizer.alphabet, counts):
        pass
    spool.finish({**done, **counts})


_WINDOW_COUNTS = ("windows", "tokens")


def _window_start(row: ContigRow, reading: Reading, begin: int, per: str) -> int:
    """Place the window around a step, inside the row; for bins on their grid."""
    margin = (reading.window - reading.step) // 2
    if per == "bin":
        size = reading.model.head_settings.bin_bases
        margin -= margin % size
    return max(0, min(begin - margin, row.num_bases - reading.window))


def _window_record(row: ContigRow, reading: Reading, begin: int, per: str) -> Record:
    start = _window_start(row, reading, begin, per)
    end = min(start + reading.window, row.num_bases)
    where = f"{reading.genome.path}, {row.stretch.contig}, window at base {row.start + start + 1}"
    return Record(0, where, row.fetch(reading.genome, start, end), where=where)


def _kept(item: Any, start: int, span: tuple[int, int], reading: Reading, per: str) -> tuple[np.ndarray, np.ndarray]:
    """Give offsets (n, 2) in the row and values (n, C) of what a window says about its step."""
    if per == "sequence":
        return np.array([span], dtype=np.int64), item.values[None]
    if per == "bin":
        size = reading.model.head_settings.bin_bases
        edges = start + np.arange(len(item.values), dtype=np.int64) * size
        offsets = np.stack((edges, edges + size), axis=1)
    else:
        offsets = item.offsets + start
    inside = (offsets[:, 1] > span[0]) & (offsets[:, 0] < span[1])
    return np.clip(offsets[inside], *span), item.values[inside]
